"""Floats of any format by their bits: which are not finite, which are zero, how large they are.

The bits of a float without its sign, read as an unsigned integer, order as its magnitude does. So the largest such
integer of a tensor tells at once whether the tensor is all zero (it is 0) and whether it has a NaN or an infinity (its
exponent is all ones), for any IEEE-like format and without converting anything. Only norms need numbers: the upper half
of a float32 is a bfloat16, and a float16 becomes a float32 by moving its bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAYOUTS", "Layout", "Magnitudes", "sums_of_squares"]

_EXACT: Final = 4096
_STEP: Final = 61
"""A prime that is no usual width: steps of it meet all rows and columns of a matrix."""

Magnitudes = NDArray[np.unsignedinteger[Any]]
"""Bits of floats, without their signs."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a float lies in memory: its width, the bits without the sign, and the smallest that is not finite.

    To compute with it: numpy's own type where it has a fast one, or how far its bits are moved to be those of a
    float32, and what that is multiplied with.
    """

    unsigned: np.dtype[np.unsignedinteger[Any]]
    magnitude: int
    not_finite: int
    float_type: np.dtype[np.floating[Any]] | None = None
    float32_shift: int | None = None
    float32_factor: float = 1.0


LAYOUTS: Final[Mapping[str, Layout]] = {
    "BF16": Layout(unsigned=np.dtype("<u2"), magnitude=0x7FFF, not_finite=0x7F80, float32_shift=16),
    "F16": Layout(
        unsigned=np.dtype("<u2"), magnitude=0x7FFF, not_finite=0x7C00, float32_shift=13, float32_factor=2.0**112
    ),
    "F32": Layout(unsigned=np.dtype("<u4"), magnitude=0x7FFFFFFF, not_finite=0x7F800000, float_type=np.dtype("<f4")),
    "F64": Layout(
        unsigned=np.dtype("<u8"), magnitude=(1 << 63) - 1, not_finite=0x7FF << 52, float_type=np.dtype("<f8")
    ),
    "F8_E4M3": Layout(unsigned=np.dtype("u1"), magnitude=0x7F, not_finite=0x7F),
    "F8_E5M2": Layout(unsigned=np.dtype("u1"), magnitude=0x7F, not_finite=0x7C),
}
"""Float formats. The 8-bit ones are those of arXiv 2209.05433, table 1; E4M3 has NaN and no infinity."""


def sums_of_squares(magnitudes: Magnitudes, spans: Sequence[tuple[int, int]], layout: Layout) -> list[float]:
    """Estimate the sum of the squares of the numbers in each span, from some that are evenly spread.

    Exact but for rounding for spans of a few thousand numbers; 0 for a format of 8 bits. What leaves the range of
    single precision counts as infinite or zero; what is not finite makes its span's sum meaningless, and no other's.

    Args:
        magnitudes: Of several tensors.
        spans: First and last (exclusive) position of each.
        layout: Their format.
    """
    if layout.unsigned.itemsize == 1:
        return [0.0] * len(spans)
    samples = _numbers(magnitudes[::_STEP], layout)
    sums = []
    for first, last in spans:
        count = last - first
        begin, end = -(-first // _STEP), -(-last // _STEP)
        numbers = _numbers(magnitudes[first:last], layout) if count <= _EXACT else samples[begin:end]
        sums.append(float(numbers.dot(numbers)) * (count / max(1, len(numbers))))
    return sums


def _numbers(magnitudes: Magnitudes, layout: Layout) -> NDArray[np.floating[Any]]:
    if layout.float_type is not None:
        return magnitudes.view(layout.float_type)
    wide = np.left_shift(magnitudes, np.uint32(layout.float32_shift or 0), dtype=np.uint32).view(np.float32)
    return wide if layout.float32_factor == 1.0 else wide * np.float32(layout.float32_factor)
