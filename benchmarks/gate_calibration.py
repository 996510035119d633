"""How often the gate errs: simulated evaluations of candidates whose true difference is known, and the real gate.

Each simulated case is a pair of outcomes: the reference passes four in five, and a given share of the pairs is
discordant. The candidate is as good, worse by exactly the margin, or worse by twice the margin; against the base
better, equal, or worse. Every evaluation is decided with all cases asked, ended by curtailment, and ended by the
always-valid bound. Further blocks: few discordant pairs, cases in groups that share their outcome, and candidates
released again until the third attempt.

    python benchmarks/gate_calibration.py [--quick] [--gates N]

Exit code 1 when candidates that do not deserve it are promoted, or those that do are held, in more than 1 - confidence
of the evaluations of any cell, beyond Monte-Carlo error; or when curtailment changes a verdict.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from harness.figures import print_table

from slipway import early_stop, gate_comparisons, paired_rates
from slipway.early_stop import EarlyStop
from slipway.gate import Decision, Gate, Verdict, decide
from slipway.gate_file import EarlyStop as EarlyStopRule
from slipway.results import Arm, CaseResult, CheckResult
from slipway.statistics import clopper_pearson
from slipway.suite import Case

SEED = 20_260_101
FULL, QUICK = 2_000, 200
CONFIDENCE = 0.95
MARGIN = 0.05
REFERENCE_PASSES = 0.8
SURE = 0.999
"""A cell misses its bound when even the lower end of this one-sided interval of its rate is above it."""
GROUP_SIZE, COPIES = 5, 0.7
ATTEMPTS = 3
SIZES = (20, 50, 200)
ALL_ASKED, CURTAILMENT, SEQUENTIAL = "no", "curtailment", "sequential"
BATCHES = 20
"""In which the answers of an evaluation come, as those that were in flight together."""
MODES = (ALL_ASKED, CURTAILMENT, SEQUENTIAL)

GAIN, LOSS, BOTH, NEITHER = range(4)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of evaluation, to be simulated many times.

    Attributes:
        arm: Who the candidate is compared with: the champion by a margin, or the base by better_by 0.
        n: Cases of the suite.
        difference: The true one, of candidate minus other.
        discordant: Share of pairs that differ.
        mode: How an evaluation may end early.
        is_grouped: Whether cases come in groups that mostly share their outcome.
        attempts: How often a candidate that was not promoted is evaluated again, with fresh draws.
    """

    arm: Arm
    n: int
    difference: float
    discordant: float = 0.15
    mode: str = ALL_ASKED
    is_grouped: bool = False
    attempts: int = 1

    @property
    def limit(self) -> float:
        """The difference that the rule is about."""
        return -MARGIN if self.arm is Arm.CHAMPION else 0.0

    @property
    def is_deserving(self) -> bool:
        """Whether the candidate is truly better than the limit."""
        return self.difference > self.limit + 1e-12

    @property
    def is_worse(self) -> bool:
        """Whether the candidate is truly worse than the limit; exactly on it neither bound may fall often."""
        return self.difference < self.limit - 1e-12

    def gate(self) -> Gate:
        """The rules, with nothing but the one comparison."""
        rule = {"champion": {"metric": "pass_rate", "margin": MARGIN}}
        if self.arm is Arm.BASE:
            rule = {"base": {"metric": "pass_rate", "better_by": 0.0}}
        mode = SEQUENTIAL if self.mode == SEQUENTIAL else CURTAILMENT
        keys = {"confidence": CONFIDENCE, "min_cases": min(SIZES), "against": rule, "early_stop": mode}
        return Gate.model_validate(keys, strict=False)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of the evaluations of one cell."""

    cell: Cell
    gates: int
    promoted: int
    held: int
    spent: float

    def rate(self, count: int) -> str:
        """A share with its Monte-Carlo interval, in percent."""
        low, high = clopper_pearson(count, self.gates, confidence=0.95)
        return f"{100 * count / self.gates:.1f} ({100 * low:.1f}-{100 * high:.1f})"

    def is_above(self, count: int, limit: float) -> bool:
        """Whether a share is above ``limit`` by more than chance."""
        return clopper_pearson(count, self.gates, confidence=SURE, sides=1)[0] > limit

    @property
    def faults(self) -> list[str]:
        """What this cell promised and did not keep."""
        error, found = 1 - CONFIDENCE, []
        if not self.cell.is_deserving and self.is_above(self.promoted, error):
            found.append(f"false promotion {self.rate(self.promoted)} % above {100 * error:g} %")
        if not self.cell.is_worse and self.cell.attempts == 1 and self.is_above(self.held, error):
            found.append(f"false hold {self.rate(self.held)} % above {100 * error:g} %")
        return found


def cells() -> Iterator[tuple[str, list[Cell]]]:
    """Give every block of the table with its title."""
    differences = {Arm.CHAMPION: (0.0, -MARGIN, -2 * MARGIN), Arm.BASE: (2 * MARGIN, 0.0, -MARGIN)}
    for arm, title in (
        (Arm.CHAMPION, f"not inferior to the champion, margin {MARGIN:g}"),
        (Arm.BASE, "above the base"),
    ):
        products = itertools.product(SIZES, differences[arm], MODES)
        yield title, [Cell(arm=arm, n=n, difference=difference, mode=mode) for n, difference, mode in products]
    clear = itertools.product(((Arm.CHAMPION, -0.3), (Arm.BASE, 0.3)), SIZES[1:], MODES)
    yield (
        "much worse than the champion, much better than the base",
        [Cell(arm=arm, n=n, difference=difference, discordant=0.36, mode=mode) for (arm, difference), n, mode in clear],
    )
    few = itertools.product(SIZES[1:], MODES)
    yield (
        "few discordant pairs, on the margin",
        [Cell(arm=Arm.CHAMPION, n=n, difference=-MARGIN, discordant=0.06, mode=mode) for n, mode in few],
    )
    grouped = itertools.product((Arm.CHAMPION, Arm.BASE), SIZES[1:])  # such an evaluation does not end early
    yield (
        f"groups of {GROUP_SIZE}, on the limit",
        [Cell(arm=arm, n=n, difference=-MARGIN if arm is Arm.CHAMPION else 0.0, is_grouped=True) for arm, n in grouped],
    )
    again = itertools.product((Arm.CHAMPION, Arm.BASE), SIZES[1:], MODES)
    yield (
        f"up to {ATTEMPTS} attempts, on the limit",
        [
            Cell(arm=arm, n=n, difference=-MARGIN if arm is Arm.CHAMPION else 0.0, mode=mode, attempts=ATTEMPTS)
            for arm, n, mode in again
        ],
    )


def simulate(cell: Cell, gates: int, seed: int) -> Tally:
    """Evaluate ``gates`` candidates."""
    keep_what_repeats()
    random = np.random.default_rng([SEED, seed])
    outcomes, spent = Counter[Decision](), 0.0
    for _ in range(gates):
        asked = 0.0
        for attempt in range(1, cell.attempts + 1):
            decision, share = evaluate(cell, draw(cell, random), attempt)
            asked += share
            if decision is Decision.PROMOTE:
                break
        outcomes[decision] += 1
        spent += asked / attempt
    promoted, held = outcomes[Decision.PROMOTE], outcomes[Decision.HOLD]
    return Tally(cell=cell, gates=gates, promoted=promoted, held=held, spent=spent / gates)


def keep_what_repeats() -> None:
    """Compute what depends on counts alone once for each count, and leave out what only fills the reasons.

    A comparison of single cases is decided by the exact test at its limit, and the bounds are then put on its side of
    the limit: where else they lie decides nothing, and inverting the test takes nine tenths of the time. So does not
    how many more cases would settle it.
    """
    early_stop.decide = decide_once
    gate_comparisons.further_pairs = lambda *_, **__: None
    paired_rates._lower = lambda *_: -1.0  # noqa: SLF001  # see above


def draw(cell: Cell, random: np.random.Generator) -> list[int]:
    """Draw the outcome of every case."""
    gain, loss = (cell.discordant + cell.difference) / 2, (cell.discordant - cell.difference) / 2
    passes = min(REFERENCE_PASSES, 1 - gain)
    chances = [gain, loss, passes - loss, 1 - passes - gain]
    own = random.choice(4, size=cell.n, p=chances)
    if not cell.is_grouped:
        return own.tolist()
    shared = np.repeat(random.choice(4, size=-(-cell.n // GROUP_SIZE), p=chances), GROUP_SIZE)[: cell.n]
    return np.where(random.random(cell.n) < COPIES, shared, own).tolist()


def evaluate(cell: Cell, outcomes: Sequence[int], attempt: int) -> tuple[Decision, float]:
    """Decide one evaluation as a release does; returns the decision and the share of prompts spent."""
    gate = gate_of(cell)
    record = [result for index, outcome in enumerate(outcomes) for result in answers(cell, index)[outcome]]
    has_champion = cell.arm is Arm.CHAMPION

    def verdict_on(results: Sequence[CaseResult]) -> Decision:
        return decide_once(results, gate, has_champion=has_champion, attempt=attempt).verdict

    if cell.mode == ALL_ASKED:
        return verdict_on(record), 1.0
    should_stop = EarlyStop(gate, suite(cell), (Arm.CANDIDATE, cell.arm), has_champion=has_champion, attempt=attempt)
    for asked in range(cell.n // BATCHES, cell.n, cell.n // BATCHES):
        if reason := should_stop(record[: 2 * asked]):
            left = [line for index in range(asked, cell.n) for line in not_asked(cell, index, reason)]
            stopped = verdict_on([*record[: 2 * asked], *left])
            if cell.mode == CURTAILMENT and stopped is not verdict_on(record):
                raise AssertionError(f"curtailment changed the verdict to {stopped}: {cell} {outcomes}")
            return stopped, asked / cell.n
    return verdict_on(record), 1.0


_verdicts: dict[object, Verdict] = {}


def decide_once(results: Sequence[CaseResult], gate: Gate, **facts: object) -> Verdict:
    """Call the real ``decide``, and keep what it says for records of which it cannot tell one from the other.

    Its rules here see how many cases of each group were gained, lost, neither or not asked, and no more; but the
    always-valid bound, which looks where cases were not asked, sees their order.
    """
    if gate.early_stop is EarlyStopRule.SEQUENTIAL and results[-1].not_asked:
        return decide(results, gate, **facts)
    groups: dict[str | None, list[int]] = {}
    for ours, theirs in zip(results[::2], results[1::2], strict=True):
        counts = groups.setdefault(ours.group, [0, 0, 0, 0])
        counts[3 if ours.not_asked else 1 + int(ours.passed or 0) - int(theirs.passed or 0)] += 1
    key = (gate.early_stop, gate.against, *facts.items(), *sorted(map(tuple, groups.values())))
    if key not in _verdicts:
        _verdicts[key] = decide(results, gate, **facts)
    return _verdicts[key]


@cache
def gate_of(cell: Cell) -> Gate:
    """The cell's gate, made once."""
    return cell.gate()


