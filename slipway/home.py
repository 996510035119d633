"""Where Slipway keeps its files on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Home", "resolve_home"]


@dataclass(frozen=True, kw_only=True)
class Home:
    """One directory and the places below it. Nothing is created until something is written.

    Attributes:
        root: Absolute path.
    """

    root: Path

    @property
    def bundles(self) -> Path:
        """The content-addressed store of adapter bundles."""
        return self.root / "bundles"

    @property
    def releases(self) -> Path:
        """Evidence and reports, one directory per release."""
        return self.root / "releases"

    @property
    def answers(self) -> Path:
        """What models have answered, so that nothing is paid for twice. May be deleted."""
        return self.root / "answers"

    @property
    def ledger(self) -> Path:
        """The default ledger, a SQLite file; ``SLIPWAY_LEDGER_URL`` names another."""
        return self.root / "ledger.db"


def resolve_home(environ: Mapping[str, str] = os.environ) -> Home:
    """Find the home directory: ``SLIPWAY_HOME``, else ``~/.slipway``.

    The default is per person and not per directory, so that the champion is the same from wherever one asks.
    """
    chosen = environ.get("SLIPWAY_HOME", "").strip()
    return Home(root=Path(chosen).expanduser().absolute() if chosen else Path.home() / ".slipway")
