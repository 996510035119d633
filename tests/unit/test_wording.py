"""Sentences with numbers in them read as a person would write them."""

import pytest

from slipway.wording import all_of, counted, counted_are, fixed, p_value, probability


@pytest.mark.parametrize(("number", "written"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs")])
def test_one_is_told_as_one(number, written):
    assert counted(number, "pair") == written
    assert counted_are(number, "pair") == f"{written} {'is' if number == 1 else 'are'}"


def test_all_of_one_is_the_only_one():
    assert [all_of(number, "case") for number in (1, 30)] == ["the only case", "all 30 cases"]


def test_zeros_have_no_minus():
    assert [fixed(value, 2) for value in (-0.004, -0.005001, 0.0, -0.0)] == ["0.00", "-0.01", "0.00", "0.00"]


@pytest.mark.parametrize(("value", "written"), [(0.0496, "p = 0.05"), (3e-36, "p = 3e-36"), (0.0, "p < 1e-300")])
def test_no_probability_is_told_as_none(value, written):
    """Of thousands of pairs McNemar's is smaller than a float can be, and is not 0."""
    assert p_value(value) == written
    assert probability(value) == written.removeprefix("p ").removeprefix("= ")
