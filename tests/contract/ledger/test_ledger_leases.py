"""Leases within one process: exclusive, renewed, given back, and known when lost."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from slipway.errors import LeaseHeldError
from slipway.services.ledger_schema import leases
from slipway.services.ledger_store import Ledger


def rows(ledger):
    with ledger._engine.connect() as connection:
        return connection.execute(sa.select(leases)).all()


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lease_is_exclusive_even_within_one_process(ledger):
    with ledger.lease("upload"):
        with pytest.raises(LeaseHeldError), ledger.lease("upload"):
            pytest.fail("two holders")
        assert len(rows(ledger)) == 1
    assert rows(ledger) == []
    with ledger.lease("upload"):
        pass


def test_a_lease_is_given_back_after_a_failure(ledger):
    with pytest.raises(ZeroDivisionError), ledger.lease("upload"):
        _ = 1 / 0
    assert rows(ledger) == []


def test_a_lease_renews_itself(ledger):
    with ledger.lease("upload", ttl_seconds=0.3) as lease:
        until = rows(ledger)[0].expires_at
        wait_until(lambda: rows(ledger)[0].expires_at > until)
        lease.confirm()


def test_a_holder_on_another_host_is_waited_for_until_its_lease_runs_out(url):
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with Ledger(url, clock=lambda: now[0]) as ledger:
        with ledger._engine.begin() as connection:
            row = {"resource": "upload", "holder": "elsewhere:1:1", "nonce": "n"}
            end = now[0] + timedelta(seconds=60)
            connection.execute(sa.insert(leases).values(acquired_at=now[0], expires_at=end, **row))
        with pytest.raises(LeaseHeldError, match="elsewhere:1:1") as caught, ledger.lease("upload"):
            pytest.fail("two holders")
        assert "00:01:00" in caught.value.fix
        now[0] += timedelta(seconds=60)
        with ledger.lease("upload"):
            assert rows(ledger)[0].holder != "elsewhere:1:1"


def test_a_lease_taken_by_another_is_known_to_be_lost(ledger):
    with ledger.lease("upload", ttl_seconds=0.1) as lease:
        with ledger._engine.begin() as connection:
            connection.execute(sa.update(leases).values(nonce="another", holder="another"))
        wait_until(lambda: lease.is_lost)
        with pytest.raises(LeaseHeldError, match="lost"):
            lease.confirm()
    assert rows(ledger)[0].nonce == "another", "what is not ours is not given back"
