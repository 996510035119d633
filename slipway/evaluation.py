"""Run a suite against several arms at once and record what each answered.

Knows cases, arms and order; how an arm is asked is a callable that it is given. Raises only when going on is pointless;
a request that fails is a missing answer with the reason, never a failed check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from slipway.errors import AuthenticationError, ServiceError
from slipway.grading import grade_case
from slipway.results import Arm, CaseResult, Timing
from slipway.suite import Case, Suite

__all__ = ["Answer", "Ask", "Contestant", "evaluate", "interleave"]

GIVE_UP_AFTER = 20
"""Failures in a row, over all arms, after which the service is down and each further request is waste."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One reply.

    Attributes:
        output: The text.
        latency_ms: By the caller's clock, from sending to the last byte, of the attempt that succeeded.
        prompt_tokens: As the server counted them.
        generated_tokens: As the server counted them.
        finish_reason: The server's word for why generation ended.
        timing: What the server told of its own time.
        logprobs: Natural logarithms of the generated tokens' probabilities, in order.
    """

    output: str
    latency_ms: float
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    finish_reason: str | None = None
    timing: Timing | None = None
    logprobs: tuple[float, ...] | None = None


Ask = Callable[[Case], Awaitable[Answer]]
"""Send one case's prompt; raises ServiceError."""


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
) -> list[CaseResult]:
    """Ask every case of every arm, ``max_concurrency`` requests in flight, and grade the outputs.

    The first case is asked once of each arm beforehand and that answer thrown away, so that loading an adapter is in
    nobody's latency.

    Returns:
        One result per case and arm, in the suite's order.

    Raises:
        AuthenticationError: The token is refused; every answer would be missing.
        ServiceError: ``GIVE_UP_AFTER`` requests in a row failed; the last failure.
    """
    arms = list(contestants)
    queue = iter(interleave(suite.cases, arms))
    results: dict[tuple[str, Arm], CaseResult] = {}
    failures_in_a_row = 0

    for arm in arms if suite.cases else ():
        await _attempt(contestants[arm].ask, suite.cases[0])

    async def work() -> None:
        nonlocal failures_in_a_row
        for case, arm in queue:
            outcome = await _attempt(contestants[arm].ask, case)
            failures_in_a_row = failures_in_a_row + 1 if isinstance(outcome, ServiceError) else 0
            result = _record(case, arm, contestants[arm].adapter_id, outcome)
            results[case.id, arm] = result
            on_result(result)
            if isinstance(outcome, ServiceError) and failures_in_a_row >= GIVE_UP_AFTER:
                raise outcome

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(max_concurrency, len(suite.cases) * len(arms))):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [results[case.id, arm] for case in suite.cases for arm in arms]


async def _attempt(ask: Ask, case: Case) -> Answer | ServiceError:
    """Ask once; the client has repeated what a repeat can help. Returns the failure instead of raising it."""
    try:
        return await ask(case)
    except AuthenticationError:
        raise
    except ServiceError as error:
        return error


def _record(case: Case, arm: Arm, adapter_id: str, outcome: Answer | ServiceError) -> CaseResult:
    if isinstance(outcome, ServiceError):
        return CaseResult(
            case=case.id, arm=arm, adapter_id=adapter_id, tags=case.tags, group=case.group, error=str(outcome)
        )
    return grade_case(
        case,
        arm=arm,
        adapter_id=adapter_id,
        output=outcome.output,
        latency_ms=outcome.latency_ms,
        prompt_tokens=outcome.prompt_tokens,
        generated_tokens=outcome.generated_tokens,
    )
