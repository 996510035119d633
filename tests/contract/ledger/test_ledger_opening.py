"""Opening a ledger: migrations, and what goes wrong, with the fix."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from slipway.errors import LedgerError
from slipway.services import ledger_engine, ledger_schema, migrations
from slipway.services.ledger_store import Ledger


def bundle(ledger, digest="d"):
    ledger.record_bundle(digest=digest, uri="u", resolved_revision="r", size_bytes=1, base_model="b")


def test_the_migrations_make_what_the_queries_expect(ledger):
    with ledger._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, ledger_schema.metadata) == []
        names = {item["name"] for item in sa.inspect(connection).get_unique_constraints("promotions")}
    assert names == {"uq_promotions_name_target_sequence"}


def test_head_is_the_newest_revision():
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_an_up_to_date_ledger_opens_without_alembic(url):
    """`slipway status` as a whole process has 0.7 s."""
    Ledger(url).close()
    source = "import sys; from slipway.services.ledger_store import Ledger; Ledger(sys.argv[1]).close(); "
    source += "sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source, url], check=False).returncode == 0


def test_facts_survive_reopening(url):
    with Ledger(url) as ledger:
        bundle(ledger)
    with Ledger(url) as ledger:
        assert len(ledger.bundles("d")) == 1


def test_a_ledger_of_a_newer_slipway_is_left_alone(url):
    with Ledger(url) as ledger, ledger._engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match="schema 9999") as caught:
        Ledger(url)
    assert "upgrade" in caught.value.fix


def test_a_migration_that_fails_leaves_nothing_behind(url, monkeypatch):
    def fail(_connection):
        raise sa.exc.OperationalError("x", {}, Exception("disk is full"))

    run = ledger_engine._run_migrations

    def half(connection):
        run(connection)
        fail(connection)

    monkeypatch.setattr(ledger_engine, "_run_migrations", half)
    with pytest.raises(LedgerError, match="disk is full"):
        Ledger(url)
    engine = ledger_engine.make_engine(url)
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    engine.dispose()


def test_sqlite_is_tuned_for_several_processes(tmp_path):
    with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger, ledger._engine.connect() as connection:
        for name, value in (("journal_mode", "wal"), ("foreign_keys", 1), ("synchronous", 2), ("busy_timeout", 30000)):
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value


def test_the_default_is_a_file_in_slipways_home(tmp_path, monkeypatch):
    monkeypatch.delenv("SLIPWAY_LEDGER_URL", raising=False)
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "new" / "home"))
    with Ledger() as ledger:
        assert ledger.address == f"sqlite+pysqlite:///{tmp_path}/new/home/ledger.db"
    assert (tmp_path / "new" / "home" / "ledger.db").exists()
    monkeypatch.setenv("SLIPWAY_LEDGER_URL", f"sqlite:///{tmp_path}/other.db")
    with Ledger() as ledger:
        assert ledger.address.endswith("other.db")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense hunter22", "cannot be read"),
        ("mysql://me:hunter22@h/d", "'mysql'"),
        ("postgresql+asyncpg://me:hunter22@h/d", "'postgresql\\+asyncpg'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("postgresql://me:hunter22@h:port/d", "cannot be read"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(url, words):
    with pytest.raises(LedgerError, match=words) as caught:
        Ledger(url)
    assert "SLIPWAY_LEDGER_URL" in caught.value.fix
    assert "hunter22" not in str(caught.value)


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match="psycopg is not installed") as caught:
        Ledger("postgresql://h/d")
    assert "slipway[postgres]" in caught.value.fix


def test_a_server_that_does_not_answer_is_told_with_its_address(tmp_path):
    with pytest.raises(LedgerError, match=r"postgresql\+psycopg://me:\*\*\*@") as caught:
        Ledger(f"postgresql://me:hunter22@/d?host={tmp_path}")
    assert "PostgreSQL runs" in caught.value.fix
    assert "hunter22" not in str(caught.value)


def test_a_database_that_is_missing_is_told(postgresql):
    with pytest.raises(LedgerError, match="does not exist") as caught:
        Ledger(postgresql.replace("/postgres?", "/nope?"))
    assert "Create it" in caught.value.fix


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be made") as caught:
        Ledger(f"sqlite:///{tmp_path}/file/below/ledger.db")
    assert "SLIPWAY_HOME" in caught.value.fix


def test_a_path_that_is_a_directory_cannot_be_opened(tmp_path):
    with pytest.raises(LedgerError, match="unable to open") as caught:
        Ledger(f"sqlite:///{tmp_path}")
    assert "write to it" in caught.value.fix


def test_another_file_in_its_place_is_told_and_left(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_text("these are my notes, not a database" * 100)
    with pytest.raises(LedgerError, match="not a database") as caught:
        Ledger(f"sqlite:///{path}")
    assert "move it away" in caught.value.fix
    assert path.read_text().startswith("these are my notes")


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path):
    with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger:
        bundle(ledger)
        with ledger._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        sa.event.listen(ledger._engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages}"))
        ledger._engine.dispose()
        with pytest.raises(LedgerError, match="full") as caught:
            bundle(ledger, "x" * 100_000)
        assert "Free some space" in caught.value.fix
        assert len(ledger.bundles("d")) == 1


def test_a_ledger_that_somebody_keeps_locked_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_engine, "_BUSY_TIMEOUT_SECONDS", 0.1)
    url = f"sqlite:///{tmp_path}/l.db"
    with Ledger(url) as ledger, Ledger(url) as other, ledger_engine.writing(other._engine):
        with pytest.raises(LedgerError, match="locked") as caught:
            bundle(ledger)
        assert "Another process" in caught.value.fix
        assert ledger.bundles("d") == (), "reading goes on"
