"""What each rule of a gate says of the evidence: pass, fail or inconclusive, with the interval and a sentence.

A rule passes when the whole interval is on the right side of its limit, fails when the whole interval is on the wrong
side, and is inconclusive between. Where cases are missing, the rule is also applied to the worst that they could have
been; unless both agree it is inconclusive. Formulas and their sources are in ``statistics``; docs/gate.md tells why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from slipway.evidence import Evidence
from slipway.gate_file import Gate, LatencyRule, Metric, NonInferiority, Requirement, Superiority
from slipway.results import Arm
from slipway.statistics import (
    BOOTSTRAP_MIN_N,
    Interval,
    bootstrap_mean,
    bootstrap_median_ratio,
    clopper_pearson,
    mcnemar,
    paired_difference,
    quantile,
    smallest_decisive_n,
)

__all__ = ["Outcome", "RuleOutcome", "compare_latency", "compare_scores", "require", "undecided"]

_QUANTILES = {Metric.LATENCY_P50: 0.50, Metric.LATENCY_P95: 0.95, Metric.LATENCY_P99: 0.99}


class Outcome(StrEnum):
    """What one rule says."""

    PASS = "pass"  # noqa: S105  # an outcome, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class RuleOutcome:
    """What one rule says, on which numbers.

    Attributes:
        rule: Its name, made from the gate file: ``pass_rate at_least 0.9``.
        outcome: Pass, fail or inconclusive.
        estimate: The observed value; None where nothing could be computed.
        low: Lower bound at the gate's confidence; None where there is none.
        high: Upper bound; None where there is none.
        n: Cases, or pairs, it rests on.
        reason: One sentence or two for people.
        method: How the interval was computed.
    """

    rule: str
    outcome: Outcome
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str
    method: str = ""


def undecided(rule: str, reason: str, *, n: int = 0) -> RuleOutcome:
    """Build the outcome of a rule that cannot be applied."""
    return RuleOutcome(rule=rule, outcome=Outcome.INCONCLUSIVE, n=n, reason=reason)


def require(evidence: Evidence, rule: Requirement, gate: Gate) -> RuleOutcome:
    """Apply a floor or a ceiling to the candidate alone."""
    cases = evidence.tagged(rule.tag)
    if not cases:
        return undecided(rule.name, f"No case carries the tag {rule.tag!r}, which {rule.name!r} is about.")
    values = evidence.values(Arm.CANDIDATE, cases, rule.metric)
    missing = len(cases) - len(values)
    if not values:
        return undecided(rule.name, f"No case has a value for {_subject(rule)}.")
    if rule.metric.is_latency:
        return _require_latency(rule, values, missing, gate)
    complete = _require_rate(rule, values, gate)
    worst = _require_rate(rule, values + [float(rule.at_least is None)] * missing, gate) if missing else complete
    return _reconcile(complete, worst, missing)


def compare_scores(evidence: Evidence, arm: Arm, rule: NonInferiority | Superiority, gate: Gate) -> RuleOutcome:
    """Compare the candidate with ``arm`` on the cases that both answered.

    The quantity is the mean of candidate minus other, case by case. Non-inferiority asks whether it is at least
    -margin, superiority whether it is more than better_by. Binary outcomes take the exact path: McNemar's test where
    the limit is 0, the interval otherwise. Graded ones take the paired bootstrap.
    """
    is_strict = isinstance(rule, Superiority)
    limit = rule.better_by if isinstance(rule, Superiority) else 0.0 - rule.margin
    setting = f"better_by {rule.better_by:g}" if isinstance(rule, Superiority) else f"margin {rule.margin:g}"
    name = f"{rule.metric} against {arm} {setting}"
    if arm not in evidence.arms:
        return undecided(name, f"There are no results of the {arm} to compare with.")
    both = [
        (evidence.value(Arm.CANDIDATE, case, rule.metric), evidence.value(arm, case, rule.metric))
        for case in evidence.cases
    ]
    pairs = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
    if len(pairs) < gate.min_cases:
        return undecided(name, _too_few_pairs(arm, len(pairs), gate.min_cases), n=len(pairs))
    comparison = _Comparison(name=name, metric=rule.metric, arm=arm, limit=limit, is_strict=is_strict, gate=gate)
    complete = comparison.judge(pairs)
    missing = len(both) - len(pairs)
    if not missing:
        return complete
    worst = [(0.0 if ours is None else ours, 1.0 if theirs is None else theirs) for ours, theirs in both]
    return _reconcile(complete, comparison.judge(worst), missing)


def compare_latency(evidence: Evidence, rule: LatencyRule, gate: Gate) -> RuleOutcome:
    """Compare median latencies on the cases that both arms answered; a missing answer has no latency to assume."""
    arm = Arm(rule.of)
    name = f"latency_ms against {arm} ratio_at_most {rule.ratio_at_most:g}"
    if arm not in evidence.arms:
        return undecided(name, f"There are no results of the {arm} to compare latency with.")
    metric = Metric.LATENCY_P50
    pairs = [
        (ours, theirs)
        for case in evidence.cases
        if (ours := evidence.value(Arm.CANDIDATE, case, metric)) is not None
        and (theirs := evidence.value(arm, case, metric)) is not None
    ]
    needed = max(gate.min_cases, BOOTSTRAP_MIN_N)
    if len(pairs) < needed:
        return undecided(name, _too_few_pairs(arm, len(pairs), needed), n=len(pairs))
    # Each of the two arms may miss its share.
    if (unknown := len(evidence.cases) - len(pairs)) > 2 * gate.max_missing * len(evidence.cases):
        return undecided(name, f"The latency of {unknown} of {len(evidence.cases)} pairs is unknown.", n=len(pairs))
    if min(theirs for _, theirs in pairs) <= 0:
        return undecided(name, f"The {arm} has latencies of 0 ms, so there is no ratio.", n=len(pairs))
    interval = bootstrap_median_ratio(*zip(*pairs, strict=True), confidence=gate.confidence)
    phrase = f"The ratio of median latencies to the {arm}'s"
    return _bounded(name, phrase, interval, gate, ceiling=rule.ratio_at_most, further=_by_width)


def _require_rate(rule: Requirement, values: Sequence[float], gate: Gate) -> RuleOutcome:
    """Floor or ceiling on the mean of values in [0, 1]."""
    if rule.at_least == 1.0 or rule.at_most == 0.0:
        return _require_every(rule, values, gate)
    interval = _mean_interval(values, gate, support=(0.0, 1.0))
    if interval is None:
        return undecided(rule.name, _too_few_values(_subject(rule), len(values)), n=len(values))
    further = _by_rate if _is_binary(values) else _by_width
    return _bounded(
        rule.name, _subject(rule), interval, gate, floor=rule.at_least, ceiling=rule.at_most, further=further
    )


def _require_every(rule: Requirement, values: Sequence[float], gate: Gate) -> RuleOutcome:
    """No interval can ever reach 1, so ``at_least: 1.0`` means that no failure was observed (0.0: no success)."""
    wanted = 1.0 if rule.at_least == 1.0 else 0.0
    n, wrong = len(values), sum(value != wanted for value in values)
    low, high = clopper_pearson(n - wrong if wanted else wrong, n, confidence=gate.confidence)
    estimate = math.fsum(values) / n
    if wrong:
        reason = f"{_subject(rule)} must be {wanted:g} on every case, and is not on {wrong} of {n}."
    else:
        _, unseen = clopper_pearson(0, n, confidence=gate.confidence, sides=1)
        reason = (
            f"{_subject(rule)} is {wanted:g} on all {n} cases; by the rule of three (3/n) up to {unseen:.1%} of such "
            f"cases could still differ, at {100 * gate.confidence:g} % confidence."
        )
    return RuleOutcome(
        rule=rule.name,
        outcome=Outcome.FAIL if wrong else Outcome.PASS,
        estimate=estimate,
        low=low,
        high=high,
        n=n,
        reason=reason,
        method="no exception observed; interval exact, Clopper-Pearson",
    )


def _require_latency(rule: Requirement, values: list[float], missing: int, gate: Gate) -> RuleOutcome:
    if missing > gate.max_missing * (len(values) + missing):
        reason = f"The latency of {missing} of {len(values) + missing} cases is unknown."
        return undecided(rule.name, reason, n=len(values))
    if rule.metric is Metric.LATENCY_MEAN:
        # A request that failed has no duration, and any assumed one would decide a mean; so only answered cases count.
        if len(values) < BOOTSTRAP_MIN_N:
            return undecided(rule.name, _too_few_values(_subject(rule), len(values)), n=len(values))
        # Clocks never repeat themselves; a file of equal latencies was written by hand, and is taken at its word.
        support = (values[0], values[0]) if max(values) == min(values) else (0.0, math.inf)
        interval = bootstrap_mean(values, confidence=gate.confidence, support=support)
        return _bounded(rule.name, _subject(rule), interval, gate, ceiling=rule.at_most, further=_by_width, unit=" ms")
    q = _QUANTILES[rule.metric]

    def judge(latencies: Sequence[float]) -> RuleOutcome:
        within = sum(latency <= rule.bound for latency in latencies) / len(latencies)

        def further(_: Interval, __: float, confidence: float) -> int | None:
            return _rate_n(within, q, len(latencies), confidence)

        interval = quantile(latencies, q, confidence=gate.confidence)
        return _bounded(rule.name, _subject(rule), interval, gate, ceiling=rule.at_most, further=further, unit=" ms")

    return _reconcile(judge(values), judge(values + [math.inf] * missing), missing)


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """A paired comparison of scores, to be judged on the complete pairs and on the worst case."""

    name: str
    metric: Metric
    arm: Arm
    limit: float
    is_strict: bool
    gate: Gate

    def judge(self, pairs: Sequence[tuple[float, float]]) -> RuleOutcome:
        phrase = f"{self.metric} of the candidate minus the {self.arm}'s"
        if not all(_is_binary(pair) for pair in pairs):
            differences = [ours - theirs for ours, theirs in pairs]
            interval = _mean_interval(differences, self.gate, support=(-1.0, 1.0), is_graded=True)
            if interval is None:
                return undecided(self.name, _too_few_values(phrase, len(pairs)), n=len(pairs))
            return self._bounded(phrase, interval, _by_width)
        gains = sum(ours > theirs for ours, theirs in pairs)
        losses = sum(ours < theirs for ours, theirs in pairs)
        interval = paired_difference(gains, losses, len(pairs), confidence=self.gate.confidence)
        phrase = f"{phrase} ({gains} cases gained, {losses} lost)"
        if self.limit == 0:
            return self._mcnemar(phrase, interval, gains, losses)

        def further(_: Interval, limit: float, confidence: float) -> int | None:
            def decides(n: int) -> bool:
                scale = n / len(pairs)
                scaled = paired_difference(gains * scale, losses * scale, n, confidence=confidence)
                return scaled.low >= limit or scaled.high < limit

            return smallest_decisive_n(decides, start=len(pairs))

        return self._bounded(phrase, interval, further)

    def _bounded(self, phrase: str, interval: Interval, further: _Further) -> RuleOutcome:
        return _bounded(
            self.name,
            phrase,
            interval,
            self.gate,
            floor=self.limit,
            is_strict=self.is_strict,
            further=further,
            noun="pairs",
        )

    def _mcnemar(self, phrase: str, interval: Interval, gains: int, losses: int) -> RuleOutcome:
        tail = (1 - self.gate.confidence) / 2
        if mcnemar(gains, losses, alternative="gain") <= tail:
            outcome, tells = Outcome.PASS, "is above 0"
        elif mcnemar(gains, losses, alternative="loss") <= tail:
            outcome, tells = Outcome.FAIL, "is below 0"
        else:
            outcome, tells = Outcome.INCONCLUSIVE, "may be above or below 0"
        p = mcnemar(gains, losses)
        reason = f"{phrase} {_numbers(interval, 0.0, self.gate, '', 'pairs')} {tells} (exact McNemar p = {p:.2g})."
        if outcome is Outcome.INCONCLUSIVE:

            def decides(n: int) -> bool:
                more = (round(gains * n / interval.n), round(losses * n / interval.n))
                return mcnemar(*more) <= 2 * tail

            settled = smallest_decisive_n(decides, start=interval.n) if gains != losses else None
            reason = f"{reason} {_further_sentence(settled, interval.n, 'pairs')}"
        return _outcome(self.name, outcome, interval, reason, method="exact McNemar test; interval " + interval.method)


_Further = Callable[[Interval, float, float], int | None]
"""Interval, limit and confidence to the total number of cases that would settle a rule, if any would."""


def _bounded(
    rule: str,
    phrase: str,
    interval: Interval,
    gate: Gate,
    *,
    further: _Further,
    floor: float | None = None,
    ceiling: float | None = None,
    is_strict: bool = False,
    unit: str = "",
    noun: str = "cases",
) -> RuleOutcome:
    """Compare an interval with a floor or a ceiling; at a strict floor itself a value fails."""
    limit = floor if floor is not None else ceiling
    assert limit is not None  # noqa: S101  # every caller gives one
    if floor is not None:
        is_passed = interval.low > limit if is_strict else interval.low >= limit
        is_failed = interval.high <= limit if is_strict else interval.high < limit
        good, bad = ("above" if is_strict else "at least"), ("not above" if is_strict else "below")
    else:
        is_passed, is_failed = interval.high <= limit, interval.low > limit
        good, bad = "at most", "above"
    numbers = f"{phrase} {_numbers(interval, limit, gate, unit, noun)}"
    shown = f"{_number(limit, limit, unit)}{unit}" if not unit else f"{limit:g}{unit}"
    if is_passed:
        return _outcome(rule, Outcome.PASS, interval, f"{numbers} is {good} {shown}.")
    if is_failed:
        return _outcome(rule, Outcome.FAIL, interval, f"{numbers} is {bad} {shown}.")
    sentence = _further_sentence(further(interval, limit, gate.confidence), interval.n, noun)
    return _outcome(rule, Outcome.INCONCLUSIVE, interval, f"{numbers} may be above or below {shown}. {sentence}")


def _outcome(rule: str, outcome: Outcome, interval: Interval, reason: str, *, method: str = "") -> RuleOutcome:
    return RuleOutcome(
        rule=rule,
        outcome=outcome,
        estimate=_finite(interval.estimate),
        low=_finite(interval.low),
        high=_finite(interval.high),
        n=interval.n,
        reason=reason,
        method=method or interval.method,
    )


def _reconcile(complete: RuleOutcome, worst: RuleOutcome, missing: int) -> RuleOutcome:
    """Keep the outcome on the complete cases only if the missing ones could not have changed it."""
    if complete.outcome is worst.outcome:
        return complete
    cases = "1 case is" if missing == 1 else f"{missing} cases are"
    reason = (
        f"{complete.reason} But {cases} missing; counted against the candidate, the rule's outcome is {worst.outcome}."
    )
    return replace(complete, outcome=Outcome.INCONCLUSIVE, reason=reason)


def _mean_interval(
    values: Sequence[float], gate: Gate, *, support: tuple[float, float], is_graded: bool = False
) -> Interval | None:
    """Exact for zeros and ones, bootstrap otherwise; None for too few graded values."""
    n = len(values)
    if not is_graded and _is_binary(values):
        successes = sum(value == 1 for value in values)
        low, high = clopper_pearson(successes, n, confidence=gate.confidence)
        return Interval(estimate=successes / n, low=low, high=high, n=n, method="exact, Clopper-Pearson")
    if n < BOOTSTRAP_MIN_N:
        return None
    return bootstrap_mean(values, confidence=gate.confidence, support=support)


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in {0.0, 1.0} for value in values)


def _by_rate(interval: Interval, limit: float, confidence: float) -> int | None:
    return _rate_n(interval.estimate, limit, interval.n, confidence)


def _rate_n(rate: float, limit: float, n: int, confidence: float) -> int | None:
    def decides(cases: int) -> bool:
        low, high = clopper_pearson(rate * cases, cases, confidence=confidence)
        return low >= limit or high <= limit

    return smallest_decisive_n(decides, start=n) if rate != limit else None


def _by_width(interval: Interval, limit: float, _: float) -> int | None:
    """The half-width towards the limit shrinks with the root of n."""
    gap = abs(interval.estimate - limit)
    reach = interval.estimate - interval.low if interval.estimate > limit else interval.high - interval.estimate
    return math.ceil(interval.n * (reach / gap) ** 2) if gap and math.isfinite(reach) else None


def _subject(rule: Requirement) -> str:
    return f"{rule.metric} of cases tagged {rule.tag}" if rule.tag else str(rule.metric)


def _numbers(interval: Interval, limit: float, gate: Gate, unit: str, noun: str) -> str:
    low = _number(interval.low, limit, unit) if math.isfinite(interval.low) else "unknown"
    high = _number(interval.high, limit, unit) if math.isfinite(interval.high) else "unknown"
    estimate = _number(interval.estimate, limit, unit) if math.isfinite(interval.estimate) else "unknown"
    return f"{estimate}{unit} ({100 * gate.confidence:g} % interval {low} to {high}, {interval.n} {noun})"


def _number(value: float, limit: float, unit: str) -> str:
    """Show as many digits as tell ``value`` from ``limit``."""
    digits = 1 if unit else 2
    while digits < 6 and value != limit and f"{value:.{digits}f}" == f"{limit:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f}"


def _further_sentence(settled: int | None, n: int, noun: str) -> str:
    if settled is None:
        return f"More {noun} like these would hardly settle it: the estimate is too near the limit."
    return f"About {max(1, settled - n)} more {noun} like these would settle it."


def _too_few_pairs(arm: Arm, n: int, needed: int) -> str:
    return f"{n} cases were answered and measured by both the candidate and the {arm}; {needed} are needed."


def _too_few_values(phrase: str, n: int) -> str:
    return f"{phrase}: {n} values are too few for a bootstrap interval; {BOOTSTRAP_MIN_N} are needed."


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
