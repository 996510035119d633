"""Requests in flight at once: bounded, each connection used by one at a time, none lost."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from slipway.services.lanes import Lanes


class Made:
    """Counts the clients made, and how many requests were in flight at most."""

    def __init__(self, answer=None) -> None:
        self.clients: list[httpx.AsyncClient] = []
        self.in_flight = self.most_in_flight = 0
        self._answer = answer

    def __call__(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url="http://lane", transport=httpx.MockTransport(self._handle))
        self.clients.append(client)
        return client

    async def _handle(self, _request: httpx.Request) -> httpx.Response:
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await asyncio.sleep(0)
            if self._answer is not None:
                await self._answer()
            return httpx.Response(200)
        finally:
            self.in_flight -= 1


async def ask(lanes: Lanes) -> None:
    async with lanes.take() as client:
        await client.get("/")


async def test_no_more_requests_are_in_flight_than_the_limit():
    made = Made()
    lanes = Lanes(made, limit=3)
    await asyncio.gather(*(ask(lanes) for _ in range(20)))
    assert (made.most_in_flight, len(made.clients)) == (3, 3)
    await lanes.aclose()


async def test_requests_one_after_the_other_keep_to_one_connection():
    made = Made()
    lanes = Lanes(made, limit=8)
    for _ in range(5):
        await ask(lanes)
    assert len(made.clients) == 1
    await lanes.aclose()


async def test_a_lane_is_free_again_after_a_failure_and_after_a_cancelled_request():
    """Else an evaluation would come to stand after as many failures as it has lanes."""

    async def fail():
        raise httpx.ReadError("reset")

    lanes = Lanes(Made(fail), limit=1)
    for _ in range(2):
        with pytest.raises(httpx.ReadError):
            await ask(lanes)
    await lanes.aclose()

    lanes = Lanes(Made(asyncio.Event().wait), limit=1)
    for _ in range(2):
        task = asyncio.create_task(ask(lanes))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await lanes.aclose()


async def test_closing_closes_every_client():
    made = Made()
    lanes = Lanes(made, limit=4)
    await asyncio.gather(*(ask(lanes) for _ in range(4)))
    await lanes.aclose()
    assert len(made.clients) == 4
    assert all(client.is_closed for client in made.clients)


def test_a_client_that_cannot_be_made_is_noticed_at_once():
    def refuse() -> httpx.AsyncClient:
        raise httpx.UnsupportedProtocol("ftp://lane")

    with pytest.raises(httpx.UnsupportedProtocol):
        Lanes(refuse, limit=2)
