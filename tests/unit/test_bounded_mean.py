"""An interval that counts what was not seen, whatever the distribution of values in a bounded range."""

from __future__ import annotations

import itertools
import random

import pytest

from slipway.bootstrap import normal_mean
from slipway.bounded_mean import bounded_mean
from slipway.effective_size import effective_size
from slipway.gate_requirements import mean_interval
from slipway.statistics import clopper_pearson


@pytest.mark.parametrize(("successes", "n"), [(3, 20), (48, 50), (190, 200), (990, 1000), (1990, 2000), (0, 30)])
def test_zeros_and_ones_have_clopper_pearsons_interval(successes, n):
    interval = bounded_mean([1.0] * successes + [0.0] * (n - successes), confidence=0.95, support=(0, 1))
    low, high = clopper_pearson(successes, n, confidence=0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.02 * (high - low))


def test_groups_that_agree_within_are_worth_one_value_each():
    """Clopper-Pearson's of 32 out of 40, less what an effect costs that was seen in 40 groups only."""
    values = [float(group % 5 > 0) for group in range(40) for _ in range(3)]
    groups = [group for group in range(40) for _ in range(3)]
    interval = bounded_mean(values, confidence=0.95, support=(0, 1), groups=groups)
    size = effective_size(values, groups, confidence=0.95)
    assert 36 < size < 37
    exact = clopper_pearson(0.8 * size, size, confidence=0.95)
    assert (interval.low, interval.high) == pytest.approx(exact, abs=0.005)
    assert interval.method == f"Gaffke's interval at {size:.1f} effective cases"


@pytest.mark.parametrize("copies", [0.7, 1])
def test_groups_of_very_unequal_size_are_not_trusted(copies):
    """Ten of a hundred sources fail. Counted by cases a large one that did not speaks for all."""
    source, above = random.Random(7), 0
    sizes = [max(1, int(40 * 0.75**group)) for group in range(20)]
    units = [group for group, size in enumerate(sizes) for _ in range(size)]
    for _ in range(100):
        shared = [float(source.random() < 0.9) for _ in sizes]
        values = [shared[unit] if source.random() < copies else float(source.random() < 0.9) for unit in units]
        above += mean_interval(values, units, confidence=0.95, support=(0, 1)).low > 0.9
    assert above <= 5


def test_many_values_are_drawn_in_bins_that_tell_the_same():
    source = random.Random(9)
    values = [source.betavariate(4, 1) for _ in range(1001)]
    fewer, many = (bounded_mean(some, confidence=0.95, support=(0, 1)) for some in (values[:-1], values))
    width = fewer.high - fewer.low
    assert (many.low, many.high) == pytest.approx((fewer.low, fewer.high), abs=0.03 * width)


def test_bins_of_ties_keep_their_weight():
    source = random.Random(3)
    values = [1.0] * 9000 + [source.random() for _ in range(1001)]
    interval = bounded_mean(values, confidence=0.95, support=(0, 1))
    normal = normal_mean(values, confidence=0.95)
    width = normal.high - normal.low
    assert (interval.low, interval.high) == pytest.approx((normal.low, normal.high), abs=0.05 * width)


def test_equal_values_and_hardly_differing_ones_tell_the_same():
    """Sixty ties may hide a disaster in seventeen; a thousandth of noise makes them no better evidence."""
    ties, noise = [0.0] * 60, [0.001 * (-1) ** index for index in range(60)]
    for values in (ties, noise):
        interval = mean_interval(values, range(60), confidence=0.95, support=(-1, 1))
        assert interval.low == pytest.approx(-(1 - 0.025 ** (1 / 60)), abs=0.002)


@pytest.mark.parametrize("values", [[], [0.5, 1.1], [-0.1, 0.5], [0.5, float("nan")]])
def test_values_outside_their_range_are_refused(values):
    with pytest.raises(ValueError, match="within 0 and 1"):
        bounded_mean(values, confidence=0.95, support=(0, 1))


def disasters(source, n):
    """Scores about 0.91, and one in thirty of 0: their mean is 0.8818."""
    return [0.0 if source.random() < 0.03 else source.betavariate(20, 2) for _ in range(n)]


@pytest.mark.parametrize("n", [12, 30, 50])
def test_rare_disasters_that_were_not_seen_are_counted(n):
    """A bootstrap alone is above the true mean in a fifth of the samples and more."""
    source, mean = random.Random(n), 0.97 * 20 / 22
    above = sum(
        mean_interval(disasters(source, n), range(n), confidence=0.95, support=(0, 1)).low > mean for _ in range(100)
    )
    assert above <= 5


def test_groups_that_fail_together_are_counted():
    """Of twenty sources one is a disaster: a third of such suites hold none, and a cluster bootstrap believes them."""
    source, above = random.Random(1), 0
    units = [group for group in range(20) for _ in range(5)]
    for _ in range(60):
        is_lost = [source.random() < 0.05 for _ in range(20)]
        differences = [-0.9 if is_lost[unit] else source.gauss(0, 0.03) for unit in units]
        above += mean_interval(differences, units, confidence=0.95, support=(-1, 1)).low > -0.045
    assert above <= 3


def test_a_better_value_never_lowers_a_bound():
    """As the weights are drawn alike."""
    source = random.Random(4)
    values = sorted(source.random() for _ in range(20))
    better = [value + 0.001 for value in values]
    worse, improved = (bounded_mean(one, confidence=0.95, support=(0, 1.1)) for one in (values, better))
    assert all(b > a for a, b in itertools.pairwise([worse.low, improved.low]))
    assert improved.high > worse.high
