"""Summaries of recorded results for people: rates and latencies by arm, pairs, and the cases that changed.

Decides nothing; ``gate`` does. The intervals are the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from slipway.bootstrap import TooFewGroupsError
from slipway.evidence import Evidence
from slipway.gate_file import Measure, Metric
from slipway.gate_requirements import mean_interval
from slipway.gate_rules import is_binary
from slipway.paired_rates import paired_difference
from slipway.results import Arm
from slipway.statistics import Interval, clopper_pearson

__all__ = [
    "PairSummary",
    "changed_cases",
    "compare_arms",
    "paired_values",
    "pass_difference",
    "pass_rate",
]


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """The candidate against another arm on the cases that both answered."""

    both_pass: int
    gained: int
    lost: int
    both_fail: int
    difference: Interval | None
    """Of the mean score, candidate minus other; None for too few graded pairs."""
    pass_difference: Interval | None
    """Of the pass rate, candidate minus other; None for too few groups."""


def pass_rate(evidence: Evidence, arm: Arm, confidence: float, *, tag: str | None = None) -> Interval | None:
    """Bound the rate of passes among the cases that ``arm`` answered; None where it answered none."""
    known = evidence.by_case(arm, Metric.PASS_RATE)
    passed = [(known[case], evidence.unit(case)) for case in evidence.tagged(tag) if case in known]
    return _rate(passed, confidence) if passed else None


def pass_difference(evidence: Evidence, arm: Arm, confidence: float, *, tag: str | None = None) -> Interval | None:
    """Bound the candidate's pass rate minus ``arm``'s, pair by pair; None for no pairs or too few groups."""
    return _difference(evidence, paired_values(evidence, arm, Metric.PASS_RATE, tag=tag), confidence)


def difference_interval(
    pairs: Sequence[tuple[float, float]], units: Sequence[Hashable], confidence: float
) -> Interval | None:
    """Bound the mean of first minus second, pair by pair; None for no pairs or too few groups.

    Args:
        pairs: Values in [0, 1].
        units: What each pair belongs to; pairs of one unit are not independent.
        confidence: Two-sided.
    """
    if not pairs:
        return None
    gained, lost = sum(ours > theirs for ours, theirs in pairs), sum(ours < theirs for ours, theirs in pairs)

    def exact() -> Interval:
        return paired_difference(gained, lost, len(pairs), confidence=confidence)

    try:
        return mean_interval(
            [ours - theirs for ours, theirs in pairs],
            units,
            confidence=confidence,
            support=(-1.0, 1.0),
            exact=exact if all(map(is_binary, pairs)) else None,
        )
    except TooFewGroupsError:
        return None


def compare_arms(evidence: Evidence, arm: Arm, confidence: float) -> PairSummary | None:
    """Compare the candidate with ``arm``; None where no case was answered by both."""
    passes = paired_values(evidence, arm, Metric.PASS_RATE)
    if not passes:
        return None
    outcomes = [(ours, theirs) for _, ours, theirs in passes]
    return PairSummary(
        both_pass=outcomes.count((1.0, 1.0)),
        gained=outcomes.count((1.0, 0.0)),
        lost=outcomes.count((0.0, 1.0)),
        both_fail=outcomes.count((0.0, 0.0)),
        difference=_difference(evidence, paired_values(evidence, arm, Metric.SCORE), confidence),
        pass_difference=_difference(evidence, passes, confidence),
    )


def paired_values(
    evidence: Evidence, arm: Arm, measure: Measure, *, tag: str | None = None
) -> list[tuple[str, float, float]]:
    """List case, candidate's value and ``arm``'s for the cases that have both, sorted by case."""
    ours, theirs = evidence.by_case(Arm.CANDIDATE, measure), evidence.by_case(arm, measure)
    return [(case, ours[case], theirs[case]) for case in evidence.tagged(tag) if case in ours and case in theirs]


def changed_cases(evidence: Evidence, *, is_regression: bool) -> list[str]:
    """List the cases that the candidate lost to, or gained over, the champion; the base where there is none."""
    arm = Arm.CHAMPION if Arm.CHAMPION in evidence.arms else Arm.BASE
    wanted = (0.0, 1.0) if is_regression else (1.0, 0.0)
    ours, theirs = (evidence.by_case(one, Metric.PASS_RATE) for one in (Arm.CANDIDATE, arm))
    return [case for case in evidence.cases if (ours.get(case), theirs.get(case)) == wanted]


def _rate(passed: Sequence[tuple[float, Hashable]], confidence: float) -> Interval:
    values, units = [value for value, _ in passed], [unit for _, unit in passed]
    n = len(values)

    def exact() -> Interval:
        low, high = clopper_pearson(sum(values), n, confidence=confidence)
        return Interval(estimate=sum(values) / n, low=low, high=high, n=n, method="exact, Clopper-Pearson")

    try:
        return mean_interval(values, units, confidence=confidence, support=(0.0, 1.0), exact=exact)
    except TooFewGroupsError:  # a table shows what it can; the gate's own rule says that it cannot decide
        return exact()


def _difference(evidence: Evidence, pairs: Sequence[tuple[str, float, float]], confidence: float) -> Interval | None:
    return difference_interval(
        [(ours, theirs) for _, ours, theirs in pairs], [evidence.unit(case) for case, *_ in pairs], confidence
    )
