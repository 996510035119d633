"""The ledger, the store and the release directories that the environment names, opened once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.home import Home, resolve_home
from slipway.services.store import BundleStore

if TYPE_CHECKING:
    from slipway.services.answer_store import AnswerStore
    from slipway.services.ledger_store import Ledger

__all__ = ["Workspace", "open_store", "open_workspace"]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What Slipway remembers, and where.

    Attributes:
        home: The local directory.
        ledger: Open; shared by everything in this process.
    """

    home: Home
    ledger: Ledger

    @property
    def store(self) -> BundleStore:
        """The content-addressed store of bundles."""
        return BundleStore(root=self.home.bundles)

    @property
    def answers(self) -> AnswerStore:
        """What models have answered."""
        from slipway.services.answer_store import AnswerStore  # noqa: PLC0415  # `slipway inspect` needs no checks

        return AnswerStore(self.home.answers)

    def release_directory(self, release_id: str) -> Path:
        """Where a release keeps its results and report; made when asked for."""
        directory = self.home.releases / release_id
        directory.mkdir(parents=True, exist_ok=True)
        return directory


def open_workspace() -> Workspace:
    """The workspace of ``SLIPWAY_HOME`` and ``SLIPWAY_LEDGER_URL``.

    Raises:
        LedgerError: The ledger cannot be opened.
    """
    from slipway.services.ledger_engine import default_url  # noqa: PLC0415  # `slipway inspect` needs no SQLAlchemy

    return _open(resolve_home(), default_url())


@lru_cache(maxsize=4)
def _open(home: Home, ledger_url: str) -> Workspace:
    from slipway.services.ledger_store import Ledger  # noqa: PLC0415  # as above

    return Workspace(home=home, ledger=Ledger(ledger_url))


def open_store() -> BundleStore:
    """The store alone, for what needs no ledger."""
    return BundleStore(root=resolve_home().bundles)
