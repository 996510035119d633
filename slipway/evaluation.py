"""Run a suite against several arms at once and record what each answered.

Knows cases, arms and order; how an arm is asked, and how time passes, are given. Raises only when going on is
pointless; a request that fails is a missing answer with the reason, never a failed check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from slipway.answers import Answer, Recorded, answer_of
from slipway.checks import Judge
from slipway.concurrency import Limiter, Patience
from slipway.cost import ShareClock
from slipway.errors import AuthenticationError, RateLimitedError, ServiceError, UnavailableError
from slipway.grading_queue import Answered, GradingQueue
from slipway.recording import Recorder, Redact
from slipway.result_table import ResultTable
from slipway.results import Arm, CaseResult
from slipway.suite import Case, Suite

__all__ = ["Answer", "Ask", "Contestant", "Cost", "ShouldStop", "evaluate", "interleave"]

GIVE_UP_AFTER = 20
"""Failures in a row, over all arms or of one, after which each further request is waste."""

Ask = Callable[[Case], Awaitable[Answer]]
"""Send one case's prompt, once; raises ServiceError. Repeats are the evaluation's."""
Cost = Callable[[Answer, float], float | None]
"""What an answer cost in US dollars, given its share of the server's time in seconds."""
ShouldStop = Callable[[Sequence[CaseResult]], str | None]
"""Given the results of the first cases, in the suite's order and complete for all arms: why to stop, or None. Called
once with no results beforehand, to load what it needs."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One arm: the adapter it stands for (empty for the base) and how to ask it."""

    adapter_id: str
    ask: Ask


def interleave(cases: Sequence[Case], arms: Sequence[Arm]) -> list[tuple[Case, Arm]]:
    """Order the requests A-B-B-A: each case is asked of all arms together, in an order that flips from case to case.

    Latency drifts with load and time; asked in this order every arm meets the same drift.
    """
    order: list[tuple[Case, Arm]] = []
    for index, case in enumerate(cases):
        turn = arms if index % 2 == 0 else list(reversed(arms))
        order.extend((case, arm) for arm in turn)
    return order


async def evaluate(
    suite: Suite,
    contestants: Mapping[Arm, Contestant],
    *,
    max_concurrency: int,
    on_result: Callable[[CaseResult], None] = lambda _: None,
    known: Mapping[tuple[str, Arm], Recorded] | None = None,
    judge: Judge | None = None,
    should_stop: ShouldStop | None = None,
    redact: Redact | None = None,
    cost: Cost | None = None,
    session: str = "",
    patience: Patience | None = None,
    limiter: Limiter | None = None,
) -> list[CaseResult]:
    """Ask every case of every arm, as many requests in flight as the server gains from, and grade the outputs.

    The first case that an arm will be asked is asked once beforehand, of all arms at once, and that answer thrown away,
    so that loading an adapter is in nobody's latency. Requests that the server had no room for (429, 503) or that broke
    off are repeated, others are not. An arm that fails ``GIVE_UP_AFTER`` times in a row is asked no more; what is left
    of it is missing.

    Args:
        suite: What to ask.
        contestants: Whom.
        max_concurrency: Requests in flight at most, see ``concurrency``.
        on_result: Told each new result as it comes: asked, graded anew or missing, but not those taken from ``known``.
        known: Recorded answers that need not be asked for, by case id and arm.
        judge: For checks that a model judges; the judge is asked beside the arms, and its time is in nobody's latency.
        should_stop: Looked at, in a thread, whenever there are more first cases that all arms have answered. While it
            looks, no more new requests go out than may be in flight. With a reason nothing new is asked, what is in
            flight is recorded, and the rest is ``not_asked``.
        redact: Masks outputs, reasons and errors, after grading.
        cost: Prices an answer.
        session: Written into each new answer.
        patience: How to repeat; its clock is the evaluation's.
        limiter: To look at from outside, in place of one of ``max_concurrency`` slots.

    Returns:
        One result per case and arm, in the suite's order.

    Raises:
        AuthenticationError: The token is refused; every answer would be missing.
        ServiceError: ``GIVE_UP_AFTER`` requests in a row failed, whatever the arm, or the server has refused everything
            for longer than ``patience`` has; the last failure.
    """
    patience = patience or Patience()
    run = _Run(
        suite.cases,
        contestants,
        known or {},
        limiter=limiter or Limiter(max_concurrency, patience),
        patience=patience,
        recorder=Recorder(redact=redact),
        judge=judge,
        on_result=on_result,
        should_stop=should_stop,
        cost=cost,
        session=session,
    )
    try:
        await run.run(max_concurrency)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return run.table.results()


