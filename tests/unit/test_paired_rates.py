"""The exact test of a paired difference: its error by enumeration, its monotony, and its bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway import paired_rates
from slipway.paired_rates import EXACT_MAX_N, exact_p, paired_difference, refutes, rejection_region


def score_bounds(gains, losses, n):
    """Tango's at 0.95, which the search for the exact bounds begins with."""
    critical = paired_rates._critical(0.95)
    return paired_rates._score_lower(gains, losses, n, critical), -paired_rates._score_lower(losses, gains, n, critical)


def outcomes(n):
    return [(gains, losses) for gains in range(n + 1) for losses in range(n + 1 - gains)]


def chance(gains, losses, n, p_gain, p_loss):
    ways = math.comb(n, gains) * math.comb(n - gains, losses)
    return ways * p_gain**gains * p_loss**losses * max(0.0, 1 - p_gain - p_loss) ** (n - gains - losses)


@pytest.mark.parametrize(("gains", "losses", "n"), [(0, 0, 30), (12, 2, 50), (3, 1, 80), (0, 7, 60), (50, 40, 900)])
def test_score_interval_solves_its_equation(gains, losses, n):
    """At a bound the standardised difference is 1.96, with the variance at the likeliest rates under that bound."""
    low, high = score_bounds(gains, losses, n)
    assert statistic(gains, losses, n, low) == pytest.approx(1.959964, abs=1e-4)
    assert statistic(gains, losses, n, high) == pytest.approx(-1.959964, abs=1e-4)


def test_score_interval_without_discordant_pairs_has_a_closed_form():
    """Then the bound is z^2 / (n + z^2) (Tango 1998)."""
    low, high = score_bounds(0, 0, 54)
    assert high == -low == pytest.approx(1.959964**2 / (54 + 1.959964**2), abs=1e-6)


@pytest.mark.parametrize("limit", [-0.1, -0.02, 0.05, 0.3])
@pytest.mark.parametrize("n", [12, 20])
def test_the_error_is_kept_whatever_the_share_of_discordant_pairs(n, limit):
    """Every outcome of n pairs, at the limit and beyond it, for many shares: refuted in at most 2.5 % of runs."""
    refuted = [outcome for outcome in outcomes(n) if refutes(*outcome, n, limit, 0.025)]
    assert refuted
    for difference in (limit, limit - 0.07):
        for smaller in np.linspace(0, (1 - abs(difference)) / 2, 60):
            p_gain, p_loss = smaller + max(difference, 0), smaller + max(-difference, 0)
            assert sum(chance(*outcome, n, p_gain, p_loss) for outcome in refuted) <= 0.025 + 1e-9


def test_the_largest_probability_is_found():
    """A much finer grid finds nothing larger, spikes near the end included."""
    for gains, losses, n, limit in [(3, 1, 40, -0.05), (9, 2, 60, 0.02), (5, 0, 80, -0.01), (14, 6, 120, -0.02)]:
        found = exact_p(gains, losses, n, limit=limit)
        region = [
            outcome
            for outcome in outcomes(n)
            if statistic(*outcome, n, limit) >= statistic(gains, losses, n, limit) - 1e-9
        ]
        g, c = np.array(region).T
        log_ways = np.array(
            [
                math.lgamma(n + 1) - math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(n - a - b + 1)
                for a, b in region
            ]
        )
        largest = 0.0
        for root in np.linspace(1e-6, math.sqrt((1 - abs(limit)) / 2 - 1e-9), 4000):
            p_gain, p_loss = root**2 + max(limit, 0), root**2 + max(-limit, 0)
            logs = log_ways + g * math.log(p_gain) + c * math.log(p_loss) + (n - g - c) * math.log(1 - p_gain - p_loss)
            largest = max(largest, float(np.exp(logs).sum()))
        assert largest <= found <= 1.003 * largest


def statistic(gains, losses, n, limit):
    """Tango's, written down a second time: the constrained maximum of the likelihood by plain search."""
    linear = (2 * n - gains + losses) * limit - gains - losses
    q = (-linear + math.sqrt(max(0.0, linear**2 + 8 * n * losses * limit * (1 - limit)))) / (4 * n)
    return (gains - losses - n * limit) / math.sqrt(n * (2 * q + limit * (1 - limit)))


@pytest.mark.parametrize("limit", [-0.2, -0.02, 0.01, 0.4])
def test_a_better_outcome_never_has_a_larger_p(limit):
    """Stopping early rests on it: the worst and the best completion must bound all others."""
    n = 15
    p = {outcome: exact_p(*outcome, n, limit=limit) for outcome in outcomes(n)}
    for (gains, losses), here in p.items():
        if gains + losses < n:
            assert p[gains + 1, losses] <= here + 1e-12
            assert p[gains, losses + 1] >= here - 1e-12
        if losses:
            assert p[gains + 1, losses - 1] <= here + 1e-12


