"""Look at every byte of a weights file once: its SHA-256, which tensors are not finite or all zero, and their norms.

The bits of a float without its sign, read as an unsigned integer, order as its magnitude does. So the largest such
integer of a tensor tells at once whether the tensor is all zero (it is 0) and whether it has a NaN or an infinity (its
exponent is all ones), for any IEEE-like format and without converting anything. Only norms need numbers: the upper half
of a float32 is a bfloat16, and a float16 becomes a float32 by moving its bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from slipway.errors import StoreError
from slipway.hashing import BLOCK_BYTES, OverlappedHash, read_blocks
from slipway.tensors import Header

__all__ = ["Scan", "scan_file"]


@dataclass(frozen=True, kw_only=True)
class _Layout:
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


_LAYOUTS: Final[Mapping[str, _Layout]] = {
    "BF16": _Layout(unsigned=np.dtype("<u2"), magnitude=0x7FFF, not_finite=0x7F80, float32_shift=16),
    "F16": _Layout(
        unsigned=np.dtype("<u2"), magnitude=0x7FFF, not_finite=0x7C00, float32_shift=13, float32_factor=2.0**112
    ),
    "F32": _Layout(unsigned=np.dtype("<u4"), magnitude=0x7FFFFFFF, not_finite=0x7F800000, float_type=np.dtype("<f4")),
    "F64": _Layout(
        unsigned=np.dtype("<u8"), magnitude=(1 << 63) - 1, not_finite=0x7FF << 52, float_type=np.dtype("<f8")
    ),
    "F8_E4M3": _Layout(unsigned=np.dtype("u1"), magnitude=0x7F, not_finite=0x7F),
    "F8_E5M2": _Layout(unsigned=np.dtype("u1"), magnitude=0x7F, not_finite=0x7C),
}
"""Float formats. The 8-bit ones are those of arXiv 2209.05433, table 1; E4M3 has NaN and no infinity."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the bytes of a weights file say.

    Attributes:
        sha256: Of the whole file, 64 hexadecimal digits.
        nonfinite: Names of tensors with a NaN or an infinity, in file order.
        zero: Names of tensors that have elements and are zero throughout, in file order.
        norms: Frobenius norm by name, of finite tensors of 16 bits or more; about six digits are right.
    """

    sha256: str
    nonfinite: tuple[str, ...]
    zero: tuple[str, ...]
    norms: Mapping[str, float]


def scan_file(path: Path, header: Header) -> Scan:
    """Read a file once, one block of 1 MiB at a time; the hash runs on a thread beside the scan.

    Args:
        path: The file.
        header: Its header, as ``read_header`` gave it.

    Raises:
        StoreError: The file cannot be read, or is not the one that the header was read from.
    """
    largest = [0] * len(header.tensors)
    squares = [0.0] * len(header.tensors)
    scratch = _Scratch()
    try:
        with path.open("rb", buffering=0) as file, OverlappedHash() as hashed:
            end, index = 0, 0
            for start, block in read_blocks(file, _cuts(header), hashed):
                end = start + len(block)
                while index < len(header.tensors) and header.tensors[index].end <= start:
                    index += 1
                for position, part, layout in _parts(header, index, start, block):
                    magnitudes = scratch.magnitudes(part, layout)
                    bits = int(magnitudes.max())
                    largest[position] = max(largest[position], bits)
                    if 0 < bits < layout.not_finite:
                        squares[position] += scratch.sum_of_squares(magnitudes, layout)
            digest = hashed.hexdigest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    if end != header.file_size_bytes:
        raise StoreError(f"{path} got shorter while it was read.", fix="Pull the adapter again.")
    return Scan(
        sha256=digest,
        nonfinite=tuple(
            tensor.name
            for tensor, bits in zip(header.tensors, largest, strict=True)
            if tensor.dtype in _LAYOUTS and bits >= _LAYOUTS[tensor.dtype].not_finite
        ),
        zero=tuple(
            tensor.name
            for tensor, bits in zip(header.tensors, largest, strict=True)
            if tensor.dtype in _LAYOUTS and tensor.elements and not bits
        ),
        norms={
            tensor.name: math.sqrt(total)
            for tensor, bits, total in zip(header.tensors, largest, squares, strict=True)
            if tensor.dtype in _LAYOUTS
            and _LAYOUTS[tensor.dtype].unsigned.itemsize > 1
            and bits < _LAYOUTS[tensor.dtype].not_finite
        },
    )


def _cuts(header: Header) -> Iterator[int]:
    """Say where blocks must end so that none ever holds half an element.

    Blocks are a multiple of every element's size, so a new start is needed only where a tensor does not lie on its
    element's grid, counted from the last start. Writers align tensors; the rest is for files that were made by hand.
    """
    start = header.data_start
    yield start
    for tensor in header.tensors:
        layout = _LAYOUTS.get(tensor.dtype)
        if layout is not None and (tensor.start - start) % layout.unsigned.itemsize:
            start = tensor.start
            yield start
    yield header.file_size_bytes


def _parts(header: Header, index: int, start: int, block: memoryview) -> Iterator[tuple[int, memoryview, _Layout]]:
    """Give the floats that this block has of every tensor from ``index`` on, with the tensor's number."""
    end = start + len(block)
    for position in range(index, len(header.tensors)):
        tensor = header.tensors[position]
        if tensor.start >= end:
            return
        if (layout := _LAYOUTS.get(tensor.dtype)) is not None and tensor.end > tensor.start:
            yield position, block[max(tensor.start - start, 0) : tensor.end - start], layout


class _Scratch:
    """Memory that is used again for every block."""

    def __init__(self) -> None:
        self._bits = np.empty(BLOCK_BYTES, np.uint8)
        self._wide = np.empty(BLOCK_BYTES // 2, np.uint32)

    def magnitudes(self, data: memoryview, layout: _Layout) -> NDArray[np.unsignedinteger[Any]]:
        """Give the bits of all numbers without their signs, until the next call."""
        bits = np.frombuffer(data, layout.unsigned)
        magnitudes = self._bits[: len(data)].view(layout.unsigned)
        np.bitwise_and(bits, bits.dtype.type(layout.magnitude), out=magnitudes)
        return magnitudes

    def sum_of_squares(self, magnitudes: NDArray[np.unsignedinteger[Any]], layout: _Layout) -> float:
        """Sum the squares of finite numbers; 0 for a format of 8 bits."""
        if layout.float_type is not None:
            return _dot(magnitudes.view(layout.float_type), 1.0)
        if layout.float32_shift is None:
            return 0.0
        wide = self._wide[: len(magnitudes)]
        np.left_shift(magnitudes, np.uint32(layout.float32_shift), out=wide, dtype=np.uint32)
        return _dot(wide.view(np.float32), layout.float32_factor)


def _dot(numbers: NDArray[np.floating[Any]], factor: float) -> float:
    """Sum squares in single precision where that is enough: squares that leave its range are infinite or zero."""
    with np.errstate(over="ignore", under="ignore"):
        if factor != 1.0:
            numbers = numbers * numbers.dtype.type(factor)
        return float(np.dot(numbers, numbers))
