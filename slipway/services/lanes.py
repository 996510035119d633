"""Many requests in flight at once, at a cost per request that does not grow with their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

__all__ = ["Lanes"]


class Lanes:
    """Clients of one connection each; a request takes one that is free, the last used first, or waits for one.

    One client with many connections would do, but httpcore looks at each of them for every request and, for
    each idle one, counts the idle ones anew (``AsyncConnectionPool._assign_requests_to_connections``). A server that
    batches answers many requests in the same moment, so most connections are idle at once: a request then took three
    times the processor time that it takes here with 32 connections, and nine times with 128.

    Args:
        make: Makes a client; the first is made at once, so that what is wrong with an address is said at once.
        limit: At most so many.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient], *, limit: int) -> None:
        self._make = make
        self._idle = [make()]
        self._free = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[httpx.AsyncClient]:
        """Have a client to oneself; read its reply whole before giving it back."""
        async with self._free:
            client = self._idle.pop() if self._idle else self._make()
            try:
                yield client
            finally:
                self._idle.append(client)

    async def aclose(self) -> None:
        """Close all connections; requests must have ended."""
        while self._idle:
            await self._idle.pop().aclose()
