"""Floors and ceilings on the candidate alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from slipway import wording
from slipway.bootstrap import BOOTSTRAP_MIN_N, TooFewGroupsError, bootstrap_mean
from slipway.bounded_mean import bounded_mean
from slipway.evidence import Evidence, Gap
from slipway.gate_completion import Sample, settle
from slipway.gate_file import NAMED, EarlyStop, Gate, Metric, Requirement, is_cost, is_latency, is_share
from slipway.gate_further import further_cases, further_sentence, further_values
from slipway.gate_rules import (
    DOLLARS,
    MILLISECONDS,
    Outcome,
    RuleOutcome,
    bounded,
    is_binary,
    made,
    undecided,
)
from slipway.results import Arm
from slipway.statistics import Interval, clopper_pearson, quantile

__all__ = ["QUANTILES", "mean_interval", "require", "sequence"]

QUANTILES = {Metric.LATENCY_P50: 0.50, Metric.LATENCY_P95: 0.95, Metric.LATENCY_P99: 0.99}

Value = tuple[float, Hashable]
"""A value and the unit that is drawn with it: its case, or its case's group."""


def require(evidence: Evidence, rule: Requirement, gate: Gate) -> RuleOutcome:
    """Apply a floor or a ceiling to the candidate alone; ``gate.confidence`` is what its interval takes."""
    cases = evidence.tagged(rule.tag)
    if not cases:
        return undecided(rule.name, f"No case carries the tag {rule.tag!r}, which {rule.name!r} is about.")
    concerned = evidence.concerned(rule.metric, rule.tag)
    if not concerned and rule.metric.startswith(NAMED):
        name = rule.metric.removeprefix(NAMED)
        return undecided(rule.name, f"No case has the metric {name!r}, which {rule.name!r} is about.")
    sample = _sample(evidence, rule, concerned)
    if not sample.answered:
        return undecided(rule.name, f"No case has a value for {_subject(rule)}.")
    if is_latency(rule.metric) or is_cost(rule.metric):
        missing = sum(evidence.reading(Arm.CANDIDATE, case, rule.metric) is Gap.MISSING for case in concerned)
        if missing > gate.max_missing * (len(sample.answered) + missing):
            what = "latency" if is_latency(rule.metric) else "cost"
            reason = f"The {what} of {missing} of {len(sample.answered) + missing} cases is unknown."
            return undecided(rule.name, reason, n=len(sample.answered))
    judge = _judge(rule, gate)

    def further(values: Sequence[Value], outcome: RuleOutcome) -> str:
        readings, n = [value for value, _ in values], len(values)
        if rule.metric in QUANTILES:
            within = sum(value <= rule.bound for value in readings)
            more = further_cases(within, n, limit=QUANTILES[Metric(rule.metric)], confidence=gate.confidence)
        elif is_binary(readings) and is_share(rule.metric) and not evidence.is_clustered:
            more = further_cases(int(sum(readings)), n, limit=rule.bound, confidence=gate.confidence)
        else:
            more = further_values(values, outcome, limit=rule.bound, judge=judge)
        return further_sentence(more, "cases")

    return settle(
        sample,
        judge,
        is_exact=_is_exact(evidence, rule),
        sequential=_sequential(evidence, rule, gate),
        further=further,
    )


def mean_interval(
    values: Sequence[float],
    units: Sequence[Hashable],
    *,
    confidence: float,
    support: tuple[float, float],
    exact: Callable[[], Interval] | None = None,
) -> Interval:
    """Bound a mean: exactly where ``exact`` can, by the bootstrap otherwise or where units hold several values.

    No draw of a bootstrap shows rare values that were not seen, so that it is widened to an interval that counts them
    wherever the values have a finite ``support``. Values that share a unit are not independent, as exact methods
    assume: the bootstrap draws whole units, and that interval takes the values at their effective number.

    Raises:
        TooFewGroupsError: Too few values, or units, for a bootstrap.
    """
    groups = units if len(set(units)) < len(units) else None
    if exact is not None and groups is None:
        return exact()
    interval = bootstrap_mean(values, confidence=confidence, support=support, groups=groups)
    if not math.isfinite(support[1]):
        return interval
    counted = bounded_mean(values, confidence=confidence, support=support, groups=groups)
    return replace(
        counted,
        low=min(interval.low, counted.low),
        high=max(interval.high, counted.high),
        method=f"{interval.method}, never narrower than {counted.method}",
    )


