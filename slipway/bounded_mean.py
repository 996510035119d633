"""The mean of values that cannot leave a range, bounded whatever their distribution.

A bootstrap draws only what was seen. Where one answer in thirty is a disaster, every fifth sample of fifty has none,
and its bootstrap promises a mean that is not there. This interval counts what was not seen: to the sample it adds one
value at the end of the range, and weighs all of them at random, each weighting as likely as any other (a flat
Dirichlet). The bounds are quantiles of the weighted means: the lower one with the least possible value added, the upper
one with the largest. For zeros and ones they are Clopper-Pearson's. Knows numbers only.

Sources: Gaffke 2005 ("Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
variable", Mathematical Methods of Statistics 14:451); Learned-Miller and Thomas 2020 (arXiv:1905.06208), who conjecture
that it keeps its error for every distribution: that was never seen to fail, and for zeros and ones it is known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from slipway.bootstrap import BATCH_VALUES, BOOTSTRAP_SEED, draws_for
from slipway.effective_size import effective_groups, effective_size
from slipway.statistics import Interval, clopper_pearson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["bounded_mean"]

_MOST_DISTINCT, _BINS = 1_000, 250  # more are drawn as the means of bins, which lose a ten-thousandth of their spread


def bounded_mean(
    values: Sequence[float],
    *,
    confidence: float,
    support: tuple[float, float],
    groups: Sequence[Hashable] | None = None,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Bound the mean of values within ``support``.

    Args:
        values: At least one.
        confidence: Two-sided.
        support: The least and the largest value there can be, both finite.
        groups: The group of each value. Together the values then weigh as much as their effective number, and what was
            not seen as much as a whole group, since a group may be lost as one.
        seed: Of the random weights.

    Raises:
        ValueError: No values, a value outside the support, or fewer than two groups.
    """
    if not values or not all(support[0] <= value <= support[1] for value in values):  # as NaN is not
        raise ValueError(f"a bounded mean needs values within {support[0]:g} and {support[1]:g}")
    n, mean, counts, method = len(values), math.fsum(values) / len(values), Counter(values), "Gaffke's interval"
    size = chances = float(n)
    if groups is not None:
        size = effective_size(values, groups, confidence=confidence)
        chances = min(size, effective_groups(len(set(groups)), confidence=confidence))
        method = f"{method} at {size:.1f} effective cases"
    if len(counts) == 1:
        _, unseen = clopper_pearson(0, chances, confidence=confidence)
        low, high = (values[0] + unseen * (end - values[0]) for end in support)
        return Interval(estimate=values[0], low=low, high=high, n=n, method=method)
    import numpy as np  # noqa: PLC0415  # a tenth of a second that other commands need not pay

    weighed = list(counts.items())
    if len(weighed) > _MOST_DISTINCT:
        bins = np.array_split(np.sort(np.asarray(values, dtype=float)), _BINS)
        weighed = [(float(one.mean()), len(one)) for one in bins]
    drawn, shapes = np.asarray(weighed, dtype=float).T
    low, high = _by_draws(drawn, shapes * (size / n), support, confidence, scale=size / chances, seed=seed)
    return Interval(estimate=mean, low=low, high=high, n=n, method=method)


def _by_draws(
    values: NDArray[np.float64],
    shapes: NDArray[np.float64],
    support: tuple[float, float],
    confidence: float,
    *,
    scale: float,
    seed: int,
) -> tuple[float, float]:
    """Draw weights: gamma variates over their sum are Dirichlet's, and those of equal values add up to one."""
    import numpy as np  # noqa: PLC0415  # as above

    source, k = np.random.default_rng(seed), len(values)
    draws, batch = draws_for(k, confidence), max(1, BATCH_VALUES // k)
    if not draws:
        return support
    lows, highs = [], []
    for start in range(0, draws, batch):
        rows = min(batch, draws - start)
        weights, unseen = source.standard_gamma(shapes, (rows, k)), scale * source.standard_gamma(1.0, rows)
        sums, totals = weights @ values, weights.sum(axis=1) + unseen
        lows.append((sums + unseen * support[0]) / totals)
        highs.append((sums + unseen * support[1]) / totals)
    low = np.quantile(np.concatenate(lows), (1 - confidence) / 2)
    high = np.quantile(np.concatenate(highs), (1 + confidence) / 2)
    return float(low), float(high)
