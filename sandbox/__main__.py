"""Run the whole sandbox: ``python -m sandbox``.

Starts the Predibase-compatible control plane and one LoRAX-compatible server of its own, and trains the adapters that
are not cached yet. Then prints ``export NAME=value`` lines and ``ready`` on standard output, and stays until Ctrl-C or
TERM; everything else goes to standard error and to log files. Each child also ends by itself when this process is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.control_plane.settings import load_or_create_token
from sandbox.supervisor import ChildFailedError, ChildProcess
from sandbox.training import BASE_DIRECTORY, cache_directory

__all__ = ["BASE_ID", "main"]

BASE_ID = "slipway/tiny-llama"
START_TIMEOUT_SECONDS = 120.0
TRAINING = (
    "import sys; from sandbox.supervisor import exit_with_parent; from sandbox.training import main; "
    "exit_with_parent(int(sys.argv[1])); sys.exit(main([]))"
)
"""``python -m sandbox.training``, made to end with this process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until stopped; returns 0 when asked to stop, 1 when a part failed."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except (ChildFailedError, OSError) as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        return 1


async def _run(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait(), name="stop signal")
    sandbox = _Sandbox(options)
    starting = asyncio.create_task(sandbox.start(), name="start")
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return 0
        for name, value in starting.result().items():
            print(f"export {name}={shlex.quote(value)}")  # noqa: T201 - the command's output
        print("ready", flush=True)  # noqa: T201 - the command's output
        ends = {asyncio.create_task(child.wait()): child for child in sandbox.children}
        await asyncio.wait((stopping, *ends), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return 0
        ended = next(child for task, child in ends.items() if task.done())
        print(f"sandbox: the {ended.name} ended by itself; see {sandbox.logs}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        starting.cancel()
        await asyncio.wait((starting,))
        await sandbox.stop()


class _Sandbox:
    """The parts of the sandbox and the order of their start and stop."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._home: Path = options.home.resolve()
        self._state: Path = options.state.resolve() if options.state else self._home / "sandbox"
        self.logs = self._state / "logs"
        self.children: list[ChildProcess] = []

    async def start(self) -> dict[str, str]:
        """Start everything; returns the environment of a client.

        Raises:
            ChildFailedError: A server does not start, or the training fails.
        """
        training = asyncio.create_task(self._prepare_adapters(), name="training")
        try:
            control_plane = await self._start_control_plane()
            lorax = await self._start_lorax(control_plane.url)
            adapters = await training
        finally:
            training.cancel()
            await asyncio.wait((training,))
        return {
            "PREDIBASE_GATEWAY": control_plane.url,
            "PREDIBASE_API_TOKEN": load_or_create_token(self._state / "token"),
            "PREDIBASE_SERVING": control_plane.url,
            "LORAX_URL": lorax.url,
            "SLIPWAY_SANDBOX_BASE": BASE_ID,
            "SLIPWAY_SANDBOX_ADAPTERS": str(adapters),
        }

    async def stop(self) -> None:
        """Stop the children, last started first."""
        for child in reversed(self.children):
            await child.stop(grace_seconds=10)

    async def _start_control_plane(self) -> ChildProcess:
        command = [sys.executable, "-m", "sandbox.control_plane", "--home", str(self._state)]
        command += ["--port", str(self._options.port), "--exit-with-parent", str(os.getpid())]
        for base in (f"{BASE_ID}={BASE_DIRECTORY}", *self._options.base):
            command += ["--base", base]
        return await self._start_child("control plane", command, {})

    async def _start_lorax(self, gateway: str) -> ChildProcess:
        command = [sys.executable, "-m", "sandbox.lorax", "--model-dir", str(BASE_DIRECTORY), "--model-id", BASE_ID]
        command += ["--host", "127.0.0.1", "--port", str(self._options.lorax_port), "--adapter-source", "local"]
        command += ["--exit-with-parent", str(os.getpid())]
        return await self._start_child("LoRAX server", command, {"PREDIBASE_GATEWAY_ENDPOINT": gateway})

    async def _start_child(self, name: str, command: list[str], environment: dict[str, str]) -> ChildProcess:
        if self._options.strict:
            command.append("--strict")
        child = await ChildProcess.start(
            name,
            command,
            log_path=self.logs / f"{name.lower().replace(' ', '-')}.log",
            ready_timeout_seconds=START_TIMEOUT_SECONDS,
            environment=environment,
        )
        self.children.append(child)
        return child

    async def _prepare_adapters(self) -> Path:
        """Train what is not cached, with its progress on our standard error; returns the adapters' directory."""
        if not self._options.train:
            directory = cache_directory(self._home, BASE_DIRECTORY)
            directory.mkdir(parents=True, exist_ok=True)
            return directory
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            TRAINING,
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SLIPWAY_HOME": str(self._home)},
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            await process.wait()
            raise
        lines = output.decode().split("\n")
        if process.returncode != 0 or len(lines) < 2:
            message = f"the training of the adapters ended with status {process.returncode}"
            raise ChildFailedError(message)
        return Path(lines[-2])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Predibase and LoRAX on your own machine.")
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("SLIPWAY_HOME") or ".slipway"),
        help="directory of the trained adapters (default: $SLIPWAY_HOME, else ./.slipway)",
    )
    parser.add_argument(
        "--state", type=Path, help="directory of repositories, deployments and token (default: HOME/sandbox)"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the control plane; 0 takes a free one")
    parser.add_argument("--lorax-port", type=int, default=0, help="port of the LoRAX server; 0 takes a free one")
    parser.add_argument("--strict", action="store_true", help="refuse adapters that LoRAX would drop or mis-scale")
    parser.add_argument("--no-train", dest="train", action="store_false", help="do not train the adapters")
    parser.add_argument(
        "--base", action="append", default=[], metavar="ID=DIR", help="another base model; may be repeated"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
