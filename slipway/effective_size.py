"""Cases that share a source, by the number of independent cases that would tell as much.

A bootstrap of few groups, or of groups that hardly ever differ, is too sure of itself: it has not drawn what it has not
seen. Exact methods know that, and take cases as independent. So they are given the effective number of cases: the cases
over their design effect, less what estimating that effect from few groups costs. Knows numbers only.

Sources: Rao and Scott 1992 (Biometrics 48:577) for counts over their design effect; Korn and Graubard 1998 (Survey
Methodology 24:193) for the exact interval at the effective size and its correction by Student's t; Donner 1986
(International Statistical Review 54:67) for the correlation within groups and the design effect of unequal ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["effective_groups", "effective_size"]


def effective_size(values: Sequence[float], groups: Sequence[Hashable], *, confidence: float) -> float:
    """Give the number of independent values that bound their mean as well as these, which come in groups.

    n / deff (z / t)^2, with Student's t of one degree of freedom less than there are groups. deff, at least 1, is the
    larger of two estimates: the variance of the mean that the groups show over the one that independent values would
    have; and 1 + r (sum of squared sizes / n - 1), r the correlation within groups. The first is too small where few
    groups hold most values, since they pull the mean to themselves; the second asks all groups how alike their values
    are. Equal values show no effect: each group then counts as one value.

    Raises:
        ValueError: Fewer than two groups, or not one group for each value.
    """
    n, mean = len(values), math.fsum(values) / max(1, len(values))
    apart: dict[Hashable, float] = {}
    for value, group in zip(values, groups, strict=True):
        apart[group] = apart.get(group, 0.0) + value - mean
    sizes, count = Counter(groups), len(apart)
    worth = effective_groups(count, confidence=confidence)
    whole = math.fsum((value - mean) ** 2 for value in values)
    if whole == 0:
        return worth
    shown = math.fsum(total**2 for total in apart.values()) * count / (count - 1) / whole
    between = math.fsum(total**2 / sizes[group] for group, total in apart.items()) / (count - 1)
    within = max(0.0, whole - between * (count - 1)) / max(1, n - count)
    squares = math.fsum(size**2 for size in sizes.values()) / n
    typical = (n - squares) / (count - 1)
    alike = max(0.0, (between - within) / (between + (typical - 1) * within))
    return worth / count * n / max(1.0, shown, 1 + alike * (squares - 1))


def effective_groups(count: int, *, confidence: float) -> float:
    """Give the number of independent values that ``count`` groups of one value each are worth: count (z / t)^2.

    Raises:
        ValueError: Fewer than two groups.
    """
    from scipy.special import ndtri, stdtrit  # noqa: PLC0415  # a quarter of a second that other commands need not pay

    if count < 2:  # one group has no variance
        raise ValueError(f"a design effect needs at least two groups, got {count}")
    tail = (1 - confidence) / 2
    return count * float(ndtri(tail) / stdtrit(count - 1, tail)) ** 2
