"""Count a pull's bytes for whoever watches, and end it when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, TypeVar

from slipway.adapter import AdapterFile, AdapterUri, Bundle
from slipway.errors import SourceError
from slipway.progress import Kind, ProgressEvent, Unit, emit
from slipway.services.stage import Stage
from slipway.services.store import BundleStore

__all__ = ["PASSING_STATUSES", "Transfer", "keep_once", "pause", "pull_in_thread", "take_together"]

EMIT_SECONDS: Final = 0.1
"""Between two progress events."""

PASSING_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses that a repeat may not meet."""

FILES_AT_ONCE: Final = 4
_LONGEST_PAUSE_SECONDS: Final = 8.0


_Item = TypeVar("_Item")


class Transfer:
    """The bytes of one pull. Threads may share it.

    Args:
        uri: The adapter.
        monotonic: Seconds, for rates.
    """

    def __init__(self, uri: AdapterUri, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._subject = str(uri)
        self._monotonic = monotonic
        self._began = self._emitted = monotonic()
        self._total = self._done = self._moved = 0
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def expect(self, total_bytes: int) -> None:
        """Say how many bytes there are in all."""
        with self._lock:
            self._total = total_bytes

    def count_present(self, count: int) -> None:
        """Count bytes that a pull that was cut has left; or, negative, bytes that are lost."""
        with self._lock:
            self._done += count

    def add(self, count: int) -> None:
        """Count bytes that have arrived.

        Raises:
            SourceError: The pull was cancelled.
        """
        self.check()
        with self._lock:
            self._done += count
            self._moved += count
            now = self._monotonic()
            if now - self._emitted < EMIT_SECONDS and self._done != self._total:
                return
            self._emitted = now
            rate = self._moved / max(now - self._began, 1e-3)
            event = ProgressEvent(
                step="pull",
                kind=Kind.ADVANCED,
                message=f"{rate / 1e6:.0f} MB/s" if rate >= 1e6 else f"{rate / 1e3:.0f} kB/s",
                done=self._done,
                total=self._total,
                unit=Unit.BYTES,
                subject=self._subject,
            )
        emit(event)

    def cancel(self) -> None:
        """Make the next ``add`` or ``check`` raise."""
        self._cancelled.set()

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than until the pull is cancelled.

        Raises:
            SourceError: It was cancelled.
        """
        self._cancelled.wait(seconds)
        self.check()

    def check(self) -> None:
        """Do nothing while the pull goes on.

        Raises:
            SourceError: It was cancelled.
        """
        if self._cancelled.is_set():
            raise SourceError(f"The pull of {self._subject} was cancelled.", fix="Pull again; it goes on from there.")


async def pull_in_thread(uri: AdapterUri, work: Callable[[Transfer], Bundle]) -> Bundle:
    """Run a blocking pull on a thread that ends soon after the caller is cancelled.

    Args:
        uri: The adapter.
        work: The pull; calls ``Transfer.add`` as bytes arrive.
    """
    transfer = Transfer(uri)
    try:
        return await asyncio.to_thread(work, transfer)
    except asyncio.CancelledError:
        transfer.cancel()
        raise


def keep_once(
    store: BundleStore,
    key: str,
    *,
    uri: AdapterUri,
    resolved_revision: str,
    transfer: Transfer,
    fill: Callable[[Stage], object],
) -> Bundle:
    """Take a bundle from the store where this revision was pulled before; else fetch it, or the rest of it.

    Args:
        store: Where to.
        key: The same for the same bytes, different for others: the source's address and the resolved revision.
        uri: The adapter.
        resolved_revision: What it resolved to.
        transfer: The pull.
        fill: Adds the files to a stage.
    """
    bundle = store.recall(key, uri=str(uri), resolved_revision=resolved_revision)
    if bundle is not None:
        return bundle
    with store.stage(key, waiting=transfer.check) as stage:
        # Another process may have fetched it while this one waited for the stage.
        bundle = store.recall(key, uri=str(uri), resolved_revision=resolved_revision)
        if bundle is not None:
            return bundle
        fill(stage)
        return store.commit(stage, uri=str(uri), resolved_revision=resolved_revision)


def take_together(take: Callable[[_Item], AdapterFile], items: Sequence[_Item], stage: Stage) -> None:
    """Fetch several files at once, so that small ones do not keep a large one waiting; the first failure is raised."""
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="slipway-file") as pool:
        futures = [pool.submit(take, item) for item in items]
        try:
            for future in as_completed(futures):
                stage.keep(future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def pause(failures: int, transfer: Transfer) -> None:
    """Wait before a repeat, longer from one failure in a row to the next: 0.5, 1, 2, ... at most 8 seconds.

    Raises:
        SourceError: The pull was cancelled meanwhile.
    """
    transfer.wait(min(0.5 * 2 ** (failures - 1), _LONGEST_PAUSE_SECONDS))