def sequence(values: Sequence[float], *, limit: float, support: tuple[float, float], confidence: float) -> Interval:
    """Bound the mean of values in the order in which they came, by a bound that holds at every number of them at once.

    Where the bound has left the limit out before, the values up to there are what counts: those that were on their way
    when it did cannot unsettle it.
    """
    from slipway.sequential import confidence_sequence, settled_at  # noqa: PLC0415  # only gates that look early need it

    settled = settled_at(values, limit=limit, support=support, confidence=confidence)
    return confidence_sequence(values[:settled], support=support, confidence=confidence)


def _sample(evidence: Evidence, rule: Requirement, concerned: Sequence[str]) -> Sample[Value]:
    best, worst = _extremes(rule)
    # A request that failed has no duration or cost, and any assumed one would decide a mean; so these are left out.
    fills = rule.metric not in {Metric.LATENCY_MEAN, Metric.COST_MEAN}
    sample: Sample[Value] = Sample()
    for case in concerned:
        reading, unit = evidence.reading(Arm.CANDIDATE, case, rule.metric), evidence.unit(case)
        if not isinstance(reading, Gap):
            sample.answered.append((reading, unit))
        elif reading is Gap.NOT_ASKED:
            sample.pending_worst.append((worst, unit))
            sample.pending_best.append((best, unit))
        elif fills:
            sample.missing_worst.append((worst, unit))
    among = set(concerned) if sample.pending_worst else set()
    for case in evidence.asked_first() if among else ():
        reading, unit = evidence.reading(Arm.CANDIDATE, case, rule.metric), evidence.unit(case)
        if case in among and not isinstance(reading, Gap):
            sample.first.append((reading, unit))
        elif case in among and fills:
            sample.first_missing_worst.append((worst, unit))
    return sample


def _extremes(rule: Requirement) -> tuple[float, float]:
    """The best and the worst that a case without a value could have."""
    if is_latency(rule.metric) or is_cost(rule.metric):
        return 0.0, math.inf
    return (0.0, 1.0) if rule.at_least is None else (1.0, 0.0)


def _is_exact(evidence: Evidence, rule: Requirement) -> bool:
    if _is_absolute(rule) or rule.metric in QUANTILES:
        return True
    return rule.metric == Metric.PASS_RATE and not evidence.is_clustered


def _is_absolute(rule: Requirement) -> bool:
    return rule.at_least == 1.0 or (rule.at_most == 0.0 and not is_latency(rule.metric) and not is_cost(rule.metric))


def _judge(rule: Requirement, gate: Gate) -> Callable[[Sequence[Value]], RuleOutcome]:
    if rule.metric in QUANTILES:
        return lambda values: _require_quantile(rule, [value for value, _ in values], gate)
    if is_latency(rule.metric) or is_cost(rule.metric):
        return lambda values: _require_small_mean(rule, values, gate)
    if _is_absolute(rule):
        return lambda values: _require_every(rule, values, gate)
    return lambda values: _require_mean(rule, values, gate)


def _sequential(evidence: Evidence, rule: Requirement, gate: Gate) -> Callable[[Sequence[Value]], RuleOutcome] | None:
    """Judge by the always-valid bound, where the gate wants one and the rule is about a mean in a bounded range."""
    is_open_ended = rule.metric in {Metric.LATENCY_MEAN, Metric.COST_MEAN}
    if gate.early_stop is not EarlyStop.SEQUENTIAL or evidence.is_clustered or is_open_ended or _is_absolute(rule):
        return None

    def judge(values: Sequence[Value]) -> RuleOutcome:
        if rule.metric in QUANTILES:
            within = [float(value <= rule.bound) for value, _ in values]
            q = QUANTILES[Metric(rule.metric)]
            share = sequence(within, limit=q, support=(0.0, 1.0), confidence=gate.confidence)
            return bounded(rule.name, f"The share of cases within {rule.bound:g} ms", share, gate, floor=q)
        seen = [value for value, _ in values]
        interval = sequence(seen, limit=rule.bound, support=(0.0, 1.0), confidence=gate.confidence)
        return bounded(rule.name, _subject(rule), interval, gate, floor=rule.at_least, ceiling=rule.at_most)

    return judge


