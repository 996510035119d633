"""Look at every byte of a weights file once: its SHA-256, and which tensors are not finite or all zero.

The bits of a float without its sign, read as an unsigned integer, order as its magnitude does. So the largest such
integer of a tensor tells at once whether the tensor is all zero (it is 0) and whether it has a NaN or an infinity (its
exponent is all ones), for any IEEE-like format and without converting anything.
"""

from __future__ import annotations

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
    """How a float lies in memory: its width, the bits without the sign, and the smallest that is not finite."""

    unsigned: np.dtype[np.unsignedinteger[Any]]
    magnitude: int
    not_finite: int


_LAYOUTS: Final[Mapping[str, _Layout]] = {
    "BF16": _Layout(unsigned=np.dtype("<u2"), magnitude=0x7FFF, not_finite=0x7F80),
    "F16": _Layout(unsigned=np.dtype("<u2"), magnitude=0x7FFF, not_finite=0x7C00),
    "F32": _Layout(unsigned=np.dtype("<u4"), magnitude=0x7FFFFFFF, not_finite=0x7F800000),
    "F64": _Layout(unsigned=np.dtype("<u8"), magnitude=(1 << 63) - 1, not_finite=0x7FF << 52),
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
    """

    sha256: str
    nonfinite: tuple[str, ...]
    zero: tuple[str, ...]


def scan_file(path: Path, header: Header) -> Scan:
    """Read a file once, one block of 1 MiB at a time; the hash runs on a thread beside the scan.

    Args:
        path: The file.
        header: Its header, as ``read_header`` gave it.

    Raises:
        StoreError: The file cannot be read, or is not the one that the header was read from.
    """
    largest = [0] * len(header.tensors)
    scratch = np.empty(BLOCK_BYTES, np.uint8)
    try:
        with path.open("rb", buffering=0) as file, OverlappedHash() as hashed:
            end, index = 0, 0
            for start, block in read_blocks(file, _cuts(header), hashed):
                end = start + len(block)
                while index < len(header.tensors) and header.tensors[index].end <= start:
                    index += 1
                for position, bits in _magnitudes(header, index, start, block, scratch):
                    largest[position] = max(largest[position], bits)
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


def _magnitudes(
    header: Header, index: int, start: int, block: memoryview, scratch: NDArray[np.uint8]
) -> Iterator[tuple[int, int]]:
    """Give number and largest magnitude in this block of every tensor from ``index`` on that has bytes in it."""
    end = start + len(block)
    for position in range(index, len(header.tensors)):
        tensor = header.tensors[position]
        if tensor.start >= end:
            return
        if (layout := _LAYOUTS.get(tensor.dtype)) is not None and tensor.end > tensor.start:
            part = block[max(tensor.start - start, 0) : tensor.end - start]
            yield position, _largest_magnitude(part, layout, scratch)


def _largest_magnitude(data: memoryview, layout: _Layout, scratch: NDArray[np.uint8]) -> int:
    bits = np.frombuffer(data, layout.unsigned)
    magnitudes = scratch[: len(data)].view(layout.unsigned)
    np.bitwise_and(bits, bits.dtype.type(layout.magnitude), out=magnitudes)
    return int(magnitudes.max())
