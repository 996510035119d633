"""Runs requests on the engine: permits, best-of, streams, times and counts (LoRAX's router/src/infer.rs, server.rs).

Routes decide shapes; this decides what runs, what it is called when it fails, and what is measured.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from sandbox.lorax.contract import AdapterError, Engine, Finished, GenerationRequest, Token
from sandbox.lorax.http_errors import (
    GenerationError,
    IncompleteGenerationError,
    OverloadedError,
    RequestError,
)
from sandbox.lorax.http_messages import closing
from sandbox.lorax.http_settings import ServerSettings
from sandbox.lorax.metrics import Metrics
from sandbox.lorax.schemas import GenerateParameters
from sandbox.lorax.schemas_validation import ValidRequest, check_best_of, check_streamable, validate

__all__ = ["Call", "Generator", "Sequence", "StreamStep"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a route wants generated.

    ``add_special_tokens`` is off for prompts that a chat template has written, as these already hold them.
    """

    inputs: str
    parameters: GenerateParameters
    add_special_tokens: bool = True


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """One finished sequence. Times are in milliseconds; the first token's is counted from the request's arrival."""

    tokens: tuple[Token, ...]
    finished: Finished
    prompt_tokens: int
    seed: int | None
    validation_ms: float
    first_token_ms: float
    total_ms: float

    @property
    def mean_logprob(self) -> float:
        """Mean log probability of the generated tokens; what best-of compares."""
        return sum(token.logprob for token in self.tokens) / max(len(self.tokens), 1)


@dataclass(frozen=True, kw_only=True)
class StreamStep:
    """One token of a stream; ``sequence`` is set with the last one."""

    token: Token
    sequence: Sequence | None = None


