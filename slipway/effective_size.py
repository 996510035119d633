"""Rates of cases that share a source, by the number of independent cases that would tell as much.

A bootstrap of few groups, or of groups that hardly ever differ, is too sure of itself: it has not drawn what it has not
seen. Exact methods know that, and take cases as independent. So they are given the effective number of cases: the cases
over their design effect, less what estimating that effect from few groups costs. Knows numbers only.

Sources: Rao and Scott 1992 (Biometrics 48:577) for counts over their design effect; Korn and Graubard 1998 (Survey
Methodology 24:193) for the exact interval at the effective size and its correction by Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from slipway.paired_rates import score_interval
from slipway.statistics import Interval, clopper_pearson

__all__ = ["effective_difference", "effective_rate", "effective_size"]


def effective_size(values: Sequence[float], groups: Sequence[Hashable], *, confidence: float) -> float:
    """Give the number of independent values that bound their mean as well as these, which come in groups.

    n / deff (z / t)^2, where deff is the variance of the mean that the groups show over the one that independent values
    would have, at least 1, and t is Student's with one degree of freedom less than there are groups. Equal values show
    no effect: each group then counts as one value.

    Raises:
        ValueError: Fewer than two groups, or not one group for each value.
    """
    from scipy.special import ndtri, stdtrit  # noqa: PLC0415  # a quarter of a second that other commands need not pay

    n, mean = len(values), math.fsum(values) / max(1, len(values))
    apart: dict[Hashable, float] = {}
    for value, group in zip(values, groups, strict=True):
        apart[group] = apart.get(group, 0.0) + value - mean
    count = len(apart)
    if count < 2:  # one group has no variance
        raise ValueError(f"a design effect needs at least two groups, got {count}")
    upper = 0.5 + confidence / 2
    price = float(ndtri(upper) / stdtrit(count - 1, upper)) ** 2
    within = math.fsum((value - mean) ** 2 for value in values)
    between = math.fsum(total**2 for total in apart.values()) * count / (count - 1)
    return price * (n / max(1.0, between / within) if within > 0 else count)


def effective_rate(values: Sequence[float], groups: Sequence[Hashable], *, confidence: float) -> Interval:
    """Bound the rate of ones among zeros and ones in groups: Clopper-Pearson at the effective number of cases.

    Raises:
        ValueError: As ``effective_size``.
    """
    size, rate = effective_size(values, groups, confidence=confidence), math.fsum(values) / len(values)
    low, high = clopper_pearson(min(rate, 1.0) * size, size, confidence=confidence)
    method = f"exact, Clopper-Pearson at {size:.1f} effective cases"
    return Interval(estimate=rate, low=low, high=high, n=len(values), method=method)


def effective_difference(differences: Sequence[float], groups: Sequence[Hashable], *, confidence: float) -> Interval:
    """Bound a difference of paired rates from differences of -1, 0 and 1 in groups: Tango's at the effective number.

    Raises:
        ValueError: As ``effective_size``.
    """
    size, n = effective_size(differences, groups, confidence=confidence), len(differences)
    gains, losses = sum(value > 0 for value in differences) / n, sum(value < 0 for value in differences) / n
    interval = score_interval(gains * size, losses * size, size, confidence=confidence)
    method = f"{interval.method} at {size:.1f} effective pairs"
    return Interval(estimate=gains - losses, low=interval.low, high=interval.high, n=n, method=method)
