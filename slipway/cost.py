"""What one answer costs, from the prices of its target.

Tokens: ``million_tokens_usd * (prompt + generated) / 10**6``, where tokens are billed.

Server time: ``gpu_hour_usd * GPUs * share / 3600``, where the hours of a deployment are billed. A server works on many
requests at once, so an answer does not cost its whole duration but its share of it: each moment's price is divided
evenly among the requests that we had in flight at that moment (``ShareClock``). The shares of all answers add up to the
time during which anything was in flight, and so do the costs. A share contains the way over the network and the wait in
the server's queue, and is too high where others use the same deployment: it says what the answer cost its asker, and
compares arms that were asked side by side.

A target with both prices pays both. Knows no service and no file.
"""

from __future__ import annotations

from slipway.targets import Prices

__all__ = ["ShareClock", "cost_usd"]


def cost_usd(
    prices: Prices,
    *,
    prompt_tokens: int | None,
    generated_tokens: int | None,
    share_seconds: float | None,
    gpus: int = 1,
) -> float | None:
    """Tell what an answer cost in US dollars; None where no price is given, or what a price multiplies is unknown.

    Args:
        prices: Of the target.
        prompt_tokens: As the server counted them.
        generated_tokens: As the server counted them.
        share_seconds: Of the server's time, from a ``ShareClock``.
        gpus: That one replica has.
    """
    total = 0.0
    if prices.million_tokens_usd is not None:
        if prompt_tokens is None or generated_tokens is None:
            return None
        total += prices.million_tokens_usd * (prompt_tokens + generated_tokens) / 1e6
    if prices.gpu_hour_usd is not None:
        if share_seconds is None:
            return None
        total += prices.gpu_hour_usd * gpus * share_seconds / 3600
    return None if prices.million_tokens_usd is None and prices.gpu_hour_usd is None else total


class ShareClock:
    """A clock that runs at 1/n while n requests are in flight: each one's share of the server's time.

    ``start`` and ``stop`` are called with the same monotonic time, in seconds, in the order in which things happen.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._reading = 0.0
        self._at = 0.0

    def start(self, now: float) -> float:
        """A request goes out; gives the reading to hand to ``stop``."""
        self._advance(now)
        self._in_flight += 1
        return self._reading

    def stop(self, reading: float, now: float) -> float:
        """It has ended; gives its share in seconds."""
        self._advance(now)
        self._in_flight -= 1
        return self._reading - reading

    def _advance(self, now: float) -> None:
        if self._in_flight:
            self._reading += (now - self._at) / self._in_flight
        self._at = now
