"""The requests of the live proof, against a server that answers from a script."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from slipway.adapter import Source
from slipway.errors import UnavailableError
from slipway.live_proof import FIXED_PROMPT
from slipway.services.backends.interface import PublishedAdapter
from slipway.services.http import NO_RETRY
from slipway.services.lorax import LoraxClient
from slipway.services.probe import PROMPTS_OF_SUITE, prove_live

ADAPTER = PublishedAdapter(adapter_id="support/4", source=Source.PBASE, reused=False)
PROMPTS = ("refund", "invoice", "delivery", "never asked")


class Server:
    """Answers each request; what an adapter answers differs from the base by ``effect`` nats."""

    def __init__(self, *, effect: float = 1.0, broken: str | None = None, status: int = 503, error: str = "overloaded"):
        self.asked: list[tuple[str, str | None]] = []
        self.most_in_flight = self._in_flight = 0
        self._effect, self._broken, self._status, self._error = effect, broken, status, error

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        adapter = body["parameters"]["adapter_id"]
        self.asked.append((body["inputs"], adapter))
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(0.001)
        self._in_flight -= 1
        if body["inputs"] == self._broken and adapter:
            return _reply(self._status, {"error": self._error, "error_type": "generation"})
        logprob = -1.0 - (self._effect if adapter else 0.0)
        token = {"id": 5, "text": "a", "logprob": logprob, "special": False}
        prefill = [{"id": 1, "text": "<s>", "logprob": None}, {"id": 5, "text": "a", "logprob": logprob}]
        details = {"finish_reason": "length", "prompt_tokens": 2, "generated_tokens": 1, "seed": None}
        reply = {"generated_text": "a", "details": {**details, "tokens": [token], "prefill": prefill}}
        return _reply(200, reply, adapter or "")

    async def prove(self):
        transport = httpx.MockTransport(self)
        async with LoraxClient("http://lorax", retry=NO_RETRY, transport=transport) as client:
            return await prove_live(client, ADAPTER, prompts=PROMPTS, reference_route=None)


def _reply(status: int, body: object, adapter: str = "") -> httpx.Response:
    """A reply that is yet to be read: only then does httpx tell how long it took."""
    headers = {"content-type": "application/json", "x-adapter-id": adapter}
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(json.dumps(body).encode()))


async def test_adapter_that_moves_the_log_probabilities_is_live():
    server = Server()
    proof = await server.prove()
    assert proof.is_live
    assert proof.difference == pytest.approx(1.0)
    assert proof.answered_adapter_id == ADAPTER.adapter_id
    assert {prompt for prompt, _ in server.asked} == {FIXED_PROMPT, *PROMPTS[:PROMPTS_OF_SUITE]}


async def test_cold_and_warm_requests_are_alone_on_the_wire():
    """Their latencies are reported, so nothing of ours may be in them."""
    server = Server()
    await server.prove()
    alone = [item for item in server.asked if item[0] == FIXED_PROMPT]
    assert server.asked[: len(alone)] == alone
    assert [adapter for _, adapter in alone] == [None, ADAPTER.adapter_id, None, ADAPTER.adapter_id]
    assert server.most_in_flight == PROMPTS_OF_SUITE


async def test_adapter_without_effect_is_not_live():
    proof = await Server(effect=0.0).prove()
    assert not proof.is_live
    assert "ignored it" in proof.reasons[0]


async def test_refusal_of_the_adapter_is_a_proof_that_it_is_not_live():
    error = "No valid adapter config file found: tried None and None"
    proof = await Server(broken=PROMPTS[1], status=424, error=error).prove()
    assert not proof.is_live
    assert "refuses support/4" in proof.reasons[0]
    assert proof.warm_ms > 0


async def test_service_that_goes_away_during_the_suites_prompts_is_an_error_and_proves_nothing():
    with pytest.raises(UnavailableError):
        await Server(broken=PROMPTS[2]).prove()
