"""Copy a bundle out of the store, into a directory of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from slipway.adapter import Bundle
from slipway.errors import ConfigurationError, StoreError
from slipway.hashing import hash_file

__all__ = ["export_bundle"]


def export_bundle(bundle: Bundle, directory: Path) -> None:
    """Write a bundle's files into a new directory; it is there as a whole or not at all. Doing it again is fine.

    Raises:
        ConfigurationError: Something else is there.
        StoreError: It cannot be written.
    """
    directory = directory.expanduser().absolute()
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            if _is_copy(bundle, directory):
                return
            raise ConfigurationError(
                f"{directory} is there already, and is something else.", fix="Give a directory that is not there yet."
            )
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as aside:
            copy = Path(aside) / "copy"
            copy.mkdir()
            for file in bundle.files:
                shutil.copyfile(bundle.directory / file.name, copy / file.name)
            copy.rename(directory)
    except OSError as error:
        raise StoreError(
            f"{directory} cannot be written: {error.strerror}.", fix="Give a directory where you may write."
        ) from error


def _is_copy(bundle: Bundle, directory: Path) -> bool:
    if not directory.is_dir() or {path.name for path in directory.iterdir()} != {file.name for file in bundle.files}:
        return False
    return all(hash_file(directory / file.name)[0] == file.sha256 for file in bundle.files)
