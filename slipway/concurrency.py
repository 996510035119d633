"""How many requests are in flight: as many as the server answers faster for, and fewer as soon as it refuses.

``Window`` decides the number from what it is told of answers and refusals; ``Limiter`` makes workers keep to it. Time
and waiting are given, so that nothing here knows a clock. Knows no requests, cases or arms.

The rules are those of congestion control (Jacobson and Karels 1988, *Congestion Avoidance and Control*): on a refusal
halve, once per round trip, and grow by steps again. Growth that brings no throughput is taken back, as queueing at the
server helps nobody. The beginning differs: a suite is short, and the target's owner has said how much the server takes,
so all of it is used at once, and whether half would do as well is looked at later.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ["Limiter", "Patience", "Window"]

LOOK_AFTER_ROUNDS = 16
"""Round trips at the maximum after which, once, half of it is tried: a long suite pays a hundredth for it."""
GAIN_SHARE = 0.1
"""Growth by a share g must raise the throughput by at least ``GAIN_SHARE * g``, or it is taken back."""
STEP_SHARE = 0.125
"""Of the window: the first step; each that brings throughput is followed by one twice as large, so that a server that
has recovered is soon used again."""
CEILING_SHARE = 0.9
"""Of the window at which the server refused: so far it grows again without trying for more."""
HOLD_ROUNDS = 8
"""Round trips between a growth that was taken back, or a regained ceiling, and the next try for more."""
STEADY_ANSWERS = 32
"""Answers over which throughput is measured at least, however small the window."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long one request is tried again, for failures that a repeat can help.

    The wait after attempt n is ``min(longest, first * 2**(n-1))``, of which a random half to whole is taken. Where the
    server says how long to wait, everybody waits that long; beyond ``longest_pause_seconds`` the failure counts at
    once.

    Attributes:
        attempts: At most so many, the first included.
        first_wait_seconds: See above.
        longest_wait_seconds: See above.
        longest_pause_seconds: See above.
        longest_silence_seconds: A server that has refused everything for so long is not waited for any more.
        sleep: Waits.
        clock: Tells seconds, monotonic.
        fraction: Gives the random numbers in [0, 1).
    """

    attempts: int = 6
    first_wait_seconds: float = 0.25
    longest_wait_seconds: float = 8.0
    longest_pause_seconds: float = 120.0
    longest_silence_seconds: float = 600.0
    sleep: Callable[[float], Awaitable[object]] = field(default=asyncio.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    fraction: Callable[[], float] = field(default=random.random, repr=False)

    def wait_seconds(self, attempt: int) -> float:
        """Tell the wait after the n-th attempt, n from 1."""
        longest = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (attempt - 1))
        return longest * (0.5 + self.fraction() / 2)


@dataclass(frozen=True)
class _Level:
    """A window and the throughput measured with it, in answers a second."""

    limit: int
    rate: float


class Window:
    """The number of requests that may be in flight.

    Args:
        maximum: Never more.

    Attributes:
        limit: The number now, at least 1.
    """

    def __init__(self, maximum: int) -> None:
        if maximum < 1:
            raise ValueError(f"at least one request must be allowed in flight, not {maximum}")
        self.limit = maximum
        self._maximum = maximum
        self._ceiling = maximum
        self._smaller: _Level | None = None
        self._larger: _Level | None = None
        self._rounds_left = LOOK_AFTER_ROUNDS
        self._hold = 0
        self._step = 0
        self._tickets = 0
        self._sent_after_halving = 0
        self._round_from = 0
        self._answers = 0
        self._has_answered = True
        self._began: float | None = None
        self._was_full = False

    def sent(self, now: float) -> int:
        """Take note of a request; gives the ticket by which its end is told."""
        if self._began is None:
            self._began = now
        self._tickets += 1
        return self._tickets

    def answered(self, ticket: int, now: float, *, in_flight: int) -> None:
        """Take note of an answer, and after each round trip of full use decide anew.

        Args:
            ticket: Of its request.
            now: Seconds.
            in_flight: Requests in flight, this one included.
        """
        if ticket < self._round_from:  # sent before the window was what is measured now
            self._began = now
            return
        self._has_answered = True
        self._answers += 1
        self._was_full = self._was_full or in_flight >= self.limit
        if self._answers >= max(self.limit, STEADY_ANSWERS):
            self._decide(now)

    def refused(self, ticket: int, now: float) -> None:
        """Take note of a refusal (429, 503) and halve, unless the request was sent before the last halving."""
        if ticket <= self._sent_after_halving:
            return
        self._sent_after_halving = self._tickets
        # A server that answers nothing refuses whatever it is sent: that says nothing of how much it takes.
        if self._has_answered:
            self._ceiling = max(1, int(self.limit * CEILING_SHARE))
            self._has_answered = False
        self.limit = max(1, self.limit // 2)
        self._smaller = self._larger = None
        self._rounds_left = 0  # what the server takes is known better now
        self._hold = 0
        self._step = 0
        self._measure(now, after_those_in_flight=True)

    def _decide(self, now: float) -> None:
        elapsed = now - (self._began or 0.0)
        if elapsed <= 0:  # all in one tick of the clock; the next answer tells more
            return
        if not self._was_full:  # nobody wanted more, so this says nothing
            self._measure(now)
            return
        level = _Level(self.limit, self._answers / elapsed)
        smaller, self._smaller = self._smaller, None
        larger, self._larger = self._larger, None
        if larger is not None:
            self._settle(larger if _is_worth(larger, level) else level)
        elif smaller is not None and not _is_worth(level, smaller):
            self._settle(smaller)
        elif self._hold > 0:
            self._hold -= 1
        elif not self._looks_at_half(level):
            self._grow(level)
        self._measure(now, after_those_in_flight=self.limit != level.limit)

    def _settle(self, level: _Level) -> None:
        self.limit = level.limit
        self._hold = HOLD_ROUNDS
        self._step = 0

    def _looks_at_half(self, level: _Level) -> bool:
        self._rounds_left -= 1
        if self._rounds_left != 0 or level.limit == 1:
            return False
        self._larger = level
        self.limit = level.limit // 2
        return True

    def _grow(self, level: _Level) -> None:
        self._step = max(1, int(self.limit * STEP_SHARE), 2 * self._step)
        limit = min(self.limit + self._step, self._ceiling)
        if limit > self.limit:
            self._smaller = level if self._ceiling == self._maximum else None
            self.limit = limit
        elif self._ceiling < self._maximum:
            self._ceiling = self._maximum
            self._settle(level)

    def _measure(self, now: float, *, after_those_in_flight: bool = False) -> None:
        self._began = now
        self._answers = 0
        self._was_full = False
        self._round_from = self._tickets + 1 if after_those_in_flight else 0


def _is_worth(larger: _Level, smaller: _Level) -> bool:
    """Whether the larger window brings as much more throughput as it must."""
    return larger.rate >= smaller.rate * (1 + GAIN_SHARE * (larger.limit / smaller.limit - 1))


class Limiter:
    """Slots for workers: one that has a slot may have one request in flight, and keeps it from request to request.

    Args:
        maximum: Slots at most.
        patience: Its clock and its way to wait.

    Attributes:
        in_flight: Slots taken.
        clock: The patience's.
    """

    def __init__(self, maximum: int, patience: Patience | None = None) -> None:
        self._window = Window(maximum)
        self._patience = patience or Patience()
        self.clock = self._patience.clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Slots there are now."""
        return self._window.limit

    @property
    def must_yield(self) -> bool:
        """Whether a worker that is between two requests must give its slot back and enter anew."""
        return self.in_flight > self._window.limit or self._paused_until > 0.0

    async def enter(self) -> None:
        """Take a slot; waits for one, and while the server wants a pause."""
        while True:
            if self._paused_until > 0.0:
                await self._sit_out()
            elif self.in_flight < self._window.limit:
                self.in_flight += 1
                return
            else:
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                try:
                    await turn
                except asyncio.CancelledError:
                    if turn.done():  # it was this worker's turn: somebody else's now
                        self._wake()
                    raise

    def leave(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        self._wake()

    def sent(self, now: float) -> int:
        """Say that a request goes out; gives its ticket."""
        return self._window.sent(now)

    def answered(self, ticket: int, now: float) -> None:
        """Say that the request was answered, be it well or badly."""
        before = self._window.limit
        self._window.answered(ticket, now, in_flight=self.in_flight)
        if self._window.limit > before:
            self._wake()

    def refused(self, ticket: int, now: float, retry_after_seconds: float | None = None) -> None:
        """Say that the server was too busy for the request; ``retry_after_seconds`` makes everybody pause."""
        self._window.refused(ticket, now)
        if retry_after_seconds:
            self._paused_until = max(self._paused_until, now + retry_after_seconds)

    async def _sit_out(self) -> None:
        until = self._paused_until
        if (rest := until - self.clock()) > 0:
            await self._patience.sleep(rest)
        elif self._paused_until == until:
            self._paused_until = 0.0

    def _wake(self) -> None:
        """Let as many enter as there are slots; each looks again when its turn comes."""
        free = self._window.limit - self.in_flight
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1
