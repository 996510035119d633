"""Statuses, bodies and order of the LoRAX-compatible server's refusals, and its probes and counts."""

from __future__ import annotations

import concurrent.futures
import json
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandbox.lorax.api import create_app
from sandbox.lorax.http_settings import ServerSettings

JSON = {"content-type": "application/json"}
PREFIX = "Input validation error: "


@pytest.fixture(scope="module")
def http(spelling_server):
    with httpx.Client(base_url=spelling_server.url, timeout=20) as client:
        yield client


def refused(http, path="/generate", inputs="ab", **parameters):
    response = http.post(path, json={"inputs": inputs, "parameters": parameters})
    return response.status_code, response.json()


# --- bodies


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream", "/v1/completions", "/tokenize"])
@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b'{"inputs": ', JSON, 400),
        (b"", JSON, 400),
        (b"{}", JSON, 422),
        (b"[]", JSON, 422),
        (b'{"inputs": "' + b"x" * 3_000_000 + b'"}', JSON, 413),
    ],
)
def test_unreadable_body_gets_json_with_the_status_of_axum(http, path, content, headers, status):
    response = http.post(path, content=content, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error_type"] == "bad_request"
    assert response.json()["error"]


@pytest.mark.parametrize("field", ["stop", "details", "do_sample", "watermark", "ignore_eos_token"])
def test_null_is_refused_where_a_plain_value_belongs(http, field):
    status, body = refused(http, **{field: None})
    assert status == 422
    assert f"parameters.{field}" in body["error"]


@pytest.mark.parametrize("body", [{"inputs": "ab", "parameters": None}, {"inputs": "ab", "stream": None}])
def test_null_parameters_or_stream_are_refused(http, body):
    assert http.post("/", json=body).status_code == 422


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_new_tokens": -1},
        {"max_new_tokens": 1.5},
        {"max_new_tokens": "5"},
        {"do_sample": 1},
        {"temperature": "hot"},
        {"seed": -1},
        {"stop": "x"},
        {"top_k": 2**40},
        {"response_format": {"type": "yaml"}},
        {"response_format": {"schema": {}}},
        {"merged_adapters": {"weights": [1.0]}},
    ],
)
def test_values_are_not_converted(http, parameters):
    status, body = refused(http, **parameters)
    assert (status, body["error_type"]) == (422, "bad_request")


def test_refused_body_does_not_repeat_a_token(http):
    status, body = refused(http, api_token=["s3cr3t-token"])
    assert status == 422
    assert "s3cr3t" not in json.dumps(body)


def test_unknown_fields_are_ignored(http):
    """A misspelt field changes nothing; LoRAX issue 777 is about exactly this."""
    response = http.post(
        "/generate", json={"inputs": "ab", "extra": 1, "parameters": {"adapter_name": "x", "max_new_tokens": 1}}
    )
    assert response.json() == {"generated_text": "c"}


@pytest.mark.parametrize("path", ["/v1/models", "/adapters", "/v1/load_lora_adapter"])
def test_routes_that_lorax_lacks_are_empty_404s(http, path):
    response = http.get(path)
    assert (response.status_code, response.content) == (404, b"")


