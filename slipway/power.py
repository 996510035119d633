"""What a suite can show under a gate, before a token is spent.

For every rule: whether even a perfect run could pass it, the smallest difference that it would show in four runs of
five, and what that means. Where a rule is exact so is its power here: the chance, by the binomial or trinomial
distribution, of an outcome that passes. Knows sizes only, no results. Scores are treated as outcomes 0 or 1, which
spread most. Where cases come in groups, how alike those of one group are is not known, so that only what a perfect run
would show can be told.

Sources: delta = (z_(1-a) + z_(1-b)) sqrt(w2 / n) with a the error on one side, 1 - b the power and w2 the variance of a
difference (Miller 2024, arXiv:2411.00640, section 5; Card et al. 2020, EMNLP) for scores that are not 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from slipway.bootstrap import BOOTSTRAP_MIN_N
from slipway.gate_file import (
    NAMED,
    CostRule,
    FirstRelease,
    Gate,
    LatencyRule,
    Measure,
    Metric,
    NonInferiority,
    Requirement,
    Superiority,
    is_cost,
    is_latency,
)
from slipway.gate_requirements import QUANTILES, mean_interval
from slipway.gate_rules import confidence_of
from slipway.paired_rates import EXACT_MAX_N, refutes, rejection_region
from slipway.statistics import MAX_DECISIVE_N, Interval, clopper_pearson, smallest_decisive_n
from slipway.suite_shape import Extent, SuiteShape

__all__ = ["DISCORDANCE", "POWER", "DesignNote", "design_notes"]

POWER = 0.8
"""Customary: what is called detectable is found in four runs of five (Cohen 1988)."""
DISCORDANCE = 0.1
"""Share of cases that two adapters of equal worth answer differently; observed shares are between 5 and 20 %."""

_RATIO_QUANTILES = {"p50": 0.5, "p95": 0.95}
_HALVINGS = 30
_MOST_GROUPS = 10_000
_FORMULA_ABOVE_N = 1_000  # above it formula and exact test agree in the margin's third digit


@dataclass(frozen=True, kw_only=True)
class DesignNote:
    """What the suite can show of one rule.

    Attributes:
        rule: Its name, as in the verdict.
        n: Cases that it is about.
        detectable: How far beyond the limit the truth must lie for the rule to pass with a power of 80 %, in the
            metric's unit; None where that depends on a spread that is unknown, or nothing would do.
        margin: The rule's own margin, where it has one.
        power: The chance to pass of a candidate that is as good as the champion and answers every tenth case
            differently; None for rules without a margin.
        is_blind: Whether not even a perfect run could pass: inconclusive by design.
        sentence: What this means, for people.
    """

    rule: str
    n: int
    detectable: float | None
    margin: float | None = None
    power: float | None = None
    is_blind: bool = False
    sentence: str


def design_notes(shape: SuiteShape, gate: Gate, *, has_champion: bool, attempt: int = 1) -> tuple[DesignNote, ...]:
    """Say for every rule what a suite of this size can show, and first what keeps the whole gate from promoting.

    Args:
        shape: Of the suite.
        gate: The rules.
        has_champion: Whether rules about the champion will be applied.
        attempt: Which attempt of the candidate on this suite it will be, from 1.

    Raises:
        ValueError: An attempt below 1.
    """
    confidence = confidence_of(gate, attempt)
    gate = gate.model_copy(update={"confidence": confidence})
    notes = _of_the_whole(shape, gate, has_champion=has_champion)
    notes += [_of_requirement(rule, _extent(shape, rule.metric, rule.tag), gate) for rule in gate.require]
    against = gate.against
    comparisons = (against.champion if has_champion else None, against.base)
    notes += [_of_comparison(rule, _extent(shape, rule.metric), gate) for rule in comparisons if rule is not None]
    ratios = [rule for rule in (against.latency, against.cost) if rule is not None]
    notes += [_of_ratio(rule, shape.extent(), gate) for rule in ratios if has_champion or rule.of == "base"]
    return tuple(notes)


def _of_the_whole(shape: SuiteShape, gate: Gate, *, has_champion: bool) -> list[DesignNote]:
    n, notes = len(shape.cases), []
    if not has_champion and gate.first_release is FirstRelease.REFUSE:
        sentence = "There is no champion yet, and the gate says first_release: refuse: held by design."
        notes.append(_blind("first_release refuse", n, sentence))
    if n < gate.min_cases:
        sentence = f"The suite has {_cases(n)} and the gate asks for at least {gate.min_cases}: inconclusive by design."
        notes.append(_blind(f"min_cases {gate.min_cases}", n, sentence))
    if shape.coverage < gate.min_coverage:
        sentence = (
            f"Only {shape.coverage:.1%} of the suite's checks can be applied, and the gate asks for "
            f"{gate.min_coverage:.1%}: inconclusive by design."
        )
        notes.append(_blind(f"min_coverage {gate.min_coverage:g}", n, sentence))
    if not gate.is_about_quality:
        return notes
    if n and shape.unchecked == n:
        notes.append(_blind("checks", n, "No case of the suite has a check: inconclusive by design."))
    elif shape.unchecked:
        sentence = f"{shape.unchecked} of {_cases(n)} have no check: they pass whatever is answered."
        notes.append(DesignNote(rule="checks", n=n, detectable=None, sentence=sentence))
    return notes


def _extent(shape: SuiteShape, metric: Measure, tag: str | None = None) -> Extent:
    return shape.extent(tag=tag, metric=metric.removeprefix(NAMED) if metric.startswith(NAMED) else "")


def _of_requirement(rule: Requirement, extent: Extent, gate: Gate) -> DesignNote:
    n = extent.cases
    if n == 0:
        return _blind(rule.name, n, f"{rule.name}: {_nothing(rule.metric, rule.tag)}, so the rule cannot pass.")
    if rule.metric in QUANTILES:
        return _of_quantile(rule, n, gate)
    if is_latency(rule.metric) or is_cost(rule.metric):
        return _of_spread(rule.name, extent)
    if rule.at_least == 1.0 or rule.at_most == 0.0:
        seen = 1 - (1 - POWER) ** (1 / n)
        sentence = (
            f"{rule.name}: with {_cases(n)} a failure that strikes {seen:.1%} of such cases would be seen in four runs "
            "of five, a rarer one less often."
        )
        return DesignNote(rule=rule.name, n=n, detectable=seen, sentence=sentence)
    if extent.units < n:
        limit = rule.bound if rule.at_least is not None else 1 - rule.bound
        return _of_groups(rule.name, extent, lambda interval: interval.low >= limit, gate, perfect=1.0)
    return _of_rate(rule, n, gate)


def _of_rate(rule: Requirement, n: int, gate: Gate) -> DesignNote:
    """A floor on a rate; a ceiling is a floor on what fails. Graded scores spread less, so this is on the safe side."""
    from scipy.special import bdtrc  # noqa: PLC0415  # a quarter of a second that other commands need not pay

    confidence = gate.confidence
    floor = rule.bound if rule.at_least is not None else 1 - rule.bound
    enough = next((k for k in range(n + 1) if clopper_pearson(k, n, confidence=confidence)[0] >= floor), None)
    if enough is None:
        needed = math.ceil(math.log((1 - confidence) / 2) / math.log(floor))
        takes = _takes(needed, gate, tag=rule.tag)
        sentence = f"{rule.name}: blind with {_cases(n)}. Even a perfect run would be inconclusive; {takes}."
        return _blind(rule.name, n, sentence)

    def passes(rate: float) -> float:
        return 1.0 if enough == 0 else float(bdtrc(enough - 1, n, rate))

    at = _least(lambda rate: passes(rate) >= POWER, floor, 1.0)
    shown = at if rule.at_least is not None else 1 - at
    side = "at least" if rule.at_least is not None else "at most"
    sentence = f"{rule.name}: with {_cases(n)} it passes in four runs of five where the truth is {side} {shown:.3f}."
    return DesignNote(rule=rule.name, n=n, detectable=at - floor, sentence=sentence)


def _of_quantile(rule: Requirement, n: int, gate: Gate) -> DesignNote:
    from scipy.special import bdtr, bdtrc  # noqa: PLC0415  # as above

    q = QUANTILES[Metric(rule.metric)]
    tail = (1 - gate.confidence) / 2
    # The rule passes when the k-th smallest latency is within the ceiling, k the upper bound's order statistic.
    place = next((k for k in range(1, n + 1) if float(bdtrc(k - 1, n, q)) <= tail), None)
    if place is None:
        needed = math.ceil(math.log(tail) / math.log(q))
        takes = _takes(needed, gate, tag=rule.tag)
        sentence = f"{rule.name}: blind with {_cases(n)}. The percentile would have no upper bound; {takes}."
        return _blind(rule.name, n, sentence)
    slow_allowed = n - place
    at = _least(lambda slow: float(bdtr(slow_allowed, n, slow)) < POWER, 0.0, 1 - q)
    sentence = (
        f"{rule.name}: with {_cases(n)} it passes in four runs of five where at most {at:.1%} of answers are slower."
    )
    return DesignNote(rule=rule.name, n=n, detectable=(1 - q) - at, sentence=sentence)


def _of_comparison(rule: NonInferiority | Superiority, extent: Extent, gate: Gate) -> DesignNote:
    n, margin = extent.cases, rule.margin if isinstance(rule, NonInferiority) else None
    perfect = 0.0 if rule.limit < 0 else 1.0
    if n == 0:
        return _blind(rule.name, n, f"{rule.name}: {_nothing(rule.metric)}, so the rule cannot pass.", margin=margin)
    if extent.units < n:
        is_strict = isinstance(rule, Superiority)

        def passes_grouped(interval: Interval) -> bool:
            return interval.low > rule.limit if is_strict else interval.low >= rule.limit

        return replace(_of_groups(rule.name, extent, passes_grouped, gate, perfect=perfect, low=-1.0), margin=margin)
    if n < gate.min_cases or not _can_pass(rule, n, gate.confidence):
        run = "a perfect run" if perfect else "a run without any difference"
        takes = _takes(_least_n(rule, gate.confidence), gate)
        sentence = f"{rule.name}: blind with {_cases(n)}. Even {run} would be inconclusive; {takes}."
        return _blind(rule.name, n, sentence, margin=margin)
    passes = _chance_to_pass(n, rule.limit, gate.confidence)
    at = _least(lambda difference: passes(difference) >= POWER, rule.limit, 1.0)
    detectable = at - rule.limit
    if rule.limit >= 0:
        sentence = (
            f"{rule.name}: with {_cases(n)}, a tenth of them answered differently, it passes in four runs of five "
            f"where the candidate is better by {at:.3f}."
        )
        return DesignNote(rule=rule.name, n=n, detectable=detectable, margin=margin, sentence=sentence)
    power = passes(0.0)
    smallest = _smallest_margin(n, gate.confidence)
    sentence = (
        f"{rule.name}: with {_cases(n)} a candidate as good as the champion, that answers a tenth of them differently, "
        f"passes with {power:.0%} probability. The smallest margin that {_cases(n)} show well is {smallest:.3f}."
    )
    return DesignNote(rule=rule.name, n=n, detectable=detectable, margin=margin, power=power, sentence=sentence)


def _of_ratio(rule: LatencyRule | CostRule, extent: Extent, gate: Gate) -> DesignNote:
    n, needed = extent.cases, BOOTSTRAP_MIN_N
    if isinstance(rule, LatencyRule):  # which does not ask about groups
        q = _RATIO_QUANTILES[rule.quantile]
        needed = max(needed, math.ceil(math.log((1 - gate.confidence) / 2) / math.log(q)))
        extent = Extent(n, n)
    if n < max(needed, gate.min_cases):
        return _blind(rule.name, n, f"{rule.name}: blind with {_cases(n)}; {_takes(needed, gate)}.")
    return _of_spread(rule.name, extent)


def _of_spread(name: str, extent: Extent) -> DesignNote:
    n, units = extent
    if units < BOOTSTRAP_MIN_N:
        what = _cases(n) if units == n else _groups(extent)
        return _blind(name, n, f"{name}: blind with {what}; a bootstrap takes {BOOTSTRAP_MIN_N}.")
    sentence = f"{name}: what {_cases(n)} can show depends on how much the values spread, which is not known yet."
    return DesignNote(rule=name, n=n, detectable=None, sentence=sentence)


def _of_groups(
    name: str,
    extent: Extent,
    passes: Callable[[Interval], bool],
    gate: Gate,
    *,
    perfect: float,
    low: float = 0.0,
) -> DesignNote:
    """Tell whether the cluster bootstrap, and the exact interval for as many groups, let a perfect run pass."""

    def decides(groups: int) -> bool:
        if groups < BOOTSTRAP_MIN_N:
            return False
        values, units = [perfect] * (2 * groups), [*range(groups), *range(groups)]
        return passes(mean_interval(values, units, confidence=gate.confidence, support=(low, 1.0), exact=_never))

    n = extent.cases
    if n < gate.min_cases or not decides(extent.units):
        needed = smallest_decisive_n(decides, start=1, most=_MOST_GROUPS)
        takes = f"it takes {needed} groups" if needed else f"not even {_MOST_GROUPS} groups would do"
        sentence = f"{name}: blind with {_groups(extent)}. Even a perfect run would be inconclusive; {takes}."
        return _blind(name, n, sentence)
    what = f"what {_groups(extent)} can show depends on how alike the cases of one group are"
    sentence = f"{name}: {what}, which is not known yet."
    return DesignNote(rule=name, n=n, detectable=None, sentence=sentence)


def _never() -> Interval:
    raise AssertionError("groups are never judged as if each case stood alone")


def _can_pass(rule: NonInferiority | Superiority, n: int, confidence: float) -> bool:
    """Whether the best run passes: no difference at all under a margin, else every case gained."""
    return refutes(0 if rule.limit < 0 else n, 0, n, rule.limit, (1 - confidence) / 2)


def _least_n(rule: NonInferiority | Superiority, confidence: float) -> int | None:
    """From about how many pairs on the best run passes; None if not even from a million."""
    return smallest_decisive_n(lambda n: _can_pass(rule, n, confidence), start=1)


def _takes(needed: int | None, gate: Gate, *, tag: str | None = None) -> str:
    """Say how many cases a rule needs; never fewer than the gate wants of the whole suite."""
    if needed is None:
        return f"not even {MAX_DECISIVE_N} cases would do"
    return f"it takes {needed} cases with the tag" if tag else f"it takes {max(needed, gate.min_cases)} cases"


def _nothing(metric: Measure, tag: str | None = None) -> str:
    of_tag = f" with the tag {tag!r}" if tag else ""
    if metric.startswith(NAMED):
        return f"no case{of_tag} has the metric {metric.removeprefix(NAMED)!r}"
    return f"no case carries the tag {tag!r}" if tag else "the suite has no case"


def _chance_to_pass(n: int, limit: float, confidence: float) -> Callable[[float], float]:
    """Give the power at a true difference, where a tenth of the cases, or as many as it takes, is discordant."""
    tail = (1 - confidence) / 2
    if n > EXACT_MAX_N:
        return lambda difference: _normal_power(difference - limit, _variance(difference), n, tail)
    region = rejection_region(n, limit, tail)

    def chance(difference: float) -> float:
        discordant = max(DISCORDANCE, abs(difference))
        return region.probability((discordant + difference) / 2, (discordant - difference) / 2)

    return chance


def _smallest_margin(n: int, confidence: float) -> float:
    """Find, to 0.001, from which margin on a candidate as good as the champion passes in four runs of five."""
    from scipy.special import ndtri  # noqa: PLC0415  # as above

    tail = (1 - confidence) / 2
    by_formula = float(ndtri(1 - tail) + ndtri(POWER)) * math.sqrt(DISCORDANCE / n)
    if n > _FORMULA_ABOVE_N:
        return by_formula

    def is_shown(thousandths: int) -> bool:
        region = rejection_region(n, -thousandths / 1000, tail)
        return region.probability(DISCORDANCE / 2, DISCORDANCE / 2) >= POWER

    start = max(1, math.floor(900 * by_formula))  # the exact test asks for more, never for so much less
    return (smallest_decisive_n(is_shown, start=start, most=999) or 1000) / 1000


def _variance(difference: float) -> float:
    return max(DISCORDANCE, abs(difference)) - difference**2


def _normal_power(gap: float, variance: float, n: int, tail: float) -> float:
    from scipy.special import ndtr, ndtri  # noqa: PLC0415  # as above

    return float(ndtr(gap / math.sqrt(variance / n) + ndtri(tail))) if variance > 0 else float(gap > 0)


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Find where ``holds`` begins to, between ``low`` and ``high``, assuming that it then goes on to."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _blind(rule: str, n: int, sentence: str, *, margin: float | None = None) -> DesignNote:
    return DesignNote(rule=rule, n=n, detectable=None, margin=margin, is_blind=True, sentence=sentence)


def _groups(extent: Extent) -> str:
    groups = "1 group" if extent.units == 1 else f"{extent.units} groups"
    return f"{_cases(extent.cases)} in {groups}"


def _cases(n: int) -> str:
    return "1 case" if n == 1 else f"{n} cases"
