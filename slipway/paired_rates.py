"""The difference of two paired rates: an exact test, and the interval that comes of inverting it.

With ``gains`` cases that only the candidate passes and ``losses`` that only the reference passes, out of ``n`` pairs,
the difference is P(gain) - P(loss). Tango's score statistic orders the outcomes; the probability of an outcome at least
as extreme is computed from the trinomial distribution itself and maximised over what is unknown besides the difference,
so that the error holds whatever the share of discordant pairs. Knows numbers only.

Why the largest probability lies on the boundary, and why the test is monotone: the statistic grows with gains and falls
with losses, so every rejection region is closed under turning a loss into a tie, or a tie into a gain; moving
probability the same way therefore only makes it likelier (Barnard's convexity; Sidik 2003).

Sources: Tango 1998 (Statistics in Medicine 17:891) for the statistic; Sidik 2003 (Statistics in Medicine 22:265) and
Lloyd and Moldovan 2007 (Statistics in Medicine 26:3369) for the exact unconditional test and its bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from slipway.statistics import Interval, mcnemar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "EXACT_MAX_N",
    "RejectionRegion",
    "exact_p",
    "paired_difference",
    "refutes",
    "rejection_region",
]

EXACT_MAX_N = 10_000
"""Up to so many pairs the test is exact, above it the score interval stands: there the two agree in the third digit of
their error, and the exact one takes seconds."""

_RESOLUTION = 1e-4  # of a bound; a fiftieth of the margins that people write
_FINE_STEP, _COARSE_RATIO, _FINE_UP_TO, _SPIKES_UP_TO = 0.2, 1.15, 100.0, 9.0
_REFINED, _REFINEMENT = 3, 9
_BAND = 8.0  # standard deviations of the losses that are summed; what lies beyond is below 1e-14
_MISSED = 1e-3  # share of the largest probability that may lie between grid points; measured to be below 6e-4
_TIE = 1e-9


def paired_difference(gains: int, losses: int, n: int, *, confidence: float, limit: float | None = None) -> Interval:
    """Bound the difference of two paired rates, candidate minus reference.

    Each bound is the edge of the differences that the one-sided exact test at (1 - confidence) / 2 does not refute, to
    0.0001 and rounded outwards. A gain in the place of a tie or a loss never lowers a bound.

    Args:
        gains: Pairs that only the candidate passes.
        losses: Pairs that only the reference passes.
        n: All pairs.
        confidence: Two-sided.
        limit: A difference that the bounds will be compared with. They are then on the side of it that the test at
            exactly this difference tells, and never on it: ``low > limit`` if and only if "at most ``limit``" is
            refuted, and ``high < limit`` if and only if "at least ``limit``" is. At 0 that test is McNemar's.

    Raises:
        ValueError: Counts that are negative or exceed n, or n is 0.
    """
    _check(gains, losses, n)
    tail = (1 - confidence) / 2
    low = _lower(gains, losses, n, tail)
    high = -_lower(losses, gains, n, tail)
    if limit is not None:
        is_above, is_below = refutes(gains, losses, n, limit, tail), refutes(losses, gains, n, -limit, tail)
        just_above = math.nextafter(limit, math.inf)
        low = max(low, just_above) if is_above else min(low, max(-1.0, limit - _RESOLUTION))
        high = min(high, limit - _RESOLUTION) if is_below else max(high, just_above)
    is_exact = n <= EXACT_MAX_N
    method = "exact unconditional test of Tango's score statistic, inverted" if is_exact else "Tango's score interval"
    return Interval(estimate=(gains - losses) / n, low=low, high=high, n=n, method=method)


def exact_p(gains: int, losses: int, n: int, *, limit: float) -> float:
    """Give the p of "the difference is at most ``limit``" against "it is more": exact, unconditional, one-sided.

    Raises:
        ValueError: As ``paired_difference``, or a limit outside (-1, 1).
    """
    _check(gains, losses, n)
    if not -1 < limit < 1:
        raise ValueError(f"a difference of rates that can be tested is between -1 and 1, got {limit}")
    return _largest_probability(_least_gains(_statistic_at(gains, losses, n, limit), n, limit), n, limit)


@dataclass(frozen=True)
class RejectionRegion:
    """The outcomes of ``n`` pairs that refute "the difference is at most ``limit``".

    Attributes:
        n: Pairs.
        least_gains: For 0, 1, ..., n losses, the fewest gains that refute; more than the ties left where none do.
    """

    n: int
    least_gains: NDArray[np.int64]

    def probability(self, p_gain: float, p_loss: float) -> float:
        """Give the chance to end up in it: its error where the difference is at most the limit, else its power."""
        import numpy as np  # noqa: PLC0415  # a tenth of a second that other commands need not pay

        return float(_probabilities(self.least_gains, self.n, np.array([p_gain]), np.array([p_loss]))[0])


@lru_cache(maxsize=256)
def rejection_region(n: int, limit: float, tail: float) -> RejectionRegion:
    """Collect the outcomes that refute "at most ``limit``" at ``tail``, as ``refutes`` would; for a suite's power."""
    if limit == 0:
        return RejectionRegion(n, _mcnemar_least_gains(n, tail))
    low, high = 0.0, 40.0
    # The statistic's critical value: where the largest probability of exceeding it falls below the tail.
    while high - low > 1e-3:  # finer than the statistic's steps matter for a power of two digits
        middle = (low + high) / 2
        if _largest_probability(_least_gains(middle, n, limit), n, limit) <= tail:
            high = middle
        else:
            low = middle
    return RejectionRegion(n, _least_gains(high, n, limit))


