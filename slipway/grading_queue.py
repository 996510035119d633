"""Grade answers while others are being asked for: at once where rules decide, in a bounded queue where a judge does.

A judge takes seconds where a rule takes microseconds. Those who ask the arms do not wait for it, and its time is in no
latency.
"""

from __future__ import annotations

import asyncio
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
"""Answers that may wait for a judge; beyond that whoever brings one waits too, so that memory is bounded."""


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
        done: Told the case's index and the result.
    """

    def __init__(self, judge: Judge | None, recorder: Recorder, done: Callable[[int, CaseResult], None]) -> None:
        self._judge = judge
        self._recorder = recorder
        self._done = done
        self._queue: asyncio.Queue[Answered] = asyncio.Queue(BACKLOG)

    @property
    def workers(self) -> int:
        """How many ``work`` may run at once with profit."""
        return 0 if self._judge is None else self._judge.settings.max_concurrency

    def is_immediate(self, case: Case) -> bool:
        """Whether no judge must be asked for the case."""
        return self._judge is None or not is_case_judged(case)

    def grade(self, item: Answered) -> None:
        """Grade an answer whose case ``is_immediate``."""
        self._finish(item, grade_case(item.case, subject_of(item.case, item.answer, item.cost_usd)))

    async def put(self, item: Answered) -> None:
        """Leave an answer to the judge; waits while too many are waiting."""
        await self._queue.put(item)

    async def work(self) -> None:
        """Have answers judged, one after the other, for ever."""
        while True:
            item = await self._queue.get()
            try:
                subject = subject_of(item.case, item.answer, item.cost_usd)
                self._finish(item, await grade_answer(item.case, subject, self._judge))
            finally:
                self._queue.task_done()

    async def join(self) -> None:
        """Wait until every answer is graded."""
        await self._queue.join()

    def _finish(self, item: Answered, verdict: Grade) -> None:
        result = self._recorder.graded(
            item.case, item.arm, item.adapter_id, item.answer, verdict, item.cost_usd, item.session
        )
        self._done(item.place, result)
