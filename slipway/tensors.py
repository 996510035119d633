"""Read the header of a safetensors file that somebody else wrote.

As strict as the reference implementation (https://github.com/huggingface/safetensors, ``safetensors/src/tensor.rs``):
tensors are contiguous, start at zero, end at the end of the file, and have the size that their shape says. What is
wrong comes back as a value: a bad file is a finding about an adapter and not an error of ours. The bytes of the tensors
are for ``scan``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn

from slipway.errors import StoreError

__all__ = [
    "START_BYTES",
    "Header",
    "HeaderProblem",
    "HeaderProblemKind",
    "Tensor",
    "measure_header",
    "parse_header",
    "read_header",
    "shown",
]

MAX_HEADER_BYTES: Final = 16 << 20
"""Room for 100,000 tensors. The reference allows 100 MB, which Python's JSON reader could blow up to gigabytes."""

START_BYTES: Final = 512
"""Enough of a file's start to tell what it is."""

DTYPE_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("F4",), 4),
}

_LENGTH_BYTES = 8
_MAX_ELEMENTS = (1 << 63) - 1
_SHOWN_CHARACTERS = 100
_MEMBERS = {"dtype", "shape", "data_offsets"}


class HeaderProblemKind(StrEnum):
    """What the file is instead of a readable safetensors file."""

    EMPTY = "empty-file"
    LFS_POINTER = "git-lfs-pointer"
    HTML = "html"
    PICKLE = "pickle-inside"
    GGUF = "gguf"
    TRUNCATED = "truncated"
    HEADER = "header"
    OFFSETS = "offsets"


_FOREIGN: Final = (
    (
        HeaderProblemKind.LFS_POINTER,
        (b"version https://git-lfs",),
        "it is a Git LFS pointer: the weights were never fetched",
    ),
    (
        HeaderProblemKind.HTML,
        (b"<!doctype", b"<html", b"<?xml"),
        "it is a web page, most likely an error or login page saved as a file",
    ),
    (
        HeaderProblemKind.PICKLE,
        (b"pk\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04"),
        "it is a PyTorch pickle under another name",
    ),
    (HeaderProblemKind.GGUF, (b"gguf",), "it is a GGUF file under another name"),
)
"""Lower-case beginnings of files, leading blanks removed."""


@dataclass(frozen=True, kw_only=True)
class HeaderProblem:
    """Why a file cannot be read as safetensors: the first problem met, as nothing behind it can be trusted."""

    kind: HeaderProblemKind
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One tensor. ``start`` and ``end`` are byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says about its content.

    Attributes:
        tensors: In the order of their bytes.
        metadata: The free texts under ``__metadata__``.
        data_start: Offset in the file of the first tensor's first byte.
        file_size_bytes: Size of the whole file.
    """

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    data_start: int
    file_size_bytes: int


def read_header(path: Path) -> Header | HeaderProblem:
    """Read a file's header; its tensors are not touched.

    Raises:
        StoreError: The file cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = measure_header(file.read(START_BYTES), file_size_bytes=size)
            if isinstance(length, HeaderProblem):
                return length
            file.seek(_LENGTH_BYTES)
            return parse_header(file.read(length), file_size_bytes=size)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error


def measure_header(start: bytes, *, file_size_bytes: int) -> int | HeaderProblem:
    """Find how many bytes of JSON follow the first eight bytes of a file.

    Args:
        start: The first ``START_BYTES`` of the file, or all of it.
        file_size_bytes: Size of the whole file.
    """
    foreign = _recognise(start, file_size_bytes)
    if foreign is not None:
        return foreign
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        return HeaderProblem(
            kind=HeaderProblemKind.HEADER,
            message=f"it announces a header of {length:,} bytes; more than {MAX_HEADER_BYTES:,} are not read",
        )
    if _LENGTH_BYTES + length > file_size_bytes:
        return HeaderProblem(
            kind=HeaderProblemKind.TRUNCATED,
            message=f"it ends after {file_size_bytes:,} bytes, inside its own header of {length:,} bytes",
        )
    return length


def parse_header(text: bytes, *, file_size_bytes: int) -> Header | HeaderProblem:
    """Read a header's JSON and hold it against the file's size.

    Args:
        text: The bytes that ``measure_header`` announced.
        file_size_bytes: Size of the whole file.
    """
    try:
        entries = _parse_json(text)
        metadata = _parse_metadata(entries.pop("__metadata__", {}))
        data_start = _LENGTH_BYTES + len(text)
        tensors = [_parse_tensor(name, entry, data_start) for name, entry in entries.items()]
        tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
        _check_offsets(tensors, data_start, file_size_bytes)
    except _Refusal as refusal:
        return refusal.problem
    return Header(tensors=tuple(tensors), metadata=metadata, data_start=data_start, file_size_bytes=file_size_bytes)


