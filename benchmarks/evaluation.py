"""How full an evaluation keeps the server: whole evaluations, with grading and recording, against what could be.

Two servers. The sandbox's: 192 prompts to three arms, 24 new tokens each, against a bare loop over the same requests at
the best fixed number in flight (tried: 8, 16, 32, 64), and against one request after the other. And a stub in a process
of its own that answers in 50 ms and takes 256 at a time: 1,000 cases of three arms, against the time of 256 requests in
flight without a pause would take. Interleaved; medians of five rounds.

    python benchmarks/evaluation.py [--quick] [--rounds N]

Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.adapters import BASE_ID, write_adapter
from harness.bare_evaluation import Request, ask_all
from harness.figures import Bound, interleaved, paired_ratio, parse_rounds, print_bounds, print_table
from harness.servers import lorax_server, stub_server

from slipway.adapter import Source
from slipway.evaluation import interleave
from slipway.progress import ProgressEvent, listening
from slipway.results import Arm, CaseResult
from slipway.scoreboard import Scoreboard
from slipway.services.answer_store import AnswerStore
from slipway.services.backends import ServingDeployment
from slipway.services.evaluation_run import Entrant, run_evaluation
from slipway.services.lorax import LoraxClient
from slipway.suite import Suite, load_suite
from slipway.targets import ServedBase, Target, TargetKind

STUB_CASES = 1000
STUB_DELAY_MS = 50.0
STUB_MOST = 256
SANDBOX_CASES = 192
SANDBOX_TOKENS = 24
IN_FLIGHT = (8, 16, 32, 64)
SEQUENTIAL_CASES = 8

LEAST_OF_IDEAL = 0.85
LEAST_OF_BARE_LOOP = 0.95
LEAST_GAIN = 3.0


def write_suite(path: Path, cases: int) -> Suite:
    """Make a suite with two deterministic checks in each case, as a file, and read it."""
    tests = [
        {
            "vars": {"n": number, "bird": f"the old stone bird, door {number}"},
            "assert": [
                {"type": "not-equals", "value": "{{bird}}"},
                {"type": "not-icontains", "value": f"door {number} is closed"},
            ],
        }
        for number in range(cases)
    ]
    path.write_text(json.dumps({"prompts": ["translate: {{bird}}\nanswer:"], "tests": tests}))
    return load_suite(path)


class Evaluations:
    """Whole evaluations of one suite on one server: asked, graded, counted, recorded. None knows of another's answers.

    Args:
        url: Of the server.
        suite: What to ask.
        adapters: By arm; None is the base.
        max_concurrency: Of the target.
        max_new_tokens: Of the target.
        directory: For what they write.
    """

    def __init__(
        self,
        url: str,
        suite: Suite,
        adapters: Mapping[Arm, str | None],
        *,
        max_concurrency: int,
        max_new_tokens: int,
        directory: Path,
    ) -> None:
        self.url = url
        self.suite = suite
        self.adapters = adapters
        self._directory = directory
        self._count = 0
        self._target = Target(
            kind=TargetKind.LORAX,
            bases={BASE_ID: ServedBase()},
            max_concurrency=max_concurrency,
            max_new_tokens=max_new_tokens,
        )
        self.results: Sequence[CaseResult] = ()
        self.processor_seconds: list[float] = []
        self.whole_seconds: list[float] = []

    def requests(self, cases: int | None = None) -> list[Request]:
        """What one evaluation asks, in its order, for a loop that only asks."""
        return [
            Request(prompt=str(case.prompt), adapter=self.adapters[arm], max_new_tokens=self._target.max_new_tokens)
            for case, arm in interleave(self.suite.cases[:cases], list(self.adapters))
        ]

    def run(self) -> float:
        """Evaluate once; gives the seconds from before the first request to the last result on the disk.

        What comes before and after, once for a whole evaluation, is in ``whole_seconds`` too: looking for recorded
        answers, and writing the results once more in the suite's order.
        """
        return asyncio.run(self._run())

    async def _run(self) -> float:
        self._count += 1
        directory = self._directory / f"{self._count}"
        directory.mkdir(parents=True)
        entrants = {
            arm: Entrant(adapter_id=adapter, source=Source.LOCAL if adapter else None, digest=f"sha256:{arm}")
            for arm, adapter in self.adapters.items()
        }
        async with LoraxClient(self.url, connections=self._target.max_concurrency) as client:
            clock = _Clock()
            with listening(clock.look):
                found = await run_evaluation(
                    self.suite,
                    entrants,
                    client=client,
                    deployment=ServingDeployment(name="benchmark", url=self.url, created=False),
                    target=self._target,
                    target_name="benchmark",
                    store=AnswerStore(directory / "answers"),
                    path=directory / "results.jsonl",
                    watch=clock.begin,
                )
            self.whole_seconds.append(time.perf_counter() - clock.created)
            self.processor_seconds.append(clock.processor_seconds)
        self.results = found.results
        missing = [result for result in found.results if result.error is not None]
        if missing:
            raise RuntimeError(f"{len(missing)} answers are missing, the first: {missing[0].error}")
        return clock.seconds


class _Clock:
    """Takes the time of one evaluation from what it tells of itself."""

    def __init__(self) -> None:
        self.created = time.perf_counter()
        self.seconds = self.processor_seconds = math.nan

    def begin(self, _: Scoreboard) -> None:
        self._began, self._used = time.perf_counter(), time.process_time()

    def look(self, event: ProgressEvent) -> None:
        if event.done == event.total:
            self.seconds = time.perf_counter() - self._began
            self.processor_seconds = time.process_time() - self._used


def measure_stub(root: Path, rounds: int) -> list[Bound]:
    """Compare with the time that a server of fixed speed needs at least."""
    suite = write_suite(root / "stub.json", STUB_CASES)
    adapters = {Arm.CANDIDATE: "stub/candidate", Arm.CHAMPION: "stub/champion", Arm.BASE: None}
    with stub_server(root, delay_ms=STUB_DELAY_MS, most=STUB_MOST) as url:
        evaluations = Evaluations(
            url, suite, adapters, max_concurrency=STUB_MOST, max_new_tokens=8, directory=root / "stub"
        )
        evaluations.run()  # imports
        seconds = [evaluations.run() for _ in range(rounds)]
    count = len(suite.cases) * len(adapters)
    round_trips = math.ceil(count / STUB_MOST)
    ideal = round_trips * STUB_DELAY_MS / 1000
    with_warm_up = ideal + STUB_DELAY_MS / 1000
    print_table(
        (f"{count} requests to the stub", "s", "share of ideal", "cpu ms each", "s, before and after too"),
        [
            ("ideal", ideal, 1.0, "", ""),
            ("ideal with warm-up", with_warm_up, 1.0, "", ""),
            *(
                (f"evaluation {index}", value, with_warm_up / value, 1000 * used / count, whole)
                for index, (value, used, whole) in enumerate(
                    zip(seconds, evaluations.processor_seconds[1:], evaluations.whole_seconds[1:], strict=True), 1
                )
            ),
        ],
    )
    typical = statistics.median(seconds)
    print(f"\nshare of the ideal without the warm-up, which an evaluation makes: {ideal / typical:.3f}\n")
    return [Bound(name="share of ideal, stub", value=with_warm_up / typical, limit=LEAST_OF_IDEAL, at_least=True)]


def measure_sandbox(root: Path, rounds: int) -> list[Bound]:
    """Compare with a loop that only asks, and with one request after the other."""
    suite = write_suite(root / "sandbox.json", SANDBOX_CASES)
    adapters: dict[Arm, str | None] = {
        Arm.CANDIDATE: str(write_adapter(root / "candidate", 1)),
        Arm.CHAMPION: str(write_adapter(root / "champion", 2)),
        Arm.BASE: None,
    }
    with lorax_server(root) as url:
        evaluations = Evaluations(
            url,
            suite,
            adapters,
            max_concurrency=max(IN_FLIGHT),
            max_new_tokens=SANDBOX_TOKENS,
            directory=root / "sandbox",
        )
        requests, few = evaluations.requests(), evaluations.requests(SEQUENTIAL_CASES)
        evaluations.run()  # loads the adapters
        texts: list[str] = []

        def bare(in_flight: int) -> float:
            found, seconds = ask_all(url, requests, in_flight=in_flight)
            texts[:] = found
            return len(requests) / seconds

        def sequential() -> float:
            return len(few) / ask_all(url, few, in_flight=1)[1]

        tried = interleaved({f"{number}": lambda n=number: bare(n) for number in IN_FLIGHT}, max(2, rounds // 2))
        best = int(max(tried, key=lambda name: statistics.median(tried[name])))
        kinds = {
            "evaluation": lambda: len(requests) / evaluations.run(),
            f"bare loop, {best} in flight": lambda: bare(best),
            "one after the other": sequential,
        }
        samples = interleaved(kinds, rounds)
    if sorted(result.output for result in evaluations.results) != sorted(texts):
        raise RuntimeError("the evaluation and the bare loop got different answers: they did not do the same work")
    rows = [(f"bare loop, {name} in flight (to find the best)", rates) for name, rates in tried.items()]
    print_table(
        (f"{len(requests)} requests to the sandbox", "requests/s", "slowest", "fastest"),
        [(name, *(f"{value:.1f}" for value in (statistics.median(rates), min(rates), max(rates))))
         for name, rates in [*rows, *samples.items()]],
    )  # fmt: skip
    ours, loop, one = samples.values()
    return [
        Bound(name="evaluation to bare loop", value=paired_ratio(ours, loop), limit=LEAST_OF_BARE_LOOP, at_least=True),
        Bound(name="evaluation to sequential", value=paired_ratio(ours, one), limit=LEAST_GAIN, at_least=True),
    ]


def main() -> int:
    """Measure, print, and compare with the bounds."""
    rounds = parse_rounds(__doc__, full=5, quick=2)
    print(f"load of the machine before: {os.getloadavg()[0]:.2f}\n")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bounds = measure_stub(root, rounds)
        bounds += measure_sandbox(root, rounds)
    print(f"\nload of the machine after: {os.getloadavg()[0]:.2f}")
    return print_bounds(bounds)


if __name__ == "__main__":
    sys.exit(main())