@cache
def suite(cell: Cell) -> tuple[Case, ...]:
    """The cases that the record is about."""
    return tuple(
        Case(id=f"case-{index:04d}", vars={}, prompt="", checks=(), group=group(cell, index)) for index in range(cell.n)
    )


def group(cell: Cell, index: int) -> str | None:
    """The source that a case shares with its neighbours."""
    return f"source-{index // GROUP_SIZE}" if cell.is_grouped else None


@cache
def answers(cell: Cell, index: int) -> dict[int, tuple[CaseResult, CaseResult]]:
    """By outcome, what candidate and reference are recorded with."""
    passed = {GAIN: (True, False), LOSS: (False, True), BOTH: (True, True), NEITHER: (False, False)}
    case = suite(cell)[index]

    def line(arm: Arm, *, is_passed: bool) -> CaseResult:
        return CaseResult(
            case=case.id,
            arm=arm,
            group=case.group,
            output=f"{arm} {index}",
            passed=is_passed,
            score=float(is_passed),
            checks=(CheckResult(type="equals", passed=is_passed, score=float(is_passed)),),
        )

    return {
        outcome: (line(Arm.CANDIDATE, is_passed=ours), line(cell.arm, is_passed=theirs))
        for outcome, (ours, theirs) in passed.items()
    }


