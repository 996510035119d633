"""An open ledger: its database, its clock, and how rows go in and come out.

What the rows hold is for the modules beside this one, a noun each; ``ledger_store`` puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from slipway.errors import LedgerError
from slipway.ledger import Json
from slipway.redaction import scrub, scrub_text, secrets_from_environment
from slipway.services.ledger_engine import default_url, ledger_errors, make_engine, migrate, writing
from slipway.services.ledger_rows import finite, mappings

__all__ = ["LedgerTables"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LedgerTables:
    """The database that a ledger is in; see ``Ledger`` for its arguments."""

    def __init__(
        self,
        url: str | None = None,
        *,
        clock: Callable[[], datetime] = _utc_now,
        secrets: Collection[str] | None = None,
    ) -> None:
        self._engine = make_engine(url or default_url())
        self._clock = clock
        self._secrets = secrets_from_environment(os.environ) if secrets is None else frozenset(secrets)
        try:
            with ledger_errors(self._engine, "being opened"):
                migrate(self._engine)
        except LedgerError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def address(self) -> str:
        """The database's URL without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    def _insert(self, table: sa.Table, row: Mapping[str, object]) -> None:
        with writing(self._engine) as connection:
            connection.execute(sa.insert(table).values(row))

    def _rows(self, wanted: sa.Select[Any]) -> Sequence[Mapping[str, Any]]:
        """Read rows in the order in which they were recorded."""
        with self._engine.connect() as connection:
            return mappings(connection.execute(wanted.order_by(wanted.selected_columns.id)))

    def _text(self, value: str) -> str:
        return scrub_text(value, self._secrets)

    def _json(self, value: Json) -> Json:
        return finite(scrub(value, self._secrets))
