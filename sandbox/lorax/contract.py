"""What the HTTP layer asks of the engine, and what it gets back.

The HTTP layer knows routes, shapes and statuses; the engine knows models, adapters and batches. They share only this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

__all__ = [
    "AdapterError",
    "AdapterRequest",
    "Engine",
    "EngineInfo",
    "FinishReason",
    "Finished",
    "GenerationRequest",
    "Sampling",
    "Token",
]


class AdapterError(Exception):
    """The adapter cannot be downloaded or loaded; the text is what LoRAX would answer behind status 424."""


class FinishReason(StrEnum):
    """Why generation ended. Length is tested before end-of-sequence, as in LoRAX."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"  # noqa: S105  # what LoRAX calls this reason
    STOP_SEQUENCE = "stop_sequence"


@dataclass(frozen=True, kw_only=True)
class AdapterRequest:
    """Which adapter, or weighted merge of adapters, a request wants.

    ``key`` is LoRAX's identity: ids plus merge settings; source and token are no part of it.
    """

    ids: tuple[str, ...]
    source: str = "hub"
    api_token: str | None = field(default=None, repr=False)
    weights: tuple[float, ...] = ()
    merge_strategy: str = "linear"
    density: float = 0.0
    majority_sign_method: str = "total"

    @property
    def key(self) -> tuple[object, ...]:
        """Identity in the server's cache."""
        if len(self.ids) == 1:
            return self.ids
        return (*self.ids, self.weights, self.merge_strategy, self.density, self.majority_sign_method)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to choose tokens. Neutral values mean "off"; ``temperature`` 0 or ``do_sample`` False is greedy."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One sequence to generate. ``best_of`` is several of these."""

    input_ids: list[int]
    max_new_tokens: int
    adapter: AdapterRequest | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    ignore_eos_token: bool = False
    prefill_logprobs: bool = False
    alternatives: int = 0


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token: ``logprob`` is natural log under the raw model distribution; NaN becomes null in JSON."""

    id: int
    text: str
    logprob: float
    special: bool
    alternatives: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of one sequence. Times in milliseconds; queue time includes adapter download and load.

    ``prefill`` holds (id, text, logprob) of the prompt tokens when asked for, the first logprob NaN.
    ``text`` drops special tokens and keeps a matched stop string.
    """

    reason: FinishReason
    text: str
    generated_tokens: int
    queue_ms: float
    inference_ms: float
    prefill: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """Static facts of a running engine."""

    model_id: str
    dtype: str
    device: str
    max_input_length: int
    max_total_tokens: int
    max_slots: int


class Engine(Protocol):
    """A continuous-batching engine over one base model and many adapters."""

    info: EngineInfo

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text under the base model's tokenizer."""

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool) -> list[tuple[int, str, int, int]]:
        """(id, vocabulary piece, start, stop) per token."""

    def apply_chat_template(self, messages: list[dict[str, Any]]) -> str:
        """Render messages with the base model's template. Raises ValueError with the reason when there is none."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[Token | Finished]:
        """Yield tokens as they come, then exactly one ``Finished``.

        Closing the iterator cancels the sequence. Raises AdapterError before the first token when the adapter cannot be
        had, RuntimeError when the batch fails.
        """

    def reference_logprobs(self, adapter: AdapterRequest | None, input_ids: list[int]) -> list[float]:
        """Log probability of each token after the first, by transformers and PEFT alone, for the same files."""

    def gauges(self) -> dict[str, float]:
        """Now: ``queue_length``, ``batch_size``, ``batch_max_tokens``, ``adapters_resident``, ``adapter_bytes``."""

    def start(self) -> None:
        """Start the scheduler thread."""

    def stop(self) -> None:
        """Stop it; running sequences end with RuntimeError."""
