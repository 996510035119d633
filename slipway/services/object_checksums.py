"""Checksums that an object store keeps beside an object, computed as its bytes arrive.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html. A checksum of the full
object is that of its bytes. A composite one, of an object uploaded in N parts, is the checksum of the parts' checksums,
one after the other, and ends in ``-N``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

__all__ = ["ObjectChecksum", "stored_checksum"]


class _Algorithm(Protocol):
    def update(self, data: memoryview | bytes, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A cyclic redundancy check, with hashlib's methods."""

    def __init__(self, function: Callable[[Any, int], int], width_bytes: int) -> None:
        self._function, self._width, self._value = function, width_bytes, 0

    def update(self, data: memoryview | bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._width, "big")


_ALGORITHMS: Final[Mapping[str, Callable[[], _Algorithm]]] = {
    "ChecksumSHA256": hashlib.sha256,
    "ChecksumSHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "ChecksumCRC64NVME": lambda: _Crc(_native("crc64nvme"), 8),
    "ChecksumCRC32C": lambda: _Crc(_native("crc32c"), 4),
    "ChecksumCRC32": lambda: _Crc(zlib.crc32, 4),
}
"""The strongest first, as a HEAD's answer names them."""


class ObjectChecksum:
    """One expected checksum; feed it the whole object, in order.

    Args:
        expected: As the store keeps it, in base64.
        algorithm: Makes an empty one.
        part_bytes: Size of each part but the last, for a composite checksum; 0 for one of the full object.
    """

    def __init__(self, expected: str, algorithm: Callable[[], _Algorithm], *, part_bytes: int = 0) -> None:
        self._expected, self._algorithm, self._part_bytes = expected, algorithm, part_bytes
        self._current, self._room = algorithm(), part_bytes
        self._parts: list[bytes] = []

    def update(self, data: memoryview, /) -> None:
        """Take the next bytes."""
        while self._part_bytes and len(data) >= self._room:
            self._current.update(data[: self._room])
            data = data[self._room :]
            self._end_part()
        self._current.update(data)
        self._room -= len(data)

    def matches(self) -> bool:
        """Whether what was fed has the expected checksum."""
        if not self._part_bytes:
            return base64.b64encode(self._current.digest()).decode() == self._expected
        if self._room < self._part_bytes:
            self._end_part()
        whole = self._algorithm()
        whole.update(b"".join(self._parts))
        return f"{base64.b64encode(whole.digest()).decode()}-{len(self._parts)}" == self._expected

    def _end_part(self) -> None:
        self._parts.append(self._current.digest())
        self._current, self._room = self._algorithm(), self._part_bytes


def stored_checksum(head: Mapping[str, Any], part_bytes: Callable[[], tuple[int, int]]) -> ObjectChecksum | None:
    """Find the strongest checksum that a HEAD's answer has and that can be computed here.

    Args:
        head: The answer to a HEAD with ``ChecksumMode=ENABLED``.
        part_bytes: Asks for the first part's size in bytes and the number of parts; called for composite ones only.
    """
    for name, algorithm in _ALGORITHMS.items():
        expected = head.get(name)
        if not expected or not _is_available(name):
            continue
        value, dash, count = str(expected).partition("-")
        if dash:
            size, parts = part_bytes()
            if size and parts == int(count or 0) and -(-int(head["ContentLength"]) // size) == parts:
                return ObjectChecksum(str(expected), algorithm, part_bytes=size)
        # Some stores leave the suffix off a composite checksum; what it is over is then not known.
        elif head.get("ChecksumType") == "FULL_OBJECT" or "-" not in str(head.get("ETag", "")):
            return ObjectChecksum(value, algorithm)
    return None


def _is_available(name: str) -> bool:
    if name not in {"ChecksumCRC64NVME", "ChecksumCRC32C"}:
        return True
    try:
        importlib.import_module("awscrt.checksums")
    except ImportError:
        return False
    return True


def _native(function: str) -> Callable[[Any, int], int]:
    """A function of ``awscrt``, which boto3 uses for these too where it is installed."""
    found: Callable[[Any, int], int] = getattr(importlib.import_module("awscrt.checksums"), function)
    return found
