"""Tokens per second through the sandbox's LoRAX-compatible server, with our own client, by number of distinct adapters.

Sends 64 prompts at once, 32 new tokens each, greedy, spread over 1, 4, 16 and 64 adapters and over none; and 16 prompts
with 16 adapters at once against one by one. Interleaved, medians of seven. What the engine does without HTTP is in
``sandbox_engine.py``; the difference is the price of requests, on both sides of the socket.

    python benchmarks/sandbox_http.py [--quick]

Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from harness.adapters import write_adapter
from harness.figures import Bound, interleaved, paired_ratio, parse_rounds, print_bounds, print_table
from harness.servers import lorax_server

from slipway.adapter import Source
from slipway.services.lorax import GenerationParameters, LoraxClient

PROMPTS = 64
FEW_PROMPTS = 16
DISTINCT = (1, 4, 16, 64)
PROMPT = "translate: the old stone bird, door {number}\nanswer:"
PARAMETERS = GenerationParameters(max_new_tokens=32, ignore_eos_token=True)
LEAST_OF_ONE_ADAPTERS_RATE = 0.85
LEAST_GAIN_AT_ONCE = 4.0


class Load:
    """Requests to one server. Each method returns generated tokens per second."""

    def __init__(self, url: str, adapters: Sequence[Path]) -> None:
        self._url = url
        self._adapters = adapters

    def at_once(self, prompts: int, distinct: int) -> float:
        """All requests in flight together; prompt i goes to adapter i modulo ``distinct``, or to the base for 0."""

        async def run(client: LoraxClient) -> list[int]:
            return await asyncio.gather(*(self._ask(client, number, distinct) for number in range(prompts)))

        return asyncio.run(self._rate(run))

    def one_by_one(self, prompts: int, distinct: int) -> float:
        """The same requests, each after the answer to the one before."""

        async def run(client: LoraxClient) -> list[int]:
            return [await self._ask(client, number, distinct) for number in range(prompts)]

        return asyncio.run(self._rate(run))

    async def _rate(self, run: Callable[[LoraxClient], Awaitable[list[int]]]) -> float:
        async with LoraxClient(self._url, connections=PROMPTS) as client:
            began = time.perf_counter()
            tokens = await run(client)
            return sum(tokens) / (time.perf_counter() - began)

    async def _ask(self, client: LoraxClient, number: int, distinct: int) -> int:
        adapter = str(self._adapters[number % distinct]) if distinct else None
        answer = await client.generate(
            PROMPT.format(number=number),
            adapter_id=adapter,
            adapter_source=Source.LOCAL if adapter else None,
            parameters=PARAMETERS,
        )
        return answer.generated_tokens


def main() -> int:
    """Measure, print, and compare with the bounds."""
    rounds = parse_rounds(__doc__, full=7, quick=3)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        adapters = [write_adapter(root / f"adapter-{number}", number) for number in range(max(DISTINCT))]
        with lorax_server(root) as url:
            load = Load(url, adapters)
            load.at_once(PROMPTS, max(DISTINCT))  # loads every adapter
            kinds = {f"{PROMPTS} at once, no adapter": lambda: load.at_once(PROMPTS, 0)}
            for distinct in DISTINCT:
                kinds[f"{PROMPTS} at once, {distinct} adapters"] = lambda count=distinct: load.at_once(PROMPTS, count)
            kinds["16 at once, 16 adapters"] = lambda: load.at_once(FEW_PROMPTS, FEW_PROMPTS)
            kinds["16 one by one, 16 adapters"] = lambda: load.one_by_one(FEW_PROMPTS, FEW_PROMPTS)
            samples = interleaved(kinds, rounds)
    print_table(
        ("requests of 32 new tokens", "tokens/s", "slowest", "fastest"),
        [(name, *(f"{value:.0f}" for value in (statistics.median(rates), min(rates), max(rates))))
         for name, rates in samples.items()],
    )  # fmt: skip
    many, one = samples[f"{PROMPTS} at once, 64 adapters"], samples[f"{PROMPTS} at once, 1 adapters"]
    gain = paired_ratio(samples["16 at once, 16 adapters"], samples["16 one by one, 16 adapters"])
    return print_bounds(
        [
            Bound(
                name="64 adapters to 1", value=paired_ratio(many, one), limit=LEAST_OF_ONE_ADAPTERS_RATE, at_least=True
            ),
            Bound(name="16 at once to one by one", value=gain, limit=LEAST_GAIN_AT_ONCE, at_least=True),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