# --- rules


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
        ({"temperature": -0.1}, "`temperature` must be non-negative"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"presence_penalty": -2.1}, "`presence_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_p": 1.1}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 1}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"return_k_alternatives": 0}, "`return_k_alternatives` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": ["a"] * 5}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 62. Given: 0"),
        ({"truncate": 63}, "`truncate` must be strictly positive and less than 62. Given: 63"),
        (
            {"max_new_tokens": 62},
            "`inputs` tokens + `max_new_tokens` must be <= 64. Given: 3 `inputs` tokens and 62 `max_new_tokens`",
        ),
        (
            {"adapter_id": "", "merged_adapters": {"ids": ["a", "b"], "weights": [1, 1]}},
            "at most one of `adapter_id` or `adapters` may be provided",
        ),
        (
            {"merged_adapters": {"ids": []}},
            "at least one adapter ID must be provided when setting `adapters`",
        ),
        (
            {"merged_adapters": {"ids": ["a", "b"], "weights": [1]}},
            "number of adapter IDs must match number of adapter weights",
        ),
        (
            {"merged_adapters": {"ids": ["a", "b"], "weights": [1, 1], "merge_strategy": "slerp"}},
            "`merge_strategy` must be one of linear, ties, dare_linear, dare_ties. Given: slerp",
        ),
        ({"adapter_id": "naïve"}, "adapter ids and sources must be printable ASCII. Given: 'naïve'"),
    ],
)
def test_broken_rule_has_lorax_words(http, parameters, text):
    assert refused(http, **parameters) == (422, {"error": PREFIX + text, "error_type": "validation"})


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_new_tokens": 61},
        {"truncate": 62, "max_new_tokens": 1},
        {"stop": ["a"] * 4, "max_new_tokens": 1},
        {"best_of": 0, "max_new_tokens": 1},
        {"best_of": 2, "top_k": 3, "max_new_tokens": 1},
        {"frequency_penalty": 2, "presence_penalty": -2, "max_new_tokens": 1},
        {"top_p": 1, "max_new_tokens": 1},
    ],
)
def test_value_just_inside_a_rule_is_accepted(http, parameters):
    assert refused(http, **parameters)[0] == 200


def test_empty_prompt_and_long_prompt_are_refused(http):
    assert refused(http, inputs="")[1]["error"] == PREFIX + "`inputs` cannot be empty"
    assert refused(http, inputs="x" * 62)[1]["error"] == PREFIX + "`inputs` must have less than 62 tokens. Given: 63"
    # The total is tested first, and truncation does not help: LoRAX truncates later.
    assert "`max_new_tokens` must be <= 64" in refused(http, inputs="x" * 62, max_new_tokens=9)[1]["error"]
    assert refused(http, inputs="x" * 62, truncate=5)[0] == 422


def test_rules_are_checked_in_the_order_of_lorax(http):
    """Each request breaks this rule and all that follow; the first one decides."""
    broken = [
        ("best_of` must be", {"best_of": 3}),
        ("at most one of", {"adapter_id": "a", "merged_adapters": {"ids": []}}),
        ("use sampling", {"best_of": 2}),
        ("temperature", {"temperature": -1}),
        ("repetition_penalty", {"repetition_penalty": 0}),
        ("frequency_penalty", {"frequency_penalty": 3}),
        ("presence_penalty", {"presence_penalty": 3}),
        ("top_p", {"top_p": 2}),
        ("typical_p", {"typical_p": 2}),
        ("top_k", {"top_k": 0}),
        ("return_k_alternatives", {"return_k_alternatives": 0}),
        ("`max_new_tokens` must be strictly", {"max_new_tokens": 0}),
        ("stop sequences", {"stop": ["a"] * 9}),
        ("cannot be empty", {}),
    ]
    for at, (text, _) in enumerate(broken):
        # "use sampling" cannot be broken together with sampling values, nor best_of's limit with best_of itself.
        skipped = {"use sampling"} if at != 2 else {name for name, _ in broken[3:10]}
        parameters = {}
        for name, values in reversed(broken[at:]):
            if name not in skipped:
                parameters |= values
        assert text in refused(http, inputs="", **parameters)[1]["error"]


# --- the engine fails


@pytest.mark.parametrize(
    ("adapter_id", "status", "error_type", "text"),
    [
        ("missing/one", 424, "generation", "No valid adapter config file found: tried None and None for missing/one"),
        ("broken/one", 424, "generation", "No suitable kernel"),
    ],
)
def test_engine_failure_is_424_with_its_text(http, adapter_id, status, error_type, text):
    body = {"error": f"Request failed during generation: Server error: {text}", "error_type": error_type}
    assert refused(http, adapter_id=adapter_id) == (status, body)


