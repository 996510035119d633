"""The life of serving deployments: statuses, events, scale to zero, updates, failures."""

from __future__ import annotations

import time

import pytest

BASE_ID = "slipway/tiny-llama"


def test_deployment_becomes_ready_with_every_key_the_sdk_reads(talk):
    created = talk.http.post("/v2/deployments", json={"name": "prod", "config": {"baseModel": BASE_ID}})
    assert created.json()["data"]["status"] == "pending"
    ready = talk.wait_for("prod", "ready")
    assert ready == {
        "name": "prod",
        "uuid": ready["uuid"],
        "description": None,
        "type": "private",
        "status": "ready",
        "model": {"name": BASE_ID, "maxInputLength": 127},
        "accelerator": {"id": "cpu"},
        "quantization": None,
        "currentReplicas": 1,
        "usesGuaranteedCapacity": False,
        "config": {"baseModel": BASE_ID},
    }
    assert talk.events() == ["Queued", "Initializing", "Ready"]


def test_nulls_in_a_config_mean_not_given(talk):
    """The SDK sends every unset key as null."""
    config = {"baseModel": "tiny-llama", "minReplicas": None, "customArgs": None, "hfToken": None, "computeSpec": None}
    reply = talk.http.post("/v2/deployments", json={"name": "prod", "config": config, "description": None})
    assert reply.json()["data"]["config"] == {"baseModel": "tiny-llama"}


def test_hub_token_is_not_shown(talk):
    talk.deploy(hfToken="hf_canary")
    assert "canary" not in talk.http.get("/v2/deployments/prod").text + talk.http.get("/v2/deployments").text


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("x", {"baseModel": "llama-70b"}, "unknown base model 'llama-70b'; base models here: slipway/tiny-llama"),
        ("x", {}, "baseModel is missing"),
        ("x", {"baseModel": BASE_ID, "minReplicas": 2}, "minReplicas 2 is above maxReplicas 1"),
        ("x", {"baseModel": BASE_ID, "cooldown": 1}, "config.cooldown"),
        ("x", {"baseModel": BASE_ID, "minReplicas": "1"}, "config.minReplicas"),
        ("x", {"baseModel": BASE_ID, "preloadedAdapters": ["none/1"]}, "'none/1' does not exist"),
        ("recommended-config", {"baseModel": BASE_ID}, "invalid deployment name"),
        ("a/b", {"baseModel": BASE_ID}, "invalid deployment name"),
    ],
)
def test_wrong_config_is_refused_with_the_reason(talk, name, config, said):
    reply = talk.http.post("/v2/deployments", json={"name": name, "config": config})
    assert reply.status_code == 400
    assert said in reply.json()["error"]


def test_taken_name_is_a_conflict(talk):
    talk.deploy()
    reply = talk.http.post("/v2/deployments", json={"name": "prod", "config": {"baseModel": BASE_ID}})
    assert (reply.status_code, reply.json()) == (409, {"error": "deployment 'prod' already exists"})


def test_list_tells_private_from_shared(talk):
    talk.deploy()

    def names(query):
        return [each["name"] for each in talk.http.get(f"/v2/deployments{query}").json()["data"]]

    assert names("?type=private") == names("?type=dedicated") == ["prod"]
    assert names("?type=shared") == names("?type=serverless") == ["tiny-llama"]
    assert names("") == ["prod", "tiny-llama"]
    assert talk.http.get("/v2/deployments?type=other").status_code == 400


def test_recommended_config_is_not_taken_for_a_deployment(talk):
    query = "baseModel=tiny-llama&accelerator=a10_24gb_100&quantization=none"
    reply = talk.http.get(f"/v2/deployments/recommended-config?{query}")
    assert reply.json()["baseModel"] == BASE_ID
    assert reply.json()["accelerator"] == "a10_24gb_100"
    assert talk.http.get("/v2/deployments/recommended-config?baseModel=x").status_code == 400