def _require_mean(rule: Requirement, readings: Sequence[Value], gate: Gate) -> RuleOutcome:
    """Floor or ceiling on the mean of values in [0, 1]."""
    values, units = [value for value, _ in readings], [unit for _, unit in readings]

    def exact() -> Interval:
        successes = sum(value == 1 for value in values)
        low, high = clopper_pearson(successes, len(values), confidence=gate.confidence)
        return Interval(
            estimate=successes / len(values), low=low, high=high, n=len(values), method="exact, Clopper-Pearson"
        )

    try:
        interval = mean_interval(
            values,
            units,
            confidence=gate.confidence,
            support=(0.0, 1.0),
            exact=exact if is_binary(values) else None,
        )
    except TooFewGroupsError as error:
        return _too_few(rule, error, len(values))
    return bounded(rule.name, _subject(rule), interval, gate, floor=rule.at_least, ceiling=rule.at_most)


def _require_every(rule: Requirement, readings: Sequence[Value], gate: Gate) -> RuleOutcome:
    """No interval can ever reach 1, so ``at_least: 1.0`` means that no failure was observed (0.0: no success)."""
    wanted = 1.0 if rule.at_least == 1.0 else 0.0
    values = [value for value, _ in readings]
    n, wrong = len(values), sum(value != wanted for value in values)
    low, high = clopper_pearson(n - wrong if wanted else wrong, n, confidence=gate.confidence)
    if wrong:
        reason = f"{_subject(rule)} must be {wanted:g} on every case, and is not on {wrong} of {n}."
    else:
        units = len({unit for _, unit in readings})
        _, unseen = clopper_pearson(0, units, confidence=gate.confidence, sides=1)
        groups = "" if units == n else f" in {wording.counted(units, 'group')}"
        reason = (
            f"{_subject(rule)} is {wanted:g} on {wording.all_of(n, 'case')}{groups}; by the rule of three (3/n) up to "
            f"{unseen:.1%} of such cases could still differ, at {100 * gate.confidence:g} % confidence."
        )
    interval = Interval(
        estimate=math.fsum(values) / n, low=low, high=high, n=n, method="no exception observed; exact, Clopper-Pearson"
    )
    return made(rule.name, Outcome.FAIL if wrong else Outcome.PASS, interval, reason)


def _require_small_mean(rule: Requirement, readings: Sequence[Value], gate: Gate) -> RuleOutcome:
    """Ceiling on a mean latency or cost."""
    values, units = [value for value, _ in readings], [unit for _, unit in readings]
    # Clocks never repeat themselves, and equal costs come of equal counts: a file of such is taken at its word.
    support = (values[0], values[0]) if max(values) == min(values) else (0.0, math.inf)
    try:
        interval = mean_interval(values, units, confidence=gate.confidence, support=support)
    except TooFewGroupsError as error:
        return _too_few(rule, error, len(values))
    unit = MILLISECONDS if is_latency(rule.metric) else DOLLARS
    return bounded(rule.name, _subject(rule), interval, gate, ceiling=rule.at_most, unit=unit)


def _require_quantile(rule: Requirement, latencies: Sequence[float], gate: Gate) -> RuleOutcome:
    interval = quantile(latencies, QUANTILES[Metric(rule.metric)], confidence=gate.confidence)
    return bounded(rule.name, _subject(rule), interval, gate, ceiling=rule.at_most, unit=MILLISECONDS)


def _subject(rule: Requirement) -> str:
    return f"{rule.metric} of cases tagged {rule.tag}" if rule.tag else str(rule.metric)


def _too_few(rule: Requirement, error: TooFewGroupsError, n: int) -> RuleOutcome:
    reason = (
        f"{_subject(rule)}: {wording.counted_are(error.n, error.noun)} too few for a bootstrap interval; "
        f"{BOOTSTRAP_MIN_N} are needed."
    )
    return undecided(rule.name, reason, n=n)