@given(st.integers(1, 120), st.data())
@settings(max_examples=30, deadline=None)
def test_bounds_move_with_the_counts(n, data):
    gains = data.draw(st.integers(0, n - 1))
    losses = data.draw(st.integers(0, n - 1 - gains))
    here = paired_difference(gains, losses, n, confidence=0.95)
    better = paired_difference(gains + 1, losses, n, confidence=0.95)
    assert -1 <= here.low <= here.estimate <= here.high <= 1
    assert better.low >= here.low - 1e-4
    assert better.high >= here.high - 1e-4


@given(st.integers(1, 150), st.data())
@settings(max_examples=20, deadline=None)
def test_bounds_are_mirrored(n, data):
    gains = data.draw(st.integers(0, n))
    losses = data.draw(st.integers(0, n - gains))
    one = paired_difference(gains, losses, n, confidence=0.9)
    other = paired_difference(losses, gains, n, confidence=0.9)
    assert (one.low, one.high) == (-other.high, -other.low)


def test_interval_covers_at_least_its_confidence():
    n, p_gain, p_loss = 12, 0.3, 0.1
    covered = 0.0
    for gains, losses in outcomes(n):
        interval = paired_difference(gains, losses, n, confidence=0.9)
        covered += chance(gains, losses, n, p_gain, p_loss) * (interval.low <= p_gain - p_loss <= interval.high)
    assert covered >= 0.9


@pytest.mark.parametrize("limit", [-0.05, 0.0, 0.03])
@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (6, 0), (5, 0), (0, 4), (0, 6), (20, 9), (0, 17), (16, 0)])
def test_bounds_tell_what_the_test_at_the_limit_tells(gains, losses, limit):
    interval = paired_difference(gains, losses, 200, confidence=0.95, limit=limit)
    assert (interval.low >= limit) is refutes(gains, losses, 200, limit, 0.025)
    assert (interval.high < limit) is refutes(losses, gains, 200, -limit, 0.025)


def test_interval_is_a_good_third_narrower_than_two_exact_rates():
    """Five gained and five lost of 200: Clopper-Pearson for both cells, with Bonferroni, gives 0.060 either side."""
    interval = paired_difference(5, 5, 200, confidence=0.95)
    assert interval.high == -interval.low == pytest.approx(0.036, abs=5e-4)
    low, _ = score_bounds(5, 5, 200)
    assert interval.low <= low <= interval.low + 0.002


def test_no_discordant_pair_is_not_a_point():
    """The true share of losses can be such that 200 pairs show none in 2.5 % of runs, 0.0183, and some more."""
    interval = paired_difference(0, 0, 200, confidence=0.95)
    assert 1 - 0.025 ** (1 / 200) <= interval.high <= 0.020
    assert interval.n == 200
    assert interval.method.startswith("exact")


def test_many_pairs_take_the_score_interval():
    n = EXACT_MAX_N + 1
    assert paired_difference(500, 400, n, confidence=0.95).method == "Tango's score interval"
    exact = paired_difference(500, 400, EXACT_MAX_N, confidence=0.95)
    assert (exact.low, exact.high) == pytest.approx(score_bounds(500, 400, EXACT_MAX_N), abs=5e-4)
    assert refutes(500, 400, n, 0.003, 0.025)
    assert not refutes(500, 400, n, 0.005, 0.025)


def test_extreme_outcomes_and_limits():
    assert paired_difference(0, 5, 5, confidence=0.95).low == -1
    assert paired_difference(5, 0, 5, confidence=0.95).high == 1
    assert refutes(0, 5, 5, -1.0, 0.025)
    assert not refutes(5, 0, 5, 1.0, 0.025)
    assert paired_difference(1, 0, 1, confidence=0.95).low < -0.9


@pytest.mark.parametrize(("gains", "losses", "n"), [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(gains, losses, n):
    with pytest.raises(ValueError, match="paired rates"):
        paired_difference(gains, losses, n, confidence=0.95)
    with pytest.raises(ValueError, match="paired rates"):
        exact_p(gains, losses, n, limit=0.1)


def test_a_limit_outside_is_refused():
    with pytest.raises(ValueError, match="between -1 and 1"):
        exact_p(1, 1, 5, limit=1.0)


@pytest.mark.parametrize("limit", [-0.1, 0.0, 0.05])
def test_rejection_region_is_what_refutes(limit):
    n = 40
    region = rejection_region(n, limit, 0.025)
    inside = [outcome for outcome in outcomes(n) if outcome[0] >= region.least_gains[outcome[1]]]
    refuted = [outcome for outcome in outcomes(n) if refutes(*outcome, n, limit, 0.025)]
    # Outcomes whose statistics differ by less than a thousandth may be left out, which is the careful side.
    assert set(inside) <= set(refuted)
    assert len(inside) >= 0.97 * len(refuted)
    expected = sum(chance(*outcome, n, 0.2, 0.05) for outcome in inside)
    assert region.probability(0.2, 0.05) == pytest.approx(expected, abs=1e-9)
