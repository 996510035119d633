"""Read a file once, hashing it on a second thread while the caller works on the same blocks.

``hashlib`` releases the interpreter's lock, and SHA-256 is the slowest thing that is done to an adapter's bytes, so
everything else hides behind it.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from slipway.errors import StoreError

__all__ = ["BLOCK_BYTES", "OverlappedHash", "hash_file", "read_blocks"]

BLOCK_BYTES = 1 << 20
"""Small enough to stay in the second-level cache between the hash and the scan."""

_BUFFERS = 4
_WHOLE_FILE = 1 << 62


class OverlappedHash:
    """SHA-256 of blocks that the caller fills, computed on a thread.

    Use as a context manager. ``take`` lends a buffer, ``put`` hands a filled part of it to the thread; the caller may
    go on reading the buffer until it next calls ``take``, and must not write to it.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._filled: queue.SimpleQueue[tuple[bytearray, int] | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._made = 0
        self._thread = threading.Thread(target=self._run, name="slipway-sha256", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finish()

    def take(self) -> bytearray:
        """Lend a buffer of ``BLOCK_BYTES``, waiting until the thread has hashed one."""
        if self._made < _BUFFERS and self._free.empty():
            self._made += 1
            return bytearray(BLOCK_BYTES)
        return self._free.get()

    def put(self, buffer: bytearray, length: int) -> None:
        """Hash the first ``length`` bytes of a taken buffer."""
        self._filled.put((buffer, length))

    def hexdigest(self) -> str:
        """Wait for the thread, end it, and give the 64 hexadecimal digits."""
        self._finish()
        return self._sha256.hexdigest()

    def _finish(self) -> None:
        if self._thread.is_alive():
            self._filled.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (item := self._filled.get()) is not None:
            buffer, length = item
            self._sha256.update(memoryview(buffer)[:length])
            self._free.put(buffer)


def read_blocks(file: FileIO, cuts: Iterable[int], hashed: OverlappedHash) -> Iterator[tuple[int, memoryview]]:
    """Read from the start of a file up to the last cut, hashing as it goes.

    Args:
        file: At offset 0.
        cuts: Ascending offsets at which a block ends, whatever its size; the last one is where reading ends.
        hashed: Receives every byte in order.

    Yields:
        Offset in the file and at most ``BLOCK_BYTES`` bytes, valid until the next step. Fewer bytes in total than the
        last cut mean that the file is shorter.
    """
    offset = 0
    for cut in cuts:
        while offset < cut:
            buffer = hashed.take()
            length = _fill(file, memoryview(buffer)[: min(BLOCK_BYTES, cut - offset)])
            if not length:
                return
            hashed.put(buffer, length)
            yield offset, memoryview(buffer)[:length].toreadonly()
            offset += length


def hash_file(path: Path) -> tuple[str, int]:
    """Give SHA-256 in hexadecimal and the size in bytes of a whole file.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file, OverlappedHash() as hashed:
            size = sum(len(block) for _, block in read_blocks(file, [_WHOLE_FILE], hashed))
            return hashed.hexdigest(), size
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error


def _fill(file: FileIO, view: memoryview) -> int:
    """Read until the view is full or the file ends: an unbuffered read may return less than was asked for."""
    length = 0
    while length < len(view) and (count := file.readinto(view[length:])):
        length += count
    return length
