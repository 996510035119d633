"""A LoRAX server, whether behind Predibase, self-hosted or the sandbox: generation and facts.

The transport is ours and not the official client's, because that one blocks for minutes on a refused port and hides
replies it cannot read. Bodies are built in ``lorax_requests`` and read in ``lorax_replies``. Sources:
``router/src/server.rs``, ``router/src/lib.rs`` and ``router/src/validation.rs`` of predibase/lorax.

LoRAX answers 200 for an adapter that it silently ignores, so a reply proves nothing by itself; see ``live_proof``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from types import TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from slipway.adapter import Source
from slipway.services.channel import open_channel
from slipway.services.http import RetryPolicy, Service, Timeouts, repeated
from slipway.services.lorax_models import (
    GREEDY,
    FinishReason,
    Generation,
    GenerationParameters,
    ReplyHeaders,
    ServerFacts,
)
from slipway.services.lorax_replies import LoraxReplies
from slipway.services.lorax_requests import LoraxRequests
from slipway.services.wire_connection import RawReply

__all__ = [
    "FinishReason",
    "Generation",
    "GenerationParameters",
    "LoraxClient",
    "ReplyHeaders",
    "ServerFacts",
]

LORAX = Service(
    name="LoRAX server",
    token_variable="PREDIBASE_API_TOKEN",  # noqa: S106  # the variable's name
    address_variable="LORAX_URL",
)

FIRST_LOAD_TIMEOUTS = Timeouts(read_seconds=300.0)
"""A request waits while its adapter is downloaded, without a limit on the server's side; and a client that leaves while
the adapter fails to load can abort the whole router (``router/src/loader.rs``)."""

_GENERATE = "/generate"
_CHAT = "/v1/chat/completions"


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
        mask: Hides what is private in what errors quote of the server, which may quote prompts.
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
        mask: Callable[[str], str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._adapter_token = adapter_token
        secrets = frozenset(item.get_secret_value() for item in (token, adapter_token) if item is not None)
        self._service = replace(LORAX, secrets=secrets, address_variable=address_variable, mask=mask)
        self._retry = retry or RetryPolicy()
        self._requests = LoraxRequests(self._service, self.base_url, adapter_token=adapter_token)
        self._replies = LoraxReplies(self._service)
        self._whole = lru_cache(maxsize=16)(partial(_joined, self.base_url))
        self._channel = open_channel(
            self.base_url,
            token=token,
            service=self._service,
            timeouts=timeouts,
            connections=connections,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._channel.aclose()

    def open_ahead(self, count: int) -> None:
        """Begin to open connections for ``count`` requests at once, before these are made; returns at once.

        Opening takes longer than asking, so that who is about to send many requests should say so first.
        """
        self._channel.open_ahead(count)

    async def generate(
        self,
        prompt: str,
        *,
        adapter_id: str | None,
        adapter_source: Source | None,
        parameters: GenerationParameters = GREEDY,
        retry: RetryPolicy | None = None,
    ) -> Generation:
        """Continue a prompt.

        Args:
            prompt: As the model sees it; no template is applied.
            adapter_id: Such as ``support/4``; None for the base model.
            adapter_source: Where the server finds it; required with an adapter.
            parameters: How.
            retry: Instead of the client's own.

        Raises:
            InvalidRequestError: Also for an id without a version or a source, before anything is sent.
        """
        body = self._requests.generation(prompt, adapter_id, adapter_source, parameters)
        return self._replies.generation(await self._send("POST", _GENERATE, body, retry), self._whole(_GENERATE))

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        adapter_id: str | None,
        adapter_source: Source | None,
        parameters: GenerationParameters = GREEDY,
        retry: RetryPolicy | None = None,
    ) -> Generation:
        """Answer a conversation, through the base model's chat template.

        ``typical_p``, ``truncate``, ``prefill_logprobs``, ``alternatives`` and ``best_of`` do not exist on this route
        and are refused.

        Args:
            messages: ``{"role": .., "content": ..}``, oldest first.
            adapter_id: As for ``generate``.
            adapter_source: As for ``generate``.
            parameters: How.
            retry: Instead of the client's own.
        """
        body = self._requests.chat(messages, adapter_id, adapter_source, parameters)
        return self._replies.chat(await self._send("POST", _CHAT, body, retry), self._whole(_CHAT))

    def check_adapter(self, answer: Generation, adapter_id: str | None) -> None:
        """Make sure that whom we asked has answered, as far as the headers tell; None is the base model.

        Raises:
            ProtocolError: They name another adapter.
        """
        self._replies.check_adapter(answer, adapter_id, self.base_url)

    async def info(self) -> ServerFacts:
        """Read the server's static settings."""
        return self._replies.parsed(ServerFacts, await self._send("GET", "/info"), self._whole("/info"))

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
        self._requests.check_adapter(adapter_id, adapter_source)
        secret = self._adapter_token or self._token
        body = self._requests.encoded(
            {
                "adapter_id": adapter_id,
                "adapter_source": adapter_source.value if adapter_source else None,
                "api_token": secret.get_secret_value() if secret and adapter_id else None,
                "input_ids": list(input_ids),
            }
        )
        return self._replies.reference(await self._send("POST", route, body), self._whole(route), input_ids=input_ids)

    def _send(self, method: str, path: str, body: bytes = b"", retry: RetryPolicy | None = None) -> Awaitable[RawReply]:
        return repeated(
            partial(self._channel.send, method, path, body),
            method,
            self._whole(path),
            service=self._service,
            idempotent=True,
            retry=retry or self._retry,
        )


def _joined(base_url: str, path: str) -> str:
    return f"{base_url}/{path.lstrip('/')}"