def test_silent_end_is_an_incomplete_generation(http):
    assert refused(http, adapter_id="silent/one") == (
        500,
        {"error": "Incomplete generation", "error_type": "incomplete_generation"},
    )


def test_base_model_cannot_be_merged(http):
    merged = {"ids": ["__base_model__", "up/a"], "weights": [1.0, 1.0]}
    status, body = refused(http, merged_adapters=merged)
    assert (status, body["error_type"]) == (424, "generation")


@pytest.mark.parametrize(
    ("parameters", "error_type", "text"),
    [
        ({"best_of": 2, "do_sample": True}, "validation", "`best_of` != 1 is not supported when streaming tokens"),
        (
            {"decoder_input_details": True},
            "validation",
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
        ({"max_new_tokens": 0}, "validation", "`max_new_tokens` must be strictly positive"),
        ({"adapter_id": "missing/one"}, "generation", "No valid adapter config"),
        ({"adapter_id": "näive"}, "validation", "printable ASCII"),
    ],
)
def test_failure_in_a_stream_is_one_event_under_status_200(http, parameters, error_type, text):
    response = http.post("/generate_stream", json={"inputs": "ab", "parameters": parameters})
    assert response.status_code == 200
    (event,) = [json.loads(block.removeprefix("data:")) for block in response.text.strip().split("\n\n")]
    assert set(event) == {"error", "error_type"}
    assert event["error_type"] == error_type
    assert text in event["error"]


def test_failure_after_tokens_ends_the_stream(http):
    response = http.post("/generate_stream", json={"inputs": "ab", "parameters": {"adapter_id": "broken/one"}})
    events = [json.loads(block.removeprefix("data:")) for block in response.text.strip().split("\n\n")]
    assert ["token" in event for event in events] == [True, True, False]


# --- permits


def test_request_above_the_limit_is_overloaded(serve, spelling_engine):
    app = create_app(spelling_engine(), ServerSettings(max_concurrent_requests=1))
    slow = {"inputs": "ab", "parameters": {"adapter_id": "slow/a", "max_new_tokens": 1}}
    overloaded = {"error": "Model is overloaded", "error_type": "overloaded"}
    with serve(app) as url, concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{url}/generate", json=slow)
        while "lorax_request_max_new_tokens_count 1" not in httpx.get(f"{url}/metrics").text:
            pass
        # The limit of best_of and the shape come before the permit, all other rules after it.
        answer = httpx.post(f"{url}/generate", json={"inputs": ""})
        assert (answer.status_code, answer.json()) == (429, overloaded)
        streamed = httpx.post(f"{url}/generate_stream", json={"inputs": "ab"})
        assert (streamed.status_code, streamed.text) == (
            200,
            f"data:{json.dumps(overloaded, separators=(',', ':'))}\n\n",
        )
        assert httpx.post(f"{url}/generate", json={"inputs": "", "parameters": {"best_of": 9}}).status_code == 422
        # Probes need no permit.
        assert httpx.get(f"{url}/health").status_code == 200
        assert first.result().status_code == 200
        best_of = {"inputs": "ab", "parameters": {"best_of": 2, "do_sample": True, "max_new_tokens": 1}}
        assert httpx.post(f"{url}/generate", json=best_of).status_code == 429
        assert httpx.post(f"{url}/generate", json={"inputs": "ab"}).status_code == 200


# --- probes, facts, counts


@pytest.mark.parametrize("path", ["/", "/health", "/ping", "/startup"])
def test_probe_of_a_working_server_is_an_empty_200(http, path):
    response = http.get(path)
    assert (response.status_code, response.content) == (200, b"")


def test_probes_of_a_failing_engine(serve, spelling_engine):
    engine = spelling_engine(fails=True)
    with serve(create_app(engine, ServerSettings())) as url, httpx.Client(base_url=url) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()) == (503, {"error": "unhealthy", "error_type": "healthcheck"})
        startup = client.get("/startup")
        assert (startup.status_code, startup.json()["error_type"]) == (500, "generation")
        # After the first success only liveness is asked for, until a batch fails.
        engine.fails = False
        assert client.get("/health").status_code == 200
        engine.fails = True
        asked = len(engine.requests)
        assert client.get("/health").status_code == 200
        assert len(engine.requests) == asked
        assert client.post("/generate", json={"inputs": "ab"}).status_code == 424
        assert client.get("/health").status_code == 503


