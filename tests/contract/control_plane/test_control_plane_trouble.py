"""Scripted faults, and what is left after kill -9."""

from __future__ import annotations

import subprocess
import time

import httpx
import pytest

BASE_ID = "slipway/tiny-llama"
GENERATE = "/local/deployments/v2/llms/prod/generate"


def test_status_fault_hits_as_often_as_it_says_and_only_its_route(talk):
    talk.inject(kind="status", method="get", path="/v2/repos*", count=2, status=429, headers={"Retry-After": "7"})
    for _ in range(2):
        assert talk.http.get("/v2/deployments").status_code == 200
        assert talk.http.post("/v2/repos", json={"name": talk.repo, "existsOk": True}).status_code == 200
        reply = talk.http.get(f"/v2/repos/{talk.repo}")
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
        assert reply.json() == {"error": "injected fault"}
    assert talk.http.get(f"/v2/repos/{talk.repo}").status_code == 200


def test_fault_can_let_requests_pass_first_and_answer_a_body_of_its_own(talk):
    talk.inject(kind="status", path="/users/current", skip=1, status=503, body={"error": {"nested": True}})
    assert [talk.http.get("/users/current").status_code for _ in range(3)] == [200, 503, 200]


def test_fault_on_a_file_route_has_that_route_s_error_form(talk):
    talk.inject(kind="status", path="*/download", status=502)
    assert talk.http.get("/v2/repos/x/version/1/download").json() == {"error": {"message": "injected fault"}}


def test_delay_fault_only_delays(talk):
    talk.inject(kind="delay", path="/users/current", seconds=0.4)
    started = time.monotonic()
    assert talk.http.get("/users/current").status_code == 200
    assert time.monotonic() - started >= 0.4


def test_reset_fault_resets_the_connection(talk):
    talk.inject(kind="reset", path="/users/current")
    with pytest.raises(httpx.ReadError):
        talk.http.get("/users/current")
    assert talk.http.get("/users/current").status_code == 200


def test_commit_then_status_does_the_work_first(talk):
    """A repeated third upload step must find the version that the first one made."""
    talk.http.post("/v2/repos", json={"name": talk.repo})
    token = talk.start_upload(talk.repo)
    talk.inject(kind="commit-then-status", method="PUT", path="/v2/adapters/upload/", status=500)
    assert talk.finish_upload(token).status_code == 500
    assert talk.finish_upload(token).json()["tag"] == 1
    talk.inject(kind="commit-then-status", method="POST", path="/v2/deployments")
    body = {"name": "prod", "config": {"baseModel": BASE_ID}}
    assert talk.http.post("/v2/deployments", json=body).status_code == 500
    assert talk.http.post("/v2/deployments", json=body).status_code == 409
    talk.wait_for("prod", "ready")


def test_commit_then_reset_can_cut_an_answer_short(talk):
    talk.inject(kind="commit-then-reset", path="/v2/repos", method="POST")
    with pytest.raises(httpx.ReadError):
        talk.http.post("/v2/repos", json={"name": talk.repo})
    assert talk.http.get(f"/v2/repos/{talk.repo}").status_code == 200
    talk.deploy()
    talk.inject(kind="commit-then-reset", path="*/llms/prod", afterBytes=30)
    with talk.http.stream("POST", "/local/deployments/v2/llms/prod", json={"stream": True, "sleep": 0.1}) as reply:
        chunks = reply.iter_raw()
        assert len(next(chunks)) < 30
        with pytest.raises(httpx.ReadError):
            list(chunks)
    assert talk.generate().status_code == 200


def test_presigned_put_can_fail_too(talk):
    talk.http.post("/v2/repos", json={"name": talk.repo})
    talk.inject(kind="status", method="PUT", path="/sandbox/uploads/*", status=503)
    with pytest.raises(AssertionError, match="injected fault"):
        talk.start_upload(talk.repo)


