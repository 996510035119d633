"""What we ask of a LoRAX server and what it answers, as values; the requests are ``lorax``'s."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

__all__ = [
    "GREEDY",
    "FinishReason",
    "Generation",
    "GenerationParameters",
    "Reply",
    "ReplyHeaders",
    "ServerFacts",
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


class ReplyHeaders:
    """What LoRAX tells in headers; None where a front end hid it, and for a time that cannot be.

    Read when asked for: most of it is for one reply.

    Args:
        headers: All, their names in lower case.
    """

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._headers = headers

    @property
    def adapter_id(self) -> str | None:
        """As the request named it."""
        return self._headers.get("x-adapter-id")

    @property
    def adapter_source(self) -> str | None:
        """As the request named it."""
        return self._headers.get("x-adapter-source")

    @property
    def model_id(self) -> str | None:
        """The base model."""
        return self._headers.get("x-model-id")

    @property
    def queue_ms(self) -> float | None:
        """From the request to its first batch, the adapter's load included."""
        return _number(self._headers.get("x-queue-time"))

    @property
    def inference_ms(self) -> float | None:
        """In batches."""
        return _number(self._headers.get("x-inference-time"))

    @property
    def time_per_token_ms(self) -> float | None:
        """The same for each generated token."""
        return _number(self._headers.get("x-time-per-token"))

    @property
    def total_ms(self) -> float | None:
        """From the request to its reply."""
        return _number(self._headers.get("x-total-time"))


class Generation(NamedTuple):
    """One answer. A named tuple, which is made six times as fast as a frozen dataclass.

    Attributes:
        text: Without special tokens; with the stop string that matched.
        finish_reason: Length is tested before end-of-sequence.
        prompt_tokens: Counted by the server.
        generated_tokens: Counted by the server, end-of-sequence included.
        logprobs: Natural logarithms of the generated tokens' probabilities; empty for chat, whose route returns none.
        prefill: The prompt's (id, text, logprob) when asked for; the first logprob is None.
        headers: What the server told of itself.
        latency_ms: From sending to the whole reply, by our clock, of the attempt that succeeded.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    generated_tokens: int
    logprobs: tuple[float, ...] = ()
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


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < math.inf else None
