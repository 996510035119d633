"""Cases that share a source count for fewer; how many fewer shows in how their groups differ."""

from __future__ import annotations

import math
import random

import pytest
from scipy.stats import norm, t

from slipway.bounded_mean import bounded_mean
from slipway.effective_size import effective_groups, effective_size


def price(groups, confidence=0.95):
    upper = 0.5 + confidence / 2
    return (norm.ppf(upper) / t.ppf(upper, groups - 1)) ** 2


def test_groups_that_agree_within_count_as_one_case_each():
    """Ten groups of five equal values: a design effect of 5, times 10/9 since it is estimated from ten."""
    values = [float(group % 2) for group in range(10) for _ in range(5)]
    groups = [group for group in range(10) for _ in range(5)]
    assert effective_size(values, groups, confidence=0.95) == pytest.approx(50 / (5 * 10 / 9) * price(10))


def test_groups_that_mean_nothing_cost_next_to_nothing():
    rng = random.Random(2)
    values = [float(rng.random() < 0.5) for _ in range(4000)]
    assert effective_size(values, [index // 2 for index in range(4000)], confidence=0.95) > 3700


def test_groups_that_balance_are_never_worth_more_than_their_cases():
    """Each group holds a one and a zero, so that the group means do not vary at all."""
    values = [1.0, 0.0] * 20
    assert effective_size(values, [index // 2 for index in range(40)], confidence=0.95) == pytest.approx(40 * price(20))


def test_equal_values_count_their_groups():
    assert effective_size([1.0] * 60, [index // 5 for index in range(60)], confidence=0.9) == pytest.approx(
        12 * price(12, 0.9)
    )


def test_a_group_that_holds_half_of_the_cases_is_half_of_the_evidence():
    """39 pairs and one group of 78, all or nothing: the mean is pulled to the large one, which then seems to fit."""
    sizes = [78] + [2] * 39
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    values = [float(group % 10 > 0) for group in groups]
    assert effective_size(values, groups, confidence=0.95) == pytest.approx(156**2 / (78**2 + 39 * 4) * price(40))


def test_hardly_any_group_counts_where_next_to_nothing_may_go_wrong():
    assert 0 < effective_groups(12, confidence=math.nextafter(1, 0)) < 0.2


@pytest.mark.parametrize("groups", [["a"] * 4, ["a", "b"]])
def test_what_shows_no_effect_is_refused(groups):
    with pytest.raises(ValueError, match=r"groups|zip"):
        effective_size([0.0, 1.0, 1.0, 0.0], groups, confidence=0.95)


def test_grouped_differences_on_the_limit_are_seldom_called_better():
    """Of 400 samples of 40 groups of 5 that share most outcomes, 2.5 % may pass -0.05; eight more are chance."""
    rng = random.Random(4)
    groups = [index // 5 for index in range(200)]
    passed = 0
    for _ in range(400):
        shared = [_difference(rng) for _ in range(40)]
        drawn = [shared[group] if rng.random() < 0.7 else _difference(rng) for group in groups]
        passed += bounded_mean(drawn, confidence=0.95, support=(-1, 1), groups=groups).low >= -0.05
    assert passed <= 18


def _difference(rng):
    draw = rng.random()
    return 1.0 if draw < 0.05 else -1.0 if draw < 0.15 else 0.0
