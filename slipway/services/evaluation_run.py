"""An evaluation with everything around it: what is recorded already, the judge, the files that it leaves behind.

``slipway.evaluation`` asks and grades, ``answers`` decides what stands from before, ``answer_store`` keeps what was
paid for. Here they meet a serving deployment and a directory. Knows neither Prefect nor a terminal.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from slipway.adapter import Source
from slipway.answers import CaseKey, Recorded, case_keys, paired_arms, recall, recall_exactly
from slipway.checks import Judge, is_judged
from slipway.concurrency import Limiter
from slipway.cost import cost_usd
from slipway.early_stop import EarlyStop, asking_order, why_settled
from slipway.errors import NotFoundError, ProtocolError
from slipway.evaluation import Answer, Contestant, Cost, evaluate
from slipway.gate_file import EarlyStop as EarlyStopRule
from slipway.gate_file import Gate
from slipway.ledger import Json
from slipway.progress import Kind, ProgressEvent, emit
from slipway.release import Step
from slipway.results import Arm, CaseResult
from slipway.results_io import encode_result, write_results
from slipway.scoreboard import Scoreboard, Standing
from slipway.services.answer_store import Answerer, AnswerStore
from slipway.services.asking import make_ask
from slipway.services.backends import ServingDeployment
from slipway.services.judge import open_judge
from slipway.services.line_writer import LineWriter
from slipway.services.lorax import LoraxClient
from slipway.suite import Case, Suite
from slipway.targets import Target

__all__ = ["Entrant", "Evaluation", "Precedent", "Stopping", "run_evaluation"]

EVENT_SECONDS = 0.1
"""Between two progress events."""

_OBJECTS_BETWEEN_COLLECTIONS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """Who is asked as one arm.

    Attributes:
        adapter_id: As requests name it; None for the base model.
        source: How the server reads the id; None for the base model.
        digest: Of the adapter's bytes. Where it is not known the id stands for them.
    """

    adapter_id: str | None = None
    source: Source | None = None
    digest: str = ""

    @property
    def identity(self) -> str:
        """What stands for the adapter's bytes in the record of answers; empty for the base model."""
        if self.adapter_id is None or self.digest:
            return self.digest
        changed = _files_at(Path(self.adapter_id)) if self.source is Source.LOCAL else ""
        return f"{self.source}:{self.adapter_id}{changed}"


