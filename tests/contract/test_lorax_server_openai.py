"""The OpenAI routes of the LoRAX-compatible server, with LoRAX's own ideas of them."""

from __future__ import annotations

import json

import httpx
import pytest

from sandbox.lorax.api import create_app
from sandbox.lorax.http_errors import ToolError
from sandbox.lorax.http_settings import ServerSettings
from sandbox.lorax.openai_tools import read_tool_answer

USER = {"role": "user", "content": "ab"}


@pytest.fixture(scope="module")
def http(spelling_server):
    with httpx.Client(base_url=spelling_server.url, timeout=20) as client:
        yield client


@pytest.fixture
def engine(spelling_server):
    return spelling_server.engine


def complete(http, **body):
    return http.post("/v1/completions", json={"model": "", "prompt": "ab", "max_tokens": 3, **body})


def chat(http, **body):
    return http.post(
        "/v1/chat/completions", json={"model": "", "messages": [USER], "max_tokens": 3, "temperature": 0, **body}
    )


def chunks_of(response):
    """Payloads of a stream and whether it ended with ``[DONE]``."""
    assert response.status_code == 200
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    is_done = blocks[-1] == "data:[DONE]"
    return [json.loads(block.removeprefix("data:")) for block in blocks[: -1 if is_done else None]], is_done


# --- completions


def test_completion_has_the_shape_of_lorax(http):
    assert complete(http).json() == {
        "id": "null",
        "object": "text_completion",
        "created": 0,
        "model": "null",
        "choices": [{"index": 0, "text": "cde", "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "total_tokens": 6, "completion_tokens": 3},
    }


@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        ({"prompt": "x", "max_tokens": 9}, "stop", "yz"),
        ({}, "length", "cde"),
        ({"stop": ["d"]}, "content_filter", "cd"),
    ],
)
def test_finish_reasons_are_those_of_lorax(http, body, reason, text):
    (choice,) = complete(http, **body).json()["choices"]
    assert (choice["finish_reason"], choice["text"]) == (reason, text)


@pytest.mark.parametrize("model", ["", "spelling/base", "__base_model__"])
def test_base_model_by_its_names(http, model):
    response = complete(http, model=model)
    assert response.json()["choices"][0]["text"] == "cde"
    assert "x-adapter-id" not in response.headers


def test_model_is_the_adapter(http, engine):
    response = complete(http, model="up/case", adapter_source="s3", api_token="t")
    assert response.json()["choices"][0]["text"] == "CDE"
    assert (response.headers["x-adapter-id"], response.headers["x-adapter-source"]) == ("up/case", "s3")
    assert engine.requests[-1].adapter.api_token == "t"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_api_key_is_taken_as_the_adapter_token(http, engine, path):
    """The SDK always sends one, so a dummy key travels on to where adapters come from."""
    body = {"model": "up/case", "prompt": "ab", "messages": [USER], "max_tokens": 1}
    assert http.post(path, json=body, headers={"Authorization": "Bearer key"}).status_code == 200
    assert engine.requests[-1].adapter.api_token == "key"


def test_any_n_switches_sampling_on_and_is_otherwise_ignored(http, engine):
    assert len(complete(http, n=2).json()["choices"]) == 1
    assert engine.requests[-1].sampling.do_sample
    complete(http)
    assert not engine.requests[-1].sampling.do_sample


def test_logprobs_ask_for_prompt_details_and_are_not_returned(http, engine):
    assert complete(http, logprobs=1).json()["choices"][0]["logprobs"] is None
    assert engine.requests[-1].prefill_logprobs
    events, is_done = chunks_of(complete(http, logprobs=1, stream=True))
    assert [event["error_type"] for event in events] == ["validation"]
    assert not is_done


def test_echo_returns_the_prompt_too(http):
    assert complete(http, echo=True).json()["choices"][0]["text"] == "abcde"


@pytest.mark.parametrize("body", [{"prompt": ["ab"]}, {"stop": "d"}, {"stop": None}, {"model": None}])
def test_shapes_that_lorax_does_not_take_are_422(http, body):
    response = complete(http, **body)
    assert (response.status_code, response.json()["error_type"]) == (422, "bad_request")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"best_of": -1}, "Given: 18446744073709551615"),
        ({"max_tokens": -1}, "4294967295 `max_new_tokens`"),
        ({"max_tokens": 0}, "strictly positive"),
    ],
)
def test_negative_counts_become_huge_and_are_refused(http, body, text):
    response = complete(http, **body)
    assert response.status_code == 422
    assert text in response.json()["error"]


def test_completion_stream_has_usage_in_every_chunk_and_blanks_the_end_token(http):
    chunks, is_done = chunks_of(complete(http, prompt="x", max_tokens=9, stream=True))
    assert is_done
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["y", "z", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 0, 3]
    assert chunks[-1]["usage"] == {"prompt_tokens": 2, "total_tokens": 5, "completion_tokens": 3}


@pytest.mark.parametrize(("body", "reason"), [({}, "length"), ({"stop": ["e"], "max_tokens": 9}, "content_filter")])
def test_last_text_is_kept_at_the_budget_and_at_a_stop_string(http, body, reason):
    chunks, _ = chunks_of(complete(http, stream=True, **body))
    assert (chunks[-1]["choices"][0]["text"], chunks[-1]["choices"][0]["finish_reason"]) == ("e", reason)


