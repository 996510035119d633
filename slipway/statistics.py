"""Exact intervals and tests for rates, quantiles and discordant pairs.

Knows numbers only: no arms, metrics or rules. What has no exact method is in ``bootstrap``, the difference of two
paired rates in ``paired_rates``.

Sources: Clopper and Pearson 1934 (Biometrika 26:404); McNemar 1947 (Psychometrika 12:153); Conover 1999, Practical
Nonparametric Statistics, section 3.2, for quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "MAX_DECISIVE_N",
    "Interval",
    "clopper_pearson",
    "mcnemar",
    "more_to_decide",
    "quantile",
    "smallest_decisive_n",
    "two_digits",
]

MAX_DECISIVE_N = 1_000_000
_LOOKS_AHEAD = 10  # of one percent each
Sides = Literal[1, 2]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its two-sided confidence bounds.

    Attributes:
        estimate: What was observed.
        low: Lower bound; ``-inf`` where so few values give none.
        high: Upper bound; ``inf`` where so few values give none.
        n: Values, or pairs, it rests on.
        method: How, for the record; for a bootstrap with draws and seed.
    """

    estimate: float
    low: float
    high: float
    n: int
    method: str


def clopper_pearson(successes: float, n: float, *, confidence: float, sides: Sides = 2) -> tuple[float, float]:
    """Bound a rate exactly: coverage is at least ``confidence`` whatever the true rate.

    With ``sides=1`` each bound alone holds at ``confidence`` (the rule of three, 3/n, is the upper one at zero
    successes and 0.95). Counts may be fractional, which interpolates between the exact bounds.

    Raises:
        ValueError: Not 0 <= successes <= n, or n is 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"a rate needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    from scipy.special import betaincinv  # noqa: PLC0415  # a quarter of a second that other commands need not pay

    tail = (1 - confidence) / sides
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def mcnemar(gains: int, losses: int, *, alternative: Literal["two-sided", "gain", "loss"] = "two-sided") -> float:
    """Test exactly whether gains and losses are equally likely; gives p.

    Args:
        gains: Pairs that the candidate passes and the reference fails.
        losses: Pairs that the candidate fails and the reference passes.
        alternative: ``gain`` asks whether gains are the likelier ones, ``loss`` whether losses are.

    With no discordant pair there is no evidence either way and p is 1.
    """
    n = gains + losses
    if n == 0:
        return 1.0
    if alternative == "gain":
        return _upper_half_tail(gains, n)
    if alternative == "loss":
        return _upper_half_tail(losses, n)
    return min(1.0, 2 * _upper_half_tail(max(gains, losses), n))


def quantile(values: Sequence[float], q: float, *, confidence: float) -> Interval:
    """Bound a quantile exactly by order statistics, assuming nothing of the distribution.

    The number of values below the true quantile is binomial(n, q); the bounds are the innermost order statistics whose
    tails are at most half the error each. Too few values give an infinite bound: the upper one of the 95th percentile
    at 0.95 needs 72. Values may be ``inf``. The estimate is the smallest value with at least a share q at or below it.

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("a quantile needs at least one value")
    from scipy.special import bdtr, bdtrc  # noqa: PLC0415  # as above

    ordered = sorted(values)
    n = len(ordered)
    tail = (1 - confidence) / 2
    # X(k) is above the quantile with probability at most P(B <= k-1), and below it with at most P(B >= k).
    below = [k for k in range(1, n + 1) if float(bdtr(k - 1, n, q)) <= tail]
    above = [k for k in range(1, n + 1) if float(bdtrc(k - 1, n, q)) <= tail]
    return Interval(
        estimate=ordered[max(0, math.ceil(q * n - 1e-9) - 1)],
        low=ordered[below[-1] - 1] if below else -math.inf,
        high=ordered[above[0] - 1] if above else math.inf,
        n=n,
        method="exact, binomial order statistics",
    )


def smallest_decisive_n(decides: Callable[[int], bool], *, start: int, most: int = MAX_DECISIVE_N) -> int | None:
    """Find the least n from ``start`` on at which ``decides`` holds, assuming that it then holds for every larger n.

    Gives None where not even ``most`` would do.
    """
    high = max(1, start)
    while not decides(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = max(1, start)
    while low < high:
        middle = (low + high) // 2
        if decides(middle):
            high = middle
        else:
            low = middle + 1
    return high


def more_to_decide(decides: Callable[[int], bool], *, n: int) -> int | None:
    """Find how many values beside ``n`` would decide, to two digits: with so many, and with up to a tenth more in all.

    Counts are whole, so that a decision may come and go from one number of values to the next. The least number is
    therefore only where the search begins. Gives None where not even a million would do.
    """

    def holds(total: int) -> bool:
        return all(decides(total + math.ceil(look * total / 100)) for look in range(_LOOKS_AHEAD + 1))

    least = smallest_decisive_n(decides, start=n + 1)
    while least is not None and least <= MAX_DECISIVE_N:
        more = two_digits(least - n)
        if holds(n + more):
            return more
        least = n + more + 1 + more // 10
    return None


def two_digits(count: int) -> int:
    """Round a count up to two significant digits."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return math.ceil(count / step) * step


def _upper_half_tail(k: int, n: int) -> float:
    """P(B >= k) of a binomial(n, 1/2)."""
    from scipy.special import bdtrc  # noqa: PLC0415  # as above

    return 1.0 if k == 0 else float(bdtrc(k - 1, n, 0.5))
