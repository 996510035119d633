"""The control plane's client: against scripted faults, then against the sandbox's control plane as a process."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from slipway.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    ProtocolError,
    ServiceTimeoutError,
    StoreError,
    UnavailableError,
)
from slipway.services.http import Timeouts
from slipway.services.predibase import (
    DeploymentStatus,
    PredibaseClient,
    gateway_url,
    serving_url,
)

TOKEN = "pb_canary_77aa10"
CONFIG = {"baseModel": "qwen3-8b", "minReplicas": 0, "hfToken": "hf_canary"}


def deployment(name="prod", status="pending", base="qwen3-8b", replicas=0):
    return {
        "name": name,
        "uuid": "u",
        "description": None,
        "type": "private",
        "status": status,
        "model": {"name": base, "maxInputLength": 8191},
        "accelerator": {"id": "a10_24gb_100"},
        "quantization": None,
        "currentReplicas": replicas,
        "usesGuaranteedCapacity": False,
        "config": {"baseModel": base},
        "somethingNew": {"a": 1},
    }


def version(tag=4):
    return {
        "repo": "support",
        "tag": tag,
        "archived": False,
        "baseModel": "qwen3-8b",
        "status": "completed",
        "adapterPath": "s3://adapters/support/4/",
        "finetuningJob": None,
    }


@pytest.fixture
async def client(server, waits):
    async with PredibaseClient(f"{server.url}/v2/", SecretStr(TOKEN), retry=waits.policy) as made:
        yield made


async def test_the_tenant_is_read_from_the_current_user(server, client, reply):
    server.on("GET /users/current", reply(json={"id": 7, "tenant": {"name": "acme", "shortCode": "abc123"}}))
    assert await client.current_user() == "abc123"
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_wrong_token_names_its_variable_and_not_its_value(server, client, reply):
    server.on("GET /users/current", reply(status=401, json={"error": f"unknown token {TOKEN}"}))
    with pytest.raises(AuthenticationError) as caught:
        await client.current_user()
    assert "PREDIBASE_API_TOKEN" in caught.value.fix
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(client)


async def test_what_is_not_there_is_none(client):
    assert await client.get_repo("nope") is None
    assert await client.get_version("nope", 1) is None
    assert await client.get_deployment("nope") is None
    assert await client.list_versions("nope") == ()
    await client.delete_deployment("nope")


async def test_names_cannot_leave_their_place_in_the_path(server, client):
    await client.get_repo("../v2/deployments?x=1")
    assert server.seen[0].path == "/v2/repos/..%2Fv2%2Fdeployments%3Fx%3D1"


async def test_versions_come_by_rising_tag(server, client, reply):
    entry = {"createdAt": "2026-01-01T00:00:00Z", "createdBy": "me", "baseModel": "b", "archived": True}
    server.on(
        "GET /v2/repos/r", reply(json={"uuid": "u", "name": "r", "versions": [entry | {"tag": 3}, entry | {"tag": 1}]})
    )
    assert [item.tag for item in await client.list_versions("r")] == [1, 3]


async def test_a_repo_may_come_without_versions(server, client, reply):
    server.on("POST /v2/repos", reply(json={"uuid": "u", "name": "r"}))
    assert (await client.create_repo("r", "for tests")).versions == ()
    assert server.seen[0].json == {"name": "r", "description": "for tests", "existsOk": True}


async def test_a_reply_of_another_shape_says_which_key(server, client, reply):
    server.on("GET /v2/repos/r/version/4", reply(json={"repo": "r", "tag": "secret-x"}))
    with pytest.raises(ProtocolError, match="tag: Input should be a valid integer") as caught:
        await client.get_version("r", 4)
    assert "secret-x" not in str(caught.value)


async def test_an_upload_goes_in_three_steps(server, client, reply, tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(os.urandom(2_500_000))
    slot = {
        "presignedUrls": {"adapter_model.safetensors": f"{server.url}/put?X-Amz-Signature=canary"},
        "uploadToken": "upload-canary",
        "requiredHeaders": {"x-amz-acl": "private"},
    }
    server.on("POST /v2/adapters/upload", reply(json=slot))
    server.on("PUT /put", reply(status=500), reply(reset=True), reply(body=b""))
    server.on("PUT /v2/adapters/upload/", reply(status=502, json={}), reply(json=version()))
    start = await client.start_upload("support")
    assert "canary" not in repr(start)
    await client.put_file(start.presigned_urls[path.name], path, start.required_headers)
    made = await client.finish_upload(start.upload_token)
    assert made.adapter_id == "support/4"
    assert made.is_usable
    puts = [seen for seen in server.seen if seen.path == "/put"]
    assert len(puts) == 3
    for put in puts:
        assert put.body == path.read_bytes()
        assert "authorization" not in put.headers
        assert "transfer-encoding" not in put.headers
        assert put.headers["content-length"] == str(path.stat().st_size)
        assert put.headers["content-type"] == "application/octet-stream"
        assert put.headers["x-amz-acl"] == "private"
    finishes = [seen.json for seen in server.seen if seen.path == "/v2/adapters/upload/"]
    assert finishes == [{"uploadToken": "upload-canary"}] * 2


async def test_an_address_that_ran_out_says_to_start_again(server, client, reply, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"")
    server.on("PUT /put", reply(status=403, body=b"<Error/>"))
    with pytest.raises(AuthenticationError) as caught:
        await client.put_file(f"{server.url}/put?X-Amz-Signature=canary", path)
    assert "ran out" in caught.value.fix
    assert "canary" not in str(caught.value)
    assert server.seen[0].headers["content-length"] == "0"


async def test_a_file_that_is_gone_is_a_store_error(server, client, tmp_path):
    with pytest.raises(StoreError, match="cannot be read"):
        await client.put_file(f"{server.url}/put", tmp_path / "gone")


async def test_creating_tells_whether_it_was_there(server, client, reply):
    server.on("GET /v2/deployments/prod", reply(status=404, json={}), reply(json={"data": deployment()}))
    server.on("POST /v2/deployments", reply(json={"name": "prod"}))
    made = await client.create_deployment("prod", CONFIG, "by a test")
    assert not made.was_there
    assert (made.deployment.status, made.deployment.base_model) == (DeploymentStatus.PENDING, "qwen3-8b")
    again = await client.create_deployment("prod", CONFIG)
    assert again.was_there
    assert server.count("POST /v2/deployments") == 1


@pytest.mark.parametrize("fault", [{"status": 500, "json": {}}, {"reset": True}, {"delay_seconds": 0.4}])
async def test_a_creation_that_went_through_unnoticed_is_not_repeated(server, reply, waits, fault):
    """Commit, then fail: the deployment is there, and a second one would cost a second GPU."""

    def commit():
        server._replies["GET /v2/deployments/prod"] = [reply(json={"data": deployment()})]

    server.on("POST /v2/deployments", reply(effect=commit, **fault))
    timeouts = Timeouts(read_seconds=0.2)
    async with PredibaseClient(server.url, SecretStr(TOKEN), retry=waits.policy, timeouts=timeouts) as client:
        made = await client.create_deployment("prod", CONFIG)
    assert not made.was_there
    assert server.count("POST /v2/deployments") == 1


async def test_a_creation_that_did_not_go_through_is_repeated(server, client, reply):
    server.on("POST /v2/deployments", reply(status=500, json={}), reply(json={}))
    server.on(
        "GET /v2/deployments/prod",
        reply(status=404, json={}),
        reply(status=404, json={}),
        reply(json={"data": deployment()}),
    )
    assert not (await client.create_deployment("prod", CONFIG)).was_there
    assert server.count("POST /v2/deployments") == 2


async def test_a_creation_that_never_goes_through_ends(server, client, reply):
    server.on("POST /v2/deployments", reply(status=503, json={"error": "no capacity"}))
    with pytest.raises(UnavailableError, match="no capacity"):
        await client.create_deployment("prod", CONFIG)
    assert server.count("POST /v2/deployments") == 3


async def test_losing_a_race_for_the_name_adopts_the_winner(server, client, reply):
    server.on("GET /v2/deployments/prod", reply(status=404, json={}), reply(json={"data": deployment()}))
    server.on("POST /v2/deployments", reply(status=409, json={"error": "exists"}))
    assert (await client.create_deployment("prod", CONFIG)).was_there


async def test_a_deployment_of_another_base_is_not_adopted(server, client, reply):
    server.on("GET /v2/deployments/prod", reply(json={"data": deployment(base="llama")}))
    with pytest.raises(ConflictError, match="serves llama, not qwen3-8b"):
        await client.create_deployment("prod", CONFIG)


async def test_a_success_that_leaves_nothing_is_a_protocol_error(server, client, reply):
    server.on("POST /v2/deployments", reply(json={}))
    with pytest.raises(ProtocolError, match="no deployment prod afterwards"):
        await client.create_deployment("prod", CONFIG)


async def test_a_slow_gateway_is_a_timeout(server, reply, waits):
    server.on("GET /v2/deployments", reply(delay_seconds=0.6, json={"data": []}))
    timeouts = Timeouts(read_seconds=0.1)
    async with PredibaseClient(server.url, SecretStr(TOKEN), retry=waits.policy, timeouts=timeouts) as client:
        with pytest.raises(ServiceTimeoutError):
            await client.list_deployments()


async def test_lists_come_in_their_envelope(server, client, reply):
    server.on("GET /v2/deployments", reply(json={"data": [deployment("a"), deployment("b")]}), reply(json=[]))
    assert [item.name for item in await client.list_deployments()] == ["a", "b"]
    with pytest.raises(ProtocolError, match="no list under 'data'"):
        await client.list_deployments()


async def test_updating_sends_only_what_is_given(server, client, reply):
    server.on("PUT /v2/deployments/prod", reply(json={}))
    server.on("GET /v2/deployments/prod", reply(json={"data": deployment(status="Updating", replicas=1)}))
    found = await client.update_deployment("prod", config={"minReplicas": 0})
    assert server.seen[0].json == {"config": {"minReplicas": 0}}
    assert found.is_ready


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (("ready", 1), (True, True, False)),
        (("Ready", 1), (True, True, False)),
        (("ready", 0), (False, False, False)),
        (("updating", 1), (True, True, False)),
        (("standby", 0), (False, True, False)),
        (("initializing", 0), (False, False, False)),
        (("errored", 0), (False, False, True)),
        (("stopped", 0), (False, False, True)),
        (("dreaming", 1), (False, False, False)),
    ],
)
async def test_statuses_say_what_to_expect(server, client, reply, told, expected):
    """Whether it is ready, can serve, has failed."""
    status, replicas = told
    server.on("GET /v2/deployments/prod", reply(json={"data": deployment(status=status, replicas=replicas)}))
    found = await client.get_deployment("prod")
    assert (found.is_ready, found.can_serve, found.has_failed) == expected
    assert found.status_text == status
    assert "hf_canary" not in repr(found)


@pytest.mark.parametrize("text", ["https://h.test", "https://h.test/", "https://h.test/v2", "h.test/v1/", " h.test "])
def test_gateways_are_brought_into_one_form(text):
    assert gateway_url(text) == "https://h.test"


def test_the_serving_host_is_derived_as_the_sdk_does():
    base = "https://serving.app.predibase.com/abc/deployments/v2/llms/prod"
    assert serving_url("https://api.app.predibase.com/v2", "abc", "prod") == base
    assert serving_url("https://api.corp.test:8443", "t", "d").startswith("https://serving.corp.test:8443/t/")
    assert serving_url("http://127.0.0.1:1", "t", "d", serving="http://127.0.0.1:2/").startswith(
        "http://127.0.0.1:2/t/"
    )


@pytest.mark.parametrize("gateway", ["http://127.0.0.1:8931", "http://localhost:8931", "http://[::1]:8931"])
def test_a_local_gateway_needs_the_serving_address(gateway):
    with pytest.raises(ConfigurationError) as caught:
        serving_url(gateway, "t", "d")
    assert "PREDIBASE_SERVING" in caught.value.fix


# Against the sandbox's control plane


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory):
    """The sandbox's control plane as a process, over a stand-in for the server behind its deployments."""
    root = tmp_path_factory.mktemp("control-plane")
    base = root / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"max_position_embeddings": 128}))
    fake = Path(__file__).parents[1] / "control_plane" / "fake_lorax.py"
    command = [sys.executable, "-m", "sandbox.control_plane", "--home", str(root / "home"), "--port", "0"]
    command += ["--base", f"tiny={base}", "--serving-command", shlex.join([sys.executable, str(fake)])]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--exit-with-parent", str(os.getpid())], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("ready "), (root / "log").read_text()
        yield line.split()[1], (root / "home" / "token").read_text().strip()
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.stdout.close()


