"""Bounds that hold at every look: coverage counted exactly or by simulation, and the edges of the support."""

from __future__ import annotations

import functools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from slipway.sequential import confidence_sequence, settled_at
from slipway.statistics import clopper_pearson, mcnemar

UNIT = (0.0, 1.0)
DIFFERENCES = (-1.0, 1.0)

units = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def bounds(values, support=UNIT, confidence=0.95):
    interval = confidence_sequence(values, support=support, confidence=confidence)
    return interval.low, interval.high


@functools.cache
def bounds_of_counts(gains, losses, ties, confidence=0.95):
    return bounds([1.0] * gains + [-1.0] * losses + [0.0] * ties, DIFFERENCES, confidence)


# -- coverage -----------------------------------------------------------------------------------------------------


def chance_of_ever_erring(rate, looks, errs):
    """Probability that ``errs(successes, n)`` at any n up to ``looks``, by counting all paths of a coin."""
    alive, erred = {0: 1.0}, 0.0
    for n in range(1, looks + 1):
        following: dict[int, float] = {}
        for successes, mass in alive.items():
            following[successes] = following.get(successes, 0.0) + mass * (1 - rate)
            following[successes + 1] = following.get(successes + 1, 0.0) + mass * rate
        erred += math.fsum(mass for successes, mass in following.items() if errs(successes, n))
        alive = {successes: mass for successes, mass in following.items() if not errs(successes, n)}
    return erred


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_each_bound_errs_with_at_most_half_of_the_error_over_all_looks(rate):
    """Exact, without simulation; Clopper-Pearson's interval, made for one look, errs more often over these."""

    @functools.cache
    def sequence(successes, n):
        return bounds([1.0] * successes + [0.0] * (n - successes), confidence=0.9)

    above = chance_of_ever_erring(rate, 40, lambda successes, n: sequence(successes, n)[0] > rate)
    below = chance_of_ever_erring(rate, 40, lambda successes, n: sequence(successes, n)[1] < rate)
    assert 0 < above <= 0.05
    assert below <= 0.05
    fixed = chance_of_ever_erring(rate, 40, lambda k, n: not _within(clopper_pearson(k, n, confidence=0.9), rate))
    assert fixed > 0.1


def _within(interval, value):
    return interval[0] <= value <= interval[1]


@pytest.mark.parametrize(("gain", "loss"), [(0.10, 0.15), (0.02, 0.07), (0.0, 0.05)])
def test_paired_differences_are_covered_at_all_looks_together(gain, loss):
    """True difference -0.05. Of 400 sequences at most 5 % may leave it out at any of ten looks; 6 more are chance."""
    rng = random.Random(11)
    left_out = 0
    for _ in range(400):
        gains = losses = 0
        erred = False
        for n in range(1, 201):
            draw = rng.random()
            gains += draw < gain
            losses += gain <= draw < gain + loss
            if n % 20 == 0:
                erred = erred or not _within(bounds_of_counts(gains, losses, n - gains - losses), gain - loss)
        left_out += erred
    assert left_out <= 400 * 0.05 + 6


def test_graded_scores_are_covered_at_all_looks_together():
    rng = random.Random(5)
    left_out = 0
    for _ in range(100):
        scores = [rng.betavariate(4, 1) for _ in range(80)]
        left_out += any(not _within(bounds(scores[:n], confidence=0.9), 0.8) for n in range(10, 81, 10))
    assert left_out <= 100 * 0.1


# -- what the bounds are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gains", "losses", "ties"), [(12, 1, 0), (12, 1, 60), (3, 9, 5), (20, 6, 100)])
def test_mean_zero_of_pairs_is_given_up_by_the_mixture_of_binomials(gains, losses, ties):
    """Only discordant pairs speak: the capital is the integral of 2c (1+c)^gains (1-c)^losses over c from 0 to 1."""
    capital, _ = quad(lambda bet: 2 * bet * (1 + bet) ** gains * (1 - bet) ** losses, 0, 1)
    error = 2 / capital
    if error >= 1:
        assert _within(bounds_of_counts(gains, losses, ties), 0)
        return
    assert bounds_of_counts(gains, losses, ties, 1 - error * 1.001)[0] > 0
    assert bounds_of_counts(gains, losses, ties, 1 - error * 0.999)[0] <= 0


def test_looking_at_every_value_costs_evidence():
    """With every discordant pair gained the test at the end needs 6 of them, and the bound that holds always 7."""
    assert mcnemar(6, 0) <= 0.05
    assert bounds_of_counts(6, 0, 20)[0] <= 0
    assert bounds_of_counts(7, 0, 20)[0] > 0


def test_no_discordant_pair_is_not_certainty():
    """A margin of 0.05 is within reach from 94 pairs on without a discordant one."""
    assert bounds_of_counts(0, 0, 93)[0] < -0.05
    assert bounds_of_counts(0, 0, 94)[0] >= -0.05