def test_idle_deployment_scales_to_zero_and_a_request_wakes_it(talk):
    first = talk.deploy(minReplicas=0, cooldownTime=0.3)
    assert first["currentReplicas"] == 1
    pid = talk.generate().json()["generated_text"]
    asleep = talk.wait_for("prod", "standby")
    assert asleep["currentReplicas"] == 0
    woken = talk.generate()
    assert woken.status_code == 200
    assert woken.json()["generated_text"] != pid, "another process"
    assert talk.events()[:3] == ["Queued", "Initializing", "Ready"], "only those of the last rollout"


def test_busy_deployment_does_not_scale_to_zero(talk):
    talk.deploy(cooldownTime=0.2)
    assert talk.generate(sleep=1).status_code == 200
    assert talk.deployment()["status"] == "ready"


def test_deployment_with_a_least_number_of_replicas_never_scales_to_zero(talk):
    talk.deploy(minReplicas=1, cooldownTime=0)
    time.sleep(0.4)
    assert talk.deployment()["status"] == "ready"


def test_least_number_of_replicas_is_what_runs(talk):
    assert talk.deploy(minReplicas=2, maxReplicas=2)["currentReplicas"] == 2


def test_active_time_counts_only_while_there_are_replicas(talk):
    talk.deploy(minReplicas=1)
    time.sleep(1.1)

    def active():
        return talk.http.get("/llms/prod/events").json()["resourceActiveTime"]

    assert active() >= 1
    talk.http.post("/sandbox/deployments/prod/standby")
    before = active()
    time.sleep(1.1)
    assert active() == before


def test_update_rolls_out_while_the_old_replica_serves(talk):
    talk.deploy(minReplicas=1)
    talk.inject(kind="delay-start", path="prod", seconds=0.5)
    before = talk.generate().json()
    body = {"config": {"customArgs": ["--start-seconds", "0.2"], "baseModel": None}, "description": "second"}
    updated = talk.http.put("/v2/deployments/prod", json=body).json()["data"]
    assert updated["status"] == "updating"
    assert "Ready" not in talk.events(), "an old Ready would end the SDK's wait at once"
    assert talk.generate().json() == before
    ready = talk.wait_for("prod", "ready")
    assert talk.generate().json() != before
    assert ready["description"] == "second"
    assert ready["config"]["minReplicas"] == 1, "keys that were not given stay"
    assert talk.events()[-1] == "Ready"


def test_update_that_needs_no_new_process_keeps_it(talk):
    talk.deploy(minReplicas=1)
    before = talk.generate().json()
    talk.http.put("/v2/deployments/prod", json={"config": {"cooldownTime": 900, "requestLoggingEnabled": True}})
    talk.wait_for("prod", "ready")
    assert talk.generate().json() == before
    assert talk.events() == ["Queued", "Initializing", "Ready"]


def test_request_in_flight_survives_an_update(talk):
    talk.deploy(minReplicas=1)
    with talk.http.stream(
        "POST", "/local/deployments/v2/llms/prod", json={"stream": True, "sleep": 0.1, "events": 10}
    ) as reply:
        events = reply.iter_lines()
        next(events)
        talk.http.put("/v2/deployments/prod", json={"config": {"customArgs": ["--start-seconds", "0"]}})
        assert sum(1 for line in events if line) == 9


def test_failed_update_leaves_the_old_replica_and_its_config(talk):
    talk.deploy(minReplicas=1)
    before = talk.generate().json()
    talk.http.put("/v2/deployments/prod", json={"config": {"customArgs": ["--nonsense"]}})
    after = talk.wait_for("prod", "ready")
    assert talk.events()[-1] == "Failed"
    assert "customArgs" not in after["config"]
    assert talk.generate().json() == before


def test_what_is_create_only_cannot_be_updated(talk):
    talk.deploy()
    for config in ({"baseModel": "other"}, {"accelerator": "a100"}, {"quantization": "fp8"}):
        reply = talk.http.put("/v2/deployments/prod", json={"config": config})
        assert reply.status_code == 400
        assert "cannot be changed" in reply.json()["error"]