def test_adapter_failure_leaves_the_server_healthy(serve, spelling_engine):
    engine = spelling_engine()
    with serve(create_app(engine, ServerSettings())) as url, httpx.Client(base_url=url) as client:
        assert client.get("/health").status_code == 200
        client.post("/generate", json={"inputs": "ab", "parameters": {"adapter_id": "missing/a"}})
        asked = len(engine.requests)
        assert client.get("/health").status_code == 200
        assert len(engine.requests) == asked


def test_info_has_exactly_the_fields_of_lorax(http):
    assert http.get("/info").json() == {
        "model_id": "spelling/base",
        "model_sha": None,
        "model_dtype": "torch.float32",
        "model_device_type": "cpu",
        "model_pipeline_tag": None,
        "max_concurrent_requests": 1024,
        "max_best_of": 2,
        "max_stop_sequences": 4,
        "max_input_length": 62,
        "max_total_tokens": 64,
        "waiting_served_ratio": 1.2,
        "max_batch_total_tokens": 512,
        "max_waiting_tokens": 20,
        "validation_workers": 2,
        "eager_prefill": False,
        "version": "0.1.0",
        "sha": None,
        "docker_label": None,
        "request_logger_url": None,
    }


def test_metrics_are_counted_and_can_be_parsed(serve, spelling_engine):
    with serve(create_app(spelling_engine(), ServerSettings())) as url, httpx.Client(base_url=url) as client:
        for parameters in ({"max_new_tokens": 2}, {"max_new_tokens": 3}, {"top_k": 0}, {"adapter_id": "missing/a"}):
            client.post("/generate", json={"inputs": "ab", "parameters": parameters})
        client.post("/generate_stream", json={"inputs": "ab", "parameters": {"max_new_tokens": 1}})
        text = client.get("/metrics").text
        values = client.get("/metrics", headers={"accept": "application/json"}).json()
    assert re.search(r"^# TYPE lorax_request_count counter\nlorax_request_count 5$", text, re.MULTILINE)
    assert re.search(r"^lorax_request_success 3$", text, re.MULTILINE)
    assert 'lorax_request_failure{err="validation"} 1' in text
    assert 'lorax_request_failure{err="load_adapter"} 1' in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {"lorax_queue_length", "lorax_batch_current_size", "lorax_request_queue_duration"} <= set(families)
    buckets = [s for s in families["lorax_request_duration"].samples if s.name.endswith("_bucket")]
    assert len(buckets) == 36
    assert buckets[0].labels["le"].startswith("0.00015")
    assert buckets[-1].labels["le"] == "+Inf"
    assert [bucket.value for bucket in buckets] == sorted(bucket.value for bucket in buckets)
    assert values["lorax_request_generated_tokens_sum"] == 6
    assert values["lorax_request_generated_tokens_count"] == values["lorax_request_success"] == 3
    assert values['lorax_request_failure{err="validation"}'] == 1


def test_api_is_documented(http):
    assert http.get("/docs").status_code == 200
    paths = http.get("/api-doc/openapi.json").json()["paths"]
    assert {"/", "/generate", "/generate_stream", "/v1/completions", "/v1/chat/completions", "/tokenize"} <= set(paths)
    body = paths["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "inputs" in body["properties"]
