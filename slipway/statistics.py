"""Intervals and tests for decisions on recorded results.

Exact wherever an exact method exists (rates, paired rates, quantiles), the paired bootstrap elsewhere. Every bootstrap
takes a seed, so that the same file gives the same verdict. Knows numbers only: no arms, metrics or rules.

Sources: Clopper and Pearson 1934 (Biometrika 26:404); McNemar 1947 (Psychometrika 12:153); Efron 1987 (JASA 82:171)
for BCa; Conover 1999, Practical Nonparametric Statistics, section 3.2, for quantiles.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BCA_MIN_N",
    "BOOTSTRAP_DRAWS",
    "BOOTSTRAP_MIN_N",
    "BOOTSTRAP_SEED",
    "Interval",
    "bootstrap_mean",
    "bootstrap_median_ratio",
    "clopper_pearson",
    "mcnemar",
    "paired_difference",
    "quantile",
    "smallest_decisive_n",
]

BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 20_260_101
BOOTSTRAP_MIN_N = 8
"""With fewer values a resample has too few distinct outcomes for its tails to mean anything."""
BCA_MIN_N = 30
"""From here on bias correction and acceleration are estimated well enough to help (Efron and Tibshirani 1993, 14)."""

MAX_DECISIVE_N = 1_000_000
_BATCH_VALUES = 4_000_000  # resampled values held at once: 32 MB for each array

Sides = Literal[1, 2]
Statistic = Callable[..., "NDArray[np.float64]"]


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


def paired_difference(gains: float, losses: float, n: float, *, confidence: float) -> Interval:
    """Bound the difference of two paired rates, candidate minus reference, exactly and conservatively.

    The difference is P(gain) - P(loss). Each of the two gets a Clopper-Pearson interval at half the error, and
    Bonferroni's inequality gives the difference its coverage: at least ``confidence``, in practice more. Unlike Wald's
    or a bootstrap it does not collapse to a point when no pair is discordant.

    Raises:
        ValueError: Counts below 0 or above n, or n is 0.
    """
    each = 1 - (1 - confidence) / 2
    gain_low, gain_high = clopper_pearson(gains, n, confidence=each)
    loss_low, loss_high = clopper_pearson(losses, n, confidence=each)
    return Interval(
        estimate=(gains - losses) / n,
        low=gain_low - loss_high,
        high=gain_high - loss_low,
        n=int(n),
        method="exact, Bonferroni over the two discordant cells",
    )


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


def bootstrap_mean(
    values: Sequence[float],
    *,
    confidence: float,
    support: tuple[float, float] = (-math.inf, math.inf),
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Bound a mean by the bootstrap; for paired scores give the differences, which makes it the paired bootstrap.

    BCa from 30 values on, percentile below. Equal values tell a bootstrap nothing, so they get an exact bound instead:
    the share of values that would have differed is below Clopper-Pearson's limit at zero successes, and those could
    have been as extreme as ``support`` allows.

    Raises:
        ValueError: Fewer than 8 values, or equal ones without a finite ``support``.
    """
    import numpy as np  # noqa: PLC0415  # as above

    n = len(values)
    if n < BOOTSTRAP_MIN_N:
        raise ValueError(f"a bootstrap needs at least {BOOTSTRAP_MIN_N} values, got {n}")
    mean = math.fsum(values) / n
    if max(values) == min(values):
        if not all(map(math.isfinite, support)):
            raise ValueError("equal values without a finite support have no interval")
        _, unseen = clopper_pearson(0, n, confidence=confidence)
        low, high = (values[0] + unseen * (limit - values[0]) for limit in support)
        return Interval(estimate=values[0], low=low, high=high, n=n, method="exact, all values equal")
    low, high, method = _bootstrap((np.asarray(values, dtype=float),), _mean, confidence, seed, bca=n >= BCA_MIN_N)
    return Interval(estimate=mean, low=max(low, support[0]), high=min(high, support[1]), n=n, method=method)


def bootstrap_median_ratio(
    numerator: Sequence[float], denominator: Sequence[float], *, confidence: float, seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Bound the ratio of two medians of paired values; pairs are drawn together. Percentile bootstrap.

    BCa is left out because the jackknife is inconsistent for medians (Efron and Tibshirani 1993, 11.6).

    Raises:
        ValueError: Fewer than 8 pairs, unequal lengths, or a denominator that is not positive.
    """
    import numpy as np  # noqa: PLC0415  # as above

    if len(numerator) != len(denominator) or len(numerator) < BOOTSTRAP_MIN_N:
        raise ValueError(f"a paired bootstrap needs at least {BOOTSTRAP_MIN_N} pairs")
    if min(denominator) <= 0:
        raise ValueError("a ratio needs positive denominators")
    top, bottom = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    low, high, method = _bootstrap((top, bottom), _median_ratio, confidence, seed, bca=False)
    estimate = float(np.median(top) / np.median(bottom))
    return Interval(estimate=estimate, low=low, high=high, n=len(top), method=method)


def smallest_decisive_n(decides: Callable[[int], bool], *, start: int) -> int | None:
    """Find the least n from ``start`` on at which ``decides`` holds, assuming that it then holds for every larger n.

    Gives None where not even a million would do.
    """
    high = max(1, start)
    while not decides(high):
        if high >= MAX_DECISIVE_N:
            return None
        high = min(2 * high, MAX_DECISIVE_N)
    low = max(1, start)
    while low < high:
        middle = (low + high) // 2
        if decides(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _upper_half_tail(k: int, n: int) -> float:
    """P(B >= k) of a binomial(n, 1/2)."""
    from scipy.special import bdtrc  # noqa: PLC0415  # as above

    return 1.0 if k == 0 else float(bdtrc(k - 1, n, 0.5))


def _mean(values: NDArray[np.float64], *, axis: int = -1) -> NDArray[np.float64]:
    import numpy as np  # noqa: PLC0415  # as above

    return np.asarray(np.mean(values, axis=axis))


def _median_ratio(top: NDArray[np.float64], bottom: NDArray[np.float64], *, axis: int = -1) -> NDArray[np.float64]:
    import numpy as np  # noqa: PLC0415  # as above

    return np.asarray(np.median(top, axis=axis) / np.median(bottom, axis=axis))


def _bootstrap(
    samples: tuple[NDArray[np.float64], ...], statistic: Statistic, confidence: float, seed: int, *, bca: bool
) -> tuple[float, float, str]:
    import numpy as np  # noqa: PLC0415  # as above
    from scipy.stats import bootstrap  # noqa: PLC0415  # half a second more

    for method in ("BCa", "percentile") if bca else ("percentile",):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a degenerate BCa warns and gives nan; the percentile then stands in
            result = bootstrap(
                samples,
                statistic,
                n_resamples=BOOTSTRAP_DRAWS,
                batch=max(1, _BATCH_VALUES // len(samples[0])),
                vectorized=True,
                paired=True,
                confidence_level=confidence,
                method=method,
                random_state=np.random.default_rng(seed),
            )
        low, high = (float(bound) for bound in result.confidence_interval)
        if not math.isnan(low) and not math.isnan(high):
            break
    return low, high, f"{method} bootstrap, {BOOTSTRAP_DRAWS} draws, seed {seed}"
