"""Look at every byte of a weights file once: its SHA-256, which tensors are not finite or all zero, and their norms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slipway.errors import StoreError
from slipway.hashing import BLOCK_BYTES, OverlappedHash, read_blocks
from slipway.magnitudes import LAYOUTS, Layout, sums_of_squares
from slipway.tensors import Header

__all__ = ["Scan", "scan_file"]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the bytes of a weights file say.

    Attributes:
        sha256: Of the whole file, 64 hexadecimal digits.
        nonfinite: Names of tensors with a NaN or an infinity, in file order.
        zero: Names of tensors that have elements and are zero throughout, in file order.
        norms: Frobenius norm by name, of finite tensors of 16 bits or more, estimated from evenly spread numbers:
            within a few percent, and exact for tensors of some thousand numbers.
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
    tally = _Tally(header)
    try:
        with path.open("rb", buffering=0) as file, OverlappedHash() as hashed, np.errstate(all="ignore"):
            end, index = 0, 0
            for start, block in read_blocks(file, _cuts(header), hashed):
                end = start + len(block)
                while index < len(header.tensors) and header.tensors[index].end <= start:
                    index += 1
                for run in _runs(header, index, start, len(block)):
                    tally.add(block, run)
            digest = hashed.hexdigest()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    if end != header.file_size_bytes:
        raise StoreError(f"{path} got shorter while it was read.", fix="Pull the adapter again.")
    judged = [
        (tensor, LAYOUTS[tensor.dtype], largest, squares)
        for tensor, largest, squares in zip(header.tensors, tally.largest, tally.squares, strict=True)
        if tensor.dtype in LAYOUTS
    ]
    return Scan(
        sha256=digest,
        nonfinite=tuple(tensor.name for tensor, layout, largest, _ in judged if largest >= layout.not_finite),
        zero=tuple(tensor.name for tensor, _, largest, _ in judged if tensor.elements and not largest),
        norms={
            tensor.name: math.sqrt(squares)
            for tensor, layout, largest, squares in judged
            if layout.unsigned.itemsize > 1 and largest < layout.not_finite
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
        layout = LAYOUTS.get(tensor.dtype)
        if layout is not None and (tensor.start - start) % layout.unsigned.itemsize:
            start = tensor.start
            yield start
    yield header.file_size_bytes


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Tensors of one format that follow each other in a block: their numbers, and where each one's are in the block."""

    layout: Layout
    parts: list[tuple[int, int, int]]


def _runs(header: Header, index: int, start: int, length: int) -> list[_Run]:
    """Find the floats that a block has of the tensors from ``index`` on."""
    runs: list[_Run] = []
    for position in range(index, len(header.tensors)):
        tensor = header.tensors[position]
        if tensor.start >= start + length:
            break
        layout = LAYOUTS.get(tensor.dtype)
        if layout is not None and tensor.end > tensor.start:
            part = (position, max(tensor.start - start, 0), min(tensor.end - start, length))
            if runs and runs[-1].layout is layout and runs[-1].parts[-1][2] == part[1]:
                runs[-1].parts.append(part)
            else:
                runs.append(_Run(layout=layout, parts=[part]))
    return runs


class _Tally:
    """What is known of each tensor so far: sum of squares; largest magnitude, or 1 for finite and not zero."""

    def __init__(self, header: Header) -> None:
        self.largest = [0] * len(header.tensors)
        self.squares = [0.0] * len(header.tensors)
        self._bits = np.empty(BLOCK_BYTES, np.uint8)

    def add(self, block: memoryview, run: _Run) -> None:
        """Look at a run of tensors at once, and again at single ones only where there is something to be seen."""
        layout, begin, end = run.layout, run.parts[0][1], run.parts[-1][2]
        bits = np.frombuffer(block[begin:end], layout.unsigned)
        magnitudes = self._bits[: end - begin].view(layout.unsigned)
        np.bitwise_and(bits, bits.dtype.type(layout.magnitude), out=magnitudes)
        is_finite = int(magnitudes.max()) < layout.not_finite
        width = layout.unsigned.itemsize
        spans = [((first - begin) // width, (last - begin) // width) for _, first, last in run.parts]
        sums = sums_of_squares(magnitudes, spans, layout)
        for (position, _, _), (first, last), squares in zip(run.parts, spans, sums, strict=True):
            part = magnitudes[first:last]
            largest = 1 if is_finite and part[0] else int(part.max())
            self.largest[position] = max(self.largest[position], largest)
            self.squares[position] += squares
