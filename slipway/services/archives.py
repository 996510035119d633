"""Read adapter archives as the Predibase registry hands them out, trusting nothing that they say of themselves.

The layout is undocumented; files at the root and files in one folder are both accepted. Names that lead out of the
archive, links, encryption, unusual compression and sizes that no adapter has are refused before anything is unpacked,
and what is unpacked is counted.
"""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from slipway.adapter import AdapterFile, Digest, bundle_digest
from slipway.errors import AdapterNotFoundError, SourceError
from slipway.services.adapter_files import LOOKED_FOR, is_adapter_file

__all__ = ["archive_errors", "digest_of_archive", "find_members", "open_member"]

CHUNK_BYTES = 1 << 20

MAX_MEMBERS: Final = 10_000
MAX_TOTAL_BYTES: Final = 64 << 30
"""Unpacked. Rank 256 on every linear layer of a 405B model is about 26 GB in bf16."""

MAX_RATIO: Final = 100
"""Unpacked to packed. Trained weights hardly compress; half of a file may be zeros, as B is before training."""

RATIO_FREE_BYTES: Final = 64 << 20
"""Up to this size a ratio says nothing: small adapters may be zeros through and through, and are reported as such."""


@contextmanager
def archive_errors(what: str) -> Iterator[None]:
    """Say of an archive that it cannot be read.

    Raises:
        SourceError: In place of what ``zipfile`` and ``zlib`` raise.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SourceError(
            f"{what} is no readable zip archive: {error}.", fix="Pull again; if it stays, upload the adapter anew."
        ) from error


def find_members(archive: zipfile.ZipFile, what: str) -> Mapping[str, zipfile.ZipInfo]:
    """Find the adapter's files: those at the root, or else those in the one folder that has any.

    Args:
        archive: Open for reading.
        what: For messages.

    Returns:
        The entries by plain file name.

    Raises:
        AdapterNotFoundError: There are none.
        SourceError: The archive is hostile, or holds several adapters.
    """
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise _refused(what, f"it has {len(entries)} entries")
    folders: dict[PurePosixPath, dict[str, zipfile.ZipInfo]] = {}
    for entry in entries:
        _check_name(entry, what)
        path = PurePosixPath(entry.filename)
        if entry.is_dir() or not is_adapter_file(path.name):
            continue
        _check_entry(entry, what)
        if path.name in folders.setdefault(path.parent, {}):
            raise _refused(what, f"it has two files {entry.filename}")
        folders[path.parent][path.name] = entry
    if not folders:
        raise AdapterNotFoundError(
            f"{what} holds no adapter: looked for {LOOKED_FOR}.", fix="Choose another version of this repository."
        )
    depth = min(len(folder.parts) for folder in folders)
    nearest = [folder for folder in folders if len(folder.parts) == depth]
    if len(nearest) > 1:
        names = ", ".join(sorted(map(str, nearest))[:5])
        raise SourceError(f"{what} holds several adapters: {names}.", fix="Upload each as a version of its own.")
    members = folders[nearest[0]]
    total = sum(entry.file_size for entry in members.values())
    if total > MAX_TOTAL_BYTES:
        raise _refused(what, f"it would unpack to {total / 1e9:.0f} GB")
    return members


def open_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, what: str) -> io.FileIO:
    """Open an entry for reading; more bytes than it declares are never read.

    Raises:
        SourceError: From reading too, where the bytes are not what the entry says.
    """
    with archive_errors(what):
        return cast("io.FileIO", _Member(archive.open(entry), what))


def digest_of_archive(path: Path, *, names: Collection[str]) -> Digest:
    """The digest that a bundle of the archive's files called ``names`` has.

    Raises:
        zipfile.BadZipFile: It is no zip archive.
    """
    files = []
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = PurePosixPath(entry.filename).name
            if entry.is_dir() or name not in names:
                continue
            sha256 = hashlib.sha256()
            with archive.open(entry) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    sha256.update(chunk)
            files.append(AdapterFile(name=name, size_bytes=entry.file_size, sha256=sha256.hexdigest()))
    return bundle_digest(files)


class _Member(io.RawIOBase):
    """An entry's bytes; checks of size and CRC are ``zipfile``'s, their errors ours."""

    def __init__(self, stream: IO[bytes], what: str) -> None:
        self._stream, self._what = stream, what

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed's Buffer has no name before 3.12
        with archive_errors(self._what):
            data = self._stream.read(len(view))
        view[: len(data)] = data
        return len(data)


def _check_name(entry: zipfile.ZipInfo, what: str) -> None:
    # ``zipfile`` cuts names at a NUL and turns the other separator into a slash only where that is one.
    name = entry.orig_filename
    parts = name.replace("\\", "/").split("/")
    is_drive = len(parts[0]) == 2 and parts[0].endswith(":")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or is_drive:
        raise _refused(what, f"its entry {name!r} leads out of it")


def _check_entry(entry: zipfile.ZipInfo, what: str) -> None:
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        raise _refused(what, f"{entry.filename} is no regular file")
    if entry.flag_bits & 0x1:
        raise _refused(what, f"{entry.filename} is encrypted")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _refused(what, f"{entry.filename} is compressed in an unusual way")
    if entry.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * entry.compress_size):
        raise _refused(
            what, f"{entry.filename} would unpack from {entry.compress_size} bytes to {entry.file_size / 1e9:.1f} GB"
        )


def _refused(what: str, reason: str) -> SourceError:
    return SourceError(
        f"{what} is not unpacked: {reason}.", fix="Do not use this version; upload the adapter from where it was made."
    )
