"""A process that is told to stop does, wherever the signal meets it, and only after what it has to undo."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from slipway.services import stopping
from slipway.services.stopping import stoppable, to_the_end

SIGNALS = [signal.SIGTERM, signal.SIGINT]


class Told(BaseException):
    """What a handler in the manner of Prefect's raises."""


def raise_told(*_):
    raise Told


class Goodbye:
    """Sends this process a signal from its destructor, where Python drops what a handler raises."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.fixture(autouse=True)
def handlers_are_as_before():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    after = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.fixture
def soon(monkeypatch):
    """Repeat quickly."""
    monkeypatch.setattr(stopping, "AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(stopping, "REPORT_SECONDS", 0.1)


async def is_cancelled(work):
    """Whether a stoppable block around ``work`` is cut; what else comes up is raised."""
    with stoppable() as stop:
        try:
            await work(stop)
        except asyncio.CancelledError:
            return True
    return False


async def until_cut(*numbers):
    """Wait for the cancellation, which signals may have to bring about first."""
    for number in numbers:
        signal.raise_signal(number)
    await asyncio.wait_for(asyncio.Event().wait(), 10)


@pytest.mark.parametrize("number", SIGNALS)
async def test_signal_in_a_destructor_is_heard(number):
    async def work(stop):
        told = Goodbye(number)
        del told
        await until_cut()

    assert await is_cancelled(work)


@pytest.mark.parametrize("number", SIGNALS)
async def test_signal_in_a_callback_is_heard(number):
    async def work(stop):
        asyncio.get_running_loop().call_soon(signal.raise_signal, number)
        await until_cut()
        assert stop.number is number

    assert await is_cancelled(work)


async def test_signal_in_a_task_that_nobody_waits_for_is_heard_and_spares_the_task():
    finished = []

    async def other():
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        finished.append(True)

    async def work(stop):
        task = asyncio.create_task(other())
        try:
            await until_cut()
        finally:
            await task

    assert await is_cancelled(work)
    assert finished


async def test_signal_is_heard_although_something_else_has_taken_the_handler():
    """As Prefect does when a flow begins; what its handler raises is lost here."""

    async def work(stop):
        signal.signal(signal.SIGTERM, raise_told)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.call_soon(signal.raise_signal, signal.SIGTERM)
        await until_cut()

    assert await is_cancelled(work)


async def test_block_inside_a_block_takes_the_handler_back_and_gives_it_back():
    with stoppable() as outer:
        signal.signal(signal.SIGTERM, raise_told)
        with stoppable() as inner:
            assert inner is outer
            assert signal.getsignal(signal.SIGTERM) == outer.arrived
        assert signal.getsignal(signal.SIGTERM) is raise_told


async def test_block_inside_a_block_that_was_told_keeps_the_handler():
    """Else the next signal would be raised in the middle of whatever ends the work."""
    with stoppable() as outer:
        signal.signal(signal.SIGTERM, raise_told)
        with pytest.raises(asyncio.CancelledError), stoppable():
            await until_cut(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == outer.arrived


async def test_cancellation_that_is_swallowed_comes_again(soon):
    swallowed = []

    async def work(stop):
        signal.raise_signal(signal.SIGTERM)
        for _ in range(3):
            try:
                await until_cut()
            except asyncio.CancelledError:
                swallowed.append(stop.number)
        await until_cut()

    assert await is_cancelled(work)
    assert swallowed == [signal.SIGTERM] * 3


async def test_nothing_is_cancelled_once_the_block_has_ended(soon):
    """Whoever runs the block has yet to write down how it ended."""

    async def work(stop):
        await until_cut(signal.SIGTERM)

    assert await is_cancelled(work)
    await asyncio.sleep(0.1)


async def test_those_around_a_block_that_was_cut_have_a_while_to_write_that_down(soon):
    """And no longer, as Prefect asks a server that has gone again and again."""
    with stoppable():
        with pytest.raises(asyncio.CancelledError), stoppable():
            await until_cut(signal.SIGTERM)
        await asyncio.sleep(0.06)
        with pytest.raises(asyncio.CancelledError):
            await until_cut()


async def test_one_wish_sent_twice_is_one():
    """Such as by timeout(1), which sends its signal to the process and to its group."""
    undone = []

    async def work(stop):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        try:
            await until_cut()
        finally:
            await asyncio.sleep(0.05)
            undone.append(True)

    assert await is_cancelled(work)
    assert undone


async def test_who_asked_for_it_is_told_once():
    said = []
    with pytest.raises(asyncio.CancelledError), stoppable(lambda: said.append(True)):
        await until_cut(signal.SIGTERM, signal.SIGINT)
    assert said == [True]


def test_nothing_happens_outside_the_main_thread():
    async def work(stop):
        assert signal.getsignal(signal.SIGTERM) == before

    before = signal.getsignal(signal.SIGTERM)
    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(is_cancelled(work))))
    thread.start()
    thread.join()
    assert results == [False]


SECOND_SIGNAL = """
import asyncio, sys, time
from slipway.services import stopping

stopping.AGAIN_SECONDS = 0.1

async def undo():
    print("undoing", flush=True)
    await asyncio.sleep(30)

async def main():
    with stopping.stoppable():
        print("ready", flush=True)
        try:
            STUCK
        finally:
            await stopping.to_the_end(undo())

asyncio.run(main())
"""


@pytest.mark.parametrize("stuck", ["await asyncio.sleep(30)", "time.sleep(30)"], ids=["undoing", "loop is stuck"])
@pytest.mark.parametrize("number", SIGNALS)
def test_second_signal_ends_the_process_at_once(number, stuck):
    process = subprocess.Popen(
        [sys.executable, "-c", SECOND_SIGNAL.replace("STUCK", stuck)], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            if stuck.startswith("await"):
                assert process.stdout.readline() == "undoing\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.send_signal(number)
            assert process.wait(10) == -number
        finally:
            process.kill()


async def test_work_goes_on_to_the_end_however_often_its_waiting_is_cancelled():
    may_end = asyncio.Event()
    steps = []

    async def undo():
        await may_end.wait()
        steps.append("undone")

    async def wait_for_it():
        try:
            await to_the_end(undo())
        finally:
            steps.append("waited")

    waiting = asyncio.create_task(wait_for_it())
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert steps == []
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert steps == ["undone", "waited"]


async def test_work_that_is_not_cut_gives_its_result_and_its_error():
    async def answer():
        return 42

    async def fail():
        raise KeyError(os.name)

    assert await to_the_end(answer()) == 42
    with pytest.raises(KeyError):
        await to_the_end(fail())