def shown(name: str) -> str:
    """Quote a text from outside so that it can neither flood nor steer a terminal."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "...")


class _Refusal(Exception):  # noqa: N818  # control flow inside this module, caught in parse_header
    def __init__(self, message: str, kind: HeaderProblemKind = HeaderProblemKind.HEADER) -> None:
        super().__init__(message)
        self.problem = HeaderProblem(kind=kind, message=message)


def _recognise(start: bytes, file_size_bytes: int) -> HeaderProblem | None:
    """Name the usual things that are saved under the name of a safetensors file."""
    if not file_size_bytes:
        return HeaderProblem(kind=HeaderProblemKind.EMPTY, message="it has no bytes")
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":  # a length may look like anything
        head = start.lstrip().lower()
        for kind, beginnings, message in _FOREIGN:
            if head.startswith(beginnings):
                return HeaderProblem(kind=kind, message=message)
    if len(start) < _LENGTH_BYTES:
        message = f"it has {file_size_bytes} bytes, too few for a header"
        return HeaderProblem(kind=HeaderProblemKind.TRUNCATED, message=message)
    return None


def _parse_json(text: bytes) -> dict[str, object]:
    if text[:1] != b"{":
        raise _Refusal("its header does not begin with a brace")
    try:
        entries = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _Refusal(f"its header is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise _Refusal("its header is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise _Refusal(f"its header is not JSON: {error.msg} at character {error.pos}") from error
    except ValueError as error:  # a number with thousands of digits
        raise _Refusal("its header has a number that is too long") from error
    if not isinstance(entries, dict):
        raise _Refusal("its header is not a JSON object")
    return entries


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Refusal(f"its header has {shown(twice)} twice")
    return members


def _refuse_constant(constant: str) -> NoReturn:
    raise _Refusal(f"its header has {constant}, which is not JSON")


def _parse_metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _Refusal("its __metadata__ is not an object of texts")
    if not all(map(_is_unicode, (*value, *value.values()))):
        raise _Refusal("its __metadata__ is not Unicode text")
    return value


def _parse_tensor(name: str, entry: object, data_start: int) -> Tensor:
    if not _is_unicode(name):
        raise _Refusal(f"the tensor name {shown(name)} is not Unicode text")
    if not isinstance(entry, dict) or entry.keys() != _MEMBERS:
        raise _Refusal(f"the entry of {shown(name)} is not an object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise _Refusal(f"{shown(name)} has the unknown dtype {shown(str(dtype))}")
    if not _are_sizes(shape):
        raise _Refusal(f"the shape of {shown(name)} is not a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _Refusal(f"the data_offsets of {shown(name)} are not a range", HeaderProblemKind.OFFSETS)
    start, end = offsets
    needed_bits = _count_elements(name, shape) * bits
    if needed_bits != (end - start) * 8:
        raise _Refusal(
            f"{shown(name)} has {end - start:,} bytes, not the {needed_bits // 8:,} of its shape",
            HeaderProblemKind.OFFSETS,
        )
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), start=data_start + start, end=data_start + end)


def _is_unicode(text: str) -> bool:
    """Whether there are no halves of surrogate pairs, which JSON's escapes can write."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _count_elements(name: str, shape: list[int]) -> int:
    elements = 1
    for size in shape:
        elements *= size
        if elements > _MAX_ELEMENTS:
            raise _Refusal(f"the shape of {shown(name)} has more elements than can be counted")
    return elements


def _are_sizes(value: object) -> bool:
    """Whether this is a list of whole numbers from zero up; JSON's true and 1.0 are none."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= _MAX_ELEMENTS for item in value)


def _check_offsets(tensors: list[Tensor], data_start: int, file_size_bytes: int) -> None:
    end = data_start
    for tensor in tensors:
        if tensor.start != end:
            problem = "overlaps the tensor before it" if tensor.start < end else "leaves a gap before it"
            raise _Refusal(f"{shown(tensor.name)} {problem}", HeaderProblemKind.OFFSETS)
        end = tensor.end
    if end > file_size_bytes:
        raise _Refusal(
            f"it ends after {file_size_bytes:,} bytes, and its tensors need {end:,}", HeaderProblemKind.TRUNCATED
        )
    if end < file_size_bytes:
        raise _Refusal(f"{file_size_bytes - end:,} bytes follow its last tensor", HeaderProblemKind.OFFSETS)
