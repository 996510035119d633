"""Start what a benchmark measures against: on loopback, as processes of their own, stopped with the ``with`` block."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from harness.adapters import BASE_DIRECTORY, BASE_ID
from slipway.services.processes import ServerProcess, free_port

__all__ = [
    "ControlPlane",
    "cache_directory",
    "control_plane",
    "lorax_server",
    "prefect_server",
    "sandbox",
    "stub_server",
]

START_SECONDS = 90.0
TRAIN_SECONDS = 300.0
READY = re.compile(r"^ready (\S+)$", re.MULTILINE)
SANDBOX_READY = re.compile(r"^ready$", re.MULTILINE)
EXPORT = re.compile(r"^export (\w+)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """A control plane of the sandbox. ``state`` is its directory, where uploads arrive."""

    url: str
    token: str
    state: Path


def cache_directory() -> Path:
    """Where the sandbox's trained adapters are kept: ``SLIPWAY_HOME``, else where ``make`` has them."""
    return Path(os.environ.get("SLIPWAY_HOME") or Path(__file__).parents[2] / ".slipway").absolute()


@contextmanager
def control_plane(root: Path) -> Iterator[ControlPlane]:
    """Run the control plane alone, with its state below ``root``."""
    state = root / "control-plane"
    command = [sys.executable, "-m", "sandbox.control_plane", "--home", str(state)]
    command += ["--base", f"{BASE_ID}={BASE_DIRECTORY}", "--exit-with-parent", str(os.getpid())]
    with ServerProcess("the control plane", command, log=root / "control-plane.log") as process:
        url = _announced(process)
        yield ControlPlane(url=url, token=(state / "token").read_text().strip(), state=state)


@contextmanager
def lorax_server(root: Path) -> Iterator[str]:
    """Run one LoRAX-compatible server over the sandbox's base, for adapters in directories; yields its address."""
    command = [sys.executable, "-m", "sandbox.lorax", "--model-dir", str(BASE_DIRECTORY), "--model-id", BASE_ID]
    command += ["--port", "0", "--adapter-source", "local", "--exit-with-parent", str(os.getpid())]
    with ServerProcess("the LoRAX server", command, log=root / "lorax.log") as process:
        yield _announced(process)


@contextmanager
def stub_server(root: Path, *, delay_ms: float, most: int) -> Iterator[str]:
    """Run the server that always gives the same answer, ``delay_ms`` later, to ``most`` at a time."""
    program = Path(__file__).with_name("stub_server.py")
    command = [sys.executable, str(program), "--delay-ms", str(delay_ms), "--most", str(most)]
    with ServerProcess("the stub server", command, log=root / "stub.log") as process:
        yield _announced(process)


@contextmanager
def sandbox(root: Path) -> Iterator[dict[str, str]]:
    """Run the whole sandbox, its state below ``root``; trains adapters that are not cached. Yields what it exports."""
    command = [sys.executable, "-m", "sandbox", "--home", str(cache_directory()), "--state", str(root / "sandbox")]
    with ServerProcess("the sandbox", command, log=root / "sandbox.log") as process:
        printed = process.wait_until(lambda text: SANDBOX_READY.search(text) is not None, timeout_seconds=TRAIN_SECONDS)
        yield dict(EXPORT.findall(printed))


@contextmanager
def prefect_server(root: Path) -> Iterator[dict[str, str]]:
    """Run a Prefect server with a database of its own; yields the environment of its clients."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = root / "prefect.log"
    with ServerProcess("the Prefect server", command, log=log, environment=environment) as process:
        process.wait_until(lambda _: _answers(f"{api}/health"), timeout_seconds=START_SECONDS)
        yield {**environment, "PREFECT_API_URL": api}


def _announced(process: ServerProcess) -> str:
    printed = process.wait_until(lambda text: READY.search(text) is not None, timeout_seconds=START_SECONDS)
    return READY.findall(printed)[0]


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1.0) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False
