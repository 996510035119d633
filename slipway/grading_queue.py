"""Grade answers while others are being asked for: between requests where rules decide, in a bounded queue for a judge.

A rule takes microseconds, a script a millisecond, a judge seconds. Nobody who asks the arms waits for any of them, so
the next request is on its way before the last answer is graded, and grading is in no latency: it gives the event loop
back after ``SLICE_SECONDS``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from slipway.answers import Answer
from slipway.checks import Grade, Judge
from slipway.grading import grade_answer, grade_case, is_case_judged
from slipway.recording import Recorder, subject_of
from slipway.results import Arm, CaseResult
from slipway.suite import Case

__all__ = ["Answered", "GradingQueue"]

BACKLOG = 1024
"""Answers that may wait to be graded, by rules or a judge; beyond that whoever brings one waits too, so that results
keep up with answers."""
SLICE_SECONDS = 0.001
"""Rules are applied for so long at a time; replies that come meanwhile are seen so much later at most."""


class Answered(NamedTuple):
    """An answer to be graded. ``place`` is its case's in the suite."""

    place: int
    case: Case
    arm: Arm
    adapter_id: str
    answer: Answer
    cost_usd: float | None
    session: str


class GradingQueue:
    """Grades answers and hands on their results.

    Args:
        judge: None where there is nobody to ask.
        recorder: Makes results.
        done: Told the case's index and the result. What it raises is raised by the next ``take`` or ``put``, or by
            ``join``.
    """

    def __init__(self, judge: Judge | None, recorder: Recorder, done: Callable[[int, CaseResult], None]) -> None:
        self._judge = judge
        self._recorder = recorder
        self._done = done
        self._for_judge: asyncio.Queue[Answered] = asyncio.Queue(BACKLOG)
        self._for_rules: deque[Answered] = deque()
        self._next_slice: asyncio.Handle | None = None
        self._caught_up = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def workers(self) -> int:
        """How many ``work`` may run at once with profit."""
        return 0 if self._judge is None else self._judge.settings.max_concurrency

    def is_judged(self, case: Case) -> bool:
        """Whether answers to the case wait for the judge."""
        return self._judge is not None and is_case_judged(case)

    def grade(self, item: Answered) -> None:
        """Grade an answer at once, by rules."""
        self._finish(item, grade_case(item.case, subject_of(item.case, item.answer, item.cost_usd)))

    async def put(self, item: Answered) -> None:
        """Leave an answer to be graded; waits while too many are waiting."""
        if not self.take(item):
            await self.keep_pace(item)

    def take(self, item: Answered) -> bool:
        """Leave an answer to be graded by rules; gives whether that was all, or ``keep_pace`` must be called."""
        self._raise_failure()
        if self.is_judged(item.case):
            return False
        self._for_rules.append(item)
        self._go_on()
        return len(self._for_rules) < BACKLOG

    async def keep_pace(self, item: Answered) -> None:
        """Leave an answer to the judge, or wait where too many that were taken wait for their rules."""
        if self.is_judged(item.case):
            await self._for_judge.put(item)
            return
        self._caught_up.clear()
        await self._caught_up.wait()
        self._raise_failure()

    async def work(self) -> None:
        """Have answers judged, one after the other, for ever."""
        while True:
            item = await self._for_judge.get()
            try:
                subject = subject_of(item.case, item.answer, item.cost_usd)
                self._finish(item, await grade_answer(item.case, subject, self._judge))
            finally:
                self._for_judge.task_done()

    async def join(self) -> None:
        """Wait until every answer is graded."""
        await self._for_judge.join()
        while self._for_rules and self._failure is None:
            self._caught_up.clear()
            await self._caught_up.wait()
        self._raise_failure()

    def finish(self) -> None:
        """Apply the rules that are still to be applied without a pause: whoever is cut has paid for these answers."""
        self._grade_until(math.inf)

    def _go_on(self) -> None:
        if self._next_slice is None:
            self._next_slice = asyncio.get_running_loop().call_soon(self._grade_for_a_while)

    def _grade_for_a_while(self) -> None:
        self._next_slice = None
        self._grade_until(time.perf_counter() + SLICE_SECONDS)
        if self._for_rules and self._failure is None:
            self._go_on()
        if len(self._for_rules) < BACKLOG or self._failure is not None:
            self._caught_up.set()

    def _grade_until(self, deadline: float) -> None:
        try:
            while self._for_rules and self._failure is None:
                self.grade(self._for_rules.popleft())
                if time.perf_counter() >= deadline:
                    break
        except Exception as error:  # noqa: BLE001  # the event loop would swallow it
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _finish(self, item: Answered, verdict: Grade) -> None:
        result = self._recorder.graded(
            item.case, item.arm, item.adapter_id, item.answer, verdict, item.cost_usd, item.session
        )
        self._done(item.place, result)
