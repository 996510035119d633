"""The judge: a model behind any server that speaks OpenAI's chat completions and embeddings.

Judging is greedy with a fixed seed, and the same request is made once: its reply is kept while the judge is open, and
whoever asks for it meanwhile waits for the one in flight. Options that a server refuses (a JSON response format, a
temperature, a seed, a limit) are left out from then on. Tokens are counted, because judging costs money.

Reference: https://platform.openai.com/docs/api-reference/chat and .../embeddings.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from slipway.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    ProtocolError,
    ServiceError,
)
from slipway.judge_settings import JudgeSettings
from slipway.judge_usage import JudgeUsage
from slipway.services.http import RETRIED_STATUSES, RetryPolicy, Service, Timeouts, call, json_body, make_client
from slipway.services.judge_access import judge_access
from slipway.services.judge_models import Completion, Embeddings, Usage

__all__ = ["HttpJudge", "open_judge"]

logger = logging.getLogger(__name__)

JUDGE_RETRY = RetryPolicy(
    attempts=6, total_seconds=180.0, longest_wait_seconds=30.0, statuses=RETRIED_STATUSES | {500, 529}
)
"""A judged case that is lost loses an answer that was paid for, so more patience than elsewhere; 529 is an overload."""

SEED = 20_260_101
MAX_REPLY_TOKENS = 4_096
"""Replies are short, but some models think aloud first."""

_MAX_EMBEDDED_AT_ONCE = 256
"""Texts in one request; servers of embeddings allow 2,048 or fewer."""

_Reply = TypeVar("_Reply", bound=BaseModel)
_Kept = TypeVar("_Kept")


@asynccontextmanager
async def open_judge(
    settings: JudgeSettings,
    environ: Mapping[str, str] = os.environ,
    *,
    retry: RetryPolicy = JUDGE_RETRY,
    mask: Callable[[str], str] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[HttpJudge]:
    """Open a judge, after making sure that somebody answers at its address; close its connections at the end.

    Args:
        settings: Which models, and where.
        environ: Holds the token, under the name in the settings, and ``OPENAI_BASE_URL``.
        retry: Budget for repeats of one request.
        mask: Hides what is private in what errors quote of the judge, which may quote what it judged.
        transport: In place of the network, for tests.

    Raises:
        ConfigurationError: The address is none, OpenAI is asked without a token, or the token named is another's.
        AuthenticationError: The token is refused.
        ServiceError: Nobody answers.
    """
    access = judge_access(settings, environ)
    service = replace(access.service, mask=mask)
    client = make_client(
        access.address,
        token=access.token,
        service=service,
        timeouts=Timeouts(read_seconds=settings.timeout_seconds, pool_seconds=settings.timeout_seconds),
        connections=settings.max_concurrency,
        transport=transport,
    )
    async with client:
        judge = HttpJudge(settings, client, service=service, retry=retry)
        await judge.probe()
        try:
            yield judge
        finally:
            await judge.aclose()
            logger.info("The judge %s took %s.", settings.model or settings.embeddings_model, judge.usage)
            for note in judge.notes:
                logger.warning(note)


class HttpJudge:
    """A judge that is asked over HTTP; ``open_judge`` makes one.

    Args:
        settings: Which models.
        client: With the base address and the token.
        service: For messages.
        retry: Budget for repeats of one request.
    """

    def __init__(
        self, settings: JudgeSettings, client: httpx.AsyncClient, *, service: Service, retry: RetryPolicy
    ) -> None:
        self._settings = settings
        self._client = client
        self._service = service
        self._retry = retry
        self._free = asyncio.Semaphore(settings.max_concurrency)
        self._options: dict[str, object] = {"temperature": 0, "seed": SEED, "max_tokens": MAX_REPLY_TOKENS}
        self._takes_json: bool | None = None
        self._usage = JudgeUsage()
        self._completions: dict[str, asyncio.Task[str]] = {}
        self._vectors: dict[str, asyncio.Task[Mapping[str, tuple[float, ...]]]] = {}

    @property
    def settings(self) -> JudgeSettings:
        """Which models are asked."""
        return self._settings

    @property
    def usage(self) -> JudgeUsage:
        """What judging took so far."""
        return self._usage

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server refuses of what was wanted, in sentences for the record."""
        lost = [name for name in ("temperature", "seed") if name not in self._options]
        return (
            (f"The judge takes no {' and no '.join(lost)}, so its verdicts may vary from run to run.",) if lost else ()
        )

    async def complete(self, messages: Sequence[Mapping[str, str]], *, json: bool = False) -> str:
        """Answer a conversation; the same one is sent once.

        Raises:
            ConfigurationError: The settings name no model.
            ServiceError: No answer, or none that is whole.
        """
        if self._settings.model is None:
            raise ConfigurationError(
                "the judge has no model.", fix="Write `judge: {model: ...}` into the suite or target."
            )
        body: dict[str, object] = {"model": self._settings.model, "messages": [dict(message) for message in messages]}
        key = _digest({**body, "json": json})
        task = self._completions.get(key)
        if task is None:
            task = self._completions[key] = asyncio.create_task(self._completion(body, as_json=json))
            task.add_done_callback(partial(_forget_failed, self._completions, (key,)))
        else:
            self._count(repeated=1)
        return await asyncio.shield(task)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Give one vector for each text, in order; each text is sent once.

        Raises:
            ConfigurationError: The settings name no model of embeddings.
            ServiceError: No answer, or not one vector of finite numbers for each text.
        """
        if self._settings.embeddings_model is None:
            raise ConfigurationError(
                "the judge has no model of embeddings.",
                fix="Write `judge: {embeddings_model: ...}` into the suite or target.",
            )
        wanted = tuple(text for text in dict.fromkeys(texts) if text not in self._vectors)
        for start in range(0, len(wanted), _MAX_EMBEDDED_AT_ONCE):
            batch = wanted[start : start + _MAX_EMBEDDED_AT_ONCE]
            task = asyncio.create_task(self._embedding(batch))
            self._vectors.update(dict.fromkeys(batch, task))
            task.add_done_callback(partial(_forget_failed, self._vectors, batch))
        self._count(repeated=len(texts) - len(wanted))
        tasks = {text: self._vectors[text] for text in texts}
        return [(await asyncio.shield(tasks[text]))[text] for text in texts]

    async def probe(self) -> None:
        """Make sure that somebody answers and takes the token, before any answer is paid for.

        Asks for the list of models, which most servers have. Any other answer is an answer too: a server may lack the
        list, and a token may be barred from it (403).

        Raises:
            AuthenticationError: 401.
            ServiceError: Nobody answers.
        """
        try:
            retry = replace(self._retry, attempts=min(3, self._retry.attempts))
            await call(self._client, "GET", "models", service=self._service, idempotent=True, retry=retry)
        except AuthenticationError as error:
            if error.status_code == 401:
                raise
        except ServiceError as error:
            if error.status_code is None:
                raise

    async def aclose(self) -> None:
        """Give up what is still in flight."""
        pending = {task for task in (*self._completions.values(), *self._vectors.values()) if not task.done()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _completion(self, body: dict[str, object], *, as_json: bool) -> str:
        reply = await self._ask(lambda: self._chat(body, as_json=as_json), Completion)
        self._count(requests=1, usage=reply.usage)
        if not reply.choices:
            raise self._odd("gave no answer")
        choice = reply.choices[0]
        if choice.message.content is None or choice.finish_reason == "content_filter":
            raise self._odd("refused to answer")
        if choice.finish_reason == "length":
            raise self._odd("was cut off in its answer, at its limit of tokens")
        return choice.message.content

    async def _embedding(self, texts: tuple[str, ...]) -> Mapping[str, tuple[float, ...]]:
        body = {"model": self._settings.embeddings_model, "input": list(texts)}
        reply = await self._ask(lambda: self._post("embeddings", body), Embeddings)
        self._count(requests=1, embedded=reply.usage)
        vectors = {item.index: item.embedding for item in reply.data}
        if sorted(vectors) != list(range(len(texts))) or len({len(vector) for vector in vectors.values()}) != 1:
            raise self._odd("did not give one embedding of equal length for each text")
        if not all(math.isfinite(number) for vector in vectors.values() for number in vector):
            raise self._odd("gave an embedding that is not of finite numbers")
        return {text: vectors[index] for index, text in enumerate(texts)}

    async def _ask(self, send: Callable[[], Awaitable[httpx.Response]], kind: type[_Reply]) -> _Reply:
        async with self._free:
            response = await send()
        try:
            return kind.model_validate(json_body(response, self._service))
        except ValidationError as error:
            raise self._odd("gave a reply without the fields of OpenAI's API") from error

    async def _chat(self, body: dict[str, object], *, as_json: bool) -> httpx.Response:
        """Send with every option that the server takes; each round of the loop leaves one out at least."""
        wants_json = as_json and self._takes_json is not False
        while True:
            options = {**self._options, **({"response_format": {"type": "json_object"}} if wants_json else {})}
            try:
                response = await self._post("chat/completions", {**body, **options})
            except InvalidRequestError as error:
                refused = {name for name in options if any(word in error.message for word in _named(name))}
                if not refused and wants_json and self._takes_json is None:
                    refused = {"response_format"}  # some servers do not name what they refuse
                if not refused:
                    raise
                wants_json = wants_json and "response_format" not in refused
                for name in refused:
                    self._options.pop(name, None)
                continue
            if as_json and self._takes_json is None:
                self._takes_json = wants_json
            return response

    async def _post(self, route: str, body: object) -> httpx.Response:
        # A judge keeps nothing, so that asking twice does no harm but to the bill.
        return await call(
            self._client,
            "POST",
            route,
            service=self._service,
            idempotent=True,
            retry=self._retry,
            json=body,
            whole_seconds=self._settings.timeout_seconds,
        )

    def _odd(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"{self._service.name}: {self._settings.model or self._settings.embeddings_model} {what}.",
            service=self._service.name,
            fix="Look at the case; if it happens often, choose another model to judge.",
        )

    def _count(
        self, *, requests: int = 0, repeated: int = 0, usage: Usage | None = None, embedded: Usage | None = None
    ) -> None:
        self._usage = JudgeUsage(
            requests=self._usage.requests + requests,
            repeated=self._usage.repeated + repeated,
            prompt_tokens=self._usage.prompt_tokens + ((usage and usage.prompt_tokens) or 0),
            generated_tokens=self._usage.generated_tokens + ((usage and usage.completion_tokens) or 0),
            embedded_tokens=self._usage.embedded_tokens + ((embedded and embedded.prompt_tokens) or 0),
        )


def _named(option: str) -> tuple[str, ...]:
    """How servers call an option when they refuse it; without a limit they generate as far as their context goes."""
    return (option, "max_new_tokens") if option == "max_tokens" else (option,)


def _digest(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _forget_failed(table: dict[str, asyncio.Task[_Kept]], keys: Sequence[str], done: asyncio.Task[_Kept]) -> None:
    """Let what failed be asked again; the failure itself reaches those who wait for it."""
    if done.cancelled() or done.exception() is not None:
        for key in keys:
            table.pop(key, None)
