"""Several processes on one ledger: races, and deaths in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import pytest

from slipway.errors import LeaseHeldError
from slipway.ledger import DeploymentStage
from slipway.services.leases import is_alive, process_holder
from slipway.services.ledger_store import Ledger

PRELUDE = """
import os, signal, sys, time
from slipway.errors import ChampionMovedError, LeaseHeldError
from slipway.services.ledger_store import Ledger

def say(*words):
    print(*words, flush=True)

url, me = sys.argv[1:3]
"""


@contextmanager
def process(script, url, me="one"):
    """A Python process with a ledger's URL, whose lines we read."""
    source = PRELUDE + textwrap.dedent(script)
    child = subprocess.Popen(
        [sys.executable, "-c", source, url, me], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def race(script, url, count):
    """Start processes, let them go at the same moment, and return the lines that each said."""
    children = []
    try:
        for number in range(count):
            source = PRELUDE + textwrap.dedent(script)
            children.append(
                subprocess.Popen(
                    [sys.executable, "-c", source, url, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for child in children:
            assert child.stdout.readline() == "ready\n"
        start = time.time() + 0.05
        for child in children:
            child.stdin.write(f"{start}\n")
            child.stdin.flush()
        said = [child.stdout.read().split("\n")[:-1] for child in children]
        assert [child.wait(20) for child in children] == [0] * count
        return said
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()


ROUNDS = 15


def test_of_two_releases_racing_exactly_one_becomes_champion(url):
    said = race(
        f"""
        ledger = Ledger(url)
        say("ready")
        start = float(input())
        for round in range({ROUNDS}):
            time.sleep(max(0, start + round * 0.03 - time.time()))
            try:
                ledger.promote(name=f"a{{round}}", target="t", expected_champion=None, release_id=me,
                               adapter_id="a/" + me, adapter_source="pbase", digest=me)
                say("won")
            except ChampionMovedError as error:
                assert "a/" + str(1 - int(me)) in str(error), error
                say("lost")
        """,
        url,
        2,
    )
    assert [sorted(pair) for pair in zip(*said, strict=True)] == [["lost", "won"]] * ROUNDS
    with Ledger(url) as ledger:
        assert [item.sequence for item in ledger.promotions()] == [1] * ROUNDS


def test_releases_opened_at_once_get_numbers_of_their_own_and_the_same_request_one_release(url):
    script = """
        ledger = Ledger(url)
        say("ready")
        time.sleep(max(0, float(input()) - time.time()))
        for digest in (me, "same"):
            say(ledger.open_release(name="a", target="t", digest=digest, suite_digest="s", gate_digest="g", uri="u").id)
    """
    own, same = zip(*race(script, url, 4), strict=True)
    assert len(set(same)) == 1
    assert sorted({*own, *same}) == ["a-1", "a-2", "a-3", "a-4", "a-5"]


def test_a_new_ledger_opened_by_several_at_once_is_migrated_once(url):
    script = """
        say("ready")
        time.sleep(max(0, float(input()) - time.time()))
        with Ledger(url) as ledger:
            ledger.record_bundle(digest="d", uri="u", resolved_revision="r", size_bytes=1, base_model="b")
            say(len(ledger.bundles("d")))
    """
    assert race(script, url, 4) == [["1"]] * 4


def test_what_was_recorded_before_the_effect_survives_kill_9(url):
    """The deployment may or may not exist: its name is known, so that it can be looked for."""
    script = """
        ledger = Ledger(url)
        ledger.record_deployment(target="t", name="prod", release_id="a-1", stage="intended", base_model="b")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with process(script, url) as child:
        assert child.wait(20) == -signal.SIGKILL
    with Ledger(url) as ledger:
        (state,) = ledger.created_deployments("t")
        assert (state.name, state.stage, state.is_open) == ("prod", DeploymentStage.INTENDED, True)


def test_what_was_not_committed_at_kill_9_never_happened(url):
    script = """
        import sqlalchemy as sa
        from slipway.services.ledger_engine import writing
        from slipway.services.ledger_schema import promotions
        ledger = Ledger(url)
        with writing(ledger._engine) as connection:
            connection.execute(sa.insert(promotions).values(
                name="a", target="t", sequence=1, release_id="a-1", adapter_id="a/1", adapter_source="pbase",
                digest="d", kind="promote", evidence_digest="", actor="", recorded_at=ledger._clock()))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with process(script, url) as child:
        assert child.wait(20) == -signal.SIGKILL
    with Ledger(url) as ledger:
        assert ledger.promotions() == ()
        values = {"release_id": "a-1", "adapter_id": "a/1", "adapter_source": "pbase", "digest": "d"}
        assert ledger.promote(name="a", target="t", expected_champion=None, **values).sequence == 1


HOLDS = """
    ledger = Ledger(url)
    with ledger.lease("upload"):
        say("held")
        time.sleep(60)
"""


def test_a_living_holder_is_named_and_a_dead_one_is_succeeded_at_once(url):
    with process(HOLDS, url) as child, Ledger(url) as ledger:
        assert child.stdout.readline() == "held\n"
        with (
            pytest.raises(LeaseHeldError, match=rf"being worked on by .*:{child.pid}:") as caught,
            ledger.lease("upload"),
        ):
            pytest.fail("two holders")
        assert caught.value.fix
        with ledger.lease("another"):
            pass
        os.kill(child.pid, signal.SIGKILL)
        # Not waited for: a zombie is dead too.
        deadline = time.monotonic() + 5
        while True:
            try:
                with ledger.lease("upload") as lease:
                    lease.confirm()
                    break
            except LeaseHeldError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_of_many_that_find_a_dead_holder_one_gets_the_lease(url):
    with process(HOLDS, url) as child:
        assert child.stdout.readline() == "held\n"
    said = race(
        """
        ledger = Ledger(url)
        say("ready")
        time.sleep(max(0, float(input()) - time.time()))
        try:
            with ledger.lease("upload"):
                say("held")
                time.sleep(0.7)
        except LeaseHeldError:
            say("refused")
        """,
        url,
        4,
    )
    assert sorted(line for lines in said for line in lines) == ["held", "refused", "refused", "refused"]


def test_the_holder_of_now_is_alive_and_others_are_not():
    me = process_holder()
    host, _, rest = me.rpartition(":")[0].rpartition(":")
    assert is_alive(me) is True
    assert is_alive(f"{host}:{rest}:0") is False, "the process id was given to another"
    assert is_alive(f"{host}:999999999:1") is False
    assert is_alive(f"elsewhere:{rest}:1") is None
    assert is_alive("nonsense") is None
