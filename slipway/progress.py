"""Tell whoever watches this process how a release is getting on. Nobody has to watch.

The command line listens to print lines and bars; a Prefect worker does not, and reads logs instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slipway.scoreboard import Scoreboard

__all__ = ["Kind", "Listener", "ProgressEvent", "Unit", "emit", "listening"]


logger = logging.getLogger(__name__)


class Kind(StrEnum):
    """What a progress event says."""

    STARTED = "started"
    ADVANCED = "advanced"
    FINISHED = "finished"


class Unit(StrEnum):
    """What ``ProgressEvent.done`` and ``total`` count."""

    PARTS = "parts"
    BYTES = "bytes"


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """One thing that happened to one release.

    Attributes:
        step: As ``release.Step`` names them.
        kind: Started, a part done, finished.
        message: For people; may be empty.
        done: How many parts are done.
        total: How many there are; 0 where that is unknown.
        seconds: How long the step took, once finished.
        unit: What the parts are.
        subject: What it is about where several run at once, such as an adapter's address; may be empty.
        in_flight: Of an evaluation: requests in flight.
        per_second: Of an evaluation: answers a second.
        scoreboard: Of an evaluation: its counts; they go on changing.
    """

    step: str
    kind: Kind
    message: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    unit: Unit = Unit.PARTS
    subject: str = ""
    in_flight: int = 0
    per_second: float = 0.0
    scoreboard: Scoreboard | None = None


Listener = Callable[[ProgressEvent], None]

_listeners: list[Listener] = []


def emit(event: ProgressEvent) -> None:
    """Hand an event to everybody who listens.

    One who fails is not asked again and stops nothing: a release must not be cut because its terminal has gone.
    """
    for listener in tuple(_listeners):
        try:
            listener(event)
        except Exception:
            _listeners.remove(listener)
            logger.warning("progress is no longer shown: whoever watched has failed", exc_info=True)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Listen for the time of a ``with`` block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        with suppress(ValueError):  # it failed, and is gone already
            _listeners.remove(listener)