@dataclass(frozen=True, kw_only=True)
class Precedent:
    """Results that a verdict was given on before, as that attempt."""

    results: Sequence[CaseResult]
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """By which rules an evaluation may end early; see ``early_stop.EarlyStop``.

    Attributes:
        gate: The rules.
        has_champion: As for ``decide``.
        attempt: Which one new answers make.
        precedents: Earlier evaluations of the same bytes on the same suite that ended early. Where one can be had again
            as it was, and settles the verdict, nothing is asked: the same evidence is no new attempt.
    """

    gate: Gate
    has_champion: bool
    attempt: int = 1
    precedents: Sequence[Precedent] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came of it.

    Attributes:
        results: One per case and arm, in the order of asking.
        scoreboard: The counts.
        session: Of the new answers.
        server: What the server told of itself (``/info``); empty where a front end hides it.
        notes: What the judge had to do differently than asked, for people.
    """

    results: tuple[CaseResult, ...]
    scoreboard: Scoreboard
    session: str
    server: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


async def run_evaluation(
    suite: Suite,
    entrants: Mapping[Arm, Entrant],
    *,
    client: LoraxClient,
    deployment: ServingDeployment,
    target: Target,
    target_name: str,
    store: AnswerStore,
    path: Path | None = None,
    stopping: Stopping | None = None,
    run: str = "",
    fresh: bool = False,
    watch: Callable[[Scoreboard], None] = lambda _: None,
) -> Evaluation:
    """Ask what is not recorded yet, grade, and record.

    The file at ``path`` grows as results come, and is rewritten in the order of the cases at the end. Cut at any
    moment, by a kill too, it can be read up to then; the answers are in the store besides, from which the same
    evaluation goes on when it is started again.

    Args:
        suite: What to ask.
        entrants: Whom, as which arm.
        client: Of the serving deployment.
        deployment: Where.
        target: For limits, prices, the judge and what is masked.
        target_name: As the ledger has it.
        store: What was answered before.
        path: The results file; None for none.
        stopping: When it may end early; None asks everything.
        run: Whoever calls again after a cut gives the same text, so that ``fresh`` does not ask again what this very
            run has asked.
        fresh: Ask again what earlier runs have recorded.
        watch: Given the counts once before the first request, to look at from then on.

    Raises:
        ServiceError: The deployment, or the judge, is not there or refuses us.
        StoreError: The results or the answers cannot be written.
    """
    run = run or secrets.token_hex(8)
    session = f"{run}.{secrets.token_hex(4)}"
    if stopping is not None and stopping.gate.early_stop is EarlyStopRule.SEQUENTIAL:
        suite = replace(suite, cases=asking_order(suite.cases))
    server = await _server_facts(client)
    answerers = _answerers(entrants, server, deployment, target_name)
    judge_settings = suite.judge or target.judge
    keys = case_keys(suite.cases, max_new_tokens=target.max_new_tokens, judge=judge_settings)
    known = await asyncio.to_thread(_recall, suite, keys, store, answerers, stopping, run=f"{run}." if fresh else "")
    scoreboard = Scoreboard(entrants, total=len(suite.cases) * len(entrants))
    settled = await asyncio.to_thread(_settled_before, suite, entrants, known, stopping)
    if settled is not None:
        for result in settled:
            scoreboard.take(result, is_reused=True)
        watch(scoreboard)
        if path is not None:
            await asyncio.to_thread(write_results, path, settled)
        return Evaluation(results=settled, scoreboard=scoreboard, session=session, server=server)
    taken = [item.result for item in known.values() if item.is_graded]
    for result in taken:
        scoreboard.take(result, is_reused=True)
    watch(scoreboard)
    limiter = Limiter(target.max_concurrency)
    reporter = _Reporter(scoreboard, limiter)
    # Closed whatever happens, so that a cut evaluation has left all that it knew.
    with ExitStack() as files:
        files.enter_context(_older_objects_left_alone())
        recorder = _Files(suite, keys, files, store, answerers)
        if path is not None:
            await asyncio.to_thread(write_results, path, taken)
            recorder.stream_to(path)

        def take(result: CaseResult) -> None:
            recorder.add(result)
            scoreboard.take(result, is_reused=result.session != session and result.error is None)
            reporter.report()

        to_ask = len(suite.cases) * len(entrants) - len(known)
        async with _judge(suite, target) as judge:
            # While the warm-up is on its way; opened by the requests themselves, they cost more than these.
            client.open_ahead(min(target.max_concurrency, to_ask))
            results = await evaluate(
                suite,
                {
                    arm: Contestant(
                        adapter_id=entrant.adapter_id or "",
                        ask=make_ask(client, entrant.adapter_id, entrant.source, target.max_new_tokens),
                    )
                    for arm, entrant in entrants.items()
                },
                max_concurrency=target.max_concurrency,
                on_result=take,
                known=known,
                judge=judge,
                should_stop=_should_stop(suite, entrants, stopping),
                redact=target.redactor,
                cost=_cost(target),
                session=session,
                limiter=limiter,
            )
            notes = tuple(getattr(judge, "notes", ()))
    reporter.report(at_once=True)
    if path is not None:
        await asyncio.to_thread(write_results, path, results)
    return Evaluation(results=tuple(results), scoreboard=scoreboard, session=session, server=server, notes=notes)


class _Files:
    """The files that results go to as they come."""

    def __init__(
        self,
        suite: Suite,
        keys: tuple[CaseKey, ...],
        files: ExitStack,
        store: AnswerStore,
        answerers: Mapping[Arm, Answerer],
    ) -> None:
        self._keys = {case.id: key for case, key in zip(suite.cases, keys, strict=True)}
        self._files = files
        self._answers = {arm: files.enter_context(store.writer(answerer)) for arm, answerer in answerers.items()}
        self._stream: LineWriter | None = None

    def stream_to(self, path: Path) -> None:
        self._stream = self._files.enter_context(LineWriter(path, after=self._answers.values()))

    def add(self, result: CaseResult) -> None:
        line = encode_result(result)
        if result.latency_ms is not None:  # there was an answer, even if nobody could grade it
            is_graded = result.error is None
            self._answers[result.arm].add(AnswerStore.encode(self._keys[result.case], is_graded=is_graded, result=line))
        if self._stream is not None:
            self._stream.add(line)


class _Reporter:
    """Tells whoever watches this process, though not every time."""

    def __init__(self, scoreboard: Scoreboard, limiter: Limiter) -> None:
        self._scoreboard = scoreboard
        self._limiter = limiter
        self._began = time.monotonic()
        self._next = 0.0
        Standing(answered=1).describe()  # loads scipy, which takes longer than an answer, before any is waited for

    def report(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if now < self._next and not at_once:
            return
        self._next = now + EVENT_SECONDS
        board = self._scoreboard
        emit(
            ProgressEvent(
                step=Step.EVALUATE,
                kind=Kind.ADVANCED,
                message=board.describe(),
                done=board.done,
                total=board.total,
                in_flight=self._limiter.in_flight,
                per_second=board.asked / max(now - self._began, EVENT_SECONDS),
                scoreboard=board,
            )
        )


def _recall(
    suite: Suite,
    keys: tuple[CaseKey, ...],
    store: AnswerStore,
    answerers: Mapping[Arm, Answerer],
    stopping: Stopping | None,
    *,
    run: str,
) -> dict[tuple[str, Arm], Recorded]:
    requests = {key.request for key in keys}
    stored = {arm: list(store.read(answerer, requests, run=run)) for arm, answerer in answerers.items()}
    return recall(suite.cases, keys, stored, paired=paired_arms(stopping.gate if stopping else None))


def _settled_before(
    suite: Suite, entrants: Mapping[Arm, Entrant], known: Mapping[tuple[str, Arm], Recorded], stopping: Stopping | None
) -> tuple[CaseResult, ...] | None:
    """Find recorded results that have settled a verdict before, and settle this one too; None if there are none."""
    if stopping is None:
        return None
    for precedent in stopping.precedents:
        chosen = recall_exactly(precedent.results, known)
        if chosen is None:
            continue
        results = tuple(
            chosen[case.id, arm].result.but(adapter_id=entrant.adapter_id or "")
            if (case.id, arm) in chosen
            else _not_asked(case, arm, entrant)
            for case in suite.cases
            for arm, entrant in entrants.items()
        )
        why = why_settled(results, stopping.gate, has_champion=stopping.has_champion, attempt=precedent.attempt)
        if why is not None:
            return tuple(line.but(error=f"not asked: {why}") if line.not_asked else line for line in results)
    return None


def _not_asked(case: Case, arm: Arm, entrant: Entrant) -> CaseResult:
    return CaseResult(
        case=case.id,
        arm=arm,
        adapter_id=entrant.adapter_id or "",
        tags=case.tags,
        group=case.group,
        error="not asked",
        not_asked=True,
    )


async def _server_facts(client: LoraxClient) -> dict[str, Json]:
    with suppress(NotFoundError, ProtocolError):  # where a front end hides it, the address must do
        return (await client.info()).model_dump(mode="json")
    return {}


def _answerers(
    entrants: Mapping[Arm, Entrant], server: Mapping[str, Json], deployment: ServingDeployment, target_name: str
) -> dict[Arm, Answerer]:
    return {
        arm: Answerer(adapter=entrant.identity, target=target_name, url=deployment.url, server=server)
        for arm, entrant in entrants.items()
    }


@asynccontextmanager
async def _judge(suite: Suite, target: Target) -> AsyncIterator[Judge | None]:
    settings = suite.judge or target.judge
    if settings is None or not any(is_judged(check) for case in suite.cases for check in case.checks):
        yield None
        return
    async with open_judge(settings, mask=target.redactor) as judge:
        yield judge


@contextmanager
def _older_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector off what was there before, and let it look less often.

    It goes through all objects of the process whenever an evaluation has added a quarter to them, and stops every
    request for a tenth of a second; and through the new ones every few answers, none of which is in a cycle.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *usual[1:])
    try:
        yield
    finally:
        gc.freeze()  # what came in between grows old with the rest, or it would all be looked through now
        gc.unfreeze()
        gc.set_threshold(*usual)


def _should_stop(
    suite: Suite, entrants: Mapping[Arm, Entrant], stopping: Stopping | None
) -> Callable[[Any], str | None] | None:
    if stopping is None:
        return None
    return EarlyStop(
        stopping.gate,
        suite.cases,
        tuple(entrants),
        has_champion=stopping.has_champion,
        attempt=stopping.attempt,
    )


def _cost(target: Target) -> Cost | None:
    prices = target.prices
    if prices.gpu_hour_usd is None and prices.million_tokens_usd is None:
        return None
    price = partial(cost_usd, prices, gpus=target.server.tensor_parallel)

    def cost(answer: Answer, share_seconds: float) -> float | None:
        return price(
            prompt_tokens=answer.prompt_tokens,
            generated_tokens=answer.generated_tokens,
            share_seconds=share_seconds,
        )

    return cost


def _files_at(directory: Path) -> str:
    """What changes when the files of a local adapter do; empty where the server sees a directory that we do not."""
    try:
        facts = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in directory.iterdir())
    except OSError:
        return ""
    return f"#{facts}"
