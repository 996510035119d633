"""What a release costs beyond its requests and computations: the flow against a bare script that does the same.

Both run in this process, on a warm sandbox, against a running Prefect server: each release pulls, inspects, uploads,
attaches, proves and evaluates an adapter that nobody has seen before, against the same champion. The script uses plain
httpx. Interleaved, medians of five.

    python benchmarks/release_overhead.py [--quick]

Exit code 1 when a bound is missed. Trains the sandbox's adapters first if they are not cached, which takes a minute.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from harness.adapters import write_variant
from harness.bare_release import bare_release
from harness.figures import Bound, interleaved, paired_ratio, parse_rounds, print_bounds, print_table
from harness.servers import prefect_server, sandbox

MOST_TIMES = 1.3
MOST_SECONDS_MORE = 3.0
NAME = "translate"
GATE = "demo"
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the server still gets all logs
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
}
STEPS = ("pull", "inspect", "upload", "serve", "prove", "evaluate", "gate", "promote")


class Releases:
    """Releases of copies of one adapter, by the flow and by the script. Each returns its seconds."""

    def __init__(self, source: Path, root: Path, environment: dict[str, str]) -> None:
        self._source = source
        self._root = root
        self._environment = environment
        self._numbers = itertools.count()
        self._champion = ""
        self.flow_steps: list[dict[str, float]] = []
        self.bare_steps: list[dict[str, float]] = []

    def flow(self) -> float:
        """The flow that production runs."""
        from flows.release import release  # noqa: PLC0415  # Prefect reads its settings when imported

        adapter = self._next_adapter()
        began = time.perf_counter()
        outcome = asyncio.run(release(adapter=str(adapter), name=NAME, target="sandbox", suite=NAME, gate=GATE))
        seconds = time.perf_counter() - began
        self._require(outcome.outcome, "promoted", outcome.reasons)
        self._champion = outcome.champion
        self.flow_steps.append(outcome.seconds)
        return seconds

    def bare(self) -> float:
        """The script."""
        adapter = self._next_adapter()
        with tempfile.TemporaryDirectory(dir=self._root) as scratch:
            began = time.perf_counter()
            verdict, steps = asyncio.run(
                bare_release(
                    adapter,
                    name=NAME,
                    champion=self._champion,
                    suite=NAME,
                    gate=GATE,
                    environment=self._environment,
                    scratch=Path(scratch),
                )
            )
            seconds = time.perf_counter() - began
        self._require(verdict.verdict, "promote", verdict.reasons)
        self.bare_steps.append(steps)
        return seconds

    def _next_adapter(self) -> Path:
        number = next(self._numbers)
        return write_variant(self._source, self._root / f"adapter-{number}", number)

    @staticmethod
    def _require(outcome: str, wanted: str, reasons: tuple[str, ...]) -> None:
        if outcome != wanted:
            raise RuntimeError(f"the release ended {outcome}, so steps were left out: {' '.join(reasons)}")


def main() -> int:
    """Measure, print, and compare with the bounds."""
    rounds = parse_rounds(__doc__, full=5, quick=3)
    os.chdir(Path(__file__).parents[1])  # where configs/ is
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with prefect_server(root) as prefect, sandbox(root) as exports:
            os.environ.update({**QUIET, **prefect, **exports, "SLIPWAY_HOME": str(root / "home")})
            os.environ.pop("SLIPWAY_LEDGER_URL", None)
            releases = Releases(Path(exports["SLIPWAY_SANDBOX_ADAPTERS"]) / "translate-v1", root, exports)
            first = releases.flow()  # creates the serving deployment, and the champion
            releases.flow()
            releases.bare()
            releases.flow_steps.clear()
            releases.bare_steps.clear()
            samples = interleaved({"flow": releases.flow, "script": releases.bare}, rounds)
    rows = [("whole release", *(statistics.median(samples[name]) for name in ("flow", "script")))]
    rows += [(f"  {step}", _median(releases.flow_steps, step), _median(releases.bare_steps, step)) for step in STEPS]
    print_table(("seconds, medians", "flow", "script"), rows)
    print(f"\nthe first release, which starts a replica: {first:.1f} s")
    more = statistics.median(flow - script for flow, script in zip(samples["flow"], samples["script"], strict=True))
    return print_bounds(
        [
            Bound(name="flow to script", value=paired_ratio(samples["flow"], samples["script"]), limit=MOST_TIMES),
            Bound(name="flow beyond script", value=more, limit=MOST_SECONDS_MORE, unit=" s"),
        ]
    )


def _median(steps: list[dict[str, float]], step: str) -> float | str:
    """The flow does not time its pull in the ledger, and the script promotes nothing."""
    values = [item[step] for item in steps if step in item]
    return statistics.median(values) if values else ""


if __name__ == "__main__":
    sys.exit(main())
