"""Intervals of means and ratios where no exact method exists, by resampling, and a permutation test beside them.

Everything random takes a seed, so that the same file gives the same verdict. Cases that share a source are drawn
together (the cluster bootstrap). Knows numbers only: no arms, metrics or rules.

Sources: Efron 1987 (JASA 82:171) for BCa; Efron and Tibshirani 1993, An Introduction to the Bootstrap; Davison and
Hinkley 1997, Bootstrap Methods and their Application, section 3.8, for clusters; Hall 1992, The Bootstrap and Edgeworth
Expansion, for normal theory with skewness; Hodges and Lehmann 1963 (Annals of
Mathematical Statistics 34:598).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from slipway.statistics import Interval, clopper_pearson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BATCH_VALUES",
    "BCA_MIN_N",
    "BOOTSTRAP_DRAWS",
    "BOOTSTRAP_MIN_N",
    "BOOTSTRAP_SEED",
    "NO_BOUNDS",
    "RESAMPLED_MAX_N",
    "TooFewGroupsError",
    "bootstrap_mean",
    "bootstrap_quantile_ratio",
    "bootstrap_total_ratio",
    "draws_for",
    "hodges_lehmann",
    "normal_mean",
    "sign_flip",
]

BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 20_260_101
BOOTSTRAP_MIN_N = 8
"""With fewer values, or groups, a resample has too few distinct outcomes for its tails to mean anything."""
BCA_MIN_N = 30
"""From here on bias correction and acceleration are estimated well enough to help (Efron and Tibshirani 1993, 14)."""
RESAMPLED_MAX_N = 5_000
"""Above it a mean's bootstrap agrees with its second-order normal theory to within the draws' own noise, and takes
seconds."""
NO_BOUNDS = "no bounds, since so high a confidence takes more draws than there is time for"
"""The method of an interval that is infinitely wide: a rule that takes it stays open."""
BATCH_VALUES = 4_000_000
"""Resampled values held at once: 32 MB for each array."""

_DRAWN_VALUES = 10_000_000  # resampled in one interval; above 1,000 values the draws get fewer
_DRAWS_BEYOND = 25  # draws beyond each bound, at the least
_MOST_DRAWS = 500_000  # a tenth attempt would need more: seconds become minutes, and hours
_NEAR = 8.0  # standard deviations that a resample's quantile may move; beyond lie 1e-15 of the draws
_FLIP_DRAWS = 10_000
_FLIP_EXACT_N = 12  # 4096 sign patterns are quicker listed than drawn
_FLIP_NORMAL_N = 1_000


class TooFewGroupsError(ValueError):
    """Values, or the groups they come in, are too few to be resampled.

    Args:
        n: How many there are.
        noun: What one of them is: ``value``, ``pair`` or ``group``.
    """

    def __init__(self, n: int, noun: str) -> None:
        super().__init__(f"a bootstrap needs at least {BOOTSTRAP_MIN_N} {noun}s, got {n}")
        self.n = n
        self.noun = noun


def bootstrap_mean(
    values: Sequence[float],
    *,
    confidence: float,
    support: tuple[float, float] = (-math.inf, math.inf),
    groups: Sequence[Hashable] | None = None,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Bound a mean by the bootstrap; for paired scores give the differences, which makes it the paired bootstrap.

    BCa from 30 values on, percentile below, normal theory above 5,000. Equal values tell it nothing: the share of
    values that would have differed is then below Clopper-Pearson's limit at zero successes, and those could have been
    as extreme as ``support`` allows. What else was not seen, ``bounded_mean`` counts.

    Args:
        values: One for each case.
        confidence: Two-sided.
        support: The least and the largest value there can be.
        groups: The group of each value; whole groups are then drawn, and their number counts instead of that of values.
        seed: Of the draws.

    Raises:
        TooFewGroupsError: Fewer than 8 values or groups.
        ValueError: Equal values without a finite ``support``.
    """
    units, noun = (len(values), "value") if groups is None else (len(set(groups)), "group")
    if units < BOOTSTRAP_MIN_N:
        raise TooFewGroupsError(units, noun)
    mean = math.fsum(values) / len(values)
    if max(values) == min(values):
        if not all(map(math.isfinite, support)):
            raise ValueError("equal values without a finite support have no interval")
        _, unseen = clopper_pearson(0, units, confidence=confidence)
        low, high = (values[0] + unseen * (limit - values[0]) for limit in support)
        return Interval(estimate=values[0], low=low, high=high, n=len(values), method="exact, all values equal")
    sums, sizes = _by_group(values, range(len(values)) if groups is None else groups)
    low, high, method = _of_ratio(sums, sizes, confidence, seed)
    if groups is not None:
        method = f"cluster {method}, {units} groups"
    low, high = max(low, support[0]), min(high, support[1])
    return Interval(estimate=mean, low=low, high=high, n=len(values), method=method)


