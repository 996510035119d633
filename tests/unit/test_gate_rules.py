"""How an interval and a limit become an outcome: just inside, at, and just outside of every limit."""

from __future__ import annotations

import pytest

from slipway.gate_file import Gate
from slipway.gate_rules import DOLLARS, MILLISECONDS, bounded, confidence_of
from slipway.statistics import Interval

GATE = Gate.model_validate({"min_cases": 1, "require": [{"metric": "pass_rate", "at_least": 0.5}]}, strict=False)


def interval(low, high, estimate=None):
    return Interval(estimate=(low + high) / 2 if estimate is None else estimate, low=low, high=high, n=40, method="m")


@pytest.mark.parametrize(
    ("low", "high", "outcome", "words"),
    [
        (0.5, 0.9, "pass", "is at least 0.50."),
        (0.4999, 0.9, "inconclusive", "may be above or below 0.50."),
        (0.1, 0.5, "inconclusive", "may be above or below 0.50."),
        (0.1, 0.4999, "fail", "is below 0.50."),
    ],
)
def test_a_floor_is_reached_at_the_floor_itself(low, high, outcome, words):
    rule = bounded("rule", "share", interval(low, high), GATE, floor=0.5)
    assert rule.outcome == outcome
    assert rule.reason.endswith(words)


@pytest.mark.parametrize(
    ("low", "high", "outcome", "words"),
    [
        (0.5001, 0.9, "pass", "is above 0.50."),
        (0.5, 0.9, "inconclusive", "may be above or below 0.50."),
        (0.1, 0.5001, "inconclusive", "may be above or below 0.50."),
        (0.1, 0.5, "fail", "is not above 0.50."),
    ],
)
def test_a_strict_floor_is_not_reached_at_the_floor_itself(low, high, outcome, words):
    rule = bounded("rule", "share", interval(low, high), GATE, floor=0.5, is_strict=True)
    assert rule.outcome == outcome
    assert rule.reason.endswith(words)


@pytest.mark.parametrize(
    ("low", "high", "outcome", "words"),
    [
        (0.1, 0.5, "pass", "is at most 0.50."),
        (0.1, 0.5001, "inconclusive", "may be above or below 0.50."),
        (0.5, 0.9, "inconclusive", "may be above or below 0.50."),
        (0.5001, 0.9, "fail", "is above 0.50."),
    ],
)
def test_a_ceiling_is_kept_at_the_ceiling_itself(low, high, outcome, words):
    rule = bounded("rule", "share", interval(low, high), GATE, ceiling=0.5)
    assert rule.outcome == outcome
    assert rule.reason.endswith(words)


def test_a_limit_of_zero_is_a_limit():
    assert bounded("rule", "difference", interval(-0.1, -0.01), GATE, floor=0.0).outcome == "fail"
    assert bounded("rule", "difference", interval(0.01, 0.1), GATE, floor=0.0).outcome == "pass"


@pytest.mark.parametrize(
    ("estimate", "limit", "unit", "shown"),
    [
        (0.42, 0.8, "", "0.42"),
        (0.7996, 0.8, "", "0.7996"),
        (0.8 - 1e-8, 0.8, "", "0.800000"),
        (0.004, 0.8, "", "0.004"),
        (0.8, 0.8, "", "0.80"),
        (41.24, 800.0, MILLISECONDS, "41.2"),
        (799.96, 800.0, MILLISECONDS, "799.96"),
        (0.000123456, 0.5, DOLLARS, "0.000123"),
    ],
)
def test_numbers_have_as_many_digits_as_tell_them_from_the_limit(estimate, limit, unit, shown):
    rule = bounded("rule", "value", interval(0.0, 1.0, estimate), GATE, floor=limit, unit=unit)
    assert rule.reason.startswith(f"value {shown}{unit} (")


def test_the_first_attempt_takes_the_gates_confidence_as_it_stands():
    for confidence in (0.9, 0.95, 0.99):
        assert confidence_of(GATE.model_copy(update={"confidence": confidence})) == confidence
