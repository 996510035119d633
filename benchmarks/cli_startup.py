"""How long the command line takes to answer, as whole processes, and which imports that time goes to.

Measures ``slipway --help``, ``slipway status`` over a ledger with twenty champions and ``slipway inspect PATH``, with a
bare interpreter beside them; interleaved, medians of nine.

    python benchmarks/cli_startup.py [--quick]

Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.adapters import BASE_ID, write_adapter
from harness.figures import Bound, interleaved, parse_rounds, print_bounds, print_table

from slipway.ledger import PromotionKind
from slipway.services.ledger_engine import default_url
from slipway.services.ledger_store import Ledger

STATUS_SECONDS = 0.7
CHAMPIONS = 20
SHOWN_IMPORTS = 8
SLIPWAY = (sys.executable, "-c", "from slipway.cli import main; main()")
"""What the installed script does, and ``-X importtime`` can be put in front of it."""


def fill_ledger(home: Path) -> None:
    """Promote as many adapters as a team may have."""
    ledger = Ledger(default_url({"SLIPWAY_HOME": str(home)}))
    for number in range(CHAMPIONS):
        name, digest = f"adapter-{number}", f"sha256:{number:064x}"
        ledger.record_bundle(
            digest=digest, uri=f"file:///{name}", resolved_revision=digest, size_bytes=1, base_model=BASE_ID
        )
        release = ledger.open_release(
            name=name,
            target="sandbox",
            digest=digest,
            suite_digest="",
            gate_digest="",
            uri=f"file:///{name}",
            actor="me",
        )
        ledger.promote(
            name=name, target="sandbox", expected_champion=None, release_id=release.id, adapter_id=f"{name}/1",
            adapter_source="pbase", digest=digest, kind=PromotionKind.PROMOTE, evidence_digest="", actor="me",
        )  # fmt: skip


def seconds_of(command: Sequence[str], environment: dict[str, str]) -> Callable[[], float]:
    """A run of a process, to be measured as a whole."""

    def run() -> float:
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    return run


def import_milliseconds(command: Sequence[str], environment: dict[str, str]) -> Counter[str]:
    """Time of each package's own modules while a command runs, by ``-X importtime``, which slows imports somewhat."""
    traced = (command[0], "-X", "importtime", *command[1:])
    said = subprocess.run(traced, env=environment, check=True, capture_output=True, text=True).stderr
    spent: Counter[str] = Counter()
    for line in said.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdecimal():
            spent[rest.partition("|")[2].strip().partition(".")[0]] += int(own)
    return spent


def main() -> int:
    """Measure, print, and compare with the bound."""
    rounds = parse_rounds(__doc__, full=9, quick=3)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        environment = {**os.environ, "SLIPWAY_HOME": str(root / "home")}
        environment.pop("SLIPWAY_LEDGER_URL", None)
        fill_ledger(root / "home")
        adapter = write_adapter(root / "adapter", seed=0)
        commands = {
            "python -c pass": (sys.executable, "-c", "pass"),
            "slipway --help": (*SLIPWAY, "--help"),
            "slipway status": (*SLIPWAY, "status"),
            "slipway inspect PATH": (*SLIPWAY, "inspect", str(adapter)),
        }
        kinds = {name: seconds_of(command, environment) for name, command in commands.items()}
        for run in kinds.values():
            run()
        samples = interleaved(kinds, rounds)
        print_table(
            ("process", "median s", "fastest s", "slowest s"),
            [(name, statistics.median(values), min(values), max(values)) for name, values in samples.items()],
        )
        for name in ("slipway status", "slipway inspect PATH"):
            spent = import_milliseconds(commands[name], environment)
            top = ", ".join(f"{package} {cost / 1000:.0f}" for package, cost in spent.most_common(SHOWN_IMPORTS))
            print(f"\nimports of {name}, ms by package ({spent.total() / 1000:.0f} in all): {top}")
    status = statistics.median(samples["slipway status"])
    return print_bounds([Bound(name="slipway status", value=status, limit=STATUS_SECONDS, unit=" s")])


if __name__ == "__main__":
    sys.exit(main())
