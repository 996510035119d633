"""Take one file in as it arrives: written at any offset, hashed and flushed to disk right behind the writers.

Two threads follow the writers, so that little is left to do after the last byte. One reads what has arrived from the
page cache, in order, and hashes it. The other flushes it to disk and notes how far that is: a download that was cut, by
a kill or by a power failure, goes on from there. A note also says which version of the remote file it is about; bytes
of two versions never meet.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from slipway.adapter import AdapterFile
from slipway.hashing import BLOCK_BYTES
from slipway.services.staging import writing

__all__ = ["Checksum", "Inflow", "Note", "read_note"]

FLUSH_BYTES: Final = 16 << 20
"""Flushed at once: what a cut download fetches again at most, besides what was in flight."""


class Checksum(Protocol):
    """Anything like ``hashlib``'s objects, as far as feeding goes."""

    def update(self, data: memoryview, /) -> object:
        """Take the next bytes."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """How far a file is.

    Attributes:
        version: Which version of the remote file: an ETag, a blob's id.
        flushed_bytes: From the start, on disk.
        sha256: Of the whole file once it is complete, else empty.
    """

    version: str
    flushed_bytes: int
    sha256: str = ""


def read_note(path: Path) -> Note | None:
    """Read a note; None if there is none that makes sense."""
    try:
        members = json.loads(path.read_bytes())
        note = Note(
            version=str(members["version"]), flushed_bytes=int(members["flushed_bytes"]), sha256=str(members["sha256"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return note if note.flushed_bytes >= 0 else None


class Inflow:
    """One file on its way in; use as a context manager, and call ``finish`` inside it.

    Leaving without ``finish`` flushes and notes what has arrived.

    Args:
        path: Where to; what an earlier inflow of the same version left there is kept.
        name: Of the file in the bundle.
        memory: Where the note goes.
        version: Which version of the remote file arrives.
        checks: Fed with the whole file, in order, besides SHA-256.
    """

    def __init__(self, path: Path, *, name: str, memory: Path, version: str, checks: Sequence[Checksum] = ()) -> None:
        self._path, self._name, self._memory, self._version = path, name, memory, version
        self._sha256 = hashlib.sha256()
        self._fed: tuple[Checksum, ...] = (self._sha256, *checks)
        with writing(path.parent):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            note = read_note(memory)
            size = os.fstat(self._descriptor).st_size
            usable = note is not None and note.version == version and note.flushed_bytes <= size
            self.start = note.flushed_bytes if note is not None and usable else 0
            os.ftruncate(self._descriptor, self.start)
        self._frontier = self.start
        self._beyond: dict[int, int] = {}
        self._changed = threading.Condition()
        self._ended = self._abandoned = False
        self._failure: OSError | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"slipway-{name}", daemon=True)
            for name, work in (("hash", self._hash), ("flush", self._flush))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._abandoned = True
        self._join()
        os.close(self._descriptor)

    @property
    def arrived_bytes(self) -> int:
        """How many bytes from the start are here without a gap; those need not be fetched again."""
        with self._changed:
            return self._frontier

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes in their place. Threads may write different parts at once.

        Raises:
            StoreError: They cannot be written.
        """
        view = memoryview(data)
        position = offset
        with writing(self._path.parent):
            while view:
                count = os.pwrite(self._descriptor, view, position)
                position += count
                view = view[count:]
        with self._changed:
            self._beyond[offset] = position
            while self._frontier in self._beyond:
                self._frontier = self._beyond.pop(self._frontier)
            self._changed.notify_all()

    def finish(self) -> AdapterFile:
        """Wait for the hash, flush, and make the file read-only.

        Raises:
            StoreError: It cannot be written or read again.
        """
        self._join()
        with writing(self._path.parent):
            if self._failure is not None:
                raise self._failure
            os.fsync(self._descriptor)
            os.fchmod(self._descriptor, 0o444)
            file = AdapterFile(name=self._name, size_bytes=self._frontier, sha256=self._sha256.hexdigest())
            self._write_note(Note(version=self._version, flushed_bytes=file.size_bytes, sha256=file.sha256))
        return file

    def _join(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._failure = error

    def _hash(self) -> None:
        buffer = memoryview(bytearray(BLOCK_BYTES))
        position = 0
        with self._path.open("rb", buffering=0) as file:
            while (until := self._wait_beyond(position)) > position and not self._abandoned:
                length = file.readinto(buffer[: min(BLOCK_BYTES, until - position)]) or 0
                for checksum in self._fed:
                    checksum.update(buffer[:length])
                position += length

    def _flush(self) -> None:
        flushed = self.start
        while (until := self._wait_beyond(flushed + FLUSH_BYTES)) > flushed:
            os.fsync(self._descriptor)
            flushed = until
            self._write_note(Note(version=self._version, flushed_bytes=until))

    def _wait_beyond(self, position: int) -> int:
        """Wait until more than ``position`` bytes are here, or no more come; returns how many there are."""
        with self._changed:
            while self._frontier <= position and not self._ended:
                self._changed.wait()
            return self._frontier

    def _write_note(self, note: Note) -> None:
        """Write aside and rename: a note is there as a whole or not at all."""
        aside = self._memory.with_suffix(".new")
        aside.write_text(json.dumps(vars(note)), encoding="utf-8")
        aside.replace(self._memory)
