"""What an evaluation does without us: a loop over prompts with aiohttp, a fixed number of requests in flight.

aiohttp took less time per request than httpx, with one client or with one for each connection. Nothing is graded,
recorded or repeated. It is the yardstick for what those cost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

__all__ = ["Request", "ask_all"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt for one adapter; ``adapter`` is a directory that the server sees, None for the base."""

    prompt: str
    adapter: str | None
    max_new_tokens: int


def ask_all(url: str, requests: Sequence[Request], *, in_flight: int) -> tuple[list[str], float]:
    """Make all requests, in order.

    Returns:
        The texts, and the seconds from the first request to the last answer.
    """
    return asyncio.run(_ask_all(url, requests, in_flight))


async def _ask_all(url: str, requests: Sequence[Request], in_flight: int) -> tuple[list[str], float]:
    texts = [""] * len(requests)
    queue = iter(enumerate(requests))
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            for index, request in queue:
                parameters = {"details": True, "do_sample": False, "max_new_tokens": request.max_new_tokens}
                if request.adapter is not None:
                    parameters |= {"adapter_id": request.adapter, "adapter_source": "local"}
                body = {"inputs": request.prompt, "parameters": parameters}
                async with session.post(f"{url}/generate", json=body) as reply:
                    reply.raise_for_status()
                    texts[index] = (await reply.json())["generated_text"]

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
        return texts, time.perf_counter() - began
