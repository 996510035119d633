"""Take adapters from a directory on this machine.

Files are copied and not linked: a hard link would share its bytes with the file of a training script, which rewrites
them in place, and a bundle never changes.
"""

from __future__ import annotations

import asyncio
import os
import stat
from io import FileIO
from pathlib import Path

from slipway.adapter import AdapterUri, Bundle
from slipway.adapter_config import CONFIG_NAME
from slipway.errors import AdapterNotFoundError, ConfigurationError, SourceError
from slipway.services.adapter_files import LOOKED_FOR, is_adapter_file
from slipway.services.store import BundleStore

__all__ = ["LocalSource", "list_adapter_files"]


class LocalSource:
    """Directories, as ``save_pretrained`` writes them; subdirectories are left alone, as LoRAX does."""

    async def pull(self, uri: AdapterUri, store: BundleStore) -> Bundle:
        """Copy a directory's adapter files into the store; see ``AdapterSource``.

        Raises:
            AdapterNotFoundError: There is no such directory, or nothing of an adapter in it.
            ConfigurationError: A file is a symbolic link that leaves the directory, or no regular file.
            SourceError: A file cannot be read.
            StoreError: The store cannot be written.
        """
        return await asyncio.to_thread(_pull, uri, store)


def _pull(uri: AdapterUri, store: BundleStore) -> Bundle:
    directory = Path(uri.location)
    names = list_adapter_files(directory)
    with store.stage() as stage:
        for name in names:
            try:
                with _open(directory, name) as file:
                    stage.add(name, file)
            except OSError as error:
                raise SourceError(f"{directory / name} cannot be read: {error.strerror}.") from error
        return store.commit(stage, uri=str(uri))


def list_adapter_files(directory: Path) -> list[str]:
    """Name the adapter's files in a directory, sorted; reads none of them.

    Raises:
        AdapterNotFoundError: There is no such directory, or nothing of an adapter in it.
        SourceError: The directory cannot be read.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if is_adapter_file(name))  # noqa: PTH208  # names, not paths
    except FileNotFoundError:
        raise AdapterNotFoundError(f"There is no {directory}.", fix=_hub_advice(directory)) from None
    except NotADirectoryError:
        raise AdapterNotFoundError(
            f"{directory} is a file.", fix=f"Give the directory that it is in, with {CONFIG_NAME}."
        ) from None
    except OSError as error:
        raise SourceError(f"{directory} cannot be read: {error.strerror}.") from error
    if not names:
        raise AdapterNotFoundError(
            f"There is no adapter in {directory}: looked for {LOOKED_FOR}.", fix=_below_advice(directory)
        )
    return names


def _hub_advice(directory: Path) -> str:
    """A missing ``ORG/NAME`` was most likely meant as a repository on the Hub."""
    try:
        parts = directory.relative_to(Path.cwd()).parts
    except ValueError:
        parts = ()
    advice = "Check the spelling."
    return (
        f"{advice} For a repository on the Hugging Face Hub write hf://{'/'.join(parts)}."
        if len(parts) == 2
        else advice
    )


def _below_advice(directory: Path) -> str:
    found = sorted(path.parent.name for path in directory.glob(f"*/{CONFIG_NAME}"))
    if found:
        return f"There is one in {directory / found[-1]}: give that path."
    return "Give the directory that PEFT's save_pretrained wrote."


def _open(directory: Path, name: str) -> FileIO:
    """Open a regular file below the directory, through links that stay inside."""
    path = directory / name
    target = path.resolve(strict=True)
    if path.is_symlink() and not target.is_relative_to(directory.resolve(strict=True)):
        raise ConfigurationError(
            f"{path} is a symbolic link that leaves its directory.",
            fix="Copy the adapter with `cp -rL`, or give hf://ORG/NAME if this is the Hub's cache.",
        )
    # Neither follow a link that was put there since, nor wait for somebody to write into a pipe.
    file = FileIO(os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ConfigurationError(f"{path} is not a regular file.", fix="Put the file itself there.")
    return file