def test_faults_are_listed_and_disarmed(talk):
    first = talk.inject(kind="reset", path="/a", count=3)
    second = talk.inject(kind="reset", path="/b")
    listed = talk.http.get("/sandbox/faults").json()["faults"]
    assert [(fault["id"], fault["remaining"]) for fault in listed] == [(first, 3), (second, 1)]
    assert talk.http.delete(f"/sandbox/faults/{first}").status_code == 200
    assert talk.http.delete(f"/sandbox/faults/{first}").status_code == 404
    talk.http.delete("/sandbox/faults")
    assert talk.http.get("/sandbox/faults").json() == {"faults": []}
    for wrong in ({"kind": "explode", "path": "/"}, {"kind": "reset"}, {"kind": "reset", "path": "/", "count": 0}):
        assert talk.http.post("/sandbox/faults", json=wrong).status_code == 400


def test_everything_committed_survives_kill_9(make_plane, converse):
    plane = make_plane()
    with plane.client() as client:
        talk = converse(client)
        adapter = talk.upload()
        unfinished = talk.start_upload(talk.repo)
        talk.deploy("running", preloadedAdapters=[adapter])
        talk.deploy("asleep")
        client.post("/sandbox/deployments/asleep/standby")
        talk.deploy("broken", wait_for="errored", customArgs=["--nonsense"])
        uuid = talk.deployment("running")["uuid"]
        token = plane.token
    plane.kill()
    deadline = time.monotonic() + 10
    while plane.children():
        assert time.monotonic() < deadline, "serving processes outlive their control plane"
        time.sleep(0.05)
    plane.start()
    with plane.client() as client:
        again = converse(client)
        again.repo = talk.repo
        assert plane.token == token
        assert again.finish_upload(unfinished).json()["tag"] == 2
        assert [version["tag"] for version in client.get(f"/v2/repos/{talk.repo}").json()["versions"]] == [1, 2]
        assert client.get(f"/v2/repos/{talk.repo}/version/1/download").status_code == 200
        assert again.deployment("asleep")["status"] == "standby"
        assert again.deployment("broken")["status"] == "errored"
        assert again.wait_for("running", "ready")["uuid"] == uuid
        assert again.generate("running", adapter=adapter).status_code == 200
        assert again.upload() == f"{talk.repo}/3"


def test_interrupted_upload_of_a_file_leaves_nothing(make_plane, converse):
    plane = make_plane()
    with plane.client() as client:
        talk = converse(client)
        client.post("/v2/repos", json={"name": "r"})
        started = client.post("/v2/adapters/upload", json={"repo": "r"}).json()

        def broken():
            yield b"x" * 3_000_000
            raise RuntimeError

        with pytest.raises(RuntimeError):
            httpx.put(
                started["presignedUrls"]["adapter_model.safetensors"],
                content=broken(),
                headers={**started["requiredHeaders"], "Content-Length": "9000000"},
            )
        time.sleep(0.2)
        assert list((plane.home / "scratch").iterdir()) == []
        assert "adapter_config.json" in talk.finish_upload(started["uploadToken"]).json()["error"]
        assert [len(list(path.iterdir())) for path in (plane.home / "adapters").iterdir()] == [0]


def test_state_is_for_its_owner_only(make_plane):
    plane = make_plane()
    assert plane.home.stat().st_mode & 0o077 == 0
    assert (plane.home / "token").stat().st_mode & 0o077 == 0
    assert plane.token.startswith("pb_")


def test_orderly_stop_ends_the_serving_processes_and_a_start_brings_them_back(make_plane, converse):
    plane = make_plane()
    with plane.client() as client:
        converse(client).deploy()
    plane.stop()
    assert plane.children() == 0
    plane.start()
    with plane.client() as client:
        converse(client).wait_for("prod", "ready")


def test_home_is_used_by_one_control_plane_at_a_time(make_plane):
    plane = make_plane()
    refused = subprocess.run(plane.command(), capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert f"another sandbox is using {plane.home}; stop it or choose another --home" in refused.stderr


def test_documented_minimum_of_the_cooldown_can_be_enforced(make_plane):
    plane = make_plane("--minimum-cooldown-seconds", "600")
    with plane.client() as client:
        body = {"name": "prod", "config": {"baseModel": BASE_ID, "cooldownTime": 599}}
        reply = client.post("/v2/deployments", json=body)
        assert reply.json() == {"error": "cooldownTime is 599; at least 600 s"}
