"""What we ask of a LoRAX server and what it answers, as values; the requests are ``lorax``'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

__all__ = [
    "GREEDY",
    "FinishReason",
    "Generation",
    "GenerationParameters",
    "Reply",
    "ReplyHeaders",
    "ServerFacts",
    "Token",
    "TokenizedPiece",
]


class FinishReason(StrEnum):
    """Why generation ended."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"  # noqa: S105  # LoRAX's word
    STOP_SEQUENCE = "stop_sequence"


@dataclass(frozen=True, kw_only=True)
class GenerationParameters:
    """How to generate. The defaults are greedy and repeatable.

    Attributes:
        max_new_tokens: At most so many; None leaves it to the server, which then fills its whole budget.
        do_sample: Sample; ``temperature``, ``top_k``, ``top_p`` and ``typical_p`` imply it.
        temperature: 0 is greedy whatever else is set.
        top_k: Keep so many tokens.
        top_p: Keep tokens up to this probability, in (0, 1).
        typical_p: In (0, 1).
        repetition_penalty: 1 is none.
        seed: Makes sampling repeatable.
        best_of: Generate so many and return the best; needs sampling and no seed.
        stop: Strings that end generation; the text keeps the one that did.
        ignore_eos_token: Go on to ``max_new_tokens``.
        truncate: Keep so many tokens of the prompt's end.
        prefill_logprobs: Also return the prompt's tokens with their logprobs.
        alternatives: Return so many alternatives per token.
        json_schema: Constrain the output to a JSON document of this schema.
    """

    max_new_tokens: int | None = 64
    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    best_of: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos_token: bool = False
    truncate: int | None = None
    prefill_logprobs: bool = False
    alternatives: int | None = None
    json_schema: Mapping[str, object] | None = None


GREEDY = GenerationParameters()


class Token(Protocol):
    """One generated token with its natural-log probability under the model; ``lorax.types.Token`` is one."""

    id: int
    text: str
    logprob: float
    special: bool


class ReplyHeaders(NamedTuple):
    """What LoRAX tells in headers; None where a front end hid it. ``queue_ms`` includes the adapter's load."""

    adapter_id: str | None = None
    adapter_source: str | None = None
    model_id: str | None = None
    queue_ms: float | None = None
    inference_ms: float | None = None
    time_per_token_ms: float | None = None
    total_ms: float | None = None


class Generation(NamedTuple):
    """One answer. Like its headers it is a named tuple, which is made six times as fast as a frozen dataclass.

    Attributes:
        text: Without special tokens; with the stop string that matched.
        finish_reason: Length is tested before end-of-sequence.
        prompt_tokens: Counted by the server.
        generated_tokens: Counted by the server, end-of-sequence included.
        tokens: Generated tokens; empty for chat, whose route returns none.
        prefill: The prompt's (id, text, logprob) when asked for; the first logprob is None.
        headers: What the server told of itself.
        latency_ms: From sending to the whole reply, by our clock, of the attempt that succeeded.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    generated_tokens: int
    tokens: tuple[Token, ...] = ()
    prefill: tuple[tuple[int, str, float | None], ...] = ()
    headers: ReplyHeaders = ReplyHeaders()
    latency_ms: float = 0.0


class Reply(BaseModel):
    """Base of replies; keys that we do not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ServerFacts(Reply):
    """What ``/info`` tells; it knows nothing of adapters."""

    model_id: str
    model_dtype: str = ""
    model_device_type: str = ""
    max_input_length: int | None = None
    max_total_tokens: int | None = None
    max_concurrent_requests: int | None = None
    max_best_of: int | None = None
    max_stop_sequences: int | None = None
    version: str = ""


class TokenizedPiece(Reply):
    """One token of a text: id, vocabulary piece, and its characters as start and stop."""

    id: int
    text: str
    start: int
    stop: int
