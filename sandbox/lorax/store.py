"""The adapters in memory: loaded by one background thread, evicted least recently used first under a byte budget."""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from sandbox.lorax.adapters import AdapterFiles, AdapterReader, LoadedAdapter
from sandbox.lorax.contract import AdapterError, AdapterRequest
from sandbox.lorax.merging import merge
from sandbox.lorax.sources import AdapterSources

__all__ = ["AdapterStore", "Answer"]

logger = logging.getLogger(__name__)

Key = tuple[object, ...]
Answer = Callable[[LoadedAdapter | Exception], None]


class AdapterStore:
    """Hands out loaded adapters. Evicting one never disturbs a running sequence: its slot holds a copy.

    Loads run one after the other, as in LoRAX. A failed load is forgotten at once, so the next request tries again.
    """

    def __init__(
        self, reader: AdapterReader, sources: AdapterSources, *, budget_bytes: int, threads: int, seed: int
    ) -> None:
        """``seed`` makes DARE merges repeatable."""
        self._reader = reader
        self._sources = sources
        self._budget_bytes = budget_bytes
        self._threads = threads
        self._seed = seed
        self._lock = threading.Lock()
        self._resident: OrderedDict[Key, LoadedAdapter] = OrderedDict()
        self._waiting: dict[Key, list[Answer]] = {}
        self._directories: dict[str, Path] = {}
        self._fetching = threading.Lock()
        self._jobs: queue.SimpleQueue[AdapterRequest | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the loading thread."""
        self._thread = threading.Thread(target=self._work, name="adapter-loader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the load under way and refuse the ones that wait."""
        if self._thread is None:
            return
        self._jobs.put(None)
        self._thread.join()
        self._thread = None
        with self._lock:
            self._directories.clear()
            waiting = [answer for answers in self._waiting.values() for answer in answers]
            self._waiting.clear()
        for answer in waiting:
            answer(RuntimeError("the engine has stopped"))

    def request(self, wanted: AdapterRequest, answer: Answer) -> None:
        """Call ``answer`` with the adapter or the error, at once when it is resident, else from the loading thread."""
        key = wanted.key
        with self._lock:
            adapter = self._resident.get(key)
            if adapter is not None:
                self._resident.move_to_end(key)
            elif key in self._waiting:
                self._waiting[key].append(answer)
                return
            elif self._thread is not None:
                self._waiting[key] = [answer]
                self._jobs.put(wanted)
                return
        answer(adapter if adapter is not None else RuntimeError("the engine is not running"))

    def usage(self) -> tuple[int, int]:
        """Adapters resident and their bytes."""
        with self._lock:
            return len(self._resident), sum(adapter.size_bytes for adapter in self._resident.values())

    def waiting(self) -> int:
        """Requests that wait for a load."""
        with self._lock:
            return sum(len(answers) for answers in self._waiting.values())

    def directories(self, wanted: AdapterRequest) -> list[Path]:
        """Where the files of each id are, fetched if they are not yet. Raises AdapterError."""
        return [self._directory(adapter_id, wanted) for adapter_id in wanted.ids]

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        while (wanted := self._jobs.get()) is not None:
            result: LoadedAdapter | Exception
            try:
                result = self._load(wanted)
            except AdapterError as error:
                result = error
            except Exception as error:  # the thread must outlive any adapter
                logger.exception("loading adapter %s failed", "+".join(wanted.ids))
                result = AdapterError(f"{type(error).__name__}: {error}")
            with self._lock:
                if isinstance(result, LoadedAdapter):
                    self._admit(wanted.key, result)
                answers = self._waiting.pop(wanted.key, [])
            for answer in answers:
                answer(result)

    def _admit(self, key: Key, adapter: LoadedAdapter) -> None:
        self._resident[key] = adapter
        used = sum(each.size_bytes for each in self._resident.values())
        while used > self._budget_bytes and len(self._resident) > 1:
            _, evicted = self._resident.popitem(last=False)
            used -= evicted.size_bytes
            logger.info("adapter %s evicted", evicted.name)

    def _load(self, wanted: AdapterRequest) -> LoadedAdapter:
        parts: list[AdapterFiles] = []
        for adapter_id in wanted.ids:
            directory = self._directory(adapter_id, wanted)
            try:
                parts.append(self._reader.read(adapter_id, directory))
            except AdapterError:
                self._directories.pop(adapter_id, None)
                raise
            size = sum(part.size_bytes for part in parts)
            if size > self._budget_bytes:
                raise AdapterError(
                    f"Adapter {adapter_id} is larger than adapter memory reservation: "
                    f"{size} / {self._budget_bytes} bytes"
                )
        if len(parts) == 1:
            return self._reader.fit(parts[0].adapter_id, parts[0])
        generator = torch.Generator().manual_seed(self._seed)
        merged = merge(parts, wanted, generator)
        return self._reader.fit(merged.adapter_id, merged)

    def _directory(self, adapter_id: str, wanted: AdapterRequest) -> Path:
        """Fetched once: an id keeps its files for as long as the engine runs, whatever source a later request names."""
        with self._fetching:
            directory = self._directories.get(adapter_id)
            if directory is None:
                directory = self._sources.fetch(adapter_id, wanted.source, wanted.api_token)
                self._directories[adapter_id] = directory
            return directory
