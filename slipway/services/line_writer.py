"""Append lines to a file as they come, without a system call for each.

Lines are written whole and in batches, a moment after the first of a batch, so that a process that is killed leaves a
file that can be read, and has lost no more than that moment. Nothing is synced to the disk before the end: a kill does
not lose what the operating system has, and a power failure costs no more than asking again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from slipway.errors import StoreError

__all__ = ["LineWriter"]

FLUSH_SECONDS = 0.05
"""A batch waits so long for more lines."""
FLUSH_BYTES = 1 << 18
"""A batch of this size does not wait."""


class LineWriter:
    """One file, appended to while an event loop runs; a context manager.

    A last line that a kill tore is ended first, so that only itself is lost. The file and its directories are made with
    the first line.

    Args:
        path: The file.
        header: First line of a new file, without its end.
        after: Writers whose lines are written before ours, so that no file tells of what another has not got yet.

    Raises:
        StoreError: From every method, when the file cannot be written.
    """

    def __init__(self, path: Path, *, header: bytes = b"", after: Collection[LineWriter] = ()) -> None:
        self._path = path
        self._header = header
        self._after = after
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._descriptor: int | None = None
        self._failure: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StoreError:
            if error is None:  # what went wrong first counts
                raise

    def add(self, line: bytes) -> None:
        """Append one line, without its end, a moment later at the latest."""
        if self._failure is not None:
            raise self._error(self._failure) from self._failure
        self._lines.append(line)
        self._waiting_bytes += len(line)
        if self._waiting_bytes >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def close(self) -> None:
        """Write what waits, onto the disk, and close the file."""
        self.flush()
        if self._failure is not None:
            raise self._error(self._failure) from self._failure
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise self._error(error) from error
        finally:
            os.close(descriptor)

    def flush(self) -> None:
        """Write the batch. A failure is kept for the next call from outside: a timer has nobody to raise it to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        for writer in self._after:
            writer.flush()
        batch = b"\n".join(self._lines) + b"\n"
        self._lines.clear()
        self._waiting_bytes = 0
        written = 0
        try:
            if self._descriptor is None:
                self._descriptor, start = self._open()
                batch = start + batch
            while written < len(batch):
                written += os.write(self._descriptor, memoryview(batch)[written:])
        except OSError as error:
            self._failure = error
            self._take_back(written - batch.rfind(b"\n", 0, written) - 1)

    def _take_back(self, torn_bytes: int) -> None:
        """Cut off the beginning of a line that there was no room for, unless another writer has gone on behind it."""
        if self._descriptor is None or not torn_bytes:
            return
        with suppress(OSError):
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if end == os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, end - torn_bytes)

    def _open(self) -> tuple[int, bytes]:
        """Open for appending; gives also what must come before the next line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        size = os.fstat(descriptor).st_size
        if size == 0:
            return descriptor, self._header + b"\n" if self._header else b""
        return descriptor, b"" if os.pread(descriptor, 1, size - 1) == b"\n" else b"\n"

    def _error(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path} cannot be written: {error.strerror}.",
            fix="Free some space or check the permissions; then run this again, and nothing is asked twice.",
        )
