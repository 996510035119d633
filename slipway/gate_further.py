"""How many more cases like the ones there are would settle a rule that is open.

Each number but those of ``further_by_width`` is one at which the rule itself would decide, if what was seen goes on in
the same shares; no formula for another interval stands in for it. Counts are rounded against the decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from slipway.gate_rules import Outcome, RuleOutcome
from slipway.paired_rates import refutes
from slipway.statistics import clopper_pearson, more_to_decide, two_digits
from slipway.wording import counted

__all__ = ["further_by_width", "further_cases", "further_pairs", "further_sentence", "further_values"]

_TIE = 1e-9
_MOST_VALUES = 100_000  # that are made up to ask a bootstrap about
_TRIES, _GROWTH = 5, 1.15

ValueT = TypeVar("ValueT", bound=tuple[object, ...])


def further_cases(successes: int, n: int, *, limit: float, confidence: float) -> int | None:
    """Tell how many more cases with the same rate would leave ``limit`` out of the exact interval; None if none would.

    Args:
        successes: Of the ``n`` cases so far.
        n: At least 1.
        limit: Floor or ceiling of the rate.
        confidence: Of the interval, two-sided.
    """
    apart = successes - limit * n
    if abs(apart) < _TIE:
        return None

    def decides(cases: int) -> bool:
        low, high = clopper_pearson(_share(successes, n, cases, up=apart < 0), cases, confidence=confidence)
        return low >= limit if apart > 0 else high < limit

    return more_to_decide(decides, n=n)


def further_pairs(gains: int, losses: int, n: int, *, limit: float, confidence: float) -> int | None:
    """Tell how many more pairs with the same shares the test would decide on, McNemar's at 0; None if it never would.

    Args:
        gains: Pairs that only the candidate passes.
        losses: Pairs that only the other passes.
        n: All pairs so far.
        limit: Of the difference.
        confidence: Of the gate's intervals, two-sided.
    """
    apart, tail = gains - losses - limit * n, (1 - confidence) / 2
    if abs(apart) < _TIE:
        return None

    def decides(pairs: int) -> bool:
        gained, lost = (_share(count, n, pairs, up=up) for count, up in ((gains, apart < 0), (losses, apart > 0)))
        return refutes(gained, lost, pairs, limit, tail) if apart > 0 else refutes(lost, gained, pairs, -limit, tail)

    return more_to_decide(decides, n=n)


def further_values(
    values: Sequence[ValueT], outcome: RuleOutcome, *, limit: float, judge: Callable[[Sequence[ValueT]], RuleOutcome]
) -> int | None:
    """Tell how many more values like these a bootstrap would decide on: guessed by its width, and then asked.

    An interval's width shrinks with the root of the number of values. The rule is asked about that many, copies of
    these evenly drawn, and about more where it does not decide yet. Groups are copied whole.

    Args:
        values: Each with its unit, case or group, in the last place.
        outcome: What the rule says of them.
        limit: The rule's.
        judge: The rule.
    """
    n, total = len(values), _by_width(outcome, limit)
    if total is None:
        return None
    is_clustered = len({value[-1] for value in values}) < n
    for _ in range(_TRIES):
        more = math.ceil(total / n) * n - n if is_clustered else two_digits(math.ceil(total) - n)
        if n + more > _MOST_VALUES:
            return None
        if more > 0 and judge(_like(values, n + more)).outcome is not Outcome.INCONCLUSIVE:
            return more
        total = n + max(_GROWTH * more, 1)
    return None


def further_by_width(outcome: RuleOutcome, *, limit: float, noun: str) -> str:
    """Say it for an interval that copies of the values tell nothing of, as of a quantile: its width alone is known."""
    total = _by_width(outcome, limit)
    if total is None:
        return further_sentence(None, noun)
    more = two_digits(max(1, math.ceil(total) - outcome.n))
    return f"Going by the width of this interval it takes roughly {_more(more, noun)} like these to settle it."


def further_sentence(more: int | None, noun: str) -> str:
    """Say it; ``noun`` is what is counted, in the plural."""
    if more is None:
        return f"More {noun} like these would hardly settle it: the estimate is too near the limit."
    return f"About {_more(more, noun)} like these would settle it."


def _more(more: int, noun: str) -> str:
    return counted(more, f"more {noun.removesuffix('s')}")


def _by_width(outcome: RuleOutcome, limit: float) -> float | None:
    """So many values let the interval, whose width shrinks with their root, just reach the limit; None if none do."""
    estimate = outcome.estimate
    bound = None if estimate is None else outcome.low if estimate > limit else outcome.high
    if estimate is None or bound is None or abs(estimate - limit) < _TIE:
        return None
    return outcome.n * ((bound - estimate) / (limit - estimate)) ** 2


def _share(count: int, n: int, cases: int, *, up: bool) -> int:
    """So many of ``cases`` as ``count`` are of ``n``, rounded up or down."""
    return -(-count * cases // n) if up else count * cases // n


def _like(values: Sequence[ValueT], size: int) -> list[ValueT]:
    """Make up ``size`` values of the same distribution; copies are units of their own."""
    whole, rest = divmod(size, len(values))
    ordered = sorted(values, key=lambda value: value[:-1]) if rest else values
    drawn = [*values] * whole + [ordered[(2 * place + 1) * len(values) // (2 * rest)] for place in range(rest)]
    return [(*value[:-1], (place // len(values), value[-1])) for place, value in enumerate(drawn)]  # type: ignore[misc]
