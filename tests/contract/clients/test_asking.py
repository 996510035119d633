"""How a case is put to a server, and what is kept of the answer."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from slipway.adapter import Source
from slipway.cases import Case, GenerationSettings
from slipway.errors import ProtocolError, RateLimitedError, UnavailableError
from slipway.services.asking import make_ask
from slipway.services.lorax import LoraxClient

NATIVE, CHAT = "POST /generate", "POST /v1/chat/completions"
TIMES = {"x-queue-time": "2", "x-inference-time": "40.5", "x-time-per-token": "8.1", "x-total-time": "43"}
DETAILS = {
    "finish_reason": "stop_sequence",
    "prompt_tokens": 3,
    "generated_tokens": 2,
    "prefill": [],
    "tokens": [
        {"id": 7, "text": "h", "logprob": -0.5, "special": False},
        {"id": 8, "text": "i", "logprob": -1, "special": False},
    ],
}


def case(prompt="p", **generation):
    return Case(id="one", vars={}, prompt=prompt, checks=(), generation=GenerationSettings(**generation))


@pytest.fixture
async def ask(server):
    async with LoraxClient(server.url) as client:
        yield make_ask(client, "support/4", Source.PBASE, 16)


async def test_everything_that_the_server_tells_is_kept(server, ask, reply):
    server.on(NATIVE, reply(json={"generated_text": "hi", "details": DETAILS}, headers=TIMES))
    found = await ask(case())
    assert (found.output, found.finish_reason) == ("hi", "stop_sequence")
    assert (found.prompt_tokens, found.generated_tokens) == (3, 2)
    assert found.logprobs == (-0.5, -1.0)
    assert asdict(found.timing) == {
        "queue_ms": 2.0,
        "inference_ms": 40.5,
        "time_per_token_ms": 8.1,
        "total_ms": 43.0,
    }
    assert 0 < found.latency_ms < 5000


async def test_a_conversation_goes_to_the_chat_route_which_tells_no_logprobs(server, ask, reply):
    message = {"role": "assistant", "content": "hi"}
    choice = {"message": message, "finish_reason": "stop"}
    server.on(CHAT, reply(json={"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}))
    found = await ask(case([{"role": "user", "content": "p"}]))
    assert (found.output, found.finish_reason, found.generated_tokens) == ("hi", "eos_token", 2)
    assert found.logprobs is None
    assert found.timing.total_ms is None


@pytest.mark.parametrize("answered", ["support/3", "org/other"])
async def test_an_answer_of_another_adapter_is_no_answer(server, ask, reply, answered):
    server.on(NATIVE, reply(json={"generated_text": "hi", "details": DETAILS}, headers={"x-adapter-id": answered}))
    with pytest.raises(ProtocolError, match=f"'{answered}' answered what support/4 was asked"):
        await ask(case())


async def test_an_answer_of_an_adapter_is_not_the_bases(server, reply):
    server.on(NATIVE, reply(json={"generated_text": "hi", "details": DETAILS}, headers={"x-adapter-id": "support/4"}))
    async with LoraxClient(server.url) as client:
        with pytest.raises(ProtocolError, match="'support/4' answered what the base model was asked"):
            await make_ask(client, None, None, 16)(case())


@pytest.mark.parametrize("told", [{"x-adapter-id": "support/4"}, {"x-adapter-id": ""}, {}])
async def test_an_answer_of_whom_was_asked_or_of_nobody_named_is_taken(server, ask, reply, told):
    server.on(NATIVE, reply(json={"generated_text": "hi", "details": DETAILS}, headers=told))
    assert (await ask(case())).output == "hi"


async def test_a_case_may_differ_from_the_target(server, ask, reply):
    server.on(NATIVE, reply(json={"generated_text": "hi", "details": DETAILS}))
    await ask(case())
    await ask(case(max_tokens=5, temperature=0.5, seed=3, stop=("x",)))
    first, second = (seen.json["parameters"] for seen in server.seen)
    assert (first["max_new_tokens"], first["temperature"], first["seed"], first["stop"]) == (16, None, None, [])
    assert (second["max_new_tokens"], second["temperature"], second["seed"], second["stop"]) == (5, 0.5, 3, ["x"])
    assert {first["adapter_id"], second["adapter_id"]} == {"support/4"}


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitedError), (503, UnavailableError)])
async def test_a_full_server_is_told_of_and_not_asked_again(server, ask, reply, status, kind):
    """Who evaluates slows all requests down; a client that repeats by itself would hide that it must."""
    server.on(NATIVE, reply(status=status, json={}, headers={"Retry-After": "7"}))
    with pytest.raises(kind) as caught:
        await ask(case())
    assert caught.value.retry_after_seconds == 7.0
    assert len(server.seen) == 1
