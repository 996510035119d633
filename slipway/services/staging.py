"""Directories that bundles are written in before they are bundles, each under a lock of the process that writes it.

    INCOMING/<random>/             a bundle on its way in; nobody else's business
    INCOMING/resume-<key>/         a download that the next one of the same key continues
        bundle/                    what becomes the bundle
        memory/                    how far each file is, see ``services.inflow``
    INCOMING/<either>.lock         held with flock while somebody writes there

flock ends with its process, however that ends. What a dead process left is then cleared away: a random one at once, one
that can be continued when nobody has done so for a week.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from slipway.errors import StoreError

__all__ = [
    "KEPT_SECONDS",
    "claimed_name",
    "locked_name",
    "sweep",
    "sync_directory",
    "write_all",
    "write_durably",
    "writing",
]

KEPT_SECONDS: Final = 7 * 86400.0
"""How long a download that was cut can be continued."""

STALLED_SECONDS: Final = 60.0
"""After so long without a sign of life, another process's download is not waited for any more."""

_POLL_SECONDS: Final = 0.02
_RESUMED: Final = "resume-"


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say what a failed write means and what to do.

    Raises:
        StoreError: In place of ``OSError``.
    """
    try:
        yield
    except OSError as error:
        fix = "Set SLIPWAY_HOME to a directory where you may write."
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            fix = "Free some space, or set SLIPWAY_HOME to a directory on another disk."
        raise StoreError(f"The store cannot be written in {place}: {error.strerror}.", fix=fix) from error


def write_all(file: FileIO, data: memoryview) -> None:
    """Write until all is written: an unbuffered write may take less, as when a disk fills up."""
    while data:
        data = data[file.write(data) :]


def write_durably(path: Path, data: bytes) -> None:
    """Make a read-only file, flushed to disk."""
    with path.open("xb", buffering=0) as file:
        write_all(file, memoryview(data))
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)


def sync_directory(path: Path) -> None:
    """Flush a directory's names to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_name(incoming: Path) -> Iterator[str]:
    """Reserve a new name below ``incoming`` for the length of the block.

    Raises:
        StoreError: It cannot be written.
    """
    while True:
        name = uuid.uuid4().hex
        path = incoming / f"{name}.lock"
        with writing(incoming):
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if _lock(descriptor) and path.exists():
            break
        os.close(descriptor)  # a sweep came between open and lock, and took the name away
    try:
        yield name
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def claimed_name(incoming: Path, key: str, *, waiting: Callable[[], object]) -> Iterator[str | None]:
    """Reserve the name of a download that can be continued, waiting while another process is at it.

    The lock file goes when the caller has removed the directory of this name; else both stay for the next one.

    Args:
        incoming: The directory.
        key: Hexadecimal.
        waiting: Called between looks; may raise to give up.

    Yields:
        The name; None when whoever holds it shows no sign of life, so that the caller goes its own way.

    Raises:
        StoreError: It cannot be written.
    """
    name = f"{_RESUMED}{key}"
    path = incoming / f"{name}.lock"
    seen, since = -1, time.monotonic()
    while True:
        with writing(incoming):
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if _lock(descriptor) and _is_still_there(descriptor, path):
            break
        os.close(descriptor)
        signs = _last_sign_of_life(incoming / name)
        if signs != seen:
            seen, since = signs, time.monotonic()
        elif time.monotonic() - since > STALLED_SECONDS:
            yield None
            return
        waiting()
        time.sleep(_POLL_SECONDS)
    try:
        os.utime(descriptor)  # the week begins again
        yield name
    finally:
        if not (incoming / name).exists():
            path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(incoming: Path, *, kept_seconds: float = KEPT_SECONDS) -> None:
    """Delete what processes that are no more have left; best effort, as nothing depends on it.

    Args:
        incoming: The directory.
        kept_seconds: Age since the last attempt at which a download that was cut is given up.
    """
    with contextlib.suppress(OSError):
        for path in incoming.glob("*.lock"):
            with contextlib.suppress(OSError):
                if not path.name.startswith(_RESUMED) or time.time() - path.stat().st_mtime >= kept_seconds:
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


def _is_still_there(descriptor: int, path: Path) -> bool:
    """Whether the lock is on the file of that name, and not on one that its last holder has unlinked meanwhile."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _last_sign_of_life(directory: Path) -> int:
    """The newest time at which anything below was written, in nanoseconds."""
    newest = 0
    with contextlib.suppress(OSError):  # it may be gone at any moment, which is a sign of life too
        for path in (directory, *directory.rglob("*")):
            newest = max(newest, path.stat().st_mtime_ns)
    return newest
