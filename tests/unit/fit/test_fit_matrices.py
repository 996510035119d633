"""Numbers in and out of stored formats."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slipway.fit.matrices import FLOATS, Matrix, round_to, smallest_step, unit_roundoff, zeros

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_16_bit_pattern_survives_a_round_trip(dtype):
    """What is not computed with must keep its bits."""
    bits = np.arange(1 << 16, dtype="<u2")
    stored = Matrix(dtype=dtype, data=bits.view(FLOATS[dtype].stored))
    again = round_to(stored.values(), dtype).data.view("<u2")
    numbers = ~np.isnan(stored.values())
    assert np.array_equal(again[numbers], bits[numbers])


def test_bfloat16_values_are_torchs():
    bits = np.arange(1 << 16, dtype="<u2")
    expected = torch.from_numpy(bits.view("<i2").copy()).view(torch.bfloat16).double().numpy()
    assert np.array_equal(Matrix(dtype="BF16", data=bits).values(), expected, equal_nan=True)


def nearest_bfloat16(value: float) -> float:
    """Search the neighbours among all of them, ties to the even one."""
    table = Matrix(dtype="BF16", data=np.arange(0, 0x7F80, dtype="<u2")).values()
    index = int(np.searchsorted(table, abs(value)))
    around = [i for i in (index - 1, index) if 0 <= i < len(table)]
    best = min(around, key=lambda i: (abs(table[i] - abs(value)), i % 2))
    return float(np.copysign(table[best], value))


@given(st.floats(min_value=-1e38, max_value=1e38, allow_nan=False))
def test_bfloat16_is_rounded_once(value):
    """Over float32 a value just above a tie would come down on the wrong side."""
    assert float(round_to(np.array([[value]]), "BF16").values()[0, 0]) == nearest_bfloat16(value)


def test_bfloat16_just_above_a_tie_goes_up():
    above = 1 + 2.0**-8 + 2.0**-40
    assert round_to(np.array([[above, 1 + 2.0**-8]]), "BF16").values().tolist() == [[1 + 2.0**-7, 1.0]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_stays_within_the_stated_bound(dtype):
    values = np.random.default_rng(0).standard_normal((50, 50)) * 1e-3
    error = np.abs(round_to(values, dtype).values() - values)
    assert np.all(error <= unit_roundoff(dtype) * np.abs(values) + smallest_step(dtype) / 2)
    assert dtype == "F64" or np.any(error > unit_roundoff(dtype) * np.abs(values) / 3)


@pytest.mark.parametrize("dtype", FLOATS)
def test_limits_are_the_formats_own(dtype):
    info = torch.finfo(TORCH[dtype])
    assert 2 * unit_roundoff(dtype) == info.eps
    assert smallest_step(dtype) == info.smallest_normal * info.eps


def test_overflow_becomes_an_infinity():
    assert np.isinf(round_to(np.array([[1e6]]), "F16").values()).all()
    assert np.isinf(round_to(np.array([[1e39, -1e300]]), "BF16").values()).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_zero_is_zero_of_either_sign(dtype):
    assert zeros(2, 3, dtype).is_zero
    assert round_to(np.array([[-0.0, 0.0]]), dtype).is_zero
    assert not round_to(np.array([[0.0, smallest_step(dtype)]]), dtype).is_zero
