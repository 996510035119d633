"""Keep bundles in a directory, named by content.

    ROOT/<64 hex digits>/          one bundle: its files and manifest.json, read-only
    ROOT/.incoming/<random>/       a bundle on its way in
    ROOT/.incoming/<random>.lock   held with flock by the process that writes it

A bundle is written aside, flushed to disk, and renamed, so it is there as a whole or not at all, whenever a process is
killed. Two processes may bring the same bundle in: one rename wins, the other's copy is dropped. What a killed process
left in ``.incoming`` has a lock that nobody holds, and the next one to write clears it away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

from slipway.adapter import AdapterFile, Bundle, Digest, bundle_digest
from slipway.errors import ConfigurationError, StoreError
from slipway.hashing import OverlappedHash, hash_file, read_blocks
from slipway.services.adapter_files import is_safe_name

__all__ = ["BundleStore", "Stage"]

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_INCOMING: Final = ".incoming"
_EVERYTHING: Final = 1 << 62


class Stage:
    """A bundle being written; get one from ``BundleStore.stage``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, AdapterFile] = {}

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
        if not is_safe_name(name) or name == MANIFEST or name in self._files:
            raise StoreError(f"{name!r} cannot be the name of a file in a bundle.")
        with _writing(self.directory):
            target = (self.directory / name).open("xb", buffering=0)
        size = 0
        with target, OverlappedHash() as hashed:
            for _, block in read_blocks(source, [_EVERYTHING], hashed):
                with _writing(self.directory):
                    _write_all(target, block)
                size += len(block)
            with _writing(self.directory):
                os.fsync(target.fileno())
                os.fchmod(target.fileno(), 0o444)
            self._files[name] = AdapterFile(name=name, size_bytes=size, sha256=hashed.hexdigest())
        return self._files[name]


@dataclass(frozen=True, kw_only=True)
class BundleStore:
    """The bundles under one directory. Nothing is created before the first write.

    Attributes:
        root: Absolute path, on one file system.
    """

    root: Path

    def find(self, digest: Digest) -> Bundle | None:
        """Look a bundle up by digest; no bytes are read but the manifest's.

        Raises:
            ConfigurationError: The digest is none.
            StoreError: The bundle is there and damaged.
        """
        directory = self._directory(digest)
        if not directory.is_dir():
            return None
        damage, bundle = _read_bundle(directory, digest)
        if bundle is None:
            raise StoreError(
                f"The bundle in {directory} is damaged: {damage}.",
                fix=f"Delete {directory} and pull the adapter again.",
            )
        return bundle

    def verify(self, digest: Digest) -> tuple[str, ...]:
        """Read all bytes of a bundle again.

        Returns:
            Names of files whose content is no longer what was pulled; empty if all is well.

        Raises:
            ConfigurationError: The digest is none, or no such bundle is here.
            StoreError: A file or the manifest cannot be read.
        """
        bundle = self.find(digest)
        if bundle is None:
            raise ConfigurationError(f"The store in {self.root} has no bundle {digest}.", fix="Pull the adapter.")
        return tuple(file.name for file in bundle.files if hash_file(bundle.directory / file.name)[0] != file.sha256)

    @contextlib.contextmanager
    def stage(self) -> Iterator[Stage]:
        """Open a place to write a new bundle in; whatever is not committed is deleted on leaving.

        Raises:
            StoreError: The store cannot be written.
        """
        incoming = self.root / _INCOMING
        with _writing(self.root):
            incoming.mkdir(parents=True, exist_ok=True)
        _sweep(incoming)
        with _locked_name(incoming) as name:
            directory = incoming / name
            try:
                with _writing(self.root):
                    directory.mkdir()
                yield Stage(directory)
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def commit(self, stage: Stage, *, uri: str, resolved_revision: str = "") -> Bundle:
        """Make a stage a bundle, at once and as a whole.

        Args:
            stage: With at least one file.
            uri: Where the files came from.
            resolved_revision: What the address resolved to; the digest where the source has no revisions.

        Returns:
            The bundle, with this origin also where the same bytes were here before.

        Raises:
            StoreError: The store cannot be written.
        """
        if not stage.files:
            raise StoreError("A bundle without files cannot be kept.")
        digest = bundle_digest(stage.files)
        directory = self._directory(digest)
        bundle = Bundle(
            digest=digest,
            directory=directory,
            files=stage.files,
            uri=uri,
            resolved_revision=resolved_revision or digest,
        )
        with _writing(self.root):
            _write_durably(stage.directory / MANIFEST, _manifest(bundle))
            _sync_directory(stage.directory)
            while not _rename_unless_there(stage.directory, directory):
                if _read_bundle(directory, digest)[1] is not None:
                    break
                _set_aside(directory, self.root / _INCOMING)
            _sync_directory(self.root)
        return bundle

    def _directory(self, digest: Digest) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise ConfigurationError(f"{digest!r} is not a bundle's digest.", fix="Write sha256: and 64 hex digits.")
        return self.root / match[1]


