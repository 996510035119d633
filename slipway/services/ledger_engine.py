"""Open the ledger's database: which one, how it is tuned, its migrations, and what its errors mean to a person.

SQLite in a file by default, PostgreSQL by URL. Leaves what is stored to ``ledger_schema`` and ``ledger_store``.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url

from slipway.errors import LedgerError
from slipway.home import resolve_home
from slipway.services.migrations import HEAD

__all__ = ["default_url", "ledger_errors", "make_engine", "migrate", "writing"]

_BUSY_TIMEOUT_SECONDS = 30.0
"""How long a writer waits for another on SQLite; our transactions take milliseconds."""

_CONNECT_TIMEOUT_SECONDS = 10
"""For PostgreSQL to answer the connection attempt."""

_MIGRATION_LOCK = 0x51_19_3A_11
"""Key of PostgreSQL's advisory lock while one process migrates; any constant that is ours."""

_BEGIN_IMMEDIATE = "slipway_begin_immediate"

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}

_URL_FIX = (
    "Set SLIPWAY_LEDGER_URL to sqlite:////absolute/path/ledger.db or postgresql://USER:PASSWORD@HOST/DATABASE, or unset"
    " it to use $SLIPWAY_HOME/ledger.db."
)


def default_url(environ: Mapping[str, str] | None = None) -> str:
    """Tell the ledger's URL: ``SLIPWAY_LEDGER_URL``, else ``ledger.db`` in Slipway's home."""
    environ = os.environ if environ is None else environ
    if url := environ.get("SLIPWAY_LEDGER_URL", "").strip():
        return url
    return URL.create("sqlite", database=str(resolve_home(environ).ledger)).render_as_string()


def make_engine(url: str) -> sa.Engine:
    """Make the engine for a ledger URL; connects to nothing yet.

    Args:
        url: ``sqlite:////path`` or ``postgresql://...``; other drivers of the two are refused.

    Raises:
        LedgerError: The URL is malformed, in memory, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        # The text itself is kept out: it may hold a password.
        raise LedgerError("The ledger's URL cannot be read.", fix=_URL_FIX) from error
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise LedgerError(f"The ledger cannot be kept in {parsed.drivername!r}.", fix=_URL_FIX)
    parsed = parsed.set(drivername=driver)
    return _sqlite_engine(parsed) if driver.startswith("sqlite") else _postgresql_engine(parsed)


def _sqlite_engine(url: URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise LedgerError("A ledger in memory forgets everything when the process ends.", fix=_URL_FIX)
    path = Path(url.database).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"The ledger's directory {path.parent} cannot be made: {error.strerror}.",
            fix="Point SLIPWAY_HOME at a directory you may write to.",
        ) from error
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _tune_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _tune_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's own transaction handling would not open one before SELECT or DDL.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Switching the journal does not wait for another process that switches it, whatever the busy timeout.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            break  # file systems without shared memory keep another journal, which also works


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later can only fail when another writer came between.
    immediate = connection.get_execution_options().get(_BEGIN_IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _postgresql_engine(url: URL) -> sa.Engine:
    try:
        return sa.create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={"connect_timeout": _CONNECT_TIMEOUT_SECONDS, "application_name": "slipway"},
        )
    except ModuleNotFoundError as error:
        raise LedgerError(
            "The ledger's URL names PostgreSQL, but its driver psycopg is not installed.",
            fix="Install it: pip install 'slipway[postgres]'.",
        ) from error


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a transaction that will write; on SQLite it takes the write lock at once. Commits on leaving."""
    with engine.execution_options(**{_BEGIN_IMMEDIATE: True}).begin() as connection:
        yield connection


def migrate(engine: sa.Engine) -> None:
    """Bring the database to the newest schema; costs one SELECT when it is there already.

    Safe when several processes open a new ledger at once: one migrates, the others wait for it.

    Raises:
        LedgerError: A newer Slipway wrote this ledger.
    """
    with engine.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        if _revision(connection) != HEAD:
            _run_migrations(connection)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _run_migrations(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415  # a tenth of a second that an up-to-date ledger need not pay
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LedgerError(
            f"The ledger is at schema {_revision(connection)}, which this version of Slipway does not know ({HEAD}).",
            fix="A newer Slipway wrote it: upgrade this one.",
        ) from error


@contextmanager
def ledger_errors(engine: sa.Engine, doing: str) -> Iterator[None]:
    """Translate database errors to ``LedgerError``.

    Args:
        engine: Whose address the message names, without its password.
        doing: What was being done, as in "recording a promotion".
    """
    try:
        yield
    except exc.SQLAlchemyError as error:
        where = engine.url.render_as_string(hide_password=True)
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise LedgerError(f"The ledger {where} failed while {doing}: {cause}.", fix=_fix(cause)) from error


_FIXES: tuple[tuple[str, str], ...] = (
    ("unable to open database file", "Check that the directory exists and that you may write to it."),
    ("readonly database", "Make the file and its directory writable, or point SLIPWAY_HOME elsewhere."),
    ("database is locked", "Another process is writing to it; run this again when it is done."),
    ("disk is full", "Free some space and run this again; what was recorded before is intact."),
    ("no space left", "Free some space and run this again; what was recorded before is intact."),
    ("disk i/o error", "Check the disk, and that it is not a network file system without locking."),
    ("not a database", "Another file is in its place: move it away, or point SLIPWAY_LEDGER_URL elsewhere."),
    ("malformed", "Restore it from a backup, or run `sqlite3 FILE .recover`."),
    ("append-only", "The ledger's facts are never changed or deleted; record a new one."),
    ("password authentication failed", "Correct user and password in SLIPWAY_LEDGER_URL."),
    ("does not exist", "Create it, or correct SLIPWAY_LEDGER_URL."),
    ("permission denied", "Grant this user the right to create and use tables in the database."),
)


def _fix(cause: str) -> str:
    lowered = cause.lower()
    for symptom, fix in _FIXES:
        if symptom in lowered:
            return fix
    if "connection" in lowered or "timeout" in lowered:
        return "Check that PostgreSQL runs and that SLIPWAY_LEDGER_URL names its host and port."
    return "Run this again; if it stays, `slipway doctor` checks the ledger."
