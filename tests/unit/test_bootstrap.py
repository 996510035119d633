"""Resampling against closed forms and known answers."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest

from slipway.bootstrap import (
    BOOTSTRAP_SEED,
    TooFewGroupsError,
    bootstrap_mean,
    bootstrap_quantile_ratio,
    bootstrap_total_ratio,
    hodges_lehmann,
    normal_mean,
    sign_flip,
)


def graded(n, seed=1):
    source = random.Random(seed)
    return [source.betavariate(2, 5) for _ in range(n)]


def test_bootstrap_mean_agrees_with_the_normal_interval():
    values = graded(400)
    mean = math.fsum(values) / 400
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / 399 / 400)
    interval = bootstrap_mean(values, confidence=0.95)
    assert interval.estimate == pytest.approx(mean)
    assert (interval.low, interval.high) == pytest.approx(
        (mean - 1.96 * spread, mean + 1.96 * spread), abs=0.1 * spread
    )
    assert interval.method == f"BCa bootstrap, 10000 draws, seed {BOOTSTRAP_SEED}"


def test_bootstrap_is_repeatable_and_seeded():
    assert bootstrap_mean(graded(20), confidence=0.95) == bootstrap_mean(graded(20), confidence=0.95)
    assert bootstrap_mean(graded(20), confidence=0.95).method.startswith("percentile")
    assert bootstrap_mean(graded(20), confidence=0.95, seed=5) != bootstrap_mean(graded(20), confidence=0.95)


def test_equal_values_get_an_exact_bound_instead_of_a_point():
    interval = bootstrap_mean([0.5] * 50, confidence=0.95, support=(0, 1))
    unseen = 1 - 0.025 ** (1 / 50)
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((0.5 - unseen / 2, 0.5, 0.5 + unseen / 2))
    with pytest.raises(ValueError, match="support"):
        bootstrap_mean([0.5] * 50, confidence=0.95)


def test_bounds_stay_inside_the_support():
    interval = bootstrap_mean([1.0] * 29 + [0.999999], confidence=0.999, support=(0, 1))
    assert interval.high <= 1


def test_too_few_values_are_refused():
    with pytest.raises(ValueError, match="at least 8"):
        bootstrap_mean([0.1] * 7, confidence=0.95)
    with pytest.raises(ValueError, match="at least 8"):
        bootstrap_quantile_ratio([1.0] * 7, [1.0] * 7, confidence=0.95)
    with pytest.raises(ValueError, match="positive"):
        bootstrap_quantile_ratio([1.0] * 8, [0.0] + [1.0] * 7, confidence=0.95)


def test_median_ratio_of_proportional_latencies_is_exact():
    """Drawn in pairs, twice the latency is twice the latency in every resample."""
    base = [10.0 + value * 100 for value in graded(60)]
    interval = bootstrap_quantile_ratio([2 * value for value in base], base, confidence=0.95)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((2, 2, 2))


def test_median_ratio_interval_holds_the_truth():
    source = random.Random(3)
    base = [source.lognormvariate(3, 0.3) for _ in range(300)]
    slower = [value * 1.2 * source.lognormvariate(0, 0.1) for value in base]
    interval = bootstrap_quantile_ratio(slower, base, confidence=0.95)
    assert interval.low < 1.2 < interval.high
    assert interval.high - interval.low < 0.2


@pytest.mark.parametrize(("n", "q"), [(9, 0.5), (40, 0.5), (401, 0.95), (2_000, 0.5)])
def test_quantile_ratios_are_those_of_whole_resamples(n, q):
    """Drawing only the pairs near the quantile gives the distribution that drawing every pair gives."""
    numbers = np.random.default_rng(7)
    theirs = np.round(numbers.lognormal(4, 0.4, n))  # ties
    ours = 0.5 * theirs + 0.5 * numbers.lognormal(4, 0.4, n)
    which = numbers.integers(0, n, (4_000, n))
    top, bottom = np.sort(ours[which], axis=1), np.sort(theirs[which], axis=1)
    places = [(n - 1) // 2, n // 2] if q == 0.5 else [math.ceil(q * n) - 1] * 2
    ratios = top[:, places].mean(axis=1) / bottom[:, places].mean(axis=1)
    interval = bootstrap_quantile_ratio(ours.tolist(), theirs.tolist(), confidence=0.9, q=q)
    for share, bound in ((0.05, interval.low), (0.95, interval.high)):
        within = [float((ratios <= bound * slack).mean()) for slack in (1 - 1e-3, 1 + 1e-3)]
        assert within[0] - 0.015 <= share <= within[1] + 0.015


def clustered(groups, size, seed=1):
    """Values that agree within their group."""
    source = random.Random(seed)
    values = [source.betavariate(2, 5) for _ in range(groups)]
    return [value for value in values for _ in range(size)], [group for group in range(groups) for _ in range(size)]


def test_groups_of_copies_are_worth_one_value_each():
    """Ten copies of sixty values tell what sixty values tell."""
    values, groups = clustered(60, 10)
    together = bootstrap_mean(values, confidence=0.95, groups=groups)
    alone = bootstrap_mean(values[::10], confidence=0.95)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=0.002)
    assert together.method.startswith("cluster BCa bootstrap, 10000 draws")
    assert together.method.endswith("60 groups")
    assert together.n == 600
    naive = bootstrap_mean(values, confidence=0.95)
    assert together.high - together.low > 2.5 * (naive.high - naive.low)


def test_groups_of_unequal_size_weigh_by_their_values():
    values, groups = [0.0] * 10 + [float(index % 2) for index in range(40)], [0] * 10 + list(range(1, 41))
    interval = bootstrap_mean(values, confidence=0.95, support=(0, 1), groups=groups)
    assert interval.estimate == pytest.approx(20 / 50)


@pytest.mark.parametrize(("groups", "is_enough"), [(7, False), (8, True)])
def test_fewer_than_eight_groups_are_refused_however_many_values(groups, is_enough):
    values, labels = clustered(groups, 20)
    if is_enough:
        assert bootstrap_mean(values, confidence=0.95, groups=labels).method.startswith("cluster percentile")
        return
    with pytest.raises(TooFewGroupsError, match="8 groups, got 7"):
        bootstrap_mean(values, confidence=0.95, groups=labels)


def test_bca_from_thirty_groups():
    for groups, method in ((29, "cluster percentile"), (30, "cluster BCa")):
        values, labels = clustered(groups, 3)
        assert bootstrap_mean(values, confidence=0.95, groups=labels).method.startswith(method)


def test_equal_values_in_groups_count_groups():
    interval = bootstrap_mean(
        [1.0] * 100, confidence=0.95, support=(0, 1), groups=[index // 10 for index in range(100)]
    )
    assert interval.low == pytest.approx(0.025 ** (1 / 10))


def test_later_attempts_draw_more_so_that_enough_lie_beyond_the_bounds():
    assert "10000 draws" in bootstrap_mean(graded(50), confidence=0.95).method
    assert "32000 draws" in bootstrap_mean(graded(50), confidence=1 - 0.05 / 2**3).method


def test_thousands_of_values_take_normal_theory_that_agrees_with_the_bootstrap():
    source = random.Random(9)
    skewed = [min(1.0, source.expovariate(4)) for _ in range(5001)]
    many, fewer = bootstrap_mean(skewed, confidence=0.95), bootstrap_mean(skewed[:-1], confidence=0.95)
    assert many.method == "normal theory, corrected for skewness"
    assert fewer.method.startswith("BCa bootstrap, 2000 draws")
    width = fewer.high - fewer.low
    assert (many.low, many.high) == pytest.approx((fewer.low, fewer.high), abs=0.05 * width)


def test_normal_theory_leans_to_the_long_tail_as_bca_does():
    source = random.Random(10)
    skewed = [source.expovariate(1) ** 2 for _ in range(300)]
    normal, bca = normal_mean(skewed, confidence=0.95), bootstrap_mean(skewed, confidence=0.95)
    lean = (normal.high - normal.estimate) / (normal.estimate - normal.low)
    assert lean > 1.2
    assert lean == pytest.approx((bca.high - bca.estimate) / (bca.estimate - bca.low), rel=0.12)
    assert normal_mean([1.0] * 10, confidence=0.95).low == 1
    with pytest.raises(TooFewGroupsError):
        normal_mean([1.0] * 7, confidence=0.95)


def test_quantiles_of_thousands_take_fewer_draws():
    base = [float(value) for value in range(1, 5001)]
    assert bootstrap_quantile_ratio(base, base, confidence=0.95).method.startswith("percentile bootstrap, 2000 draws")


def test_ratio_of_totals():
    source = random.Random(5)
    theirs = [source.expovariate(1) for _ in range(200)]
    ours = [1.5 * value * source.lognormvariate(0, 0.1) for value in theirs]
    interval = bootstrap_total_ratio(ours, theirs, confidence=0.95)
    assert interval.low < 1.5 * math.exp(0.005) < interval.high
    assert interval.estimate == pytest.approx(sum(ours) / sum(theirs))
    assert interval.high - interval.low < 0.1
    grouped = bootstrap_total_ratio(ours, theirs, confidence=0.95, groups=[index // 5 for index in range(200)])
    assert grouped.method.endswith("40 groups")


@pytest.mark.parametrize("denominator", [[-1.0] + [1.0] * 9, [0.0] * 3 + [1.0] * 7])
def test_ratio_of_totals_needs_something_to_divide_by(denominator):
    with pytest.raises(ValueError, match="positive denominators"):
        bootstrap_total_ratio([1.0] * 10, denominator, confidence=0.95)


def test_ratio_of_totals_refuses_too_few():
    with pytest.raises(TooFewGroupsError, match="8 pairs, got 7"):
        bootstrap_total_ratio([1.0] * 7, [1.0] * 7, confidence=0.95)
    with pytest.raises(TooFewGroupsError, match="8 groups, got 2"):
        bootstrap_total_ratio([1.0] * 20, [1.0] * 20, confidence=0.95, groups=[index % 2 for index in range(20)])
    with pytest.raises(ValueError, match="as many"):
        bootstrap_total_ratio([1.0] * 9, [1.0] * 8, confidence=0.95)


def test_ratio_of_95th_percentiles():
    """The 95th percentile of 1 to 200 is 190, of its double 380; pairs stay together in every draw."""
    base = [float(value) for value in range(1, 201)]
    interval = bootstrap_quantile_ratio([2 * value for value in base], base, confidence=0.95, q=0.95)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((2, 2, 2))
    tail = [value if value < 185 else 3 * value for value in base]
    assert bootstrap_quantile_ratio(tail, base, confidence=0.95, q=0.95).estimate == pytest.approx(3)
    assert bootstrap_quantile_ratio(tail, base, confidence=0.95).estimate == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 41])
def test_hodges_lehmann_is_the_median_of_all_pairwise_means(n):
    source = random.Random(n)
    values = [source.gauss(3, 2) for _ in range(n)]
    means = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2)]
    assert hodges_lehmann(values) == pytest.approx(statistics.median(means), abs=1e-9)


def test_hodges_lehmann_is_not_moved_by_a_wild_value():
    assert hodges_lehmann([1.0] * 99 + [1e9]) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        hodges_lehmann([])


def test_sign_flip_of_few_values_lists_all_patterns():
    """Of 2^3 patterns of 1, 2, 3 only the observed one reaches 6; of 1, 2, -3 five reach 0: it and its mirror tie."""
    assert sign_flip([1.0, 2.0, 3.0]) == (1 / 8, 1.0)
    assert sign_flip([-1.0, -2.0, -3.0]) == (1.0, 1 / 8)
    assert sign_flip([1.0, 2.0, -3.0]) == (5 / 8, 5 / 8)
    assert sign_flip([0.0, 0.0]) == (1.0, 1.0)


def test_sign_flip_by_draws_and_by_the_normal_law_agree():
    source = random.Random(8)
    values = [source.gauss(0.06, 1) for _ in range(1000)]
    drawn, normal = sign_flip(values), sign_flip([*values, 1e-12])
    assert drawn == pytest.approx(normal, abs=0.01)
    assert sum(drawn) == pytest.approx(1, abs=0.001)


def test_sign_flip_flips_whole_groups():
    """A hundred values that agree within five groups are five coins, and 1/32 is as small as p gets."""
    values, groups = [0.1] * 100, [index // 20 for index in range(100)]
    assert sign_flip(values, groups=groups)[0] == 1 / 32
    assert sign_flip(values)[0] < 0.001