class Generator:
    """Runs requests of one server, each under a permit.

    Args:
        engine: A started engine.
        settings: The router's limits.
        metrics: Where requests are counted.

    Attributes:
        generation_is_healthy: Whether the last generation worked; unknown counts as no.
    """

    def __init__(self, *, engine: Engine, settings: ServerSettings, metrics: Metrics) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics
        self.generation_is_healthy = False
        self._free_permits = settings.max_concurrent_requests

    async def run(self, call: Call) -> tuple[Sequence, tuple[Sequence, ...] | None]:
        """Generate to the end.

        Returns:
            The sequence, or the best one by mean log probability with the others; None instead of others without
            ``best_of``.

        Raises:
            RequestError: What the answer must say.
        """
        self.metrics.request_count.increment()
        started = time.perf_counter()
        with self._counting_failures():
            best_of = call.parameters.best_of or 1
            if best_of == 1:
                best, losers = await self._run_one(call, started), None
            else:
                check_best_of(best_of, self.settings)
                best, losers = await self._run_best_of(call, best_of, started)
        self._count_success(best)
        return best, losers

    async def stream(self, call: Call) -> AsyncGenerator[StreamStep, None]:
        """Generate token by token.

        LoRAX puts text and details into the last token's event, so a token waits until the engine has said that it is
        not the last: where the next event is there already, or where the token may end the sequence.

        Raises:
            RequestError: What the error event must say.
        """
        self.metrics.request_count.increment()
        started = time.perf_counter()
        with self._counting_failures():
            check_streamable(call.parameters)
            with self._permit():
                valid = self._validate(call)
                tokens: list[Token] = []
                held: Token | None = None
                clock = _Clock(started=started)
                async with aclosing(_arrivals(self._events(valid.generation))) as arrivals:
                    async for event, is_newest in arrivals:
                        if isinstance(event, Finished):
                            if held is None:
                                raise IncompleteGenerationError
                            sequence = clock.sequence(valid, tokens, event)
                            self._count_success(sequence)
                            yield StreamStep(token=held, sequence=sequence)
                            return
                        clock.mark_token()
                        tokens.append(event)
                        if held is not None:
                            yield StreamStep(token=held)
                        held = event
                        if is_newest and not _may_be_last(event, len(tokens), valid.generation):
                            yield StreamStep(token=event)
                            held = None
                raise IncompleteGenerationError

    async def preload(self) -> None:
        """Load the preloaded adapters, each by one token under it. Any failure is the server's, as in LoRAX.

        Raises:
            RequestError: The first adapter that cannot be had.
        """
        calls = (GenerateParameters(adapter_id=name, max_new_tokens=1) for name in self.settings.preloaded_adapter_ids)
        await asyncio.gather(*(self._probe(parameters) for parameters in calls))

    async def probe(self) -> Sequence:
        """Generate one token on the base model, outside the permits and counts.

        Raises:
            RequestError: The engine could not.
        """
        return await self._probe(GenerateParameters(max_new_tokens=1))

    async def _probe(self, parameters: GenerateParameters) -> Sequence:
        valid = validate("liveness", parameters, engine=self.engine, settings=self.settings, add_special_tokens=True)
        return await self._collect(valid, _Clock(started=time.perf_counter()))

    async def _run_best_of(self, call: Call, count: int, started: float) -> tuple[Sequence, tuple[Sequence, ...]]:
        tasks = [asyncio.create_task(self._run_one(call, started)) for _ in range(count)]
        try:
            sequences = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        best, highest = 0, -math.inf
        for index, sequence in enumerate(sequences):
            # A NaN mean never wins, as in LoRAX's comparison.
            if sequence.mean_logprob > highest:
                best, highest = index, sequence.mean_logprob
        return sequences[best], tuple(sequence for index, sequence in enumerate(sequences) if index != best)

    async def _run_one(self, call: Call, started: float) -> Sequence:
        with self._permit():
            valid = self._validate(call)
            return await self._collect(valid, _Clock(started=started))

    async def _collect(self, valid: ValidRequest, clock: _Clock) -> Sequence:
        tokens: list[Token] = []
        async with closing(self._events(valid.generation)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return clock.sequence(valid, tokens, event)
                clock.mark_token()
                tokens.append(event)
        raise IncompleteGenerationError

    def _validate(self, call: Call) -> ValidRequest:
        valid = validate(
            call.inputs,
            call.parameters,
            engine=self.engine,
            settings=self.settings,
            add_special_tokens=call.add_special_tokens,
        )
        self.metrics.input_length.observe(len(valid.generation.input_ids))
        self.metrics.max_new_tokens.observe(valid.generation.max_new_tokens)
        return valid

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[Token | Finished, None]:
        """Pass on the engine's events, its exceptions translated."""
        try:
            async with closing(self.engine.generate(request)) as events:
                async for event in events:
                    self.generation_is_healthy = True
                    yield event
        except AdapterError as error:
            raise GenerationError(str(error), from_adapter=True) from error
        except Exception as error:
            # Whatever the Python side of LoRAX raises reaches the client as a generation error with its text.
            self.generation_is_healthy = False
            logger.warning("generation failed: %s", error)
            raise GenerationError(str(error) or type(error).__name__) from error

    @contextmanager
    def _permit(self) -> Iterator[None]:
        if self._free_permits <= 0:
            raise OverloadedError
        self._free_permits -= 1
        try:
            yield
        finally:
            self._free_permits += 1

    @contextmanager
    def _counting_failures(self) -> Iterator[None]:
        try:
            yield
        except GenerationError as error:
            self.metrics.request_failure.increment("load_adapter" if error.from_adapter else error.label)
            raise
        except RequestError as error:
            self.metrics.request_failure.increment(error.label)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.request_failure.increment("dropped")
            raise

    def _count_success(self, sequence: Sequence) -> None:
        metrics, finished = self.metrics, sequence.finished
        metrics.request_success.increment()
        metrics.request_duration.observe(sequence.total_ms / 1000)
        metrics.validation_duration.observe(sequence.validation_ms / 1000)
        metrics.queue_duration.observe(finished.queue_ms / 1000)
        metrics.inference_duration.observe(finished.inference_ms / 1000)
        metrics.time_per_token.observe(finished.inference_ms / 1000 / max(finished.generated_tokens, 1))
        metrics.generated_tokens.observe(finished.generated_tokens)
        metrics.skipped_tokens.observe(0)


class _Clock:
    """Measures one sequence from the request's arrival; made when its validation is done."""

    def __init__(self, *, started: float) -> None:
        self._started = started
        self._validated = time.perf_counter()
        self._first_token: float | None = None

    def mark_token(self) -> None:
        """Remember when the first token came."""
        if self._first_token is None:
            self._first_token = time.perf_counter()

    def sequence(self, valid: ValidRequest, tokens: list[Token], finished: Finished) -> Sequence:
        """Put together what was generated and measured."""
        now = time.perf_counter()
        return Sequence(
            tokens=tuple(tokens),
            finished=finished,
            prompt_tokens=len(valid.generation.input_ids),
            seed=valid.seed,
            validation_ms=(self._validated - self._started) * 1000,
            first_token_ms=((self._first_token or now) - self._started) * 1000,
            total_ms=(now - self._started) * 1000,
        )


async def _arrivals(
    events: AsyncGenerator[Token | Finished, None],
) -> AsyncGenerator[tuple[Token | Finished, bool], None]:
    """Yield each event with whether it is the newest that has come, reading ahead of the consumer."""
    arrived: deque[Token | Finished] = deque()
    changed = asyncio.Event()

    async def read_ahead() -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    arrived.append(event)
                    changed.set()
        finally:
            changed.set()

    reader = asyncio.create_task(read_ahead())
    try:
        while True:
            if not arrived and not reader.done():
                await changed.wait()
            changed.clear()
            while arrived:
                event = arrived.popleft()
                yield event, not arrived
            if reader.done():
                reader.result()
                return
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def _may_be_last(token: Token, count: int, request: GenerationRequest) -> bool:
    """Whether the engine may end with this token: at the budget, at a special token, or at any with stop strings."""
    return count >= request.max_new_tokens or token.special or bool(request.stop)