def normal_mean(values: Sequence[float], *, confidence: float, groups: Sequence[Hashable] | None = None) -> Interval:
    """Bound a mean by second-order normal theory, without a draw: for lists that inform and decide nothing.

    Raises:
        TooFewGroupsError: Fewer than 8 values or groups.
    """
    sums, sizes = _by_group(values, range(len(values)) if groups is None else groups)
    if len(sums) < BOOTSTRAP_MIN_N:
        raise TooFewGroupsError(len(sums), "value" if groups is None else "group")
    low, high, method = _normal(sums, sizes, confidence)
    return Interval(estimate=math.fsum(values) / len(values), low=low, high=high, n=len(values), method=method)


def bootstrap_total_ratio(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    confidence: float,
    groups: Sequence[Hashable] | None = None,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Bound the ratio of two totals of paired values, which is that of their means; pairs or groups stay together.

    Raises:
        TooFewGroupsError: Fewer than 8 pairs or groups.
        ValueError: Unequal lengths, a negative denominator, or so many zeros that a resample may have no total.
    """
    _require_pairs(numerator, denominator)
    if min(denominator) < 0 or sum(value > 0 for value in denominator) < BOOTSTRAP_MIN_N:
        raise ValueError(f"a ratio of totals needs {BOOTSTRAP_MIN_N} positive denominators and none below 0")
    top, _ = _by_group(numerator, groups or range(len(numerator)))
    bottom, _ = _by_group(denominator, groups or range(len(denominator)))
    if len(top) < BOOTSTRAP_MIN_N:
        raise TooFewGroupsError(len(top), "group")
    low, high, method = _of_ratio(top, bottom, confidence, seed)
    if groups is not None:
        method = f"cluster {method}, {len(top)} groups"
    estimate = math.fsum(numerator) / math.fsum(denominator)
    return Interval(estimate=estimate, low=low, high=high, n=len(numerator), method=method)


def bootstrap_quantile_ratio(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    confidence: float,
    q: float = 0.5,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Bound the ratio of two quantiles of paired values; pairs are drawn together. Percentile bootstrap.

    BCa is left out because the jackknife is inconsistent for quantiles (Efron and Tibshirani 1993, 11.6). Whether so
    few pairs can bound the quantile at all is for the caller to ask.

    Raises:
        TooFewGroupsError: Fewer than 8 pairs.
        ValueError: Unequal lengths, or a denominator that is not positive.
    """
    import numpy as np  # noqa: PLC0415  # a tenth of a second that other commands need not pay

    _require_pairs(numerator, denominator)
    if min(denominator) <= 0:
        raise ValueError("a ratio needs positive denominators")
    n, draws = len(numerator), draws_for(len(numerator), confidence)
    place = max(0, math.ceil(q * n - 1e-9) - 1)
    places = ((n - 1) // 2, n // 2) if q == 0.5 else (place, place)  # the median of an even number lies between two
    top, bottom = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    above, below = (float(np.sort(values)[list(places)].mean()) for values in (top, bottom))
    if not draws:
        return Interval(estimate=above / below, low=-math.inf, high=math.inf, n=n, method=NO_BOUNDS)
    ratios = _ratios_of_quantiles(top, bottom, places, draws, seed)
    low, high = (float(bound) for bound in np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2]))
    method = f"percentile bootstrap, {draws} draws, seed {seed}"
    return Interval(estimate=above / below, low=low, high=high, n=n, method=method)


