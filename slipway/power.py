"""What a suite can show under a gate, before a token is spent.

For every rule: whether even a perfect run could pass it, the smallest difference that it would show in four runs of
five, and what that means. Where a rule is exact so is its power here: the chance, by the binomial or trinomial
distribution, of an outcome that passes. Knows sizes only, no results. Scores are treated as outcomes 0 or 1, which
spread most.

Sources: delta = (z_(1-a) + z_(1-b)) sqrt(w2 / n) with a the error on one side, 1 - b the power and w2 the variance of a
difference (Miller 2024, arXiv:2411.00640, section 5; Card et al. 2020, EMNLP) for scores that are not 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slipway.bootstrap import BOOTSTRAP_MIN_N
from slipway.gate_file import (
    CostRule,
    Gate,
    LatencyRule,
    Metric,
    NonInferiority,
    Requirement,
    Superiority,
    is_cost,
    is_latency,
)
from slipway.gate_requirements import QUANTILES
from slipway.gate_rules import confidence_of
from slipway.paired_rates import EXACT_MAX_N, refutes, rejection_region
from slipway.statistics import clopper_pearson, smallest_decisive_n

__all__ = ["DISCORDANCE", "POWER", "DesignNote", "design_notes"]

POWER = 0.8
"""Customary: what is called detectable is found in four runs of five (Cohen 1988)."""
DISCORDANCE = 0.1
"""Share of cases that two adapters of equal worth answer differently; observed shares are between 5 and 20 %."""

_RATIO_QUANTILES = {"p50": 0.5, "p95": 0.95}
_HALVINGS = 30


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

    @property
    def is_comparison(self) -> bool:
        """Whether it is about a paired comparison of scores, whose power is known beforehand."""
        return self.power is not None


def design_notes(
    suite_size_by_tag: Mapping[str | None, int], gate: Gate, *, has_champion: bool, attempt: int = 1
) -> tuple[DesignNote, ...]:
    """Say for every rule what a suite of this size can show.

    Args:
        suite_size_by_tag: Cases by tag; those of the whole suite under None. A tag that is not there has none.
        gate: The rules.
        has_champion: Whether rules about the champion will be applied.
        attempt: Which attempt of the candidate on this suite it will be, from 1.

    Raises:
        ValueError: An attempt below 1.
    """
    confidence = confidence_of(gate, attempt)
    gate = gate.model_copy(update={"confidence": confidence})
    n = suite_size_by_tag.get(None, 0)
    notes = [_of_requirement(rule, suite_size_by_tag.get(rule.tag, 0), gate) for rule in gate.require]
    against = gate.against
    comparisons = (against.champion if has_champion else None, against.base)
    notes += [_of_comparison(rule, n, gate) for rule in comparisons if rule is not None]
    ratios = [rule for rule in (against.latency, against.cost) if rule is not None]
    notes += [_of_ratio(rule, n, gate) for rule in ratios if has_champion or rule.of == "base"]
    if n < gate.min_cases:
        sentence = f"The suite has {_cases(n)} and the gate asks for at least {gate.min_cases}: inconclusive by design."
        few = DesignNote(rule=f"min_cases {gate.min_cases}", n=n, detectable=None, is_blind=True, sentence=sentence)
        notes.insert(0, few)
    return tuple(notes)


def _of_requirement(rule: Requirement, n: int, gate: Gate) -> DesignNote:
    if n == 0:
        of_tag = f" carries the tag {rule.tag!r}" if rule.tag else " is in the suite"
        return _blind(rule.name, n, f"{rule.name}: no case{of_tag}, so the rule cannot pass.")
    if rule.metric in QUANTILES:
        return _of_quantile(rule, n, gate.confidence)
    if is_latency(rule.metric) or is_cost(rule.metric):
        return _of_spread(rule.name, n)
    if rule.at_least == 1.0 or rule.at_most == 0.0:
        seen = 1 - (1 - POWER) ** (1 / n)
        sentence = (
            f"{rule.name}: with {_cases(n)} a failure that strikes {seen:.1%} of such cases would be seen in four runs "
            "of five, a rarer one less often."
        )
        return DesignNote(rule=rule.name, n=n, detectable=seen, sentence=sentence)
    return _of_rate(rule, n, gate.confidence)


def _of_rate(rule: Requirement, n: int, confidence: float) -> DesignNote:
    """A floor on a rate; a ceiling is a floor on what fails. Graded scores spread less, so this is on the safe side."""
    from scipy.special import bdtrc  # noqa: PLC0415  # a quarter of a second that other commands need not pay

    floor = rule.bound if rule.at_least is not None else 1 - rule.bound
    enough = next((k for k in range(n + 1) if clopper_pearson(k, n, confidence=confidence)[0] >= floor), None)
    if enough is None:
        needed = math.ceil(math.log((1 - confidence) / 2) / math.log(floor))
        sentence = (
            f"{rule.name}: blind with {_cases(n)}. Even a perfect run would be inconclusive; it takes {needed} cases."
        )
        return _blind(rule.name, n, sentence)

    def passes(rate: float) -> float:
        return 1.0 if enough == 0 else float(bdtrc(enough - 1, n, rate))

    at = _least(lambda rate: passes(rate) >= POWER, floor, 1.0)
    shown = at if rule.at_least is not None else 1 - at
    side = "at least" if rule.at_least is not None else "at most"
    sentence = f"{rule.name}: with {_cases(n)} it passes in four runs of five where the truth is {side} {shown:.3f}."
    return DesignNote(rule=rule.name, n=n, detectable=at - floor, sentence=sentence)


def _of_quantile(rule: Requirement, n: int, confidence: float) -> DesignNote:
    from scipy.special import bdtr, bdtrc  # noqa: PLC0415  # as above

    q = QUANTILES[Metric(rule.metric)]
    tail = (1 - confidence) / 2
    # The rule passes when the k-th smallest latency is within the ceiling, k the upper bound's order statistic.
    place = next((k for k in range(1, n + 1) if float(bdtrc(k - 1, n, q)) <= tail), None)
    if place is None:
        needed = math.ceil(math.log(tail) / math.log(q))
        sentence = f"{rule.name}: blind with {_cases(n)}. The percentile has an upper bound from {needed} cases on."
        return _blind(rule.name, n, sentence)
    slow_allowed = n - place
    at = _least(lambda slow: float(bdtr(slow_allowed, n, slow)) < POWER, 0.0, 1 - q)
    sentence = (
        f"{rule.name}: with {_cases(n)} it passes in four runs of five where at most {at:.1%} of answers are slower."
    )
    return DesignNote(rule=rule.name, n=n, detectable=(1 - q) - at, sentence=sentence)


def _of_comparison(rule: NonInferiority | Superiority, n: int, gate: Gate) -> DesignNote:
    margin = rule.margin if isinstance(rule, NonInferiority) else None
    if n == 0 or not _can_pass(rule, n, gate.confidence):
        sentence = f"{rule.name}: blind with {_cases(n)}. Even a perfect run would be inconclusive."
        if rule.limit < 0:
            needed = _concordant_n(rule.limit, gate.confidence)
            sentence = (
                f"{rule.name}: blind with {_cases(n)}. Even a run without any difference would be inconclusive; it "
                f"takes {needed} cases to see the margin."
            )
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
    weak = "" if power >= POWER else f" The smallest margin that {_cases(n)} show well is {detectable:.3f}."
    sentence = (
        f"{rule.name}: with {_cases(n)} a candidate as good as the champion, that answers a tenth of them differently, "
        f"passes with {power:.0%} probability.{weak}"
    )
    return DesignNote(rule=rule.name, n=n, detectable=detectable, margin=margin, power=power, sentence=sentence)


def _of_ratio(rule: LatencyRule | CostRule, n: int, gate: Gate) -> DesignNote:
    needed = BOOTSTRAP_MIN_N
    if isinstance(rule, LatencyRule):
        q = _RATIO_QUANTILES[rule.quantile]
        needed = max(needed, math.ceil(math.log((1 - gate.confidence) / 2) / math.log(q)))
    if n < needed:
        return _blind(rule.name, n, f"{rule.name}: blind with {_cases(n)}; it takes {needed}.")
    return _of_spread(rule.name, n)


def _of_spread(name: str, n: int) -> DesignNote:
    if n < BOOTSTRAP_MIN_N:
        return _blind(name, n, f"{name}: blind with {_cases(n)}; a bootstrap takes {BOOTSTRAP_MIN_N}.")
    sentence = f"{name}: what {_cases(n)} can show depends on how much the values spread, which is not known yet."
    return DesignNote(rule=name, n=n, detectable=None, sentence=sentence)


def _can_pass(rule: NonInferiority | Superiority, n: int, confidence: float) -> bool:
    """Whether the best run passes: no difference at all under a margin, else every case gained."""
    return refutes(0 if rule.limit < 0 else n, 0, n, rule.limit, (1 - confidence) / 2)


def _concordant_n(limit: float, confidence: float) -> int | None:
    """From about how many equal pairs on the difference is shown to be above ``limit``."""
    return smallest_decisive_n(lambda n: refutes(0, 0, n, limit, (1 - confidence) / 2), start=1)


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


def _cases(n: int) -> str:
    return "1 case" if n == 1 else f"{n} cases"
