"""The serving plane: what passes through, streams, rate limits, request logs."""

from __future__ import annotations

import io
import json
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest

BASE = "/local/deployments/v2/llms/prod"


def test_base_path_answers_a_list_and_generate_an_object(talk):
    talk.deploy()
    assert "generated_text" in talk.http.post(BASE, json={"inputs": "x", "parameters": {}}).json()[0]
    assert "generated_text" in talk.http.post(f"{BASE}/generate", json={"inputs": "x", "parameters": {}}).json()


def test_request_and_reply_pass_through_unchanged(talk):
    adapter = talk.upload(config='{"base_model_name_or_path": "tiny-llama", "mark": 7}')
    talk.deploy()
    reply = talk.generate(adapter=adapter)
    assert json.loads(reply.json()["generated_text"])["mark"] == 7
    assert reply.headers["x-adapter-id"] == adapter
    assert reply.headers["x-prompt-tokens"] == "3"
    chat = talk.http.post(f"{BASE}/v1/chat/completions", json={}).json()
    assert chat == {"path": "/v1/chat/completions", "authorization": talk.http.headers["authorization"]}
    assert talk.http.get(f"{BASE}/info?a=b%20c").json()["query"] == "a=b+c"
    assert talk.generate(adapter="none/1").status_code == 424


def test_stream_arrives_event_by_event(talk):
    talk.deploy()
    started = time.monotonic()
    arrivals = []
    body = {"stream": True, "events": 3, "sleep": 0.3}
    with talk.http.stream("POST", BASE, json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-model-id"] == "fake"
        for chunk in reply.iter_raw():
            arrivals.append(time.monotonic() - started)
            assert chunk.startswith(b"data:{")
    assert len(arrivals) == 3
    assert arrivals[0] < 0.3 < arrivals[2]


def test_kept_connection_is_answered_without_waiting_for_acknowledgements(talk):
    """With Nagle's algorithm left on, each reply after the first takes 40 ms."""
    talk.http.get("/users/current")
    started = time.monotonic()
    for _ in range(20):
        talk.http.get("/users/current")
    assert time.monotonic() - started < 0.6


def test_unknown_deployment_and_tenant_are_not_found(talk):
    for path in ("/local/deployments/v2/llms/none/generate", "/other/deployments/v2/llms/tiny-llama/generate"):
        reply = talk.http.post(path, json={})
        assert reply.status_code == 404
        assert isinstance(reply.json()["error"], str)


def test_request_while_the_deployment_starts_waits_for_it(talk):
    talk.http.post(
        "/v2/deployments",
        json={"name": "prod", "config": {"baseModel": "tiny-llama", "customArgs": ["--start-seconds", "1"]}},
    )
    assert talk.generate().status_code == 200


def test_request_gives_up_when_the_deployment_takes_too_long(make_plane):
    plane = make_plane("--wake-timeout-seconds", "0.3")
    with plane.client() as client:
        config = {"baseModel": "tiny-llama", "customArgs": ["--start-seconds", "30"]}
        client.post("/v2/deployments", json={"name": "prod", "config": config})
        reply = client.post(f"{BASE}/generate", json={})
        assert (reply.status_code, reply.json()["error_type"]) == (504, "unavailable")


def test_replicas_share_the_load(talk):
    talk.deploy(minReplicas=2, maxReplicas=2)
    with ThreadPoolExecutor(4) as pool:
        texts = {reply.json()["generated_text"] for reply in pool.map(lambda _: talk.generate(sleep=0.3), range(4))}
    assert len(texts) == 2


def test_crash_during_a_request_is_an_error_that_invites_a_repeat(talk):
    talk.deploy(minReplicas=1)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(talk.generate, sleep=5)
        time.sleep(0.5)
        talk.http.post("/sandbox/deployments/prod/crash")
        assert pending.result().status_code == 503
    assert talk.generate().status_code == 200


def test_crash_during_a_stream_breaks_it_off(talk):
    talk.deploy(minReplicas=1)
    with talk.http.stream("POST", BASE, json={"stream": True, "events": 100, "sleep": 0.1}) as reply:
        chunks = reply.iter_raw()
        next(chunks)
        talk.http.post("/sandbox/deployments/prod/crash")
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)


def test_caller_that_leaves_frees_the_replica(talk):
    """Otherwise the deployment would count as busy for ever and never scale to zero."""
    talk.deploy(cooldownTime=0.2)
    with pytest.raises(httpx.ReadTimeout):
        talk.http.post(f"{BASE}/generate", json={"inputs": "x", "sleep": 60}, timeout=0.5)
    with talk.http.stream("POST", BASE, json={"stream": True, "events": 100, "sleep": 0.1}) as reply:
        next(reply.iter_raw())
    talk.wait_for("prod", "standby")


def test_shared_endpoint_limits_requests_and_says_how(talk):
    url = "/local/deployments/v2/llms/tiny-llama/generate"
    first = talk.http.post(url, json={"inputs": "x", "parameters": {}})
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit"] == "1"
    replies = [talk.http.post(url, json={"inputs": "x", "parameters": {}}) for _ in range(5)]
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.headers["x-envoy-ratelimited"] == "true"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert "rate limit" in refused.json()["error"]
    time.sleep(float(refused.headers["x-ratelimit-reset"]))
    assert talk.http.post(url, json={"inputs": "x", "parameters": {}}).status_code == 200
    assert talk.http.get("/local/deployments/v2/llms/tiny-llama/health").status_code == 200, "only POST counts"


def test_request_logs_hold_requests_without_tokens(talk):
    adapter = talk.upload()
    talk.deploy(requestLoggingEnabled=True)
    talk.generate()
    talk.http.post(
        f"{BASE}/generate", json={"inputs": "x", "parameters": {"adapter_id": adapter, "api_token": "pb_canary"}}
    )
    talk.http.post(BASE, json={"inputs": "x", "stream": True})
    talk.http.get(f"{BASE}/health")

    def download(query=""):
        reply = talk.http.get(f"/v2/deployments/prod/request-logs{query}")
        with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
            assert archive.namelist() == ["requests.jsonl"]
            return [json.loads(line) for line in archive.read("requests.jsonl").splitlines()]

    base, with_adapter, stream = download()
    assert base["adapterId"] is None
    assert with_adapter["adapterId"] == adapter
    assert with_adapter["promptTokens"] == 3
    assert with_adapter["request"] == {"inputs": "x", "parameters": {"adapter_id": adapter}}
    assert "generated_text" in with_adapter["response"]
    assert stream["response"].startswith("data:")
    assert download(f"?adapterId={adapter}") == [with_adapter]
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    assert download(f"?from={now.replace(year=now.year - 1, day=1)}&to={now.replace(year=now.year + 1, day=1)}") != []
    assert download("?from=2020-01-01T00:00:00+00:00&to=2020-01-02T00:00:00") == []


def test_request_logs_must_be_switched_on_and_asked_for_with_a_time(talk):
    talk.deploy()
    reply = talk.http.get("/v2/deployments/prod/request-logs")
    assert (reply.status_code, "requestLoggingEnabled" in reply.json()["error"]["message"]) == (400, True)
    talk.http.put("/v2/deployments/prod", json={"config": {"requestLoggingEnabled": True}})
    reply = talk.http.get("/v2/deployments/prod/request-logs?from=yesterday")
    assert (reply.status_code, "ISO time" in reply.json()["error"]["message"]) == (400, True)
