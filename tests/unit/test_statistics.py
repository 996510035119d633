"""Intervals and tests against published and hand-computed values."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.statistics import (
    BOOTSTRAP_SEED,
    bootstrap_mean,
    bootstrap_median_ratio,
    clopper_pearson,
    mcnemar,
    paired_difference,
    quantile,
    smallest_decisive_n,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_clopper_pearson_agrees_with_newcombe_1998_table_1(successes, n, low, high):
    assert clopper_pearson(successes, n, confidence=0.95) == pytest.approx((low, high), abs=5e-5)


def test_clopper_pearson_of_no_success_has_a_closed_form():
    assert clopper_pearson(0, 10, confidence=0.95) == pytest.approx((0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10, confidence=0.95) == pytest.approx((0.025**0.1, 1))
    assert clopper_pearson(0, 100, confidence=0.95, sides=1)[1] == pytest.approx(1 - 0.05**0.01)
    assert clopper_pearson(0, 100, confidence=0.95, sides=1)[1] == pytest.approx(3 / 100, rel=0.02)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(successes, n, confidence=0.95)


@given(st.integers(1, 300), st.data())
def test_clopper_pearson_holds_its_error_at_its_own_bounds(n, data):
    """At the lower bound, seeing this much or more has exactly the tail's probability."""
    k = data.draw(st.integers(1, n))
    low, _ = clopper_pearson(k, n, confidence=0.9)
    tail = math.fsum(math.comb(n, i) * low**i * (1 - low) ** (n - i) for i in range(k, n + 1))
    assert tail == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(
    ("gains", "losses", "p"),
    [(11, 1, 26 / 4096), (1, 11, 26 / 4096), (0, 0, 1), (3, 3, 1), (5, 0, 2 / 32), (6, 0, 2 / 64), (10, 4, 0.17956542)],
)
def test_mcnemar_two_sided(gains, losses, p):
    assert mcnemar(gains, losses) == pytest.approx(p)


def test_mcnemar_one_sided():
    assert mcnemar(5, 0, alternative="gain") == pytest.approx(1 / 32)
    assert mcnemar(5, 0, alternative="loss") == 1
    assert mcnemar(1, 3, alternative="loss") == pytest.approx(5 / 16)
    assert mcnemar(0, 0, alternative="gain") == 1


def test_paired_difference_without_discordant_pairs_is_not_a_point():
    interval = paired_difference(0, 0, 100, confidence=0.95)
    width = 1 - 0.0125 ** (1 / 100)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0, -width, width))
    assert interval.n == 100


def test_paired_difference_by_hand():
    """Both cells at 97.5 %: 0 of 10 has the upper bound 1 - 0.0125^(1/10), 10 of 10 mirrors it."""
    interval = paired_difference(10, 0, 10, confidence=0.95)
    edge = 0.0125**0.1
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((1, edge - (1 - edge), 1))


@given(st.integers(1, 200), st.data())
def test_paired_difference_moves_with_the_counts(n, data):
    gains = data.draw(st.integers(0, n - 1))
    losses = data.draw(st.integers(0, n - 1 - gains))
    base = paired_difference(gains, losses, n, confidence=0.95)
    better = paired_difference(gains + 1, losses, n, confidence=0.95)
    assert base.low <= base.estimate <= base.high
    assert better.low >= base.low
    assert better.high >= base.high


def test_paired_difference_covers_at_least_its_confidence():
    """Small enough to enumerate: every outcome of 12 pairs at an unkind truth."""
    n, p_gain, p_loss, covered = 12, 0.3, 0.1, 0.0
    for gains in range(n + 1):
        for losses in range(n + 1 - gains):
            rest = n - gains - losses
            chance = math.comb(n, gains) * math.comb(n - gains, losses) * p_gain**gains * p_loss**losses * 0.6**rest
            interval = paired_difference(gains, losses, n, confidence=0.9)
            covered += chance * (interval.low <= p_gain - p_loss <= interval.high)
    assert covered >= 0.9


def test_median_of_ten_lies_between_the_second_and_the_ninth():
    """The textbook case: coverage 97.85 %."""
    interval = quantile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], 0.5, confidence=0.95)
    assert (interval.estimate, interval.low, interval.high, interval.n) == (5, 2, 9, 10)


@pytest.mark.parametrize(("n", "q", "bounded"), [(71, 0.95, False), (72, 0.95, True), (5, 0.5, False), (6, 0.5, True)])
def test_upper_bound_of_a_quantile_needs_enough_values(n, q, bounded):
    """0.95^72 is the first power below 2.5 %, and 0.5^6."""
    assert math.isfinite(quantile(range(n), q, confidence=0.95).high) is bounded


def test_quantile_of_one_value_is_unbounded():
    interval = quantile([7.0], 0.95, confidence=0.95)
    assert (interval.estimate, interval.low, interval.high) == (7, -math.inf, math.inf)
    with pytest.raises(ValueError, match="at least one"):
        quantile([], 0.5, confidence=0.95)


def test_estimate_of_a_quantile_is_the_inverse_of_the_empirical_distribution():
    assert quantile(range(1, 101), 0.95, confidence=0.95).estimate == 95
    assert quantile(range(1, 21), 0.95, confidence=0.95).estimate == 19
    assert quantile([1, 2, math.inf], 0.99, confidence=0.95).estimate == math.inf


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
        bootstrap_median_ratio([1.0] * 7, [1.0] * 7, confidence=0.95)
    with pytest.raises(ValueError, match="positive"):
        bootstrap_median_ratio([1.0] * 8, [0.0] + [1.0] * 7, confidence=0.95)


def test_median_ratio_of_proportional_latencies_is_exact():
    """Drawn in pairs, twice the latency is twice the latency in every resample."""
    base = [10.0 + value * 100 for value in graded(60)]
    interval = bootstrap_median_ratio([2 * value for value in base], base, confidence=0.95)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((2, 2, 2))


def test_median_ratio_interval_holds_the_truth():
    source = random.Random(3)
    base = [source.lognormvariate(3, 0.3) for _ in range(300)]
    slower = [value * 1.2 * source.lognormvariate(0, 0.1) for value in base]
    interval = bootstrap_median_ratio(slower, base, confidence=0.95)
    assert interval.low < 1.2 < interval.high
    assert interval.high - interval.low < 0.2


@given(st.integers(1, 1_000_000), st.integers(1, 5000))
@settings(max_examples=50)
def test_smallest_decisive_n_is_the_first_that_decides(first, start):
    assert smallest_decisive_n(lambda n: n >= first, start=start) == max(first, start)


def test_never_decisive_is_none():
    assert smallest_decisive_n(lambda _: False, start=10) is None
