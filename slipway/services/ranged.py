"""Fetch one file in ranges, several at once, going on after connections that break."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Final, TypeAlias

from slipway.errors import SourceUnavailableError
from slipway.services.inflow import Inflow
from slipway.services.transfer import Transfer, pause

__all__ = ["OpenRange", "RangeIgnoredError", "fetch_ranges"]

ATTEMPTS: Final = 4
"""Of one range, without a byte having come in between."""

OpenRange: TypeAlias = "Callable[[int, int | None], AbstractContextManager[Iterator[bytes]]]"
"""Opens the bytes from an offset up to another, or to the end. What may pass is a ``SourceUnavailableError``."""


class RangeIgnoredError(Exception):
    """A server sends a file from its start although we asked for a part."""


def fetch_ranges(
    open_range: OpenRange,
    inflow: Inflow,
    transfer: Transfer,
    *,
    size_bytes: int | None,
    part_bytes: int | None = None,
    connections: int = 1,
) -> None:
    """Fetch what is missing of a file. The first failure that does not pass ends all ranges.

    Args:
        open_range: Asks the source.
        inflow: Where to.
        transfer: The pull.
        size_bytes: Of the whole file; None if only its end will tell.
        part_bytes: Of one range; None for all in one piece.
        connections: How many ranges at once.
    """
    abandoned = threading.Event()

    def fetch(start: int, end: int | None) -> None:
        try:
            _fetch_range(open_range, inflow, transfer, (start, end), abandoned)
        except BaseException:
            abandoned.set()
            raise

    if size_bytes is None:
        fetch(inflow.start, None)
        return
    step = part_bytes or max(size_bytes, 1)
    spans = [(start, min(start + step, size_bytes)) for start in range(inflow.start, size_bytes, step)]
    if len(spans) < 2:
        for span in spans:
            fetch(*span)
        return
    with ThreadPoolExecutor(min(connections, len(spans)), thread_name_prefix="slipway-range") as pool:
        for future in [pool.submit(fetch, *span) for span in spans]:
            future.result()


def _fetch_range(
    open_range: OpenRange,
    inflow: Inflow,
    transfer: Transfer,
    span: tuple[int, int | None],
    abandoned: threading.Event,
) -> None:
    position, end = span
    failures = 0
    while position != end and not abandoned.is_set():
        before = position
        try:
            with open_range(position, end) as pieces:
                for piece in pieces:
                    inflow.write(position, piece)
                    position += len(piece)
                    transfer.add(len(piece))
                    if abandoned.is_set():
                        return
            if end is None:
                return
            _check_moved(position - before)
        except SourceUnavailableError:
            failures = 1 if position > before else failures + 1
            if failures == ATTEMPTS:
                raise
            pause(failures, transfer)


def _check_moved(count: int) -> None:
    """Count an answer without a byte as one that broke off, lest it be asked for for ever."""
    if not count:
        raise SourceUnavailableError("The source answers with fewer bytes than it has listed.", fix="Pull again.")
