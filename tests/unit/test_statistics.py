"""Intervals and tests against published and hand-computed values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.statistics import clopper_pearson, mcnemar, quantile, smallest_decisive_n


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


@given(st.integers(1, 1_000_000), st.integers(1, 5000))
@settings(max_examples=50)
def test_smallest_decisive_n_is_the_first_that_decides(first, start):
    assert smallest_decisive_n(lambda n: n >= first, start=start) == max(first, start)


def test_never_decisive_is_none():
    assert smallest_decisive_n(lambda _: False, start=10) is None
