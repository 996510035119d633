"""Find configuration files by the short names that people type."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from slipway.errors import ConfigurationError

__all__ = ["ConfigKind", "config_directory", "find_config"]

SUFFIXES = (".yaml", ".yml", ".json", ".jsonl", ".csv")


class ConfigKind(StrEnum):
    """The folders under ``configs/``."""

    TARGET = "targets"
    SUITE = "suites"
    GATE = "gates"
    BASE = "bases"


def config_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """``SLIPWAY_CONFIGS``, or ``configs`` in the current directory."""
    return Path(environment.get("SLIPWAY_CONFIGS") or "configs").absolute()


def find_config(kind: ConfigKind, name: str, *, directory: Path | None = None) -> Path:
    """The file behind a name: a path is taken as it is, ``NAME`` is ``configs/<kind>/NAME.yaml``.

    Raises:
        ConfigurationError: There is none; the message lists those there are.
    """
    if name.endswith(SUFFIXES) or "/" in name:
        path = Path(name)
        if path.is_file():
            return path.absolute()
        raise ConfigurationError(
            f"there is no file {name}.", fix=f"Give a path that exists, or a name: {_known(kind, directory)}."
        )
    folder = (directory or config_directory()) / kind
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigurationError(
            f"there is no {kind.removesuffix('s')} called {name!r} in {folder}.",
            fix=f"Known: {_known(kind, directory)}. Give one of them or the path of a file, or set SLIPWAY_CONFIGS to "
            "the directory with your targets, suites and gates.",
        )
    return path


def _known(kind: ConfigKind, directory: Path | None) -> str:
    folder = (directory or config_directory()) / kind
    return ", ".join(sorted(entry.stem for entry in folder.glob("*.yaml"))) or f"none (no files in {folder})"
