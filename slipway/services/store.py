"""Keep bundles in a directory, named by content.

    ROOT/<64 hex digits>/          one bundle: its files and manifest.json, read-only
    ROOT/.index/<40 hex digits>    which bundle a revision of a source turned out to be
    ROOT/.incoming/                bundles on their way in, see ``services.staging``

A bundle is written aside, flushed to disk, and renamed, so it is there as a whole or not at all, whenever a process is
killed. Two processes may bring the same bundle in: the second waits for a download that the first is at, and else one
rename wins and the other's copy is dropped. The time of a manifest says when its bundle was last pulled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from slipway.adapter import AdapterFile, Bundle, Digest, bundle_digest
from slipway.errors import ConfigurationError, StoreError
from slipway.hashing import hash_file
from slipway.services.stage import MANIFEST, Stage
from slipway.services.staging import (
    KEPT_SECONDS,
    claimed_name,
    locked_name,
    sweep,
    sync_directory,
    write_durably,
    writing,
)

__all__ = ["BundleStore", "Stage", "StoredBundle"]

_FORMAT: Final = 1
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_DIRECTORY: Final = re.compile(r"[0-9a-f]{64}")
_INCOMING: Final = ".incoming"
_INDEX: Final = ".index"


@dataclass(frozen=True, kw_only=True)
class StoredBundle:
    """A bundle's place in the store, whether what is there is sound or not.

    Attributes:
        digest: What its directory is called.
        bundle: None if it is damaged.
        damage: In what way; empty if it is sound. Contents are not read for this.
        used_at: When it was last pulled, in UTC.
    """

    digest: Digest
    bundle: Bundle | None
    damage: str
    used_at: datetime


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

    def recall(self, key: str, *, uri: str, resolved_revision: str) -> Bundle | None:
        """Look up what a revision of a source turned out to be when it was pulled before.

        Names and sizes are compared with the manifest; no other bytes are read, and none are transferred.

        Args:
            key: As it was given to ``stage``.
            uri: Where it is asked for now.
            resolved_revision: What that resolved to.

        Returns:
            The bundle with this origin; None if there is none or it is damaged.
        """
        try:
            digest = Digest(self._entry(key).read_text(encoding="utf-8").strip())
            bundle = self.find(digest)
        except (OSError, ValueError, StoreError, ConfigurationError):
            return None
        if bundle is None:
            return None
        _touch(bundle.directory)
        return replace(bundle, uri=uri, resolved_revision=resolved_revision)

    def contents(self) -> tuple[StoredBundle, ...]:
        """List all bundles, the one pulled last first.

        Raises:
            StoreError: The store cannot be read.
        """
        try:
            names = sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else []
        except OSError as error:
            raise StoreError(f"The store in {self.root} cannot be read: {error.strerror}.") from error
        found = []
        for name in names:
            directory = self.root / name
            if _DIRECTORY.fullmatch(name) and directory.is_dir():
                digest = Digest(f"sha256:{name}")
                damage, bundle = _read_bundle(directory, digest)
                found.append(StoredBundle(digest=digest, bundle=bundle, damage=damage, used_at=_used_at(directory)))
        return tuple(sorted(found, key=lambda item: item.used_at, reverse=True))

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

    def delete(self, digest: Digest) -> None:
        """Delete a bundle, at once and as a whole; one that is not here is deleted already.

        Raises:
            ConfigurationError: The digest is none.
            StoreError: The store cannot be written.
        """
        directory = self._directory(digest)
        if directory.exists():
            with writing(self.root):
                (self.root / _INCOMING).mkdir(exist_ok=True)
                _set_aside(directory, self.root / _INCOMING)

    def tidy(self, *, kept_seconds: float = KEPT_SECONDS) -> None:
        """Delete downloads that were cut that long ago, and index entries of bundles that are no more; best effort."""
        sweep(self.root / _INCOMING, kept_seconds=kept_seconds)
        with contextlib.suppress(OSError):
            for entry in (self.root / _INDEX).iterdir():
                digest = entry.read_text(encoding="utf-8", errors="replace").strip()
                if _DIGEST.fullmatch(digest) is None or not self._directory(Digest(digest)).is_dir():
                    entry.unlink(missing_ok=True)

    @contextlib.contextmanager
    def stage(self, key: str = "", *, waiting: Callable[[], object] = lambda: None) -> Iterator[Stage]:
        """Open a place to write a new bundle in.

        Whatever is not committed is deleted on leaving, unless there is a key and what cut it may pass: then the next
        stage of this key finds it. ``StoreError`` never passes, so a full disk is not kept full.

        Args:
            key: What is being fetched, at which resolved revision; empty if it is not worth continuing. While another
                process has a stage of this key, this waits: look with ``recall`` whether it is done.
            waiting: Called while waiting; may raise to give up.

        Raises:
            StoreError: The store cannot be written.
        """
        incoming = self.root / _INCOMING
        with writing(self.root):
            incoming.mkdir(parents=True, exist_ok=True)
        sweep(incoming)
        with contextlib.ExitStack() as stack:
            name = stack.enter_context(claimed_name(incoming, _short(key), waiting=waiting)) if key else None
            workspace = incoming / (name or stack.enter_context(locked_name(incoming)))
            try:
                with writing(self.root):
                    yield Stage(workspace, key=key)
            except StoreError:
                shutil.rmtree(workspace, ignore_errors=True)
                raise
            except BaseException:
                if name is None:
                    shutil.rmtree(workspace, ignore_errors=True)
                raise
            shutil.rmtree(workspace, ignore_errors=True)

    def commit(self, stage: Stage, *, uri: str, resolved_revision: str = "") -> Bundle:
        """Make a stage a bundle, at once and as a whole, and remember it under the stage's key.

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
        with writing(self.root):
            write_durably(stage.directory / MANIFEST, _manifest(bundle))
            sync_directory(stage.directory)
            while not _rename_unless_there(stage.directory, directory):
                if _read_bundle(directory, digest)[1] is not None:
                    _touch(directory)
                    break
                _set_aside(directory, self.root / _INCOMING)
            sync_directory(self.root)
            if stage.key:
                self._remember(stage.key, digest)
        return bundle

    def _remember(self, key: str, digest: Digest) -> None:
        entry = self._entry(key)
        entry.parent.mkdir(exist_ok=True)
        aside = entry.with_name(f"{entry.name}.{uuid.uuid4().hex}")
        aside.write_text(digest, encoding="utf-8")
        aside.replace(entry)

    def _entry(self, key: str) -> Path:
        return self.root / _INDEX / _short(key)

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
    """Take a bundle out of the way at once and as a whole. Another process may have done it first."""
    with locked_name(incoming) as name, contextlib.suppress(FileNotFoundError):
        directory.rename(incoming / name)
        shutil.rmtree(incoming / name, ignore_errors=True)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _touch(directory: Path) -> None:
    """Note that a bundle is used. A store that cannot be written can still be read."""
    with contextlib.suppress(OSError):
        os.utime(directory / MANIFEST)


def _used_at(directory: Path) -> datetime:
    try:
        seconds = (directory / MANIFEST).stat().st_mtime
    except OSError:
        seconds = directory.stat().st_mtime
    return datetime.fromtimestamp(seconds, UTC)
