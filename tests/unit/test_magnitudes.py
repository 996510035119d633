"""Sums of squares from bits, exact for few numbers and close for many."""

from __future__ import annotations

import numpy as np
import pytest

from slipway.magnitudes import LAYOUTS, sums_of_squares


@pytest.mark.parametrize(("name", "kind"), [("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8")])
def test_few_numbers_are_summed_exactly(name, kind):
    numbers = np.array([0.5, 3.0, 0.0, 1.5], kind)
    bits = numbers.view(LAYOUTS[name].unsigned)
    assert sums_of_squares(bits, [(0, 2), (2, 4)], LAYOUTS[name]) == pytest.approx([9.25, 2.25], rel=1e-6)


def test_smallest_float16_is_not_lost():
    bits = np.array([1], "<u2")
    assert sums_of_squares(bits, [(0, 1)], LAYOUTS["F16"]) == pytest.approx([(2.0**-24) ** 2], rel=1e-6)


@pytest.mark.parametrize("columns", [8, 16, 64, 512])
def test_samples_meet_all_columns(columns):
    """Rows or columns of very different size, as a trained matrix has them, must not be missed."""
    numbers = np.zeros((1 << 18) // columns * columns, "<f4").reshape(-1, columns)
    numbers[:, 0] = 1.0
    (found,) = sums_of_squares(numbers.reshape(-1).view("<u4"), [(0, numbers.size)], LAYOUTS["F32"])
    assert found == pytest.approx(float((numbers**2).sum()), rel=0.1)


def test_numbers_that_are_not_finite_spoil_only_their_own_sum():
    numbers = np.ones(20_000, "<f4")
    numbers[:5000] = np.inf
    first, second = sums_of_squares(numbers.view("<u4"), [(0, 10_000), (10_000, 20_000)], LAYOUTS["F32"])
    assert first == np.inf
    assert second == pytest.approx(10_000, rel=1e-3)


def test_8_bit_formats_are_not_summed():
    assert sums_of_squares(np.array([1], "u1"), [(0, 1)], LAYOUTS["F8_E4M3"]) == [0.0]