@pytest.mark.parametrize("cause", ["argument", "fault"])
def test_process_that_does_not_start_ends_errored_with_the_reason(talk, cause):
    arguments = ["--nonsense"] if cause == "argument" else []
    if cause == "fault":
        talk.inject(kind="fail-start", path="prod")
    errored = talk.deploy(wait_for="errored", customArgs=arguments)
    assert errored["currentReplicas"] == 0
    assert talk.events()[-1] == "Failed"
    reply = talk.generate()
    assert reply.status_code == 503
    assert ("--nonsense" if cause == "argument" else "injected fault") in reply.json()["error"]


def test_errored_deployment_recovers_by_an_update(talk):
    talk.deploy(wait_for="errored", customArgs=["--nonsense"])
    talk.http.put("/v2/deployments/prod", json={"config": {"customArgs": []}})
    talk.wait_for("prod", "ready")
    assert talk.generate().status_code == 200


def test_custom_arguments_cannot_make_a_process_listen_elsewhere(talk):
    talk.deploy(customArgs=["--host", "0.0.0.0", "--port", "1"])
    assert talk.generate().status_code == 200


def test_preloaded_adapters_are_fetched_at_the_start_and_others_still_load(talk):
    first, second = talk.upload(), talk.upload()
    talk.inject(kind="status", path=f"/v2/repos/{first.replace('/', '/version/')}", status=404, count=1)
    talk.deploy("broken", wait_for="errored", preloadedAdapters=[first])
    assert talk.generate("broken").json()["error"].startswith("deployment 'broken' is errored: adapter")
    talk.deploy(preloadedAdapters=[first])
    assert talk.generate(adapter=second).status_code == 200


def test_crashed_process_is_started_again(talk):
    talk.deploy(minReplicas=1)
    before = talk.generate().json()
    assert talk.http.post("/sandbox/deployments/prod/crash").json() == {"killed": 1}
    assert talk.generate().json() != before
    assert talk.events()[-2:] == ["ReplicaCrashed", "Ready"]


def test_process_that_keeps_crashing_ends_errored(talk):
    talk.deploy(minReplicas=1)
    deadline = time.monotonic() + 40
    while talk.wait_for("prod", "ready", "errored")["status"] == "ready":
        talk.http.post("/sandbox/deployments/prod/crash")
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "crashed 4 times" in talk.generate().json()["error"]


def test_stopped_deployment_wakes_only_after_it_was_moved_to_standby(talk):
    talk.deploy()
    talk.http.post("/sandbox/deployments/prod/stop")
    assert talk.deployment()["status"] == "stopped"
    assert talk.generate().status_code == 503
    talk.http.post("/sandbox/deployments/prod/standby")
    assert talk.generate().status_code == 200


def test_deleted_deployment_is_gone_at_once_and_its_name_is_free(talk):
    talk.deploy()
    assert talk.http.delete("/v2/deployments/prod").json() == {}
    for path in ("/v2/deployments/prod", "/llms/prod/events", "/local/deployments/v2/llms/prod/health"):
        reply = talk.http.get(path)
        assert (reply.status_code, "does not exist" in reply.json()["error"]) == (404, True)
    talk.deploy()
    assert talk.generate().status_code == 200


def test_deployment_can_be_deleted_while_it_starts(talk, shared_plane):
    config = {"baseModel": BASE_ID, "customArgs": ["--start-seconds", "30"]}
    talk.http.post("/v2/deployments", json={"name": "slow", "config": config})
    talk.wait_for("slow", "initializing")
    time.sleep(0.2)
    talk.http.delete("/v2/deployments/slow")
    talk.deploy()
    assert shared_plane.children() == 1, "the one that was starting has been ended"


def test_shared_endpoint_cannot_be_changed(talk):
    for method in ("PUT", "DELETE"):
        reply = talk.http.request(method, "/v2/deployments/tiny-llama", json={})
        assert reply.status_code == 403
