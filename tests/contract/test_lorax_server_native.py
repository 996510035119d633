"""The native routes of the LoRAX-compatible server, byte by byte."""

from __future__ import annotations

import json
import math
import time

import httpx
import pytest

from sandbox.lorax.api import create_app
from sandbox.lorax.http_settings import ServerSettings

HEADERS_OF_AN_ANSWER = {
    "x-compute-type",
    "x-compute-time",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-time-to-first-token",
    "x-time-per-output-token",
    "x-compute-characters",
    "x-prompt-tokens",
    "x-generated-tokens",
    "x-skipped-tokens",
    "x-total-tokens",
    "x-model-id",
}


@pytest.fixture(scope="module")
def http(spelling_server):
    with httpx.Client(base_url=spelling_server.url, timeout=20) as client:
        yield client


def generate(http, inputs="ab", path="/generate", **parameters):
    return http.post(path, json={"inputs": inputs, "parameters": parameters})


def events_of(text):
    """Payloads of a stream; asserts that every line is an event with LoRAX's bytes."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data:") and not block.startswith("data: ") for block in blocks)
    return [json.loads(block.removeprefix("data:")) for block in blocks]


def stream(http, inputs="ab", **parameters):
    response = generate(http, inputs, path="/generate_stream", **parameters)
    assert response.status_code == 200
    return events_of(response.text)


# --- shapes


def test_generate_answers_an_object_without_details_by_default(http):
    response = generate(http, max_new_tokens=3)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"generated_text": "cde"}


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_compatible_routes_answer_a_list_of_one(http, path):
    """lorax-client and the hosted inference API index the answer with 0."""
    assert generate(http, path=path, max_new_tokens=3).json() == [{"generated_text": "cde"}]


def test_details_have_every_field_of_lorax(http):
    body = generate(http, inputs="x", max_new_tokens=9, details=True).json()
    assert body == {
        "generated_text": "yz",
        "details": {
            "finish_reason": "eos_token",
            "prompt_tokens": 2,
            "generated_tokens": 3,
            "skipped_tokens": 0,
            "seed": None,
            "prefill": [],
            "tokens": [
                {"id": 124, "text": "y", "logprob": -1.21, "special": False, "skipped": False},
                {"id": 125, "text": "z", "logprob": -1.22, "special": False, "skipped": False},
                {"id": 2, "text": "</s>", "logprob": -0.97, "special": True, "skipped": False},
            ],
        },
    }


def test_end_token_at_the_budget_reports_length(http):
    body = generate(http, inputs="x", max_new_tokens=3, details=True).json()
    assert body["details"]["finish_reason"] == "length"


def test_prefill_details_come_with_their_ids_and_a_null_first_logprob(http):
    """The ids of prompt and answer together let a client score the text elsewhere."""
    details = generate(http, max_new_tokens=1, decoder_input_details=True).json()["details"]
    assert [token["id"] for token in details["prefill"]] == [1, 100, 101]
    assert [token["logprob"] for token in details["prefill"]] == [None, -0.5, -0.5]


def test_nan_logprob_is_null(http):
    body = generate(http, max_new_tokens=1, details=True, adapter_id="nan/adapter").json()
    assert body["details"]["tokens"][0]["logprob"] is None


def test_full_text_begins_with_the_prompt(http):
    assert generate(http, max_new_tokens=1, return_full_text=True).json()["generated_text"] == "abc"
    assert stream(http, max_new_tokens=1, return_full_text=True)[-1]["generated_text"] == "abc"


def test_stop_string_stays_in_the_text(http):
    body = generate(http, max_new_tokens=9, stop=["de"], details=True).json()
    assert (body["generated_text"], body["details"]["finish_reason"]) == ("cde", "stop_sequence")


def test_alternatives_are_there_only_when_asked_for(http):
    body = generate(http, max_new_tokens=1, details=True, return_k_alternatives=2).json()
    alternatives = body["details"]["tokens"][0]["alternative_tokens"]
    assert [set(token) for token in alternatives] == [{"id", "text", "logprob"}] * 2


def test_without_a_budget_the_whole_window_is_used(http):
    details = generate(http, ignore_eos_token=True, details=True).json()["details"]
    assert details["prompt_tokens"] + details["generated_tokens"] == 64
    assert generate(http, max_new_tokens=None, ignore_eos_token=True, details=True).json()["details"] == details


def test_truncation_keeps_the_end_of_the_prompt(http, spelling_server):
    details = generate(http, inputs="abcdef", max_new_tokens=1, truncate=2, details=True).json()["details"]
    assert details["prompt_tokens"] == 2
    assert spelling_server.engine.requests[-1].input_ids == [ord("e") + 3, ord("f") + 3]


# --- streams


def test_stream_is_one_event_for_each_token_and_the_last_one_has_the_text(http):
    events = stream(http, max_new_tokens=2, details=True)
    assert events == [
        {
            "token": {"id": 102, "text": "c", "logprob": -0.99, "special": False, "skipped": False},
            "generated_text": None,
            "details": None,
        },
        {
            "token": {"id": 103, "text": "d", "logprob": -1.0, "special": False, "skipped": False},
            "generated_text": "cd",
            "details": {
                "finish_reason": "length",
                "prompt_tokens": 3,
                "generated_tokens": 2,
                "skipped_tokens": 0,
                "seed": None,
            },
        },
    ]


@pytest.mark.parametrize(
    ("inputs", "parameters", "reason"),
    [
        ("x", {"max_new_tokens": 9}, "eos_token"),
        ("ab", {"max_new_tokens": 9, "stop": ["de"]}, "stop_sequence"),
        ("ab", {"max_new_tokens": 3}, "length"),
    ],
)
def test_stream_ends_with_the_reason(http, inputs, parameters, reason):
    events = stream(http, inputs, details=True, **parameters)
    assert [event["generated_text"] is None for event in events] == [True, True, False]
    assert events[-1]["details"]["finish_reason"] == reason


def test_stream_ends_well_where_the_end_token_is_not_special(serve, spelling_engine):
    """Some models end texts with tokens that their tokenizer does not list as special."""
    app = create_app(spelling_engine(end_is_special=False), ServerSettings())
    with serve(app) as url, httpx.Client(base_url=url) as client:
        events = stream(client, "x", details=True)
    assert [event["generated_text"] for event in events] == [None, None, "yz"]
    assert events[-1]["details"]["finish_reason"] == "eos_token"


def test_stream_without_details_ends_with_the_text_alone(http):
    assert stream(http, max_new_tokens=2)[-1]["details"] is None


def test_native_stream_has_no_done_event(http):
    """lorax-client parses every event as JSON and would fail on it."""
    assert "[DONE]" not in generate(http, path="/generate_stream", max_new_tokens=2).text


def test_stream_field_switches_the_compatible_route_only(http):
    body = {"inputs": "ab", "stream": True, "parameters": {"max_new_tokens": 2}}
    assert len(events_of(http.post("/", json=body).text)) == 2
    assert http.post("/generate", json=body).json() == {"generated_text": "cd"}


def test_stream_headers_are_those_known_before_the_first_token(http):
    response = generate(http, path="/generate_stream", max_new_tokens=1, adapter_id="up/case", adapter_source="local")
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-compute-type"] == "gpu+optimized"
    assert response.headers["x-compute-characters"] == "2"
    assert response.headers["x-model-id"] == "spelling/base"
    assert (response.headers["x-adapter-id"], response.headers["x-adapter-source"]) == ("up/case", "local")
    assert "x-total-time" not in response.headers


def test_silent_stream_gets_comment_lines(serve, spelling_engine):
    app = create_app(spelling_engine(), ServerSettings(keep_alive_seconds=0.3))
    with serve(app) as url:
        text = httpx.post(
            f"{url}/generate_stream", json={"inputs": "ab", "parameters": {"max_new_tokens": 1, "adapter_id": "slow/a"}}
        ).text
    *comments, event, end = text.split("\n\n")
    assert comments
    assert set(comments) == {":"}
    assert event.startswith("data:{")
    assert end == ""


# --- headers


def test_answer_has_every_header_with_integer_milliseconds(http):
    response = generate(http, max_new_tokens=2)
    headers = {name: value for name, value in response.headers.items() if name.startswith("x-")}
    assert set(headers) == HEADERS_OF_AN_ANSWER
    assert all(value.isdigit() for name, value in headers.items() if name not in {"x-compute-type", "x-model-id"})
    assert headers["x-queue-time"] == "3"
    assert headers["x-inference-time"] == "20"
    assert headers["x-time-per-token"] == "10"
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"], headers["x-total-tokens"]) == ("3", "2", "5")


@pytest.mark.parametrize("adapter_id", [None, "", "__base_model__"])
def test_base_model_has_no_adapter_header(http, adapter_id):
    response = generate(http, max_new_tokens=1, adapter_id=adapter_id)
    assert response.json() == {"generated_text": "c"}
    assert "x-adapter-id" not in response.headers


def test_adapter_is_named_with_the_default_source(http, spelling_server):
    response = generate(http, max_new_tokens=1, adapter_id="up/case")
    assert response.json() == {"generated_text": "C"}
    assert (response.headers["x-adapter-id"], response.headers["x-adapter-source"]) == ("up/case", "hub")
    assert spelling_server.engine.requests[-1].adapter.source == "hub"


def test_merged_adapters_are_named_together(http, spelling_server):
    merged = {"ids": ["up/a", "up/b"], "weights": [0.5, 0.5], "merge_strategy": "TIES", "density": 0.5}
    response = generate(http, max_new_tokens=1, merged_adapters=merged)
    assert response.headers["x-adapter-id"] == "up/a,up/b"
    adapter = spelling_server.engine.requests[-1].adapter
    assert adapter.key == ("up/a", "up/b", (0.5, 0.5), "ties", 0.5, "total")


def test_merge_of_one_is_the_plain_adapter(http, spelling_server):
    generate(http, max_new_tokens=1, merged_adapters={"ids": ["up/a"], "weights": [0.3]})
    assert spelling_server.engine.requests[-1].adapter.key == ("up/a",)


@pytest.mark.parametrize(
    ("header", "in_body", "token"),
    [
        ("Bearer from-header", None, "from-header"),
        ("Bearer from-header", "from-body", "from-body"),
        ("bearer from-header", None, None),
        ("Basic abc", None, None),
    ],
)
def test_adapter_token_falls_back_to_the_bearer_header(http, spelling_server, header, in_body, token):
    body = {"inputs": "ab", "parameters": {"max_new_tokens": 1, "adapter_id": "up/case", "api_token": in_body}}
    assert http.post("/generate", json=body, headers={"Authorization": header}).status_code == 200
    assert spelling_server.engine.requests[-1].adapter.api_token == token


# --- sampling


@pytest.mark.parametrize(
    ("parameters", "sampled"),
    [
        ({}, False),
        ({"do_sample": True}, True),
        ({"temperature": 0.7}, True),
        ({"temperature": 1.0}, False),
        ({"temperature": 0.0}, False),
        ({"temperature": 0, "do_sample": True}, False),
        ({"top_k": 5}, True),
        ({"top_p": 0.9}, True),
        ({"top_p": 1.0}, False),
        ({"typical_p": 0.9}, True),
        ({"temperature": 0.0, "top_k": 5, "top_p": 0.5}, False),
    ],
)
def test_sampling_rule(http, parameters, sampled):
    """The seed is reported exactly when tokens were sampled."""
    details = generate(http, max_new_tokens=2, details=True, **parameters).json()["details"]
    assert (details["seed"] is not None) == sampled


def test_seed_repeats_a_sampled_text(http):
    first, second = (generate(http, max_new_tokens=8, do_sample=True, seed=7, details=True).json() for _ in range(2))
    assert first == second
    assert first["details"]["seed"] == 7


def test_best_of_returns_the_likelier_sequence_and_the_loser(http):
    body = generate(http, max_new_tokens=4, do_sample=True, best_of=2, details=True).json()
    details = body["details"]
    (loser,) = details["best_of_sequences"]
    assert details["seed"] != loser["seed"]

    def mean(tokens):
        return math.fsum(token["logprob"] for token in tokens) / len(tokens)

    assert mean(details["tokens"]) >= mean(loser["tokens"])
    assert body["generated_text"] == "".join(token["text"] for token in details["tokens"] if not token["special"])


# --- response_format


@pytest.mark.parametrize(
    ("response_format", "title"),
    [
        ({"type": "json_object", "schema": {"title": "mine", "type": "object"}}, "mine"),
        ({"type": "json_object"}, "ArbitraryJsonModel"),
        ({"type": "text"}, "ArbitraryJsonModel"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": "nested"}}}, "ArbitraryJsonModel"),
        ({"type": "json_object", "schema": None}, None),
        (None, None),
    ],
)
def test_only_the_schema_of_a_response_format_counts(http, spelling_server, response_format, title):
    assert generate(http, max_new_tokens=1, response_format=response_format).status_code == 200
    schema = spelling_server.engine.requests[-1].sampling.json_schema
    assert (None if schema is None else schema["title"]) == title


def test_schema_that_is_no_object_fails_in_generation(http):
    response = generate(http, max_new_tokens=1, response_format={"type": "json_object", "schema": "string"})
    assert (response.status_code, response.json()["error_type"]) == (424, "generation")


# --- tokenize and reference


def test_tokenize_gives_pieces_with_their_places(http):
    assert http.post("/tokenize", json={"inputs": "hi"}).json() == [
        {"id": 1, "text": "<s>", "start": 0, "stop": 0},
        {"id": 107, "text": "h", "start": 0, "stop": 1},
        {"id": 108, "text": "i", "start": 1, "stop": 2},
    ]
    assert len(http.post("/tokenize", json={"inputs": "hi", "add_special_tokens": False}).json()) == 2


def test_reference_scores_ids_on_base_and_adapter(http):
    ids = {"input_ids": [1, 100, 101]}
    assert http.post("/sandbox/reference", json=ids).json() == {"logprobs": [-0.5, -0.5]}
    with_adapter = {**ids, "adapter_id": "up/case", "adapter_source": "local"}
    assert http.post("/sandbox/reference", json=with_adapter).json() == {"logprobs": [-0.25, -0.25]}
    missing = http.post("/sandbox/reference", json={**ids, "adapter_id": "missing/x"})
    assert (missing.status_code, missing.json()["error_type"]) == (424, "generation")


# --- a client that goes away


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_client_that_leaves_cancels_its_sequence(serve, spelling_engine, path):
    """The permit is free again, too: with only one of them the next request is answered."""
    engine = spelling_engine()
    app = create_app(engine, ServerSettings(max_concurrent_requests=1))
    with serve(app) as url, httpx.Client(base_url=url) as client:
        with (
            pytest.raises(httpx.ReadTimeout),
            client.stream(
                "POST", path, json={"inputs": "ab", "parameters": {"adapter_id": "slow/adapter"}}, timeout=0.3
            ) as response,
        ):
            response.read()
        deadline = time.monotonic() + 5
        while engine.cancelled < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.cancelled == 1
        assert generate(client, max_new_tokens=1).status_code == 200
        assert 'lorax_request_failure{err="dropped"} 1' in client.get("/metrics").text


def test_server_starts_and_stops_its_engine(serve, spelling_engine):
    engine = spelling_engine()
    with serve(create_app(engine, ServerSettings())):
        assert engine.is_running
    assert not engine.is_running