def test_error_ends_a_stream_without_done(http):
    events, is_done = chunks_of(complete(http, model="broken/one", max_tokens=9, stream=True))
    assert ["choices" in event for event in events] == [True, True, False]
    assert not is_done


# --- chat


def test_chat_has_the_shape_of_lorax(http, engine):
    body = chat(http).json()
    assert body.pop("created") > 0
    assert body == {
        "id": "null",
        "object": "text_completion",
        "model": "spelling/base",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "cde"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 8, "total_tokens": 11, "completion_tokens": 3},
        "system_fingerprint": "0.1.0-native",
    }
    # The template's text holds its special tokens already.
    assert engine.requests[-1].input_ids[0] != 1


@pytest.mark.parametrize(("temperature", "sampled"), [(0, False), (None, True), (1, True), (0.5, True)])
def test_chat_is_greedy_at_temperature_zero_only(http, engine, temperature, sampled):
    chat(http, temperature=temperature)
    assert engine.requests[-1].sampling.do_sample is sampled


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"n": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"n": 2, "temperature": None, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
        ({"n": 2}, "you must use sampling when `best_of` is > 1"),
    ],
)
def test_n_of_a_chat_is_best_of(http, body, text):
    assert chat(http, **body).json() == {"error": f"Input validation error: {text}", "error_type": "validation"}
    assert len(chat(http, n=2, temperature=1.5).json()["choices"]) == 1


def test_chat_stream_has_usage_in_the_last_chunk_only(http):
    chunks, is_done = chunks_of(chat(http, messages=[{"role": "user", "content": "x"}], max_tokens=9, stream=True))
    assert is_done
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "y"},
        {"role": "assistant", "content": "z"},
        {},
    ]
    assert [("usage" in chunk, chunk["object"]) for chunk in chunks] == [
        (False, "chat.completion.chunk"),
        (False, "chat.completion.chunk"),
        (True, "chat.completion.chunk"),
    ]


def test_message_chunks_are_joined(http):
    chunks = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]
    messages = [{"role": "user", "content": chunks, "name": "n"}, USER]
    whole = [{"role": "user", "content": "a![](u)"}, USER]
    assert chat(http, messages=messages).json()["usage"] == chat(http, messages=whole).json()["usage"]


def test_chat_without_a_template_is_a_template_error(serve, spelling_engine):
    app = create_app(spelling_engine(has_chat_template=False), ServerSettings())
    with serve(app) as url, httpx.Client(base_url=url) as client:
        for stream in (False, True):
            response = chat(client, stream=stream)
            assert (response.status_code, response.json()) == (
                422,
                {
                    "error": "Failed applying chat template to inputs: template not found",
                    "error_type": "template_error",
                },
            )
        assert 'lorax_request_failure{err="template"} 2' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("response_format", "title"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "ArbitraryJsonModel"),
        ({"type": "json_object", "schema": {"title": "legacy"}}, "legacy"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": "nested"}}}, "nested"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "ArbitraryJsonModel"),
        ({"type": "json_schema", "schema": {"title": "legacy"}}, "ArbitraryJsonModel"),
    ],
)
def test_response_format_of_a_chat(http, engine, response_format, title):
    assert chat(http, response_format=response_format).status_code == 200
    schema = engine.requests[-1].sampling.json_schema
    assert (None if schema is None else schema["title"]) == title


PAINT = {
    "type": "function",
    "function": {"name": "paint", "parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}},
}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["paint", "no_tool"]),
        ("auto", ["paint", "no_tool"]),
        ("paint", ["paint"]),
        ({"type": "function", "function": {"name": "paint"}}, ["paint"]),
        ("none", None),
    ],
)
def test_tools_force_a_call_by_a_schema(serve, spelling_engine, choice, names):
    roomy = spelling_engine()
    roomy.info = type(roomy.info)(**{**vars(roomy.info), "max_input_length": 4000, "max_total_tokens": 4096})
    with serve(create_app(roomy, ServerSettings())) as url, httpx.Client(base_url=url) as client:
        response = chat(client, tools=[PAINT], tool_choice=choice)
    schema = roomy.requests[-1].sampling.json_schema
    if names is None:
        assert schema is None
        assert response.status_code == 200
        return
    options = schema["properties"]["function"]["anyOf"]
    assert [option["properties"]["_name"]["const"] for option in options] == names
    assert options[0]["required"] == ["_name", "n"]
    # The spelling engine obeys no schema, so its answer is no call.
    assert (response.status_code, response.json()["error_type"]) == (422, "tool_error")


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [PAINT], "tool_choice": "draw"},
        {"tools": [PAINT], "response_format": {"type": "json_object"}},
    ],
)
def test_tools_that_cannot_be_used_are_a_tool_error(http, body):
    response = chat(http, **body)
    assert (response.status_code, response.json()["error_type"]) == (422, "tool_error")


def test_forced_json_becomes_a_message():
    call = read_tool_answer('{"function": {"_name": "paint", "n": 1}}')["tool_calls"]
    function = {"description": None, "name": "paint", "arguments": '{"n":1}'}
    assert call == [{"id": "0", "type": "function", "function": function}]
    plain = read_tool_answer('{"function": {"_name": "no_tool", "content": "hi"}}')
    assert plain == {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    "text", ["", '{"function": {"_name": "pai', "{}", '{"function": {}}', '{"function": {"_name": "no_tool"}}']
)
def test_text_that_is_no_call_is_a_tool_error(text):
    """As when the budget cut it off."""
    with pytest.raises(ToolError):
        read_tool_answer(text)
