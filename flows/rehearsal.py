"""The rehearsal: every kind of release, on real parts, on this machine.

Starts a Prefect server and the sandbox as processes, then releases adapters through the very flows that production
runs, and checks that each ends as it must.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from slipway.configs import ConfigKind, find_config
from slipway.home import resolve_home
from slipway.ledger import Outcome
from slipway.release import ReleaseOutcome
from slipway.services.processes import ServerProcess, free_port

__all__ = ["Act", "ActResult", "Stage", "open_stage", "play"]

NAME = "translate"
KEPT_REHEARSALS = 3
START_SECONDS = 120.0
TRAIN_SECONDS = 300.0
EXPORT = re.compile(r"^export (\w+)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Act:
    """One release or rollback of the story, and how it must end.

    Attributes:
        title: What is tried, for the audience.
        adapter: Folder under the sandbox's adapters; empty for a rollback.
        claims: Server profile that the target's file names instead of the right one, if any.
        expected: How it must end.
        point: What it shows.
    """

    title: str
    adapter: str
    expected: Outcome
    point: str
    claims: str = ""


ACTS = (
    Act(
        title="The first release: no champion yet, so it must beat the base",
        adapter="translate-v1",
        expected=Outcome.PROMOTED,
        point="a first release is judged against its base alone, and says so",
    ),
    Act(
        title="A better version, compared case by case with the champion",
        adapter="translate-v2",
        expected=Outcome.PROMOTED,
        point="the server was attached to, not started again; only the pointer moved",
    ),
    Act(
        title="An under-trained version",
        adapter="translate-undertrained",
        expected=Outcome.HELD,
        point="it is live and fast, and worse: the champion stays",
    ),
    Act(
        title="The first version again: a little worse than the champion, but worse than the margin allows?",
        adapter="translate-v1",
        expected=Outcome.INCONCLUSIVE,
        point="no luck decides: it is not promoted, and the gate says how many more cases would settle it; its answers "
        "were on record, so nothing was paid for twice",
    ),
    Act(
        title="A broken version: one weight is NaN",
        adapter="translate-nan",
        expected=Outcome.REFUSED,
        point="found in the file; nothing was uploaded and no GPU second was paid",
    ),
    Act(
        title="A version that LoRAX would apply at a quarter of its strength (rsLoRA)",
        adapter="translate-rslora",
        expected=Outcome.PROMOTED,
        point="rewritten without losing a bit, proven to compute the same, and only then uploaded",
    ),
    Act(
        title="A target file that promises another server than the one that is running",
        adapter="silently-ignored",
        expected=Outcome.HELD,
        point="no file was wrong, and LoRAX answered 200 with the base model's words; the live proof saw it",
        claims="peft",
    ),
    Act(
        title="Second thoughts: roll back",
        adapter="",
        expected=Outcome.PROMOTED,
        point="the previous champion was proved live before the pointer moved",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ActResult:
    """How an act went.

    Attributes:
        act: The act.
        outcome: What the flow returned.
        seconds: Wall time.
    """

    act: Act
    outcome: ReleaseOutcome
    seconds: float

    @property
    def is_as_expected(self) -> bool:
        """Whether it ended as it must."""
        return self.outcome.outcome is self.act.expected


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The running parts.

    Attributes:
        directory: Ledger, reports, sandbox state and logs of this rehearsal.
        ui: Address of the Prefect UI.
        adapters: Folder with the trained adapters.
        exports: What the sandbox wants exported, and ours, to look around with.
        seconds: By phase of the start.
    """

    directory: Path
    ui: str
    adapters: Path
    exports: dict[str, str]
    seconds: dict[str, float]


@contextmanager
def open_stage(say: Callable[[str], None]) -> Iterator[Stage]:
    """Start Prefect server and sandbox, train what is not in the cache, and point this process at them.

    Everything is stopped at the end of the ``with`` block, also after an error.

    Args:
        say: Gets one line per phase.

    Raises:
        UnavailableError: A part did not start.
    """
    home = resolve_home().root
    directory = home / "rehearsals" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    directory.mkdir(parents=True)
    _forget_old(directory.parent)
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    began = time.monotonic()
    with ExitStack() as parts:
        say("starting a Prefect server and the sandbox; training adapters that are not in the cache")
        prefect = parts.enter_context(
            ServerProcess(
                "the Prefect server",
                [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
                log=directory / "prefect-server.log",
                environment={
                    "PREFECT_HOME": str(home / "rehearsals" / "prefect"),
                    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
                    "PREFECT_UI_API_URL": api,
                    "DO_NOT_TRACK": "1",
                },
            )
        )
        sandbox = parts.enter_context(
            ServerProcess(
                "the sandbox",
                [sys.executable, "-m", "sandbox", "--home", str(home), "--state", str(directory / "sandbox")],
                log=directory / "sandbox.log",
                show_errors=True,
            )
        )
        printed = sandbox.wait_until(lambda text: text.rstrip().endswith("ready"), timeout_seconds=TRAIN_SECONDS)
        sandbox_seconds = time.monotonic() - began
        prefect.wait_until(lambda _: _answers(f"{api}/health"), timeout_seconds=START_SECONDS)
        exports = {
            **dict(EXPORT.findall(printed)),
            "SLIPWAY_HOME": str(directory),
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(home / "rehearsals" / "prefect"),
        }
        os.environ.update(exports)
        yield Stage(
            directory=directory,
            ui=f"http://127.0.0.1:{port}",
            adapters=Path(exports["SLIPWAY_SANDBOX_ADAPTERS"]),
            exports=exports,
            seconds={"sandbox and training": sandbox_seconds, "all parts up": time.monotonic() - began},
        )


async def play(act: Act, stage: Stage) -> ActResult:
    """Run one act through the real flow. Call it inside ``open_stage``: Prefect reads its settings when imported."""
    from flows.release import release  # noqa: PLC0415  # only now is PREFECT_API_URL set
    from flows.rollback import rollback  # noqa: PLC0415

    began = time.monotonic()
    if act.adapter:
        target = _target_claiming(act.claims, stage.directory) if act.claims else "sandbox"
        outcome = await release(
            adapter=str(stage.adapters / act.adapter), name=NAME, target=target, suite=NAME, gate="demo"
        )
    else:
        outcome = await rollback(name=NAME, target="sandbox")
    return ActResult(act=act, outcome=outcome, seconds=time.monotonic() - began)


def _target_claiming(profile: str, directory: Path) -> str:
    """Write a target file that names the sandbox's servers wrongly, as after an update of one and not of the other."""
    path = directory / f"sandbox-as-{profile}.yaml"
    right = find_config(ConfigKind.TARGET, "sandbox").read_text(encoding="utf-8")
    path.write_text(f"{right}server:\n  profile: {profile}\n", encoding="utf-8")
    return str(path)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1.0) as reply:  # noqa: S310  # our own loopback address
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def _forget_old(rehearsals: Path) -> None:
    """Keep the last few rehearsals, so that their reports stay readable."""
    old = sorted(entry for entry in rehearsals.iterdir() if entry.name[:8].isdigit())
    for directory in old[:-KEPT_REHEARSALS]:
        shutil.rmtree(directory, ignore_errors=True)
