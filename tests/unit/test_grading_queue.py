"""Answers that wait to be graded: none is lost, none holds up those who ask."""

from __future__ import annotations

import asyncio

import pytest

from slipway import grading_queue
from slipway.answers import Answer
from slipway.checks import Check, prepare
from slipway.errors import StoreError
from slipway.grading_queue import Answered, GradingQueue
from slipway.recording import Recorder
from slipway.results import Arm
from slipway.suite import Case


def answered(place=0, output="x"):
    case = Case(id=f"c{place}", vars={}, prompt="p", checks=(prepare(Check(type="contains", value="x")),))
    return Answered(place, case, Arm.BASE, "", Answer(output=output, latency_ms=1.0), None, "s")


@pytest.fixture
def done():
    return []


@pytest.fixture
def queue(done):
    return GradingQueue(None, Recorder(), lambda place, result: done.append((place, result.passed)))


async def test_who_brings_an_answer_goes_on_before_it_is_graded(queue, done):
    await queue.put(answered(0))
    await queue.put(answered(1, output="y"))
    assert done == []
    await asyncio.sleep(0)
    assert done == [(0, True), (1, False)]


async def test_joining_waits_for_all_however_many_slices_it_takes(queue, done, monkeypatch):
    monkeypatch.setattr(grading_queue, "SLICE_SECONDS", 0.0)  # one a slice
    for place in range(20):
        await queue.put(answered(place))
    assert len(done) < 20
    await queue.join()
    assert [place for place, _ in done] == list(range(20))


async def test_other_things_happen_between_two_slices(queue, done, monkeypatch):
    monkeypatch.setattr(grading_queue, "SLICE_SECONDS", 0.0)
    seen = []

    async def look():
        while len(done) < 50:
            seen.append(len(done))
            await asyncio.sleep(0)

    for place in range(50):
        await queue.put(answered(place))
    await asyncio.wait_for(look(), 10)
    assert len(set(seen)) >= 49


async def test_results_do_not_fall_far_behind(queue, done, monkeypatch):
    monkeypatch.setattr(grading_queue, "BACKLOG", 4)
    for place in range(3):
        await queue.put(answered(place))
    assert done == []
    await asyncio.wait_for(queue.put(answered(3)), 10)
    assert len(done) == 4


async def test_a_failure_of_who_takes_results_is_raised_by_the_next_put_and_by_join():
    def fail(place, result):
        raise StoreError("the disk is full.")

    queue = GradingQueue(None, Recorder(), fail)
    await queue.put(answered())
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="disk is full"):
        await queue.put(answered(1))
    with pytest.raises(StoreError, match="disk is full"):
        await queue.join()


async def test_a_failure_does_not_leave_anybody_waiting(monkeypatch):
    monkeypatch.setattr(grading_queue, "BACKLOG", 1)

    def fail(place, result):
        raise StoreError("the disk is full.")

    queue = GradingQueue(None, Recorder(), fail)
    with pytest.raises(StoreError, match="disk is full"):
        await asyncio.wait_for(queue.put(answered()), 10)


async def test_finishing_grades_at_once_what_still_waits(queue, done):
    await queue.put(answered())
    queue.finish()
    assert done == [(0, True)]
    await queue.join()
    assert len(done) == 1
