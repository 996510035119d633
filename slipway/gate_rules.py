"""What a rule of the gate says, and how an interval and a limit become it.

A rule passes when the whole interval is on the right side of its limit, fails when the whole interval is on the wrong
side, and is inconclusive between. Which interval, ``gate_requirements`` and ``gate_comparisons`` know; what cases
without an answer do to it, ``gate_completion``. docs/gate.md tells why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from slipway.gate_file import EarlyStop, Gate
from slipway.statistics import Interval
from slipway.wording import counted, fixed

__all__ = [
    "DecidedBy",
    "Outcome",
    "RuleOutcome",
    "bounded",
    "confidence_of",
    "is_binary",
    "made",
    "numbers_of",
    "undecided",
]

_ALMOST_SURE = math.nextafter(1.0, 0.0)
DOLLARS = " USD"
MILLISECONDS = " ms"


class Outcome(StrEnum):
    """What one rule says."""

    PASS = "pass"  # noqa: S105  # an outcome, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class DecidedBy(StrEnum):
    """What let a rule decide."""

    ANALYSIS = "analysis"
    """All cases that were to be asked."""
    CURTAILMENT = "curtailment"
    """Certainty: no answer of the cases not asked could change it."""
    SEQUENTIAL = "sequential"
    """A bound that holds at every number of cases."""


@dataclass(frozen=True, kw_only=True)
class RuleOutcome:
    """What one rule says, on which numbers.

    Attributes:
        rule: Its name, made from the gate file: ``pass_rate at_least 0.9``.
        outcome: Pass, fail or inconclusive.
        estimate: The observed value; None where nothing could be computed.
        low: Lower bound at the verdict's confidence; None where there is none.
        high: Upper bound; None where there is none.
        n: Cases, or pairs, it rests on.
        reason: One sentence or two for people.
        method: How the interval was computed.
        decided_by: What let it pass or fail where cases were not asked.
    """

    rule: str
    outcome: Outcome
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str
    method: str = ""
    decided_by: DecidedBy = DecidedBy.ANALYSIS


def confidence_of(gate: Gate, attempt: int = 1) -> float:
    """Give the two-sided confidence that the intervals of one attempt take.

    An interval errs on the promoting side at most half of 1 - confidence. Attempt k halves what attempt k - 1 had, so
    that the sum over any number of attempts stays below 1 - confidence. A sequential gate has two ways to promote, the
    bound on the way and the analysis at the end, and gives each half. However many attempts, it is less than 1.

    Raises:
        ValueError: An attempt below 1.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, got {attempt}")
    halvings = attempt - 1 + (gate.early_stop is EarlyStop.SEQUENTIAL)
    return gate.confidence if halvings == 0 else min(1 - (1 - gate.confidence) * 0.5**halvings, _ALMOST_SURE)


def undecided(rule: str, reason: str, *, n: int = 0) -> RuleOutcome:
    """Build the outcome of a rule that cannot be applied."""
    return RuleOutcome(rule=rule, outcome=Outcome.INCONCLUSIVE, n=n, reason=reason)


def bounded(
    rule: str,
    phrase: str,
    interval: Interval,
    gate: Gate,
    *,
    floor: float | None = None,
    ceiling: float | None = None,
    is_strict: bool = False,
    unit: str = "",
    noun: str = "case",
) -> RuleOutcome:
    """Compare an interval with a floor or a ceiling; at a strict floor itself a value fails.

    One of the values is called a ``noun``.
    """
    limit = floor if floor is not None else ceiling
    assert limit is not None  # noqa: S101  # every caller gives one
    if floor is not None:
        is_passed = interval.low > limit if is_strict else interval.low >= limit
        is_failed = interval.high <= limit if is_strict else interval.high < limit
        good, bad = ("above" if is_strict else "at least"), ("not above" if is_strict else "below")
    else:
        is_passed, is_failed = interval.high <= limit, interval.low > limit
        good, bad = "at most", "above"
    numbers = f"{phrase} {numbers_of(interval, limit, gate, unit, noun)}"
    shown = f"{limit:g}{unit}" if unit else _number(limit, limit, unit)
    if is_passed:
        return made(rule, Outcome.PASS, interval, f"{numbers} is {good} {shown}.")
    if is_failed:
        return made(rule, Outcome.FAIL, interval, f"{numbers} is {bad} {shown}.")
    return made(rule, Outcome.INCONCLUSIVE, interval, f"{numbers} may be above or below {shown}.")


def made(rule: str, outcome: Outcome, interval: Interval, reason: str, *, method: str = "") -> RuleOutcome:
    """Build an outcome from its interval; infinite bounds become None."""
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


def is_binary(values: Sequence[float]) -> bool:
    """Whether all values are 0 or 1."""
    return all(value in {0.0, 1.0} for value in values)


def numbers_of(interval: Interval, limit: float, gate: Gate, unit: str, noun: str) -> str:
    """Write estimate, interval and n, with as many digits as tell them from the limit."""
    estimate, low, high = (
        _number(value, limit, unit) if math.isfinite(value) else "unknown"
        for value in (interval.estimate, interval.low, interval.high)
    )
    ends = low if low == high == "unknown" else f"{low} to {high}"
    return f"{estimate}{unit} ({100 * gate.confidence:g} % interval {ends}, {counted(interval.n, noun)})"


def _number(value: float, limit: float, unit: str) -> str:
    if unit == DOLLARS:
        return f"{value:.3g}"
    digits = 1 if unit else 2
    # As many as tell it from the limit, and from 0.
    others = [other for other in (limit, 0.0) if not math.isclose(value, other)]
    while digits < 6 and any(round(value, digits) == round(other, digits) for other in others):
        digits += 1
    return fixed(value, digits)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
