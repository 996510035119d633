"""What a LoRAX server answers, read and checked: a reply that cannot be trusted is a ProtocolError, never half a value.

Native replies are typed by ``lorax.types`` of the official client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from slipway.errors import ProtocolError
from slipway.services.http import Service, json_body
from slipway.services.http_errors import bare_url, quoted
from slipway.services.lorax_models import FinishReason, Generation, Reply, ReplyHeaders
from slipway.services.lorax_types import brief_response, first_error, lorax_modules
from slipway.services.wire_connection import RawReply

if TYPE_CHECKING:
    from lorax.types import Details, Response

__all__ = ["LoraxReplies"]

_FINISH_REASONS: Mapping[str, FinishReason] = {reason.value: reason for reason in FinishReason}
"""Also by the official client's members, which are texts."""

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


class LoraxReplies:
    """Reads the replies of one server; ``url`` is always the address that answered, for errors.

    Args:
        service: Named in errors.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def generation(self, reply: RawReply, url: str) -> Generation:
        """Read the reply of ``/generate``."""
        details, text, logprobs = self._native(reply, url)
        self._check_counts(details.prompt_tokens, details.generated_tokens, reply, url)
        return Generation(
            text=text,
            finish_reason=_FINISH_REASONS[details.finish_reason],
            prompt_tokens=details.prompt_tokens,
            generated_tokens=details.generated_tokens,
            logprobs=logprobs,
            prefill=tuple([(item.id, item.text, item.logprob) for item in details.prefill]) if details.prefill else (),
            headers=ReplyHeaders(reply.headers),
            latency_ms=reply.elapsed_ms,
        )

    def chat(self, reply: RawReply, url: str) -> Generation:
        """Read the reply of ``/v1/chat/completions``, which returns no tokens."""
        answer = self.parsed(_ChatReply, reply, url)
        if not answer.choices:
            raise self._unexpected(reply, url, "it has no choices")
        choice = answer.choices[0]
        reason = _CHAT_FINISH_REASONS.get(choice.finish_reason)
        if reason is None:
            raise self._unexpected(reply, url, f"finish_reason {quoted(choice.finish_reason, self._service, 40)!r}")
        usage = answer.usage
        self._check_counts(usage.prompt_tokens, usage.completion_tokens, reply, url)
        return Generation(
            text=choice.message.content,
            finish_reason=reason,
            prompt_tokens=usage.prompt_tokens,
            generated_tokens=usage.completion_tokens,
            headers=ReplyHeaders(reply.headers),
            latency_ms=reply.elapsed_ms,
        )

    def check_adapter(self, answer: Generation, adapter_id: str | None, url: str) -> None:
        """Refuse an answer that is, by its headers, another adapter's than was asked; they may be hidden."""
        answered = answer.headers.adapter_id
        if not answered or answered == adapter_id:
            return
        raise ProtocolError(
            f"{self._service.name}: {quoted(answered, self._service, 80)!r} answered what "
            f"{adapter_id or 'the base model'} was asked.",
            service=self._service.name,
            url=bare_url(url),
            fix="Check that nothing in front of the server mixes up requests or replies.",
        )

    def reference(self, reply: RawReply, url: str, *, input_ids: Sequence[int]) -> tuple[float, ...]:
        """Read log probabilities, one less than there are ids."""
        logprobs = self.parsed(_Reference, reply, url).logprobs
        if len(logprobs) != len(input_ids) - 1:
            raise self._unexpected(reply, url, f"{len(logprobs)} logprobs for {len(input_ids)} ids")
        return tuple(self._finite(value, index, reply, url) for index, value in enumerate(logprobs))

    def parsed(self, model: type[_Model], reply: RawReply, url: str) -> _Model:
        """Read a JSON object."""
        try:
            return model.model_validate_json(reply.body)
        except ValidationError:
            return self._validated(model, self._body(reply, url), reply, url)

    def _native(self, reply: RawReply, url: str) -> tuple[Details, str, tuple[float, ...]]:
        """Read a native reply: its details, its text, and its tokens' log probabilities.

        Reading JSON and types in one go costs half of doing it one after the other, but does not tell which token has
        no number; then it is done again, slowly.
        """
        try:
            typed: Any = brief_response().model_validate_json(reply.body, strict=True)
            logprobs = tuple([token["logprob"] for token in typed.details.tokens])
        except ValidationError:
            _, types = lorax_modules()
            typed = self._native_step_by_step(types.Response, reply, url)
            logprobs = tuple([token.logprob for token in typed.details.tokens])
        if not math.isfinite(sum(logprobs)):  # one look instead of one for each
            for index, logprob in enumerate(logprobs):
                self._finite(logprob, index, reply, url)
        return typed.details, typed.generated_text, logprobs

    def _native_step_by_step(self, model: type[Response], reply: RawReply, url: str) -> Response:
        body = self._body(reply, url)
        details = body.get("details") if isinstance(body, dict) else None
        if not isinstance(details, dict):
            raise self._unexpected(reply, url, "it has no details")
        # The client's own types refuse null here without saying which token it was.
        for index, item in enumerate(details.get("tokens") or ()):
            self._finite(item.get("logprob") if isinstance(item, dict) else None, index, reply, url)
        return self._validated(model, body, reply, url)

    def _check_counts(self, prompt_tokens: int, generated_tokens: int, reply: RawReply, url: str) -> None:
        if prompt_tokens < 0 or generated_tokens < 0:
            raise self._unexpected(reply, url, f"{prompt_tokens} prompt tokens, {generated_tokens} generated tokens")

    def _finite(self, value: object, index: int, reply: RawReply, url: str) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        raise self._unexpected(
            reply,
            url,
            f"the log probability of token {index} is not a finite number",
            fix="The model computes NaN or infinity, most likely from the adapter's weights: inspect the adapter.",
        )

    def _body(self, reply: RawReply, url: str) -> object:
        return json_body(reply.as_httpx("POST", url), self._service)

    def _validated(self, model: type[_Model], body: object, reply: RawReply, url: str) -> _Model:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            raise self._unexpected(reply, url, first_error(error)) from None

    def _unexpected(self, reply: RawReply, url: str, what: str, *, fix: str = "") -> ProtocolError:
        address = bare_url(url)
        return ProtocolError(
            f"{self._service.name}: the reply of {address} cannot be used: {what}.",
            service=self._service.name,
            url=address,
            status_code=reply.status_code,
            fix=fix
            or "Check that the address is a LoRAX server; if it is, its version answers in a new way: report it.",
        )
