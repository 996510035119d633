"""The engine behind the LoRAX-compatible server: a base model, a store of adapters and a scheduler."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch

from sandbox.lorax.adapters import AdapterReader, LoadedAdapter
from sandbox.lorax.constraint import ConstraintCompiler
from sandbox.lorax.contract import AdapterRequest, EngineInfo, Finished, GenerationRequest, Token
from sandbox.lorax.model import BaseModel
from sandbox.lorax.reference import Reference
from sandbox.lorax.scheduler import Scheduler
from sandbox.lorax.sequence import Event, Sequence
from sandbox.lorax.sources import AdapterSources
from sandbox.lorax.store import AdapterStore
from sandbox.lorax.text import Vocabulary

__all__ = ["TorchEngine"]

logger = logging.getLogger(__name__)

_DEFAULT_MAX_TOKENS = 4096  # LoRAX's launcher, unless the model takes fewer
_BASE_MODEL_IDS = frozenset({"", "__base_model__"})
_HUB_TIMEOUT_SECONDS = 2.0
_UNREACHABLE_SECONDS = 60.0  # before another base model's configuration is asked for again


class TorchEngine:
    """Serves one base model with an adapter per request; implements ``contract.Engine``."""

    def __init__(
        self,
        model_dir: str | Path,
        *,
        model_id: str | None = None,
        device: str | None = None,
        threads: int = 1,
        max_slots: int = 64,
        adapter_budget_bytes: int = 1 << 30,
        max_input_length: int | None = None,
        max_total_tokens: int | None = None,
        default_source: str = "hub",
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        """Load the base model; the threads start with ``start``.

        Args:
            model_dir: Directory of the base model.
            model_id: The name under which adapters know the base; the directory when omitted.
            device: Torch device; CUDA where there is one, else the CPU.
            threads: Torch threads. One is best for models of a few million parameters.
            max_slots: Sequences that run at the same time.
            adapter_budget_bytes: Adapter bytes kept in memory; a larger adapter is refused.
            max_input_length: Longest prompt in tokens; one less than ``max_total_tokens`` when omitted.
            max_total_tokens: Longest prompt plus answer; the model's limit, at most 4096, when omitted.
            default_source: Source of adapters whose request names none; kept for the HTTP layer, which fills it in.
            strict: Refuse adapters that LoRAX would drop, mis-scale or accept unchecked.
            seed: Makes DARE merges repeatable.
        """
        torch.set_num_threads(threads)
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model = BaseModel(model_dir, device=chosen)
        limit = int(getattr(self._model.text_config, "max_position_embeddings", None) or _DEFAULT_MAX_TOKENS)
        total = min(max_total_tokens or min(limit, _DEFAULT_MAX_TOKENS), limit)
        self.info = EngineInfo(
            model_id=model_id or str(model_dir),
            dtype=str(self._model.dtype),
            device=chosen.type,
            max_input_length=min(max_input_length or total - 1, total - 1),
            max_total_tokens=total,
            max_slots=max_slots,
        )
        self.default_source = default_source
        self._vocabulary = Vocabulary(self._model.tokenizer)
        self._vocabulary_size = self._model.vocabulary_size
        self._eos_ids = self._model.eos_ids
        self._constraints = ConstraintCompiler(self._model.tokenizer, size=self._vocabulary_size, eos_ids=self._eos_ids)
        self._downloads = Path(tempfile.mkdtemp(prefix="lorax-adapters-"))
        self._architectures: dict[str, tuple[list[str] | None, float]] = {}  # and until when it holds
        reader = AdapterReader(
            model_id=self.info.model_id,
            config=self._model.config,
            types=self._model.types,
            shapes=self._model.shapes,
            dtype=self._model.dtype,
            device=chosen,
            strict=strict,
            base_architectures=self._architectures_of,
        )
        self._store = AdapterStore(
            reader,
            AdapterSources(self._downloads),
            budget_bytes=adapter_budget_bytes,
            threads=threads,
            seed=seed,
        )
        self._reference = Reference(model_dir, device=chosen, seed=seed)
        self._outbox: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Event], Event]]]
        self._outbox = defaultdict(list)
        self._scheduler = Scheduler(self._model, max_slots=max_slots, threads=threads, after_step=self._deliver)

    def start(self) -> None:
        """Start the scheduler's and the loader's thread."""
        self._store.start()
        self._scheduler.start()

    def stop(self) -> None:
        """Stop both threads and remove downloaded adapters; running sequences end with RuntimeError."""
        self._store.stop()
        self._scheduler.stop()
        shutil.rmtree(self._downloads, ignore_errors=True)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text under the base model's tokenizer."""
        return self._vocabulary.encode(text, add_special_tokens=add_special_tokens)

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool) -> list[tuple[int, str, int, int]]:
        """(id, vocabulary piece, start, stop) per token. Raises ValueError without a fast tokenizer."""
        return self._vocabulary.encode_with_offsets(text, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, messages: list[dict[str, Any]]) -> str:
        """Render messages with the base model's template. Raises ValueError with the reason when that fails."""
        from jinja2 import TemplateError  # noqa: PLC0415  # only chat requests need it

        if not getattr(self._model.tokenizer, "chat_template", None):
            raise ValueError("template not found")
        try:
            return str(self._model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except (TemplateError, TypeError) as error:
            raise ValueError(str(error)) from error

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Token | Finished]:
        """Yield tokens as they come, then exactly one ``Finished``; closing the iterator cancels the sequence.

        Raises AdapterError when the adapter cannot be had, RuntimeError for an unusable schema, lengths beyond the
        limits, or a failed batch.
        """
        length = len(request.input_ids)
        if not (
            length and request.max_new_tokens > 0 and length + request.max_new_tokens <= self.info.max_total_tokens
        ):
            raise RuntimeError(
                f"{length} prompt tokens and {request.max_new_tokens} new ones do not fit in 1 to "
                f"{self.info.max_total_tokens} tokens"
            )
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        constraint = None
        if request.sampling.json_schema is not None:
            try:
                constraint = await asyncio.to_thread(self._constraints.compile, request.sampling.json_schema)
            except ValueError as error:
                raise RuntimeError(str(error)) from error
        sequence = Sequence(
            request,
            vocabulary=self._vocabulary,
            vocabulary_size=self._vocabulary_size,
            eos_ids=self._eos_ids,
            constraint=constraint,
            emit=lambda event: self._outbox[loop].append((events, event)),
        )
        self._submit(sequence, loop, events)
        try:
            while True:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            sequence.cancelled.set()

    def reference_logprobs(self, adapter: AdapterRequest | None, input_ids: list[int]) -> list[float]:
        """Log probability of each token after the first under transformers and PEFT alone. Thread safe.

        Raises AdapterError when the files cannot be had or PEFT refuses them.
        """
        if adapter is None or set(adapter.ids) <= _BASE_MODEL_IDS:
            return self._reference.logprobs(None, [], input_ids)
        return self._reference.logprobs(adapter, self._store.directories(adapter), input_ids)

    def gauges(self) -> dict[str, float]:
        """Queue length, batch size, tokens the batch may grow to, adapters resident and their bytes, now."""
        queued, running, tokens = self._scheduler.load()
        adapters, size = self._store.usage()
        return {
            "queue_length": float(queued + self._store.waiting()),
            "batch_size": float(running),
            "batch_max_tokens": float(tokens),
            "adapters_resident": float(adapters),
            "adapter_bytes": float(size),
        }

    def _submit(self, sequence: Sequence, loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event]) -> None:
        wanted = sequence.request.adapter
        if wanted is None or set(wanted.ids) <= _BASE_MODEL_IDS:
            self._scheduler.submit(sequence)
            return

        def answer(result: LoadedAdapter | Exception) -> None:
            error = result
            if isinstance(result, LoadedAdapter):
                sequence.adapter = result
                try:
                    self._scheduler.submit(sequence)
                except RuntimeError as stopped:
                    error = stopped
            if isinstance(error, Exception):
                _post(loop, [(events, error)])

        self._store.request(wanted, answer)

    def _deliver(self) -> None:
        """Hand over a step's events, with one wake-up per event loop rather than one per token."""
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, defaultdict(list)
        for loop, events in outbox.items():
            _post(loop, events)

    def _architectures_of(self, base_model: str) -> list[str] | None:
        found, until = self._architectures.get(base_model, (None, 0.0))
        if time.monotonic() >= until:
            found = _read_architectures(base_model)
            until = math.inf if found is not None else time.monotonic() + _UNREACHABLE_SECONDS
            self._architectures[base_model] = (found, until)
        return found


def _post(loop: asyncio.AbstractEventLoop, events: list[tuple[asyncio.Queue[Event], Event]]) -> None:
    try:
        loop.call_soon_threadsafe(_put_all, events)
    except RuntimeError:
        # The loop has closed with its requests still running; nobody is left to tell.
        logger.debug("events for a closed event loop are dropped")


def _put_all(events: list[tuple[asyncio.Queue[Event], Event]]) -> None:
    for queue, event in events:
        queue.put_nowait(event)


def _read_architectures(base_model: str) -> list[str] | None:
    """``architectures`` of a base model: from a local directory, the Hub or its cache; None when out of reach."""
    path = Path(base_model) / "config.json"
    if not path.is_file():
        if path.is_absolute():
            return None
        import huggingface_hub  # noqa: PLC0415  # slow to import, and only unusual adapters need it

        try:
            path = Path(huggingface_hub.hf_hub_download(base_model, "config.json", etag_timeout=_HUB_TIMEOUT_SECONDS))
        except (OSError, ValueError):
            return None
    try:
        architectures = json.loads(path.read_bytes()).get("architectures")
    except (OSError, ValueError):
        return None
    return list(architectures) if architectures else None