@given(units, st.randoms(use_true_random=False))
def test_bounds_do_not_depend_on_the_order(values, rng):
    shuffled = values[:]
    rng.shuffle(shuffled)
    assert bounds(values) == pytest.approx(bounds(shuffled), abs=1e-12)


@given(units)
def test_bounds_hold_the_mean_and_stay_in_the_support(values):
    interval = confidence_sequence(values, support=UNIT, confidence=0.95)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.estimate == pytest.approx(math.fsum(values) / len(values))
    assert interval.n == len(values)


@given(units, st.floats(0.5, 0.98))
@settings(max_examples=50)
def test_more_confidence_is_never_narrower(values, confidence):
    low, high = bounds(values, confidence=confidence)
    wider_low, wider_high = bounds(values, confidence=confidence + 0.01)
    assert wider_low <= low
    assert high <= wider_high


@given(units)
def test_a_better_value_never_lowers_a_bound(values):
    low, high = bounds(values)
    better = [*values[:-1], 1.0]
    assert bounds(better)[0] >= low - 1e-8
    assert bounds(better)[1] >= high - 1e-8


@given(units)
def test_bounds_turn_with_the_values(values):
    low, high = bounds(values)
    assert bounds([1 - value for value in values]) == pytest.approx((1 - high, 1 - low), abs=1e-7)
    assert bounds([2 * value - 1 for value in values], DIFFERENCES) == pytest.approx(
        (2 * low - 1, 2 * high - 1), abs=1e-7
    )


def test_bounds_close_in():
    """Twenty times the values, at the same rate, narrow the interval by more than three: the root, less a logarithm."""
    widths = [high - low for low, high in (bounds(([1.0] * 8 + [0.0] * 2) * times) for times in (5, 10, 20, 100))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 3


def test_ten_thousand_graded_values_stay_close_to_the_normal_interval():
    """Always-valid bounds are wider than those of one look, but not by more than two and a half times."""
    rng = random.Random(3)
    scores = [rng.random() for _ in range(10_000)]
    low, high = bounds(scores)
    normal = 2 * 1.96 * math.sqrt(1 / 12 / 10_000)
    assert normal < high - low < 2.5 * normal


# -- edges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_one_value_tells_next_to_nothing(value):
    low, high = bounds([value])
    assert 0 <= low < 0.02
    assert 0.98 < high <= 1


def test_equal_values_at_the_ends_of_the_support_touch_them():
    low, high = bounds([1.0] * 50)
    assert 0.9 < low < 1
    assert high == 1
    assert bounds([0.0] * 50) == pytest.approx((0, 1 - low))


def test_equal_values_inside_the_support_are_no_certainty():
    low, high = bounds([0.7] * 50)
    assert low < 0.7 < high


def test_values_next_to_nothing_do_not_break_the_search():
    low, high = bounds([1e-300] * 5)
    assert low == 0
    assert 0 < high < 1


@pytest.mark.parametrize(
    ("values", "support", "confidence", "words"),
    [
        ([], UNIT, 0.95, "at least one value"),
        ([0.5, math.nan], UNIT, 0.95, "every value"),
        ([math.inf], UNIT, 0.95, "every value"),
        ([1.0 + 1e-9], UNIT, 0.95, "every value"),
        ([-0.1], UNIT, 0.95, "every value"),
        ([0.5], (0.0, math.inf), 0.95, "bounded range"),
        ([0.5], (0.0, math.nan), 0.95, "bounded range"),
        ([0.5], (0.5, 0.5), 0.95, "bounded range"),
        ([0.5], UNIT, 1.0, "confidence"),
    ],
)
def test_what_has_no_bounds_is_refused(values, support, confidence, words):
    with pytest.raises(ValueError, match=words):
        confidence_sequence(values, support=support, confidence=confidence)


@pytest.mark.parametrize("limit", [0.3, 0.8])
def test_settled_at_is_the_first_prefix_whose_bounds_leave_the_limit_out(limit):
    source = random.Random(6)
    values = [float(source.random() < 0.55) for _ in range(150)]
    settled = settled_at(values, limit=limit, support=(0.0, 1.0), confidence=0.9)
    outside = [
        n
        for n in range(1, 151)
        if not (bounds := confidence_sequence(values[:n], support=(0.0, 1.0), confidence=0.9)).low
        <= limit
        <= bounds.high
    ]
    assert settled == outside[0]


def test_a_limit_that_stays_between_the_bounds_is_never_settled():
    assert settled_at([0.0, 1.0] * 20, limit=0.5, support=(0.0, 1.0), confidence=0.95) is None
    assert settled_at([-1.0] * 30, limit=0.0, support=(-1.0, 1.0), confidence=0.95) is not None
