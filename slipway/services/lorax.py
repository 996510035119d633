"""A LoRAX server, whether behind Predibase, self-hosted or the sandbox: generation, health, facts.

Requests and native replies are typed by ``lorax.types`` of the official client; the transport is ours, because that
client blocks for minutes on a refused port and hides replies it cannot read. Sources: ``router/src/server.rs``,
``router/src/lib.rs`` and ``router/src/validation.rs`` of predibase/lorax.

LoRAX answers 200 for an adapter that it silently ignores, so a reply proves nothing by itself; see ``live_proof``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from slipway.adapter import Source
from slipway.errors import InvalidRequestError, ProtocolError, UnavailableError
from slipway.services.http import NO_RETRY, RetryPolicy, Service, Timeouts, call, json_body, make_client
from slipway.services.http_errors import bare_url
from slipway.services.lanes import Lanes
from slipway.services.lorax_models import (
    GREEDY,
    FinishReason,
    Generation,
    GenerationParameters,
    Reply,
    ReplyHeaders,
    ServerFacts,
    Token,
    TokenizedPiece,
)

if TYPE_CHECKING:
    from lorax.types import Request

__all__ = [
    "FinishReason",
    "Generation",
    "GenerationParameters",
    "LoraxClient",
    "ReplyHeaders",
    "ServerFacts",
    "Token",
    "TokenizedPiece",
]

LORAX = Service(
    name="LoRAX server",
    token_variable="PREDIBASE_API_TOKEN",  # noqa: S106  # the variable's name
    address_variable="LORAX_URL",
)

FIRST_LOAD_TIMEOUTS = Timeouts(read_seconds=300.0)
"""A request waits while its adapter is downloaded, without a limit on the server's side; and a client that leaves while
the adapter fails to load can abort the whole router (``router/src/loader.rs``)."""


_CHAT_FINISH_REASONS = {
    "length": FinishReason.LENGTH,
    "stop": FinishReason.EOS_TOKEN,
    "eos_token": FinishReason.EOS_TOKEN,
    "content_filter": FinishReason.STOP_SEQUENCE,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
}
"""On the OpenAI routes LoRAX calls a matched stop string ``content_filter`` (``router/src/lib.rs``)."""


class _ChatMessage(Reply):
    content: str


class _ChatChoice(Reply):
    message: _ChatMessage
    finish_reason: str


class _ChatUsage(Reply):
    prompt_tokens: int
    completion_tokens: int


class _ChatReply(Reply):
    choices: tuple[_ChatChoice, ...]
    usage: _ChatUsage


class _Reference(Reply):
    logprobs: tuple[float | None, ...]


_Model = TypeVar("_Model", bound=BaseModel)


class LoraxClient:
    """A connection to one LoRAX base address; use it as an async context manager.

    Every method raises ``ServiceError`` or one of its classes: GenerationError (424) when the adapter cannot be fetched
    or loaded or the batch fails, InvalidRequestError (422), RateLimitedError (429, repeated first), ProtocolError for a
    reply that cannot be trusted. Generation changes nothing on the server, so it is repeated like a read.

    Args:
        base_url: ``LORAX_URL``, or a deployment's serving address.
        token: Sent as Bearer; LoRAX also takes it to fetch adapters when ``adapter_token`` is not given.
        adapter_token: Sent as ``api_token`` with each adapter, such as the Hub's token on a self-hosted server.
        timeouts: The four waits; reading waits for the longest first load by default.
        retry: Budget for repeats of one request.
        connections: At most so many requests at once.
        address_variable: What errors say to correct; ``PREDIBASE_SERVING`` behind Predibase.
        transport: In place of the network, for tests.
    """

    def __init__(
        self,
        base_url: str,
        token: SecretStr | None = None,
        *,
        adapter_token: SecretStr | None = None,
        timeouts: Timeouts = FIRST_LOAD_TIMEOUTS,
        retry: RetryPolicy | None = None,
        connections: int = 100,
        address_variable: str = LORAX.address_variable,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._adapter_token = adapter_token
        secrets = frozenset(item.get_secret_value() for item in (token, adapter_token) if item is not None)
        self._service = replace(LORAX, secrets=secrets, address_variable=address_variable)
        self._retry = retry or RetryPolicy()
        self._lanes = Lanes(
            lambda: make_client(
                self.base_url,
                token=token,
                service=self._service,
                timeouts=timeouts,
                connections=1,
                transport=transport,
            ),
            limit=connections,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._lanes.aclose()

    async def generate(
        self,
        prompt: str,
        *,
        adapter_id: str | None,
        adapter_source: Source | None,
        parameters: GenerationParameters = GREEDY,
    ) -> Generation:
        """Continue a prompt.

        Args:
            prompt: As the model sees it; no template is applied.
            adapter_id: Such as ``support/4``; None for the base model.
            adapter_source: Where the server finds it; required with an adapter.
            parameters: How.

        Raises:
            InvalidRequestError: Also for an id without a version or a source, before anything is sent.
        """
        self._check_adapter(adapter_id, adapter_source)
        request = self._request(prompt, adapter_id, adapter_source, parameters)
        response = await self._post("/generate", request.model_dump(mode="json", by_alias=True))
        return self._generation(response)

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        adapter_id: str | None,
        adapter_source: Source | None,
        parameters: GenerationParameters = GREEDY,
    ) -> Generation:
        """Answer a conversation, through the base model's chat template.

        ``typical_p``, ``truncate``, ``prefill_logprobs``, ``alternatives`` and ``best_of`` do not exist on this route
        and are refused.

        Args:
            messages: ``{"role": .., "content": ..}``, oldest first.
            adapter_id: As for ``generate``.
            adapter_source: As for ``generate``.
            parameters: How.
        """
        self._check_adapter(adapter_id, adapter_source)
        response = await self._post(
            "/v1/chat/completions", self._chat_body(messages, adapter_id, adapter_source, parameters)
        )
        reply = self._parse(_ChatReply, response)
        if not reply.choices:
            raise self._unexpected(response, "it has no choices")
        choice = reply.choices[0]
        reason = _CHAT_FINISH_REASONS.get(choice.finish_reason)
        if reason is None:
            raise self._unexpected(response, f"finish_reason {choice.finish_reason[:40]!r}")
        return Generation(
            text=choice.message.content,
            finish_reason=reason,
            prompt_tokens=reply.usage.prompt_tokens,
            generated_tokens=reply.usage.completion_tokens,
            headers=_headers(response),
            latency_ms=_latency_ms(response),
        )

    async def health(self) -> bool:
        """Tell whether the server calls itself healthy. It can, and be stuck: only a generation proves that it works.

        Raises:
            UnavailableError: Nothing answers.
            ServiceTimeoutError: No answer in time.
        """
        try:
            await self._send("GET", "/health", retry=NO_RETRY)
        except UnavailableError as error:
            if error.status_code is None:
                raise
            return False
        return True

    async def info(self) -> ServerFacts:
        """Read the server's static settings."""
        return self._parse(ServerFacts, await self._send("GET", "/info", retry=self._retry))

    async def tokenize(self, text: str, *, add_special_tokens: bool = True) -> tuple[TokenizedPiece, ...]:
        """Split a text as the base model's tokenizer does."""
        response = await self._post("/tokenize", {"inputs": text, "add_special_tokens": add_special_tokens})
        body = json_body(response, self._service)
        if not isinstance(body, list):
            raise self._unexpected(response, "it is no list")
        return tuple(self._validated(TokenizedPiece, item, response) for item in body)

    async def reference_logprobs(
        self, route: str, *, adapter_id: str | None, adapter_source: Source | None, input_ids: Sequence[int]
    ) -> tuple[float, ...]:
        """Ask a server that can for the log probability of each token after the first, by transformers and PEFT alone.

        Args:
            route: Path of that service below the base address; the sandbox has it at ``/sandbox/reference``.
            adapter_id: As for ``generate``.
            adapter_source: As for ``generate``.
            input_ids: Prompt and continuation.

        Returns:
            One natural-log probability less than there are ids.
        """
        self._check_adapter(adapter_id, adapter_source)
        secret = self._adapter_token or self._token
        body = {
            "adapter_id": adapter_id,
            "adapter_source": adapter_source.value if adapter_source else None,
            "api_token": secret.get_secret_value() if secret and adapter_id else None,
            "input_ids": list(input_ids),
        }
        response = await self._post(route, body)
        logprobs = self._parse(_Reference, response).logprobs
        if len(logprobs) != len(input_ids) - 1:
            raise self._unexpected(response, f"{len(logprobs)} logprobs for {len(input_ids)} ids")
        return tuple(self._finite(value, index, response) for index, value in enumerate(logprobs))

    # What is sent

    def _check_adapter(self, adapter_id: str | None, adapter_source: Source | None) -> None:
        """Refuse what LoRAX would guess about, or die of."""
        if adapter_id is None:
            if adapter_source is not None:
                raise self._refused("an adapter source without an adapter", "Give both, or neither for the base model.")
            return
        if adapter_source is None:
            raise self._refused(f"the adapter {adapter_id!r} without its source", "Say hub, s3, local or pbase.")
        # Other characters cannot stand in the reply's headers and abort the router (router/src/server.rs).
        if not adapter_id or not all("!" <= character <= "~" for character in adapter_id):
            raise self._refused(f"the adapter id {adapter_id!r}", "Use printable ASCII without spaces.")
        if adapter_source is Source.PBASE:
            repo, _, tag = adapter_id.partition("/")
            if not repo or not tag.isdecimal():
                # A bare repository would be "the latest", which nobody tested.
                raise self._refused(f"the adapter id {adapter_id!r}", "Name the version: REPO/TAG, such as support/4.")

    def _refused(self, what: str, fix: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._service.name}: {what} cannot be asked for.", service=self._service.name, url=self.base_url, fix=fix
        )

    def _request(
        self, prompt: str, adapter_id: str | None, adapter_source: Source | None, parameters: GenerationParameters
    ) -> Request:
        from lorax import errors, types  # noqa: PLC0415  # pulls in aiohttp and requests, which only callers should pay

        try:
            return types.Request(
                inputs=prompt,
                parameters=types.Parameters(
                    adapter_id=adapter_id,
                    adapter_source=adapter_source.value if adapter_source else None,
                    api_token=self._api_token(adapter_id),
                    details=True,
                    do_sample=parameters.do_sample,
                    max_new_tokens=parameters.max_new_tokens,
                    temperature=parameters.temperature,
                    top_k=parameters.top_k,
                    top_p=parameters.top_p,
                    typical_p=parameters.typical_p,
                    repetition_penalty=parameters.repetition_penalty,
                    seed=parameters.seed,
                    best_of=parameters.best_of,
                    stop=list(parameters.stop),
                    ignore_eos_token=parameters.ignore_eos_token,
                    truncate=parameters.truncate,
                    decoder_input_details=parameters.prefill_logprobs,
                    return_k_alternatives=parameters.alternatives,
                    response_format=None
                    if parameters.json_schema is None
                    else types.ResponseFormat(type="json_object", schema=dict(parameters.json_schema)),
                ),
            )
        except errors.ValidationError as error:
            raise self._refused(f"a generation with these parameters ({error})", "Correct the parameters.") from error
        except ValidationError as error:
            raise self._refused(f"a generation with these parameters ({_first(error)})", "Correct them.") from None

    def _api_token(self, adapter_id: str | None) -> str | None:
        return self._adapter_token.get_secret_value() if self._adapter_token is not None and adapter_id else None

    def _chat_body(
        self,
        messages: Sequence[Mapping[str, str]],
        adapter_id: str | None,
        adapter_source: Source | None,
        parameters: GenerationParameters,
    ) -> dict[str, object]:
        for name in _NOT_IN_CHAT:
            if getattr(parameters, name) != getattr(GREEDY, name):
                raise self._refused(f"a chat with {name}", "Use `generate`, or leave it out.")
        schema = parameters.json_schema
        samples = parameters.do_sample or any(
            value is not None for value in (parameters.temperature, parameters.top_k, parameters.top_p)
        )
        body: dict[str, object | None] = {
            "model": adapter_id or "",
            "messages": [dict(message) for message in messages],
            "adapter_source": adapter_source.value if adapter_source else None,
            "api_token": self._api_token(adapter_id),
            "max_tokens": parameters.max_new_tokens,
            # This route samples unless the temperature is exactly 0 (router/src/lib.rs).
            "temperature": parameters.temperature if samples else 0,
            "top_k": parameters.top_k,
            "top_p": parameters.top_p,
            "repetition_penalty": parameters.repetition_penalty,
            "seed": parameters.seed,
            "stop": list(parameters.stop) or None,
            "ignore_eos_token": parameters.ignore_eos_token or None,
            "response_format": None if schema is None else {"type": "json_object", "schema": dict(schema)},
        }
        return {key: value for key, value in body.items() if value is not None}

    async def _post(self, url: str, body: object) -> httpx.Response:
        return await self._send("POST", url, retry=self._retry, json=body)

    async def _send(self, method: str, url: str, *, retry: RetryPolicy, json: object = None) -> httpx.Response:
        async with self._lanes.take() as client:
            return await call(client, method, url, service=self._service, idempotent=True, retry=retry, json=json)

    # What comes back

    def _generation(self, response: httpx.Response) -> Generation:
        from lorax import types  # noqa: PLC0415  # as above

        body = json_body(response, self._service)
        details = body.get("details") if isinstance(body, dict) else None
        if not isinstance(details, dict):
            raise self._unexpected(response, "it has no details")
        # The client's own types refuse null here without saying which token it was.
        for index, item in enumerate(details.get("tokens") or ()):
            self._finite(item.get("logprob") if isinstance(item, dict) else None, index, response)
        reply = self._validated(types.Response, body, response)
        return Generation(
            text=reply.generated_text,
            finish_reason=FinishReason(reply.details.finish_reason.value),
            prompt_tokens=reply.details.prompt_tokens,
            generated_tokens=reply.details.generated_tokens,
            tokens=tuple(
                Token(id=item.id, text=item.text, logprob=item.logprob, special=item.special)
                for item in reply.details.tokens
            ),
            prefill=tuple((item.id, item.text, item.logprob) for item in reply.details.prefill),
            headers=_headers(response),
            latency_ms=_latency_ms(response),
        )

    def _finite(self, value: object, index: int, response: httpx.Response) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        raise self._unexpected(
            response,
            f"the log probability of token {index} is not a finite number",
            fix="The model computes NaN or infinity, most likely from the adapter's weights: inspect the adapter.",
        )

    def _parse(self, model: type[_Model], response: httpx.Response) -> _Model:
        return self._validated(model, json_body(response, self._service), response)

    def _validated(self, model: type[_Model], body: object, response: httpx.Response) -> _Model:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            raise self._unexpected(response, _first(error)) from None

    def _unexpected(self, response: httpx.Response, what: str, *, fix: str = "") -> ProtocolError:
        url = bare_url(response.request.url)
        return ProtocolError(
            f"{self._service.name}: the reply of {url} cannot be used: {what}.",
            service=self._service.name,
            url=url,
            status_code=response.status_code,
            fix=fix
            or "Check that the address is a LoRAX server; if it is, its version answers in a new way: report it.",
        )


_NOT_IN_CHAT = ("typical_p", "truncate", "prefill_logprobs", "alternatives", "best_of")


def _first(error: ValidationError) -> str:
    """Name the first thing that pydantic found, without its value: that may be a token."""
    found = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in found['loc']) or 'the whole'}: {found['msg']}"


def _headers(response: httpx.Response) -> ReplyHeaders:
    def number(name: str) -> float | None:
        try:
            value = float(response.headers.get(name, ""))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    return ReplyHeaders(
        adapter_id=response.headers.get("x-adapter-id"),
        adapter_source=response.headers.get("x-adapter-source"),
        model_id=response.headers.get("x-model-id"),
        queue_ms=number("x-queue-time"),
        inference_ms=number("x-inference-time"),
        time_per_token_ms=number("x-time-per-token"),
        total_ms=number("x-total-time"),
    )


def _latency_ms(response: httpx.Response) -> float:
    return response.elapsed.total_seconds() * 1000.0
