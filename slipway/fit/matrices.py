"""Matrices as safetensors stores them: exact values out, correctly rounded values in.

numpy has no bfloat16, so such matrices are kept as their 16 bits. Whatever is not computed with keeps its bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOATS", "Matrix", "round_to", "smallest_step", "unit_roundoff", "zeros"]


@dataclass(frozen=True, kw_only=True)
class _Float:
    """A float format: significant bits with the hidden one, exponent of the smallest step, and how it is kept."""

    bits: int
    smallest: int
    stored: np.dtype[Any]


FLOATS: Final[Mapping[str, _Float]] = {
    "BF16": _Float(bits=8, smallest=-133, stored=np.dtype("<u2")),
    "F16": _Float(bits=11, smallest=-24, stored=np.dtype("<f2")),
    "F32": _Float(bits=24, smallest=-149, stored=np.dtype("<f4")),
    "F64": _Float(bits=53, smallest=-1074, stored=np.dtype("<f8")),
}
"""The formats that LoRA matrices come in, by their name in safetensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """One stored matrix.

    Attributes:
        dtype: A key of ``FLOATS``.
        data: The numbers; for BF16 their bits, as unsigned integers.
    """

    dtype: str
    data: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.data.shape

    @property
    def is_zero(self) -> bool:
        """Whether every number is zero, of either sign."""
        if self.dtype == "BF16":
            return not np.any(self.data & np.uint16(0x7FFF))
        return not np.any(self.data)

    def has_bits_of(self, other: Matrix) -> bool:
        """Whether both are the same to the last bit, NaN included."""
        if (self.dtype, self.shape) != (other.dtype, other.shape):
            return False
        return bool(np.array_equal(self.data.reshape(-1).view("u1"), other.data.reshape(-1).view("u1")))

    def values(self) -> NDArray[np.float64]:
        """The numbers, exactly."""
        floats = (self.data.astype("<u4") << 16).view("<f4") if self.dtype == "BF16" else self.data
        with np.errstate(invalid="ignore"):  # a signalling NaN; whoever computes with it gets a NaN
            return floats.astype(np.float64)


def round_to(values: NDArray[np.float64], dtype: str) -> Matrix:
    """Round once, to nearest and ties to even, as IEEE 754 says; what is too large becomes an infinity."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype == "BF16":
            return Matrix(dtype=dtype, data=_bfloat16_bits(values))
        return Matrix(dtype=dtype, data=values.astype(FLOATS[dtype].stored))


def zeros(rows: int, columns: int, dtype: str) -> Matrix:
    """A matrix of zeros; its memory is not touched before it is read."""
    return Matrix(dtype=dtype, data=np.zeros((rows, columns), FLOATS[dtype].stored))


def unit_roundoff(dtype: str) -> float:
    """The largest relative error of one rounding of a normal number: 2**-p for p significant bits."""
    return float(2.0 ** -FLOATS[dtype].bits)


def smallest_step(dtype: str) -> float:
    """The distance between the smallest numbers; rounding one of those is off by half of it at most."""
    return float(2.0 ** FLOATS[dtype].smallest)


def _bfloat16_bits(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Round over float32 without rounding twice.

    On the way float32 is rounded to odd: cut towards zero, and the last bit set where something was cut off. With 16
    bits more than bfloat16 has, rounding that to nearest gives what rounding the double at once would (Boldo and
    Melquiond, Emulation of FMA and correctly rounded sums, IEEE Transactions on Computers 57(4), 2008).
    """
    single = values.astype("<f4")
    bits = single.view("<u4")
    finite = np.isfinite(single)
    exact = single.astype(np.float64)
    bits = bits - (finite & (np.abs(exact) > np.abs(values)))
    bits = bits | (finite & (exact != values))
    rounded: NDArray[np.uint16] = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype("<u2")
    return rounded
