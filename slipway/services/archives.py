"""Read adapter archives as the Predibase registry hands them out. Nothing is unpacked to disk here."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from slipway.adapter import AdapterFile, Digest, bundle_digest

__all__ = ["digest_of_archive"]

CHUNK_BYTES = 1 << 20


def digest_of_archive(path: Path, *, names: Collection[str]) -> Digest:
    """The digest that a bundle of the archive's files called ``names`` has.

    The layout is undocumented; files at the root and files in one folder are both accepted.

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