@cache
def not_asked(cell: Cell, index: int, reason: str) -> tuple[CaseResult, CaseResult]:
    """What an evaluation that was stopped records for the cases left."""
    case = suite(cell)[index]
    error = f"not asked: {reason}"
    ours, theirs = (
        CaseResult(case=case.id, arm=arm, group=case.group, error=error, not_asked=True)
        for arm in (Arm.CANDIDATE, cell.arm)
    )
    return ours, theirs


def main() -> int:
    """Simulate every cell, print the table, and compare with what the gate promises."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} gates in each cell instead of {FULL:,}")
    parser.add_argument("--gates", type=int, help="so many gates in each cell")
    options = parser.parse_args()
    gates = max(1, options.gates or (QUICK if options.quick else FULL))
    blocks = list(cells())
    began = time.perf_counter()
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        # The three modes of a kind get the same seed, hence the same draws; the longest cells start first.
        jobs = {
            cell: pool.submit(simulate, cell, gates, seed_of(cell))
            for cell in sorted((cell for _, block in blocks for cell in block), key=lambda cell: -cell.n)
        }
        for done, job in enumerate(as_completed(jobs.values()), start=1):
            job.result()
            print(f"\r{done} of {len(jobs)} cells", end="", file=sys.stderr, flush=True)
        tallies = {cell: job.result() for cell, job in jobs.items()}
    print(file=sys.stderr)
    faults = []
    print(f"{gates:,} gates in each cell, confidence {CONFIDENCE:g}; percent, with 95 % Monte-Carlo intervals")
    for title, block in blocks:
        print(f"\n{title}")
        print_table(COLUMNS, [row(tallies[cell]) for cell in block])
        faults += [f"{title}: {row(tallies[cell])[:3]}: {fault}" for cell in block for fault in tallies[cell].faults]
    print(f"\n{time.perf_counter() - began:.0f} s")
    for fault in faults:
        print(f"MISSED: {fault}")
    print("every cell keeps its error" if not faults else f"{len(faults)} bounds missed")
    return 1 if faults else 0


COLUMNS = (
    "cases",
    "difference",
    "early stop",
    "promoted",
    "falsely promoted",
    "held",
    "falsely held",
    "inconclusive",
    "prompts",
)


def row(tally: Tally) -> tuple[str, ...]:
    """One line of the table."""
    cell, n = tally.cell, tally.gates
    return (
        str(cell.n),
        f"{cell.difference:+.2f}",
        cell.mode,
        f"{100 * tally.promoted / n:.1f}",
        "-" if cell.is_deserving else tally.rate(tally.promoted),
        f"{100 * tally.held / n:.1f}",
        "-" if cell.is_worse else tally.rate(tally.held),
        f"{100 * (n - tally.promoted - tally.held) / n:.1f}",
        f"{100 * tally.spent:.0f}",
    )


def seed_of(cell: Cell) -> int:
    """A seed for the draws of a cell, the same for each mode."""
    kinds = list(dict.fromkeys(replace(cell, mode=ALL_ASKED) for _, block in cells() for cell in block))
    return kinds.index(replace(cell, mode=ALL_ASKED))


if __name__ == "__main__":
    sys.exit(main())
