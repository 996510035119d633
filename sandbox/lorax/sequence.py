"""One request on its way through the engine."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from sandbox.lorax.adapters import LoadedAdapter
from sandbox.lorax.constraint import Constraint
from sandbox.lorax.contract import Finished, FinishReason, GenerationRequest, Token
from sandbox.lorax.sampling import RowSampler
from sandbox.lorax.text import StopStrings, TextStream, Vocabulary

__all__ = ["Event", "Sequence"]

Event = Token | Finished | Exception


class Sequence:
    """State of one generation. Made by any thread, then owned by the scheduler's; only ``cancelled`` crosses back."""

    def __init__(
        self,
        request: GenerationRequest,
        *,
        vocabulary: Vocabulary,
        vocabulary_size: int,
        eos_ids: frozenset[int],
        constraint: Constraint | None,
        emit: Callable[[Event], None],
    ) -> None:
        """``emit`` is called from the scheduler's thread."""
        self.request = request
        self.emit = emit
        self.constraint = constraint
        self.adapter: LoadedAdapter | None = None
        self.sampler = RowSampler(request.sampling, request.input_ids, vocabulary_size)
        self.cancelled = threading.Event()
        self.generated: list[int] = []
        self._vocabulary = vocabulary
        self._eos_ids = frozenset() if request.ignore_eos_token else eos_ids
        self._stream = TextStream(vocabulary.decode, request.input_ids)
        self._stops = StopStrings(request.stop)
        self._prefill: tuple[tuple[int, str, float], ...] = ()
        self._submitted = time.perf_counter()
        self._admitted = self._submitted

    def admit(self) -> None:
        """Note the end of waiting."""
        self._admitted = time.perf_counter()

    def set_prefill(self, logprobs: list[float]) -> None:
        """Record the log probabilities of the prompt's tokens after the first."""
        ids = self.request.input_ids
        self._prefill = tuple(
            (token, self._vocabulary.decode([token]), logprob)
            for token, logprob in zip(ids, [math.nan, *logprobs], strict=True)
        )

    def accept(self, token: int, logprob: float, alternatives: tuple[tuple[int, float], ...]) -> bool:
        """Take a chosen token, emit it, and tell whether the sequence has ended (and ``Finished`` is emitted)."""
        self.generated.append(token)
        self.sampler.accept(token)
        if self.constraint is not None:
            self.constraint.accept(token)
        text = self._stream.add(token)
        self.emit(
            Token(
                id=token,
                text=text,
                logprob=logprob,
                special=token in self._vocabulary.special_ids,
                alternatives=tuple((other, self._vocabulary.decode([other]), log) for other, log in alternatives),
            )
        )
        reason = self._reason(token, text)
        if reason is not None:
            self._finish(reason)
        return reason is not None

    def _reason(self, token: int, text: str) -> FinishReason | None:
        if len(self.generated) >= self.request.max_new_tokens:
            return FinishReason.LENGTH
        if token in self._eos_ids:
            return FinishReason.EOS_TOKEN
        if self._stops.add(text):
            return FinishReason.STOP_SEQUENCE
        return None

    def _finish(self, reason: FinishReason) -> None:
        now = time.perf_counter()
        self.emit(
            Finished(
                reason=reason,
                text=self._vocabulary.continuation(self.request.input_ids, self.generated),
                generated_tokens=len(self.generated),
                queue_ms=(self._admitted - self._submitted) * 1000,
                inference_ms=(now - self._admitted) * 1000,
                prefill=self._prefill,
            )
        )