def _check(gains: int, losses: int, n: int) -> None:
    if n <= 0 or gains < 0 or losses < 0 or gains + losses > n:
        raise ValueError(f"paired rates need gains + losses <= n and n > 0, got {gains} and {losses} of {n}")


@lru_cache(maxsize=65_536)
def refutes(gains: int, losses: int, n: int, limit: float, tail: float) -> bool:
    """Whether the data refute "the difference is at most ``limit``" with a one-sided error of ``tail``.

    McNemar's exact test at 0, the exact unconditional one elsewhere, the score test above 10,000 pairs. Monotone: a
    gain in the place of a tie or a loss never takes a refutation back.
    """
    if not -1 < limit < 1:
        return limit <= -1
    if limit == 0:
        return mcnemar(gains, losses, alternative="gain") <= tail
    if (gains - losses) / n <= limit:
        return False  # the p of an outcome on the null's own side is above one half, or nearly
    if n > EXACT_MAX_N:
        return _statistic_at(gains, losses, n, limit) >= _critical(1 - 2 * tail)
    return exact_p(gains, losses, n, limit=limit) <= tail


@lru_cache(maxsize=65_536)
def _lower(gains: int, losses: int, n: int, tail: float) -> float:
    """The lower bound: the largest difference below the estimate up to which all is refuted, rounded down."""
    critical = _critical(1 - 2 * tail)
    guess = _score_lower(gains, losses, n, critical)
    if n > EXACT_MAX_N:
        return guess
    if gains == 0 and losses == n:
        return -1.0
    # The exact bound is near the score bound: bracket it from there, then halve.
    step = max(0.02 * ((gains - losses) / n - guess), 4 * _RESOLUTION)
    low = high = guess
    if refutes(gains, losses, n, guess, tail):
        while refutes(gains, losses, n, high + step, tail):
            high, step = high + step, 2 * step
        low, high = high, high + step
    else:
        while low - step > -1 and not refutes(gains, losses, n, low - step, tail):
            low, step = low - step, 2 * step
        low, high = max(low - step, -1.0), low
    while high - low > _RESOLUTION:
        middle = (low + high) / 2
        if refutes(gains, losses, n, middle, tail):
            low = middle
        else:
            high = middle
    return low


def _score_lower(gains: float, losses: float, n: float, critical: float) -> float:
    if losses >= n:
        return -1.0
    low, high = -1.0, (gains - losses) / n
    for _ in range(50):
        middle = (low + high) / 2
        if _statistic_at(gains, losses, n, middle) >= critical:
            low = middle
        else:
            high = middle
    return low


def _critical(confidence: float) -> float:
    from scipy.special import ndtri  # noqa: PLC0415  # a quarter of a second that other commands need not pay

    return float(ndtri(0.5 + confidence / 2))


def _statistic_at(gains: float, losses: float, n: float, limit: float) -> float:
    """Tango's statistic for one outcome; see ``_statistic``."""
    linear = (2 * n - gains + losses) * limit - gains - losses
    root = math.sqrt(max(0.0, linear * linear + 8 * n * losses * limit * (1 - limit)))
    variance = n * (2 * max(0.0, (root - linear) / (4 * n)) + limit * (1 - limit))
    above = gains - losses - n * limit
    if variance <= _TIE * _TIE:
        return 0.0 if abs(above) < _TIE else math.copysign(math.inf, above)
    return above / math.sqrt(variance)


def _statistic(gains: NDArray[np.float64], losses: NDArray[np.float64], n: int, limit: float) -> NDArray[np.float64]:
    """Tango's score statistic: the standardised difference, its variance at the likeliest rates that differ by limit.

    P(loss) = q solves 2n q^2 + ((2n - gains + losses) limit - gains - losses) q - losses limit (1 - limit) = 0, and the
    variance of gains - losses is n (2q + limit (1 - limit)).
    """
    import numpy as np  # noqa: PLC0415  # as above

    linear = (2 * n - gains + losses) * limit - gains - losses
    root = np.sqrt(np.maximum(0.0, linear * linear + 8 * n * losses * limit * (1 - limit)))
    variance = n * (2 * np.maximum(0.0, (root - linear) / (4 * n)) + limit * (1 - limit))
    above = gains - losses - n * limit
    safe = np.where(variance <= _TIE * _TIE, 1.0, variance)
    extreme = np.where(np.abs(above) < _TIE, 0.0, np.copysign(np.inf, above))
    return np.where(variance <= _TIE * _TIE, extreme, above / np.sqrt(safe))


