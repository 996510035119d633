"""Bounds on a mean that hold at every number of values at once, so that one may look after each and stop.

An interval made for a planned number of values errs more often each time it is looked at on the way. These hold at all
looks together, whoever decides when to stop and why. Knows numbers only: no arms, rules or cases.

For every possible mean m a gambler bets on each value that the true mean is above m. Were m the true mean, the game
would be fair, and by Ville's inequality (1939) the capital would ever reach 1/e with probability at most e. So the
means at which it has are given up: confidence sequences by betting, Waudby-Smith and Ramdas 2024, "Estimating means of
bounded random variables by betting" (JRSS-B 86:1), the capital process of section 4 and its hedged form, theorem 3.

The gambler spreads the capital over all constant bets, which is Cover's universal portfolio (Cover and Ordentlich 1996,
IEEE Trans. Inf. Theory 42:348; for confidence sequences Orabona and Jun 2024, ibid. 70:436). It needs no tuning, and
the capital depends on which values were seen and not on their order. For paired outcomes 0 or 1 and the mean 0 it is
the sequential test of McNemar by a mixture of binomials: only discordant pairs move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from slipway.statistics import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["confidence_sequence", "settled_at"]

_BETS = 64
"""Bets in the mixture: the quadrature is exact for the capital after up to 126 values. Any number keeps the coverage;
more of them narrow the bounds of many thousand values a little."""
_TOLERANCE = 1e-9
"""Of a bound, as a share of the support; bounds are moved outwards by it."""
_CLEARLY = 1e-4
"""Logarithm of the capital beyond what is needed, so that the bounds too, which are rounded, leave the limit out."""


def confidence_sequence(values: Sequence[float], *, support: tuple[float, float], confidence: float) -> Interval:
    """Bound the mean of values from a bounded range, at every number of values at once.

    With probability at least ``confidence`` the true mean is within the bounds of all prefixes of the values: one may
    look as often as one likes, stop when one likes, and go on later. Each of the two bounds alone errs with at most
    half of 1 - confidence. The values need a common mean given those before them, as independent draws have; nothing
    else is assumed of their distribution. For paired comparisons give the differences, with the support (-1, 1).

    The bounds of a prefix are not narrowed by those of shorter ones (which would be valid too), so that they
    depend on the values and not on their order.

    Args:
        values: At least one, each within ``support``.
        support: Least and largest possible value.
        confidence: Two-sided, over all prefixes.

    Raises:
        ValueError: No values, NaN, a value outside the support, or a support that is empty or unbounded.
    """
    import numpy as np  # noqa: PLC0415  # a tenth of a second that other commands need not pay

    shares, counts = np.unique(_shares(values, support, confidence), return_counts=True)
    floor, ceiling = support
    width, log_capital = ceiling - floor, _enough(confidence)
    estimate = math.fsum(values) / len(values)
    return Interval(
        estimate=estimate,
        low=min(estimate, floor + width * _lower_share(shares, counts, log_capital)),
        high=max(estimate, ceiling - width * _lower_share(1.0 - shares, counts, log_capital)),
        n=len(values),
        method="valid at every look: confidence sequence by betting, universal portfolio",
    )


def settled_at(values: Sequence[float], *, limit: float, support: tuple[float, float], confidence: float) -> int | None:
    """Give the first number of values at which the bounds leave out ``limit``; None where they never do.

    As they hold at every number at once, what they told then stays valid when later values bring the limit back
    between the bounds, as answers can that were on their way when it was settled.

    Args:
        values: In the order in which they came, each within ``support``.
        limit: A possible mean, strictly within ``support``.
        support: Least and largest possible value.
        confidence: Two-sided, over all prefixes.

    Raises:
        ValueError: As ``confidence_sequence``.
    """
    import numpy as np  # noqa: PLC0415  # as above

    floor, ceiling = support
    shares, mean = _shares(values, support, confidence), (limit - floor) / (ceiling - floor)
    if not 0 < mean < 1:
        return None
    capitals = np.maximum(_log_capitals(shares, mean), _log_capitals(1.0 - shares, 1.0 - mean))
    reached = np.flatnonzero(capitals >= _enough(confidence) + _CLEARLY)
    return int(reached[0]) + 1 if len(reached) else None


def _shares(values: Sequence[float], support: tuple[float, float], confidence: float) -> NDArray[np.float64]:
    """Scale values from their support to [0, 1]."""
    import numpy as np  # noqa: PLC0415  # as above

    floor, ceiling = support
    if not (math.isfinite(floor) and math.isfinite(ceiling) and floor < ceiling):
        raise ValueError(f"the support must be a bounded range, got {floor} to {ceiling}")
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence must be between 0 and 1, got {confidence}")
    if not len(values):
        raise ValueError("a confidence sequence needs at least one value")
    given = np.asarray(values, dtype=float)
    if not (given.min() >= floor and given.max() <= ceiling):  # so that NaN is refused too
        raise ValueError(f"every value must be within {floor:g} and {ceiling:g}")
    return np.clip((given - floor) / (ceiling - floor), 0.0, 1.0)


def _enough(confidence: float) -> float:
    """Give the logarithm of the capital at which a mean is given up: half of the error for each side."""
    return math.log(2 / (1 - confidence))


def _log_capitals(shares: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Give the logarithm of the capital after each value of a gambler on means above ``mean``."""
    import numpy as np  # noqa: PLC0415  # as above

    bets, log_weights = _mixture()
    logs = log_weights + np.cumsum(np.log1p(bets * (shares[:, None] / mean - 1.0)), axis=0)
    return np.asarray(np.logaddexp.reduce(logs, axis=1))


def _lower_share(shares: NDArray[np.float64], counts: NDArray[np.int64], log_capital: float) -> float:
    """Find the mean below which the capital of a gambler on higher means is at least ``exp(log_capital)``.

    A bet of the share c of the capital against the mean m turns 1 into 1 - c + c x / m on the value x in [0, 1]: never
    negative, and 1 on average if m is the mean. That falls in m, so the given up means are all those below one.
    """
    import numpy as np  # noqa: PLC0415  # as above
    from scipy.optimize import brentq  # noqa: PLC0415  # as above

    mean = float(np.average(shares, weights=counts))
    if mean <= _TOLERANCE:
        return 0.0
    bets, log_weights = _mixture()

    def excess(log_mean: float) -> float:
        growth = np.log1p(bets * (shares[:, None] / math.exp(log_mean) - 1.0))
        logs = log_weights + counts @ growth
        most = float(logs.max())
        return most + math.log(float(np.exp(logs - most).sum())) - log_capital

    # At the mean of the values themselves no constant bet has won anything, by the concavity of the logarithm.
    top = math.log(mean)
    bottom = top - 1.0
    while excess(bottom) <= 0:
        top, bottom = bottom, bottom - 1.0
        if bottom < math.log(_TOLERANCE):
            return 0.0
    root = math.exp(brentq(excess, bottom, top, xtol=_TOLERANCE / 4))
    return max(0.0, root - _TOLERANCE)


@cache
def _mixture() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give bets in (0, 1) and the logarithms of their weights, by Gauss-Legendre quadrature.

    The density is 2c: bold bets weigh more than timid ones, which only pay when there are many values. Against the
    small margins and few discordant pairs that gates see, that decides with fewer cases than the uniform density or the
    arcsine one.
    """
    import numpy as np  # noqa: PLC0415  # as above

    nodes, weights = np.polynomial.legendre.leggauss(_BETS)
    bets = (nodes + 1) / 2
    masses = weights * bets
    return bets, np.log(masses / masses.sum())
