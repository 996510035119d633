"""Stop when told to: SIGTERM and SIGINT cancel the work, and what it has to undo is undone first.

A handler that raises does not do: Python drops an exception that comes up in a destructor; asyncio drops one in a
callback, in a transport's write and in a task that nobody waits for; and one that comes up while the loop waits ends
the loop, which cancels the undoing too. So nothing is raised here. The signal reaches the loop through its wakeup file
descriptor, whoever else installs a handler meanwhile, as Prefect does for SIGTERM when a flow begins.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

__all__ = ["Stop", "stoppable", "to_the_end"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

AGAIN_SECONDS = 1.0
"""Until the work is cancelled again, as whatever runs may have swallowed it; and until a further signal means that it
is to end at once: some senders, such as timeout(1), send one wish twice."""

REPORT_SECONDS = 10.0
"""Between the end of the work and the next cancellation: for Prefect to write down how it ended, while it can."""

_Result = TypeVar("_Result")


class Stop:
    """Whether this process was told to stop; cancels the asyncio task that it was made in.

    Args:
        on_told: Called once, in the event loop.

    Attributes:
        number: The signal that told it; None before.
    """

    def __init__(self, on_told: Callable[[], None] | None = None) -> None:
        self.number: signal.Signals | None = None
        self._work = asyncio.current_task()
        self._on_told = on_told
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._arrived: float | None = None

    def arrived(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal also while the loop is stuck: the second ends the process at once."""
        now = time.monotonic()
        if self._arrived is None:
            self._arrived = now
        elif now - self._arrived >= AGAIN_SECONDS:
            _end_by_default()
            signal.raise_signal(number)

    def told(self, number: signal.Signals) -> None:
        """Cancel the work, until it is honoured."""
        if self.number is not None:
            return
        self.number = number
        if self._on_told is not None:
            self._on_told()
        self._cancel()

    def rest(self) -> None:
        """Cancel no more: the work has ended."""
        if self._again is not None:
            self._again.cancel()

    def rest_a_while(self) -> None:
        """Leave those around the work the time to write down that it has ended."""
        if self._again is not None:
            self._again.cancel()
            self._again = self._loop.call_later(REPORT_SECONDS, self._cancel_again)

    def _cancel(self) -> None:
        if self._work is not None:
            self._work.cancel()
        self._again = self._loop.call_later(AGAIN_SECONDS, self._cancel_again)

    def _cancel_again(self) -> None:
        _end_by_default()
        self._cancel()


_stop: ContextVar[Stop] = ContextVar("stop")


@contextmanager
def stoppable(on_told: Callable[[], None] | None = None) -> Iterator[Stop]:
    """Cancel the current asyncio task when the process is told to stop, every second until the block has ended.

    A second signal, at least a second after the first, ends the process at once. A block inside another one puts these
    handlers back in charge where something has installed its own; when it has ended, the cancelling pauses for a while.

    Outside the main thread, where no signal arrives, nothing happens.

    Args:
        on_told: Called when the process is told to; the outermost block's counts.
    """
    outer = _stop.get(None)
    stop = Stop(on_told) if outer is None else outer
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    token = _stop.set(stop)
    for number in SIGNALS:
        if outer is None:
            loop.add_signal_handler(number, stop.told, number)
        signal.signal(number, stop.arrived)
    try:
        yield stop
    finally:
        if outer is None:
            stop.rest()
        else:
            stop.rest_a_while()
        _stop.reset(token)
        for number in SIGNALS:
            if outer is None:
                loop.remove_signal_handler(number)
            if outer is None or stop.number is None:
                signal.signal(number, before[number])


async def to_the_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Wait until a piece of work is done, however often the waiting is cancelled; the cancellation is raised then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


def _end_by_default() -> None:
    """Leave the next signal to the kernel, which needs no loop and no Python for it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
