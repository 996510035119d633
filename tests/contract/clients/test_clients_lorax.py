"""The LoRAX client: against the sandbox's HTTP layer over a predictable engine, and against scripted odd replies."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from slipway.adapter import Source
from slipway.errors import (
    GenerationError,
    InvalidRequestError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    ServiceTimeoutError,
)
from slipway.services.http import Timeouts
from slipway.services.lorax import FinishReason, GenerationParameters, LoraxClient

TOKEN = "pb_canary_30bd"
BASE = {"adapter_id": None, "adapter_source": None}
SHORT = GenerationParameters(max_new_tokens=8)
ADAPTER = {"adapter_id": "support/4", "adapter_source": Source.PBASE}


@pytest.fixture
async def live(spelling_server):
    async with LoraxClient(spelling_server.url) as client:
        yield client


@pytest.fixture
async def client(server, waits):
    async with LoraxClient(f"{server.url}/t/deployments/v2/llms/prod/", SecretStr(TOKEN), retry=waits.policy) as made:
        yield made


ROUTE = "POST /t/deployments/v2/llms/prod/generate"


def answer(*logprobs, text="hi"):
    tokens = [{"id": 7, "text": "hi", "logprob": value, "special": False, "skipped": False} for value in logprobs]
    details = {"finish_reason": "length", "prompt_tokens": 3, "generated_tokens": len(tokens), "seed": None}
    return {"generated_text": text, "details": {**details, "skipped_tokens": 0, "prefill": [], "tokens": tokens}}


def counted(**counts):
    reply = answer(-0.5)
    return {**reply, "details": {**reply["details"], **counts}}


async def test_a_generation_comes_back_typed(live):
    found = await live.generate("ab", **ADAPTER, parameters=GenerationParameters(max_new_tokens=3))
    assert (found.text, found.finish_reason, found.prompt_tokens, found.generated_tokens) == (
        "CDE",
        FinishReason.LENGTH,
        3,
        3,
    )
    assert len(found.logprobs) == 3
    assert all(logprob < 0 for logprob in found.logprobs)
    assert (found.headers.adapter_id, found.headers.adapter_source) == ("support/4", "pbase")
    assert found.headers.queue_ms == 3
    assert found.headers.inference_ms == 20
    assert found.headers.total_ms is not None
    assert found.headers.time_per_token_ms is not None
    assert found.latency_ms > 0


async def test_the_base_model_has_no_adapter_header(live):
    found = await live.generate("x", **BASE, parameters=SHORT)
    assert (found.text, found.finish_reason) == ("yz", FinishReason.EOS_TOKEN)
    assert found.headers.adapter_id is None


async def test_stop_strings_and_prefill(live):
    parameters = GenerationParameters(max_new_tokens=8, stop=("e",), prefill_logprobs=True)
    found = await live.generate("ab", **BASE, parameters=parameters)
    assert found.finish_reason is FinishReason.STOP_SEQUENCE
    assert [logprob for _, _, logprob in found.prefill] == [None, -0.5, -0.5]


async def test_the_adapters_token_travels_in_the_body(spelling_server):
    async with LoraxClient(spelling_server.url, adapter_token=SecretStr("hf_x")) as client:
        await client.generate("a", adapter_id="org/name", adapter_source=Source.HUB, parameters=SHORT)
    adapter = spelling_server.engine.requests[-1].adapter
    assert (adapter.api_token, adapter.source) == ("hf_x", "hub")


async def test_chat_goes_through_the_template_and_is_greedy(spelling_server, live):
    found = await live.chat(
        [{"role": "user", "content": "a"}], **ADAPTER, parameters=GenerationParameters(max_new_tokens=4)
    )
    assert (found.text, found.finish_reason, found.generated_tokens) == ("BCDE", FinishReason.LENGTH, 4)
    assert found.headers.adapter_id == "support/4"
    assert not spelling_server.engine.requests[-1].sampling.do_sample


async def test_chat_names_a_matched_stop_string_as_generate_does(live):
    parameters = GenerationParameters(max_new_tokens=8, stop=("d",))
    found = await live.chat([{"role": "user", "content": "a"}], **BASE, parameters=parameters)
    assert found.finish_reason is FinishReason.STOP_SEQUENCE


async def test_chat_refuses_what_its_route_does_not_have(live):
    with pytest.raises(InvalidRequestError, match="truncate"):
        await live.chat([], **BASE, parameters=GenerationParameters(truncate=3))


async def test_an_adapter_that_cannot_be_had_is_a_generation_error(live):
    with pytest.raises(GenerationError, match="No valid adapter config file found") as caught:
        await live.generate("a", adapter_id="missing/1", adapter_source=Source.LOCAL, parameters=SHORT)
    assert (caught.value.status_code, caught.value.error_type) == (424, "generation")


async def test_what_the_server_refuses_is_an_invalid_request(live):
    with pytest.raises(InvalidRequestError) as caught:
        await live.generate("a" * 100, **BASE)
    assert (caught.value.status_code, caught.value.error_type) == (422, "validation")


async def test_a_nan_logprob_is_told_with_its_place(live):
    """The server writes NaN as null, which the official types cannot hold."""
    with pytest.raises(ProtocolError, match="token 0 is not a finite number") as caught:
        await live.generate("a", adapter_id="nan/1", adapter_source=Source.PBASE, parameters=SHORT)
    assert "adapter" in caught.value.fix


@pytest.mark.parametrize(
    ("adapter_id", "source"),
    [
        ("support", Source.PBASE),
        ("support/", Source.PBASE),
        ("support/latest", Source.PBASE),
        ("org/support/4", Source.PBASE),
        ("", Source.LOCAL),
        ("a b", Source.LOCAL),
        ("ä/1", Source.HUB),
        ("a\nb", Source.HUB),
        ("support/4", None),
        (None, Source.PBASE),
    ],
)
async def test_an_adapter_is_named_whole_or_nothing_is_sent(server, client, adapter_id, source):
    with pytest.raises(InvalidRequestError) as caught:
        await client.generate("a", adapter_id=adapter_id, adapter_source=source)
    assert caught.value.fix
    with pytest.raises(InvalidRequestError):
        await client.chat([], adapter_id=adapter_id, adapter_source=source)
    with pytest.raises(InvalidRequestError):
        await client.reference_logprobs("/r", adapter_id=adapter_id, adapter_source=source, input_ids=[1, 2])
    assert server.seen == []


@pytest.mark.parametrize("wrong", [{"top_p": 2.0}, {"best_of": 2}, {"temperature": -1}, {"max_new_tokens": "x"}])
async def test_parameters_are_checked_before_sending(server, client, wrong):
    with pytest.raises(InvalidRequestError):
        await client.generate("a", **BASE, parameters=GenerationParameters(**wrong))
    assert server.seen == []


async def test_the_request_is_what_lorax_documents(server, client, reply):
    server.on(ROUTE, reply(json=answer(-0.5)))
    schema = {"type": "object", "properties": {"a": {"const": None}}}
    await client.generate("p", **ADAPTER, parameters=GenerationParameters(json_schema=schema, stop=("x",)))
    body = server.seen[0].json
    assert body["inputs"] == "p"
    parameters = body["parameters"]
    assert parameters["adapter_id"] == "support/4"
    assert parameters["adapter_source"] == "pbase"
    assert parameters["details"] is True
    assert parameters["do_sample"] is False
    assert parameters["stop"] == ["x"]
    assert parameters["response_format"] == {"type": "json_object", "schema": schema}
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_chat_request_is_what_lorax_documents(server, client, reply):
    message = {"content": "hi", "role": "assistant"}
    body = {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    server.on("POST /t/deployments/v2/llms/prod/v1/chat/completions", reply(json=body))
    messages = [{"role": "user", "content": "q"}]
    await client.chat(messages, **ADAPTER, parameters=GenerationParameters(top_p=0.9))
    assert server.seen[0].json == {
        "model": "support/4",
        "messages": messages,
        "adapter_source": "pbase",
        "max_tokens": 64,
        "top_p": 0.9,
    }
    await client.chat(messages, **BASE)
    assert server.seen[1].json == {"model": "", "messages": messages, "max_tokens": 64, "temperature": 0}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([answer(-0.5)], "no details"),
        ({"generated_text": "x"}, "no details"),
        (answer(None), "token 0 is not a finite"),
        (answer(-1.0, float("nan")), "token 1 is not a finite"),
        (answer(-1.0, "x"), "token 1 is not a finite"),
        ({**answer(-1.0), "generated_text": None}, "generated_text"),
        (counted(prompt_tokens=-1), "-1 prompt tokens"),
        (counted(generated_tokens=-1), "-1 generated tokens"),
    ],
)
async def test_replies_that_cannot_be_trusted_are_protocol_errors(server, client, reply, body, words):
    server.on(ROUTE, reply(body=json.dumps(body).encode()))
    with pytest.raises(ProtocolError, match=words):
        await client.generate("a", **BASE)


async def test_headers_that_a_front_end_hides_are_none(server, client, reply):
    times = {"x-queue-time": "soon", "x-inference-time": "-5", "x-time-per-token": "nan"}
    server.on(ROUTE, reply(json=answer(-0.5), headers=times))
    told = (await client.generate("a", **BASE)).headers
    assert (told.queue_ms, told.inference_ms, told.time_per_token_ms) == (None, None, None)
    assert (told.total_ms, told.adapter_id) == (None, None)


async def test_a_chat_of_less_than_no_tokens_cannot_be_trusted(server, client, reply):
    choice = {"message": {"content": "hi"}, "finish_reason": "stop"}
    body = {"choices": [choice], "usage": {"prompt_tokens": -3, "completion_tokens": 2}}
    server.on(ROUTE.replace("generate", "v1/chat/completions"), reply(json=body))
    with pytest.raises(ProtocolError, match="-3 prompt tokens"):
        await client.chat([{"role": "user", "content": "p"}], **BASE)


async def test_a_token_said_back_as_a_finish_reason_is_masked(server, reply):
    choice = {"message": {"content": "hi"}, "finish_reason": "pb_" + "x" * 60}
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    server.on("POST /v1/chat/completions", reply(json=body))
    async with LoraxClient(server.url, SecretStr("pb_" + "x" * 60)) as client:
        with pytest.raises(ProtocolError, match=r"finish_reason '\*\*\*'"):
            await client.chat([{"role": "user", "content": "p"}], **BASE)


async def test_an_overloaded_server_is_asked_again_and_then_told_of(server, client, reply):
    overloaded = {"status": 429, "json": {"error": "Model is overloaded", "error_type": "overloaded"}}
    server.on(ROUTE, reply(**overloaded), reply(reset=True), reply(json=answer(-0.5)))
    assert (await client.generate("a", **BASE)).text == "hi"
    server.on(ROUTE, reply(**overloaded))
    with pytest.raises(RateLimitedError, match="Model is overloaded") as caught:
        await client.generate("a", **BASE)
    assert caught.value.error_type == "overloaded"


async def test_the_latency_is_that_of_the_attempt_that_succeeded(server, client, reply):
    server.on(ROUTE, reply(status=503, json={}, delay_seconds=0.5), reply(json=answer(-0.5)))
    assert (await client.generate("a", **BASE)).latency_ms < 400


async def test_a_stuck_server_is_a_timeout(server, reply):
    server.on("POST /generate", reply(delay_seconds=0.6, json={}))
    async with LoraxClient(server.url, timeouts=Timeouts(read_seconds=0.1)) as client:
        with pytest.raises(ServiceTimeoutError):
            await client.generate("a", **BASE)


async def test_errors_name_the_variable_that_gave_the_address(server):
    async with LoraxClient(server.url, address_variable="PREDIBASE_SERVING") as client:
        with pytest.raises(NotFoundError) as caught:
            await client.generate("a", **BASE)
    assert "PREDIBASE_SERVING" in caught.value.fix


async def test_info(live):
    facts = await live.info()
    assert (facts.model_id, facts.max_total_tokens) == ("spelling/base", 64)


async def test_reference_logprobs_from_the_sandbox(live):
    ids = [1, 100, 101]
    assert await live.reference_logprobs("/sandbox/reference", **BASE, input_ids=ids) == (-0.5, -0.5)
    assert await live.reference_logprobs("/sandbox/reference", **ADAPTER, input_ids=ids) == (-0.25, -0.25)


@pytest.mark.parametrize("logprobs", [[-0.5], [-0.5, None], [-0.5, float("nan")]])
async def test_a_reference_that_is_no_reference_is_a_protocol_error(server, client, reply, logprobs):
    server.on("POST /t/deployments/v2/llms/prod/r", reply(body=json.dumps({"logprobs": logprobs}).encode()))
    with pytest.raises(ProtocolError):
        await client.reference_logprobs("r", **ADAPTER, input_ids=[1, 2, 3])
    assert server.seen[0].json == {
        "adapter_id": "support/4",
        "adapter_source": "pbase",
        "api_token": TOKEN,
        "input_ids": [1, 2, 3],
    }
