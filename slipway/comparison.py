"""Summaries of recorded results for people: rates and latencies by arm, pairs, and the cases that changed.

Decides nothing; ``gate`` does. The intervals are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from slipway.evidence import Evidence
from slipway.gate_file import Metric
from slipway.results import Arm
from slipway.statistics import (
    BOOTSTRAP_MIN_N,
    Interval,
    bootstrap_mean,
    clopper_pearson,
    paired_difference,
    quantile,
)

__all__ = ["ArmSummary", "PairSummary", "changed_cases", "compare_arms", "summarise"]


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """How one arm did. Latencies in milliseconds; None where nothing was answered or measured."""

    pass_rate: Interval | None
    missing: int
    p50_ms: Interval | None
    p95_ms: Interval | None


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """The candidate against another arm on the cases that both answered."""

    both_pass: int
    gained: int
    lost: int
    both_fail: int
    difference: Interval | None
    """Of the mean score, candidate minus other; None for too few graded pairs."""


def summarise(evidence: Evidence, arm: Arm, confidence: float, *, tag: str | None = None) -> ArmSummary:
    """Summarise one arm, on the cases with ``tag`` or on all."""
    cases = evidence.tagged(tag)
    passed = evidence.values(arm, cases, Metric.PASS_RATE)
    latencies = evidence.values(arm, cases, Metric.LATENCY_P50)
    return ArmSummary(
        pass_rate=_rate(sum(passed), len(passed), confidence) if passed else None,
        missing=len(cases) - len(passed),
        p50_ms=quantile(latencies, 0.5, confidence=confidence) if latencies else None,
        p95_ms=quantile(latencies, 0.95, confidence=confidence) if latencies else None,
    )


def compare_arms(evidence: Evidence, arm: Arm, confidence: float) -> PairSummary | None:
    """Compare the candidate with ``arm``; None where no case was answered by both."""
    passes = _pairs(evidence, arm, Metric.PASS_RATE)
    if not passes:
        return None
    scores = _pairs(evidence, arm, Metric.SCORE)
    return PairSummary(
        both_pass=passes.count((1.0, 1.0)),
        gained=passes.count((1.0, 0.0)),
        lost=passes.count((0.0, 1.0)),
        both_fail=passes.count((0.0, 0.0)),
        difference=_difference(scores, confidence),
    )


def changed_cases(evidence: Evidence, *, is_regression: bool) -> list[str]:
    """List the cases that the candidate lost to, or gained over, the champion; the base where there is none."""
    arm = Arm.CHAMPION if Arm.CHAMPION in evidence.arms else Arm.BASE
    wanted = (0.0, 1.0) if is_regression else (1.0, 0.0)
    metric = Metric.PASS_RATE
    return [
        case
        for case in evidence.cases
        if (evidence.value(Arm.CANDIDATE, case, metric), evidence.value(arm, case, metric)) == wanted
    ]


def _rate(passed: float, n: int, confidence: float) -> Interval:
    low, high = clopper_pearson(passed, n, confidence=confidence)
    return Interval(estimate=passed / n, low=low, high=high, n=n, method="exact, Clopper-Pearson")


def _pairs(evidence: Evidence, arm: Arm, metric: Metric) -> list[tuple[float, float]]:
    both = ((evidence.value(Arm.CANDIDATE, case, metric), evidence.value(arm, case, metric)) for case in evidence.cases)
    return [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]


def _difference(scores: list[tuple[float, float]], confidence: float) -> Interval | None:
    if scores and all(value in {0.0, 1.0} for pair in scores for value in pair):
        gained, lost = scores.count((1.0, 0.0)), scores.count((0.0, 1.0))
        return paired_difference(gained, lost, len(scores), confidence=confidence)
    if len(scores) < BOOTSTRAP_MIN_N:
        return None
    return bootstrap_mean([ours - theirs for ours, theirs in scores], confidence=confidence, support=(-1.0, 1.0))
