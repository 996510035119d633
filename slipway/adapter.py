"""Value types of an adapter: where it is, which bytes it has, what its config says.

Leaves to others: fetching (``services``), judging (``inspection``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NewType
from urllib.parse import quote

__all__ = ["AdapterFile", "AdapterUri", "Bundle", "Digest", "Source", "bundle_digest"]

Digest = NewType("Digest", str)
"""``sha256:`` and 64 hexadecimal digits."""


class Source(StrEnum):
    """Where adapters come from, spelt as LoRAX spells it."""

    HUB = "hub"
    S3 = "s3"
    LOCAL = "local"
    PBASE = "pbase"


@dataclass(frozen=True, kw_only=True)
class AdapterUri:
    """An adapter's address, taken apart.

    Attributes:
        source: Kind of place.
        location: ``ORG/NAME``, ``BUCKET/PREFIX/``, an absolute path, or ``REPO/TAG``.
        revision: What was asked for after ``@``; empty for the default.
    """

    source: Source
    location: str
    revision: str = ""

    def __str__(self) -> str:
        scheme = {Source.HUB: "hf", Source.S3: "s3", Source.PBASE: "pbase", Source.LOCAL: "file"}[self.source]
        location = quote(self.location) if self.source is Source.LOCAL else self.location
        return f"{scheme}://{location}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """One file of a bundle. ``sha256`` is 64 hexadecimal digits."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One adapter's files, immutable, in a directory of the local store.

    Attributes:
        digest: Identity of the content, see ``bundle_digest``.
        directory: Absolute path; never written to after the bundle exists.
        files: Sorted by name.
        uri: Where it was pulled from.
        resolved_revision: Commit, object versions, tag or digest that the URI resolved to.
    """

    digest: Digest
    directory: Path
    files: tuple[AdapterFile, ...]
    uri: str
    resolved_revision: str

    @property
    def size_bytes(self) -> int:
        """Sum over the files."""
        return sum(file.size_bytes for file in self.files)


def bundle_digest(files: Iterable[AdapterFile]) -> Digest:
    """Name a set of files by content: SHA-256 over the sorted lines that sha256sum prints for them."""
    lines = sorted(f"{file.sha256}  {file.name}\n" for file in files)
    return Digest("sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest())