def _manifest(bundle: Bundle) -> bytes:
    document = {
        "format": _FORMAT,
        "digest": bundle.digest,
        "uri": bundle.uri,
        "resolved_revision": bundle.resolved_revision,
        "files": [asdict(file) for file in bundle.files],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _read_bundle(directory: Path, digest: Digest) -> tuple[str, Bundle | None]:
    """Read a manifest and hold it against the names and sizes that are there; give the damage, or the bundle."""
    try:
        document: dict[str, Any] = json.loads((directory / MANIFEST).read_bytes())
        bundle = Bundle(
            digest=digest,
            directory=directory,
            files=tuple(AdapterFile(**file) for file in document["files"]),
            uri=document["uri"],
            resolved_revision=document["resolved_revision"],
        )
        if bundle_digest(bundle.files) != digest:
            return "its manifest names other files", None
        for file in bundle.files:
            found = (directory / file.name).lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != file.size_bytes:
                return f"{file.name} is not what was pulled", None
    except OSError as error:
        return f"{error.filename}: {error.strerror}", None
    except (ValueError, TypeError, KeyError):
        return "its manifest cannot be read", None
    return "", bundle


def _rename_unless_there(source: Path, target: Path) -> bool:
    """Rename a directory; rename(2) refuses a target that is a directory with something in it."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def _set_aside(directory: Path, incoming: Path) -> None:
    """Take a damaged bundle out of the way. Another process may have done it first."""
    with _locked_name(incoming) as name, contextlib.suppress(FileNotFoundError):
        directory.rename(incoming / name)
        shutil.rmtree(incoming / name, ignore_errors=True)


@contextlib.contextmanager
def _locked_name(incoming: Path) -> Iterator[str]:
    """Reserve a name below ``incoming`` for as long as this process lives."""
    while True:
        name = uuid.uuid4().hex
        path = incoming / f"{name}.lock"
        with _writing(incoming):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if _lock(descriptor) and path.exists():
            break
        os.close(descriptor)  # a sweep came between open and lock, and took the name away
    try:
        yield name
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _sweep(incoming: Path) -> None:
    """Delete what processes that are no more have left; best effort, as nothing depends on it."""
    with contextlib.suppress(OSError):
        for path in incoming.glob("*.lock"):
            with contextlib.suppress(OSError):
                _sweep_one(path)


def _sweep_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _lock(descriptor):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Say what a failed write means and what to do."""
    try:
        yield
    except OSError as error:
        fix = "Set SLIPWAY_HOME to a directory where you may write."
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            fix = "Free some space, or set SLIPWAY_HOME to a directory on another disk."
        raise StoreError(f"The store cannot be written in {place}: {error.strerror}.", fix=fix) from error


def _write_all(file: FileIO, data: memoryview) -> None:
    """Write until all is written: an unbuffered write may take less, as when a disk fills up."""
    while data:
        data = data[file.write(data) :]


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        _write_all(file, memoryview(data))
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