def _least_gains(value: float, n: int, limit: float) -> NDArray[np.int64]:
    """For each number of losses, the fewest gains that make the statistic at least ``value``; n + 1 for none."""
    import numpy as np  # noqa: PLC0415  # as above

    losses = np.arange(n + 1)
    low, high = np.full(n + 1, -1), n - losses + 1  # never enough, and always enough or one too many
    while (is_open := high - low > 1).any():
        middle = (low + high) // 2
        is_extreme = _statistic(middle.astype(float), losses.astype(float), n, limit) >= value - _TIE
        low, high = np.where(is_open & ~is_extreme, middle, low), np.where(is_open & is_extreme, middle, high)
    return np.where(high > n - losses, n + 1, high)


def _mcnemar_least_gains(n: int, tail: float) -> NDArray[np.int64]:
    import numpy as np  # noqa: PLC0415  # as above

    least, gains = np.full(n + 1, n + 1), 0
    for losses in range(n + 1):
        while gains + losses <= n and mcnemar(gains, losses, alternative="gain") > tail:
            gains += 1
        if gains + losses > n:
            break
        least[losses] = gains
    return least


def _largest_probability(least_gains: NDArray[np.int64], n: int, limit: float) -> float:
    """Maximise the region's probability over the rates whose difference is ``limit``.

    The smaller rate runs from 0 to (1 - |limit|) / 2. As its expected count grows by a fifth of its standard deviation
    the probability hardly moves; above a hundred it varies slower still. The best few are then refined.
    """
    import numpy as np  # noqa: PLC0415  # as above

    def at(rates: NDArray[np.float64]) -> NDArray[np.float64]:
        return _probabilities(least_gains, n, rates + max(limit, 0.0), rates + max(-limit, 0.0))

    rates = _grid(n, (1 - abs(limit)) / 2)
    found = at(rates)
    best = np.argsort(found)[-_REFINED:]
    between = [
        np.linspace(rates[max(index - 1, 0)], rates[min(index + 1, len(rates) - 1)], _REFINEMENT) for index in best
    ]
    return min(1.0, (1 + _MISSED) * float(max(found.max(), at(np.concatenate(between)).max())))


@lru_cache(maxsize=1024)
def _grid(n: int, most: float) -> NDArray[np.float64]:
    import numpy as np  # noqa: PLC0415  # as above

    fine = (np.arange(0, math.sqrt(_FINE_UP_TO) + _FINE_STEP, _FINE_STEP / 2)) ** 2
    steps = math.ceil(math.log(max(n * most / _FINE_UP_TO, 1.0)) / math.log(_COARSE_RATIO))
    coarse = _FINE_UP_TO * _COARSE_RATIO ** np.arange(1, steps + 1)
    counts = np.concatenate([fine, coarse])
    counts = counts[counts < n * most]
    # Towards the other end ties grow rare, and with hardly any the difference jumps by two: the probability has spikes.
    from_the_end = fine[fine < min(n * most, _SPIKES_UP_TO)]
    return np.unique(np.concatenate([counts, n * most - from_the_end])) / n


def _probabilities(
    least_gains: NDArray[np.int64], n: int, p_gain: NDArray[np.float64], p_loss: NDArray[np.float64]
) -> NDArray[np.float64]:
    """P(gains >= least_gains[losses]) of the trinomial, for each pair of rates: summed over the likely losses."""
    import numpy as np  # noqa: PLC0415  # as above
    from scipy.special import betainc, xlog1py, xlogy  # noqa: PLC0415  # as above

    spread = _BAND * np.sqrt(n * p_loss * (1 - p_loss)) + _BAND
    first = np.maximum(0, np.floor(n * p_loss - spread)).astype(np.int64)
    last = np.minimum(n, np.ceil(n * p_loss + spread)).astype(np.int64)
    widths = last - first + 1
    which = np.repeat(np.arange(len(widths)), widths)
    losses = np.arange(widths.sum()) - np.repeat(np.cumsum(widths) - widths, widths) + first[which]
    needed = least_gains[losses]
    is_possible = needed <= n - losses
    which, losses, needed = which[is_possible], losses[is_possible], needed[is_possible]
    lost = p_loss[which]
    chance = np.exp(_log_choose(n)[losses] + xlogy(losses, lost) + xlog1py(n - losses, -lost))
    left = n - losses
    given = np.minimum(1.0, p_gain[which] / np.maximum(1 - lost, 1e-300))
    enough = np.where(needed <= 0, 1.0, betainc(np.maximum(needed, 1), left - np.maximum(needed, 1) + 1, given))
    return np.asarray(np.bincount(which, weights=chance * enough, minlength=len(widths)), dtype=float)


@lru_cache(maxsize=64)
def _log_choose(n: int) -> NDArray[np.float64]:
    import numpy as np  # noqa: PLC0415  # as above
    from scipy.special import gammaln  # noqa: PLC0415  # as above

    k = np.arange(n + 1)
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