async def test_a_whole_conversation_with_the_sandbox(control_plane, tmp_path):
    url, token = control_plane
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    config.write_text(json.dumps({"base_model_name_or_path": "tiny", "peft_type": "LORA"}))
    weights.write_bytes(os.urandom(1_200_000))
    async with PredibaseClient(url, SecretStr(token), serving=url) as client:
        tenant = await client.current_user()
        assert client.serving_url(tenant, "prod").startswith(f"{url}/{tenant}/")
        assert await client.get_repo("support") is None
        assert (await client.create_repo("support")).name == (await client.create_repo("support")).name
        slot = await client.start_upload("support")
        for path in (config, weights):
            await client.put_file(slot.presigned_urls[path.name], path, slot.required_headers)
        made = await client.finish_upload(slot.upload_token)
        assert await client.finish_upload(slot.upload_token) == made
        assert [item.tag for item in await client.list_versions("support")] == [made.tag]
        found = await client.get_version("support", made.tag)
        assert found.is_usable
        assert await client.download_version("support", made.tag, tmp_path / "v.zip") > weights.stat().st_size
        created = await client.create_deployment("prod", {"baseModel": "tiny"}, "test")
        assert not created.was_there
        assert (await client.create_deployment("prod", {"baseModel": "tiny"})).was_there
        assert [item.name for item in await client.list_deployments() if item.type == "private"] == ["prod"]
        assert (await client.update_deployment("prod", config={"maxReplicas": 1})).name == "prod"
        await client.delete_deployment("prod")
        await client.delete_deployment("prod")


async def test_the_sandbox_refuses_a_wrong_token(control_plane):
    async with PredibaseClient(control_plane[0], SecretStr("pb_wrong")) as client:
        with pytest.raises(AuthenticationError):
            await client.current_user()