class _Turn(NamedTuple):
    """One request to be made, for the n-th time; ``place`` is its case's in the suite."""

    place: int
    case: Case
    arm: Arm
    attempt: int = 1


class _Run:
    """One evaluation under way."""

    def __init__(
        self,
        cases: Sequence[Case],
        contestants: Mapping[Arm, Contestant],
        known: Mapping[tuple[str, Arm], Recorded],
        *,
        limiter: Limiter,
        patience: Patience,
        recorder: Recorder,
        judge: Judge | None,
        on_result: Callable[[CaseResult], None],
        should_stop: ShouldStop | None,
        cost: Cost | None,
        session: str,
    ) -> None:
        self._cases = cases
        self._arms = list(contestants)
        self._contestants = contestants
        self._known = known
        self._limiter = limiter
        self._patience = patience
        self._recorder = recorder
        self._on_result = on_result
        self._should_stop = should_stop
        self._cost = cost
        self._session = session
        self._share = ShareClock()
        self._grading = GradingQueue(judge, recorder, self._record)
        self._turns: Iterator[_Turn] = iter(())
        self._is_over = False
        self._stopped = ""
        self._has_looked = asyncio.Event()
        self._has_looked.set()
        self._asked_since_look = 0
        self._failures_in_a_row = 0
        self._answered_at = limiter.clock()
        self._failures_of = dict.fromkeys(self._arms, 0)
        self._given_up: dict[Arm, str] = {}
        self.table = ResultTable(cases, self._arms)

    async def run(self, workers: int) -> None:
        """Take what is known, ask for the rest."""
        turns, to_judge = self._take_known()
        try:
            await self._ask_all(turns, to_judge, workers)
        finally:
            self._grading.finish()
        for index, case in enumerate(self._cases):
            for arm in self._arms:
                if not self.table.has(case, arm):
                    self._miss(index, case, arm, f"not asked: {self._stopped}", not_asked=True)

    async def _ask_all(self, turns: Sequence[_Turn], to_judge: Iterable[Answered], workers: int) -> None:
        async with asyncio.TaskGroup() as beside:
            helpers = [beside.create_task(self._grading.work()) for _ in range(self._grading.workers)]
            async with asyncio.TaskGroup() as asking:
                asking.create_task(self._judge_again(to_judge))
                await self._consider_stopping()
                if self._should_stop is not None:
                    helpers.append(beside.create_task(self._keep_considering()))
                if not self._stopped:
                    await asyncio.gather(self._warm_up(turns), self._look(()))
                    self._turns = iter(turns)
                    for _ in range(min(workers, len(turns))):
                        asking.create_task(self._work())
            await self._grading.join()
            for helper in helpers:
                helper.cancel()

    # What is known

    def _take_known(self) -> tuple[list[_Turn], list[Answered]]:
        """Take recorded answers, grade anew what rules can grade; give what is to be asked and what to be judged."""
        turns, to_judge = [], []
        for place, (case, arm) in enumerate(interleave(self._cases, self._arms)):
            index = place // len(self._arms)
            found = self._known.get((case.id, arm))
            if found is None:
                turns.append(_Turn(index, case, arm))
            elif found.is_graded:
                # The same bytes may have had another name on the server when they were asked.
                name = {"adapter_id": self._contestants[arm].adapter_id}
                self.table.put(index, found.result.but(**name))
            else:
                item = self._answered(index, case, arm, answer_of(found.result), found.result)
                if self._grading.is_judged(case):
                    to_judge.append(item)
                else:
                    self._grading.grade(item)
        return turns, to_judge

    async def _judge_again(self, items: Iterable[Answered]) -> None:
        for item in items:
            await self._grading.put(item)

    def _answered(self, index: int, case: Case, arm: Arm, answer: Answer, recorded: CaseResult) -> Answered:
        adapter_id = self._contestants[arm].adapter_id
        return Answered(index, case, arm, adapter_id, answer, recorded.cost_usd, recorded.session)

    # Stopping early

    async def _consider_stopping(self) -> None:
        """Look once whether the first answers settle it; in a thread, since that can take longer than an answer."""
        self.table.grew.clear()
        if not self.table.prefix:
            return
        self._asked_since_look = 0
        self._has_looked.clear()
        try:
            self._stopped = await self._look(tuple(self.table.prefix)) or ""
        finally:
            self._has_looked.set()

    async def _look(self, results: Sequence[CaseResult]) -> str | None:
        return None if self._should_stop is None else await asyncio.to_thread(self._should_stop, results)

    @property
    def _is_out_of_sight(self) -> bool:
        """Whether a look takes long, and enough has been asked meanwhile: it may make all further requests needless."""
        return not self._has_looked.is_set() and self._asked_since_look >= self._limiter.limit

    async def _keep_considering(self) -> None:
        while not self._stopped:
            await self.table.grew.wait()
            await self._consider_stopping()

    # Asking

    async def _warm_up(self, turns: Iterable[_Turn]) -> None:
        first: dict[Arm, _Turn] = {}
        for turn in turns:
            first.setdefault(turn.arm, turn)
            if len(first) == len(self._arms):
                break
        await asyncio.gather(*map(self._warm_up_arm, first.values()))

    async def _warm_up_arm(self, turn: _Turn) -> None:
        await self._limiter.enter()
        try:
            await self._ask(turn)
        finally:
            self._limiter.leave()

    async def _work(self) -> None:
        """Make requests one after the other; between two, and before a repeat, the slot may go to somebody else."""
        carried: _Turn | None = None
        while not self._is_over or carried is not None:
            await self._limiter.enter()
            try:
                carried = await self._serve_while_welcome(carried)
            finally:
                self._limiter.leave()
            if carried is not None:
                await self._patience.sleep(self._patience.wait_seconds(carried.attempt))
                carried = carried._replace(attempt=carried.attempt + 1)

    async def _serve_while_welcome(self, turn: _Turn | None) -> _Turn | None:
        """Make requests until there are none, or the slot is wanted back, or one must be made again: gives that one."""
        while True:
            if turn is None:
                if self._is_out_of_sight:
                    await self._has_looked.wait()
                self._asked_since_look += 1
                turn = self._next_turn()
            if turn is None or self._stopped:
                self._is_over = True
                return None
            outcome = await self._ask(turn)
            if isinstance(outcome, ServiceError):
                if self._may_repeat(outcome, turn):
                    return turn
                self._fail(turn, outcome)
            else:
                item = self._taken(turn, *outcome)
                if not self._grading.take(item):
                    await self._grading.keep_pace(item)
            turn = None
            if self._limiter.must_yield:
                return None

    def _next_turn(self) -> _Turn | None:
        for turn in self._turns:
            if (why := self._given_up.get(turn.arm)) is None:
                return turn
            self._miss(turn.place, turn.case, turn.arm, why)
        return None

    async def _ask(self, turn: _Turn) -> tuple[Answer, float] | ServiceError:
        """Ask once. Gives the answer with its share of the server's time, or the failure, which it does not raise."""
        limiter = self._limiter
        now = limiter.clock()
        ticket = limiter.sent(now)
        reading = 0.0 if self._cost is None else self._share.start(now)
        failure: ServiceError | None = None
        try:
            answer = await self._contestants[turn.arm].ask(turn.case)
        except AuthenticationError:
            raise
        except ServiceError as error:
            failure = error
        finally:
            now = limiter.clock()
            share = 0.0 if self._cost is None else self._share.stop(reading, now)
        if failure is None:
            limiter.answered(ticket, now)
            return answer, share
        if _is_refusal(failure):
            asked = _retry_after(failure)
            limiter.refused(ticket, now, asked if asked <= self._patience.longest_pause_seconds else 0.0)
        else:
            limiter.answered(ticket, now)
        return failure

    def _taken(self, turn: _Turn, answer: Answer, share: float) -> Answered:
        self._failures_in_a_row = self._failures_of[turn.arm] = 0
        self._answered_at = self._limiter.clock()
        cost_usd = None if self._cost is None else self._cost(answer, share)
        adapter_id = self._contestants[turn.arm].adapter_id
        return Answered(turn.place, turn.case, turn.arm, adapter_id, answer, cost_usd, self._session)

    def _may_repeat(self, error: ServiceError, turn: _Turn) -> bool:
        """Whether a repeat can help: no room (429, 503), or no whole reply (a broken connection, 502).

        After a read timeout the server may still be working on the request, and a repeat would double its load.
        """
        if self._stopped or turn.attempt >= self._patience.attempts:
            return False
        if _retry_after(error) > self._patience.longest_pause_seconds:
            return False
        if _is_refusal(error):
            return not self._is_shut_out(error)
        # Once one request was repeated to the end and nothing was answered since, there is nobody to be patient with.
        is_broken = isinstance(error, UnavailableError) and error.status_code in {None, 502}
        return is_broken and self._failures_in_a_row == 0

    def _is_shut_out(self, error: ServiceError) -> bool:
        """Whether the server has done nothing but refuse for so long that it will not do better soon."""
        silent_seconds = self._limiter.clock() - self._answered_at
        return _is_refusal(error) and silent_seconds > self._patience.longest_silence_seconds

    def _fail(self, turn: _Turn, error: ServiceError) -> None:
        """Record a missing answer, and give up on the arm or on everything if there were too many of them."""
        self._failures_in_a_row += 1
        self._failures_of[turn.arm] += 1
        tries = f" (after {turn.attempt} attempts)" if turn.attempt > 1 else ""
        self._miss(turn.place, turn.case, turn.arm, f"{error}{tries}")
        if self._failures_in_a_row >= GIVE_UP_AFTER or self._is_shut_out(error):
            raise error
        if self._failures_of[turn.arm] >= GIVE_UP_AFTER:
            self._given_up[turn.arm] = (
                f"not asked: {turn.arm} had failed {GIVE_UP_AFTER} times in a row, the last time so: {error}"
            )

    # Recording

    def _miss(self, index: int, case: Case, arm: Arm, why: str, *, not_asked: bool = False) -> None:
        adapter_id = self._contestants[arm].adapter_id
        self._record(index, self._recorder.missing(case, arm, adapter_id, why, not_asked=not_asked))

    def _record(self, index: int, result: CaseResult) -> None:
        self.table.put(index, result)
        self._on_result(result)


def _is_refusal(error: ServiceError) -> bool:
    """Whether the server had no room for the request, and did not work on it."""
    return isinstance(error, RateLimitedError) or (isinstance(error, UnavailableError) and error.status_code == 503)


def _retry_after(error: ServiceError) -> float:
    asked = error.retry_after_seconds if isinstance(error, RateLimitedError | UnavailableError) else None
    return asked or 0.0


def _first(failures: BaseExceptionGroup) -> BaseException:
    """Dig out the first failure: groups of tasks wrap them, one group for each that they went through."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
