"""The bundle that is being written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Final

from slipway.adapter import AdapterFile
from slipway.errors import StoreError
from slipway.hashing import OverlappedHash, read_blocks
from slipway.services.adapter_files import is_safe_name
from slipway.services.inflow import Checksum, Inflow, read_note
from slipway.services.staging import write_all, writing

__all__ = ["MANIFEST", "Stage"]

MANIFEST: Final = "manifest.json"
_EVERYTHING: Final = 1 << 62


class Stage:
    """A bundle being written; get one from ``BundleStore.stage``.

    Args:
        workspace: A directory of the stage's own, with what an earlier stage of this key left in it.
        key: Under which it can be continued and recalled; may be empty.

    Attributes:
        directory: Becomes the bundle.
        scratch: For files that do not.
    """

    def __init__(self, workspace: Path, *, key: str = "") -> None:
        self.key = key
        self.directory = workspace / "bundle"
        self.scratch = workspace / "scratch"
        self._memory = workspace / "memory"
        self._files: dict[str, AdapterFile] = {}
        for directory in (self.directory, self.scratch, self._memory):
            directory.mkdir(parents=True, exist_ok=True)
        for path in self.directory.iterdir():
            if not self._note(path.name).exists():
                path.unlink()  # whoever wrote it did not get to say how far

    @property
    def files(self) -> tuple[AdapterFile, ...]:
        """What was added so far, sorted by name."""
        return tuple(self._files[name] for name in sorted(self._files))

    def add(self, name: str, source: FileIO) -> AdapterFile:
        """Copy an open file in, hashing on the way, and flush it to disk.

        Args:
            name: A plain file name.
            source: At offset 0; errors in reading it are the caller's, as ``OSError``.

        Raises:
            StoreError: It cannot be written, or the name would leave the directory.
        """
        self._check_name(name)
        with writing(self.directory):
            target = (self.directory / name).open("xb", buffering=0)
        size = 0
        with target, OverlappedHash() as hashed:
            for _, block in read_blocks(source, [_EVERYTHING], hashed):
                with writing(self.directory):
                    write_all(target, block)
                size += len(block)
            with writing(self.directory):
                os.fsync(target.fileno())
                os.fchmod(target.fileno(), 0o444)
            self._files[name] = AdapterFile(name=name, size_bytes=size, sha256=hashed.hexdigest())
        return self._files[name]

    def completed(self, name: str, version: str) -> AdapterFile | None:
        """Add a file that an earlier stage of this key has fetched as a whole; None if it must be fetched.

        Raises:
            StoreError: The name would leave the directory.
        """
        self._check_name(name)
        note = read_note(self._note(name))
        path = self.directory / name
        if note is None or not note.sha256 or note.version != version or not path.is_file():
            return None
        if path.stat().st_size != note.flushed_bytes:
            return None
        self._files[name] = AdapterFile(name=name, size_bytes=note.flushed_bytes, sha256=note.sha256)
        return self._files[name]

    def inflow(self, name: str, version: str, checks: Sequence[Checksum] = ()) -> Inflow:
        """Open a file to be fetched, where an earlier stage of this key stopped; ``keep`` it when it is finished.

        Args:
            name: A plain file name.
            version: Which version of the remote file: an ETag, a blob's id.
            checks: Fed with the whole file, in order.

        Raises:
            StoreError: It cannot be written, or the name would leave the directory.
        """
        self._check_name(name)
        return Inflow(self.directory / name, name=name, memory=self._note(name), version=version, checks=checks)

    def keep(self, file: AdapterFile) -> None:
        """Add a file that an inflow finished."""
        self._files[file.name] = file

    def forget(self, name: str) -> None:
        """Drop what has arrived of a file, because it is not what it should be."""
        self._files.pop(name, None)
        self._note(name).unlink(missing_ok=True)
        (self.directory / name).unlink(missing_ok=True)

    def _check_name(self, name: str) -> None:
        if not is_safe_name(name) or name == MANIFEST or name in self._files:
            raise StoreError(f"{name!r} cannot be the name of a file in a bundle.")

    def _note(self, name: str) -> Path:
        return self._memory / hashlib.sha256(name.encode()).hexdigest()
