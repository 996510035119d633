"""Ledgers of both kinds: SQLite in a file, and PostgreSQL from Debian's package, started for the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from slipway.services.ledger_store import Ledger


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _as_another() -> dict:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql():
    """URL of a PostgreSQL server of our own on a socket in a directory of its own."""
    programs = _programs()
    if programs is None:
        pytest.skip("POSTGRESQL IS NOT INSTALLED, SO HALF OF THE LEDGER IS NOT TESTED: apt-get install postgresql")
    # Not below pytest's directories, which only their owner may enter.
    root = Path(tempfile.mkdtemp(prefix="slipway-pg-"))
    another = _as_another()
    if another:
        shutil.chown(root, another["user"], another["group"])
    options = {**another, "cwd": root, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
    initdb = [programs / "initdb", "-D", root / "data", "-U", "slipway", "-A", "trust", "-E", "UTF8", "--no-sync"]
    server = None
    try:
        subprocess.run(initdb, check=True, capture_output=True, **options)
        command = [programs / "postgres", "-D", root / "data", "-k", root, "-c", "listen_addresses="]
        command += ["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=50"]
        with (root / "log").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, **options)
        url = f"postgresql+psycopg://slipway@/postgres?host={root}"
        _wait_for(url, root / "log")
        yield url
    finally:
        if server is not None:
            server.send_signal(2)  # SIGINT: end sessions and stop
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        shutil.rmtree(root, ignore_errors=True)


def _wait_for(url: str, log: Path) -> None:
    engine = sa.create_engine(url)
    deadline = time.monotonic() + 30
    while True:
        try:
            engine.connect().close()
        except sa.exc.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            engine.dispose()
            return


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server = request.getfixturevalue("postgresql")
    name = f"ledger_{uuid4().hex[:12]}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def ledger(url):
    """A ledger on an empty database."""
    with Ledger(url, secrets={"s3cret-canary"}) as opened:
        yield opened