def hodges_lehmann(differences: Sequence[float]) -> float:
    """Give the median of the means of all pairs of differences: a shift that a few wild values do not move.

    Found by halving on how many of the n (n + 1) / 2 means lie below, to the precision of the values' spread.

    Raises:
        ValueError: No differences.
    """
    import numpy as np  # noqa: PLC0415  # as above

    if not differences:
        raise ValueError("a shift needs at least one difference")
    ordered = np.sort(np.asarray(differences, dtype=float))
    n = len(ordered)
    own = np.arange(n)

    def ranked(rank: int) -> float:
        low, high = float(ordered[0]), float(ordered[-1])
        for _ in range(60):
            middle = (low + high) / 2
            partners = np.searchsorted(ordered, 2 * middle - ordered, side="right") - own  # from itself upwards
            if np.maximum(partners, 0).sum() >= rank:
                high = middle
            else:
                low = middle
        return high

    means = n * (n + 1) // 2
    lower = ranked((means + 1) // 2)
    return lower if means % 2 else (lower + ranked(means // 2 + 1)) / 2


def sign_flip(
    differences: Sequence[float], *, groups: Sequence[Hashable] | None = None, seed: int = BOOTSTRAP_SEED
) -> tuple[float, float]:
    """Test by permutation whether differences are symmetric around 0; gives p for "higher" and p for "lower".

    The signs of all differences, or of whole groups, are flipped at random: all patterns up to 12, 10,000 draws up to
    1,000, above that the normal distribution that their sum then follows.
    """
    import numpy as np  # noqa: PLC0415  # as above

    sums = np.asarray(differences, dtype=float) if groups is None else _by_group(differences, groups)[0]
    sums = sums[sums != 0]
    n, observed = len(sums), float(sums.sum())
    if n == 0:
        return 1.0, 1.0
    slack = 1e-9 * float(np.abs(sums).sum())
    if n > _FLIP_NORMAL_N:
        from scipy.special import ndtr  # noqa: PLC0415  # a quarter of a second

        z = observed / math.sqrt(float((sums**2).sum()))
        return float(ndtr(-z)), float(ndtr(z))
    if n <= _FLIP_EXACT_N:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        flipped = signs @ sums
        return float((flipped >= observed - slack).mean()), float((flipped <= observed + slack).mean())
    signs = np.random.default_rng(seed).integers(0, 2, (_FLIP_DRAWS, n), dtype=np.int8)
    flipped = 2 * (signs @ sums) - observed
    # What was observed counts as one of the draws, which keeps the test's error (Davison and Hinkley 1997, 4.2).
    higher, lower = (flipped >= observed - slack).sum(), (flipped <= observed + slack).sum()
    return float(higher + 1) / (_FLIP_DRAWS + 1), float(lower + 1) / (_FLIP_DRAWS + 1)


def _require_pairs(numerator: Sequence[float], denominator: Sequence[float]) -> None:
    if len(numerator) != len(denominator):
        raise ValueError("pairs need as many numerators as denominators")
    if len(numerator) < BOOTSTRAP_MIN_N:
        raise TooFewGroupsError(len(numerator), "pair")


def _by_group(values: Sequence[float], groups: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of each group, in the order in which they first appear."""
    import numpy as np  # noqa: PLC0415  # as above

    places: dict[Hashable, int] = {}
    which = [places.setdefault(group, len(places)) for group in groups]
    sums = np.bincount(which, weights=np.asarray(values, dtype=float))
    return np.asarray(sums, dtype=float), np.bincount(which).astype(float)


def _ratio_of_sums(top: NDArray[np.float64], bottom: NDArray[np.float64], *, axis: int = -1) -> NDArray[np.float64]:
    import numpy as np  # noqa: PLC0415  # as above

    with np.errstate(divide="ignore", invalid="ignore"):  # a resample without any cost has no ratio
        return np.asarray(np.sum(top, axis=axis) / np.sum(bottom, axis=axis))


def _of_ratio(
    top: NDArray[np.float64], bottom: NDArray[np.float64], confidence: float, seed: int
) -> tuple[float, float, str]:
    """Bound a ratio of sums, which a mean is too, by what its number of units allows."""
    if len(top) > RESAMPLED_MAX_N:
        return _normal(top, bottom, confidence)
    return _bootstrap(top, bottom, confidence, seed, bca=len(top) >= BCA_MIN_N)


def _normal(top: NDArray[np.float64], bottom: NDArray[np.float64], confidence: float) -> tuple[float, float, str]:
    """Linearise the ratio, and shift the bounds by what skewness does to them (Hall 1992, section 3.5, as BCa does)."""
    import numpy as np  # noqa: PLC0415  # as above
    from scipy.special import ndtri  # noqa: PLC0415  # as above

    n, whole = len(top), float(bottom.sum())
    ratio = float(top.sum()) / whole
    apart = top - ratio * bottom
    squares = float(np.square(apart).sum())
    if squares == 0:
        return ratio, ratio, "normal theory"
    error = math.sqrt(squares * n / (n - 1)) / whole
    z = float(ndtri(0.5 + confidence / 2))
    skewness = float((apart**3).mean()) / (squares / n) ** 1.5
    shift = skewness * (2 * z * z + 1) / (6 * math.sqrt(n))
    return ratio + error * (shift - z), ratio + error * (shift + z), "normal theory, corrected for skewness"


def draws_for(n: int, confidence: float) -> int:
    """Give how often to draw ``n`` values: enough beyond the bounds, and no more than a second has time for.

    0 where a confidence this high would need so many draws that there are no bounds.
    """
    beyond = math.ceil(2 * _DRAWS_BEYOND / (1 - confidence) - 1e-6)  # 1000, not 1001, at 0.95
    if beyond > _MOST_DRAWS:
        return 0
    return max(beyond, min(max(BOOTSTRAP_DRAWS, 4 * beyond), _DRAWN_VALUES // n))


def _ratios_of_quantiles(
    top: NDArray[np.float64], bottom: NDArray[np.float64], places: tuple[int, int], draws: int, seed: int
) -> NDArray[np.float64]:
    """Draw pairs anew, and give each draw's ratio of the means of the values at the two (0-based) ``places``.

    The value at a place of a resample comes from near the same place of the sample. Only how often the pairs near it
    were drawn matters, in either array, and how many of the others lie below: these counts are multinomial.
    """
    import numpy as np  # noqa: PLC0415  # as above

    n = len(top)
    share = (places[0] + 1) / n
    reach = math.ceil(_NEAR * math.sqrt(n * share * (1 - share)) + _NEAR)
    first, last = max(0, places[0] - reach), min(n - 1, places[1] + reach)
    orders = [np.argsort(values, kind="stable") for values in (top, bottom)]
    ranks = [np.argsort(order) for order in orders]
    near = np.flatnonzero(np.logical_or.reduce([(rank >= first) & (rank <= last) for rank in ranks]))
    far = np.setdiff1d(np.arange(n), near)
    kinds, sizes = np.unique((ranks[0][far] < first) + 2 * (ranks[1][far] < first), return_counts=True)
    chances = np.concatenate([np.ones(len(near)), sizes]) / n
    # Which cells hold values below the window, and which cell holds each value within it.
    below = [np.concatenate([rank[near] < first, kinds >> side & 1]) for side, rank in enumerate(ranks)]
    within = [np.searchsorted(near, order[first : last + 1]) for order in orders]
    source, batch = np.random.default_rng(seed), max(1, BATCH_VALUES // len(chances))
    found = []
    for start in range(0, draws, batch):
        counts = source.multinomial(n, chances, size=min(batch, draws - start))
        quantiles = []
        for values, order, under, cells in zip((top, bottom), orders, below, within, strict=True):
            reached = np.cumsum(counts[:, cells], axis=1) + (counts @ under)[:, None]
            where = [np.minimum((reached <= place).sum(axis=1), last - first) for place in places]
            quantiles.append(sum(values[order[first + index]] for index in where) / 2)
        found.append(quantiles[0] / quantiles[1])
    return np.concatenate(found)


def _bootstrap(
    top: NDArray[np.float64], bottom: NDArray[np.float64], confidence: float, seed: int, *, bca: bool
) -> tuple[float, float, str]:
    import numpy as np  # noqa: PLC0415  # as above
    from scipy.stats import bootstrap  # noqa: PLC0415  # half a second more

    draws = draws_for(len(top), confidence)
    if not draws:
        return -math.inf, math.inf, NO_BOUNDS
    for method in ("BCa", "percentile") if bca else ("percentile",):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a degenerate BCa warns and gives nan; the percentile then stands in
            result = bootstrap(
                (top, bottom),
                _ratio_of_sums,
                n_resamples=draws,
                batch=max(1, BATCH_VALUES // len(top)),
                vectorized=True,
                paired=True,
                confidence_level=confidence,
                method=method,
                random_state=np.random.default_rng(seed),
            )
        low, high = (float(bound) for bound in result.confidence_interval)
        if not math.isnan(low) and not math.isnan(high):
            break
    return low, high, f"{method} bootstrap, {draws} draws, seed {seed}"
