"""Continuous batching: one thread admits new sequences (prefill) and decodes all active ones, step by step."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

import torch

from sandbox.lorax.model import BaseModel
from sandbox.lorax.sampling import choose
from sandbox.lorax.sequence import Sequence

__all__ = ["Scheduler"]

logger = logging.getLogger(__name__)

PREFILL_TOKENS = 4096
"""Padded prompt tokens admitted between two decode steps, so that running streams do not stall."""

_SMALL_BATCH = 4  # rows that a pass should have before padding is worth another pass


class Scheduler:
    """Owns the model. Sequence ``i`` of ``_active`` is row ``i`` of the cache and slot ``i`` of the LoRA bank."""

    def __init__(self, model: BaseModel, *, max_slots: int, threads: int, after_step: Callable[[], None]) -> None:
        """``after_step`` runs in the scheduler's thread when a step's events have been emitted."""
        self._model = model
        self._max_slots = max_slots
        self._threads = threads
        self._after_step = after_step
        self._wake = threading.Condition()
        self._ready: deque[Sequence] = deque()
        self._active: list[Sequence] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step under way; all sequences end with RuntimeError."""
        if self._thread is None:
            return
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self._thread = None

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence whose adapter is loaded. Thread safe. Raises RuntimeError when the thread does not run."""
        with self._wake:
            if self._thread is None or self._stopping:
                raise RuntimeError("the engine is not running")
            self._ready.append(sequence)
            self._wake.notify()

    def load(self) -> tuple[int, int, int]:
        """Now: sequences that wait for a slot, sequences that run, and the tokens these may grow to."""
        active = list(self._active)
        tokens = sum(len(each.request.input_ids) + each.request.max_new_tokens for each in active)
        return len(self._ready), len(active), tokens

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            while True:
                with self._wake:
                    while not (self._ready or self._active or self._stopping):
                        self._wake.wait()
                    if self._stopping:
                        break
                try:
                    self._step()
                except Exception as error:  # the thread must outlive any batch
                    logger.exception("a step failed")
                    self._fail_all(error)
                self._after_step()
            self._fail_all(RuntimeError("the engine has stopped"))
            self._after_step()

    def _step(self) -> None:
        self._drop_cancelled()
        self._admit()
        if self._active:
            self._choose(self._model.decode([each.generated[-1] for each in self._active]), 0)

    def _drop_cancelled(self) -> None:
        for row in reversed(range(len(self._active))):
            if self._active[row].cancelled.is_set():
                self._release(row)

    def _admit(self) -> None:
        """Prefill as many waiting sequences as fit, several in one pass."""
        budget = PREFILL_TOKENS
        while budget > 0 and (group := self._next_group(budget)):
            budget -= len(group) * max(len(each.request.input_ids) for each in group)
            for batch in _of_similar_length(group):
                self._prefill(batch)

    def _next_group(self, budget: int) -> list[Sequence]:
        group: list[Sequence] = []
        longest = 0
        with self._wake:
            while self._ready and len(self._active) + len(group) < self._max_slots:
                sequence = self._ready[0]
                if sequence.cancelled.is_set():
                    self._ready.popleft()
                    continue
                longest = max(longest, len(sequence.request.input_ids))
                # Logits of whole prompts are large, so a sequence that wants them goes alone.
                alone = sequence.request.prefill_logprobs or (group and group[0].request.prefill_logprobs)
                if group and (alone or longest * (len(group) + 1) > budget):
                    break
                group.append(self._ready.popleft())
        return group

    def _prefill(self, group: list[Sequence]) -> None:
        first = len(self._active)
        bank = self._model.lora
        wanted = group[0].request.prefill_logprobs
        try:
            bank.reserve(first + len(group))
            for slot, sequence in enumerate(group, start=first):
                sequence.admit()
                bank.write(slot, sequence.adapter.pairs if sequence.adapter is not None else {})
            logits = self._model.prefill([each.request.input_ids for each in group], all_logits=wanted)
        except Exception as error:
            logger.exception("prefill of %d sequences failed", len(group))
            for slot in range(first, first + len(group)):
                bank.clear(slot)
            if len(group) == 1:
                _fail(group[0], error)
            else:
                # One of them is the cause: alone, each passes or fails for itself.
                for sequence in group:
                    self._prefill([sequence])
            return
        self._active += group
        if wanted:
            ids = torch.tensor(group[0].request.input_ids[1:], device=logits.device)
            logprobs = torch.log_softmax(logits[0, :-1].float(), dim=-1)
            group[0].set_prefill(logprobs.gather(1, ids[:, None])[:, 0].tolist())
        self._choose(logits[:, -1], first)

    def _choose(self, logits: torch.Tensor, first: int) -> None:
        """Choose and emit one token for the rows from ``first`` on, and release those that have ended."""
        rows = self._active[first:]
        choice = choose(
            logits,
            [each.sampler for each in rows],
            [each.constraint.mask() if each.constraint is not None else None for each in rows],
            [each.request.alternatives for each in rows],
        )
        chosen = zip(rows, choice.ids, choice.logprobs, choice.alternatives, strict=True)
        ended = [
            row
            for row, (sequence, token, logprob, others) in enumerate(chosen, start=first)
            if _accept(sequence, token, logprob, others)
        ]
        # From the last row down, so that a row that moves up to fill a gap has not ended itself.
        for row in reversed(ended):
            self._release(row)

    def _release(self, row: int) -> None:
        self._model.release(row)
        last = self._active.pop()
        if row < len(self._active):
            self._active[row] = last

    def _fail_all(self, error: Exception) -> None:
        with self._wake:
            failed = self._active
            if self._stopping:
                failed = failed + list(self._ready)
                self._ready.clear()
        self._active = []
        self._model.clear()
        for sequence in failed:
            _fail(sequence, error)


def _of_similar_length(group: list[Sequence]) -> list[list[Sequence]]:
    """Split a group so that padding stays below a third; the longest first, so that nobody's columns have to move."""
    batches: list[list[Sequence]] = []
    for sequence in sorted(group, key=lambda each: -len(each.request.input_ids)):
        longest = len(batches[-1][0].request.input_ids) if batches else 0
        if batches and (3 * len(sequence.request.input_ids) >= 2 * longest or len(batches[-1]) < _SMALL_BATCH):
            batches[-1].append(sequence)
        else:
            batches.append([sequence])
    return batches


def _fail(sequence: Sequence, error: Exception) -> None:
    sequence.emit(RuntimeError(str(error) or type(error).__name__))


def _accept(sequence: Sequence, token: int, logprob: float, alternatives: tuple[tuple[int, float], ...]) -> bool:
    """Whether the sequence has ended; one whose own state fails ends with the error and leaves the others alone."""
    try:
        return sequence.accept(token, logprob, alternatives)
    except Exception as error:
        logger.exception("a sequence failed")
        _fail(sequence, error)
        return True
