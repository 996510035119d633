"""Where adapter files come from: LoRAX's rules for ids, and its traps, against a live S3 and a live HTTP server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto.server import ThreadedMotoServer

from sandbox.lorax.contract import AdapterError
from sandbox.lorax.sources import AdapterSources

FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def s3_endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "S3_ENDPOINT_URL": s3_endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="adapters")
    yield client
    for entry in client.list_objects_v2(Bucket="adapters").get("Contents", ()):
        client.delete_object(Bucket="adapters", Key=entry["Key"])
    client.delete_bucket(Bucket="adapters")


@pytest.fixture
def sources(tmp_path):
    return AdapterSources(tmp_path / "downloads")


def put(client, prefix, names=FILES):
    for name in names:
        client.put_object(Bucket="adapters", Key=f"{prefix}/{name}", Body=name.encode())


@pytest.fixture
def web():
    """An HTTP server that answers from a table of (status, body, headers) and keeps what it was asked."""
    answers, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            status, body, headers = answers.get(self.path, (404, {}, {}))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815  # the name is http.server's

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def gateway(web, monkeypatch):
    """A control plane."""
    address, answers, asked = web
    monkeypatch.setenv("PREDIBASE_GATEWAY_ENDPOINT", address)
    monkeypatch.delenv("PREDIBASE_API_TOKEN", raising=False)
    return answers, asked


@pytest.fixture
def hub(web, monkeypatch, tmp_path):
    """A Hub with the repository team/adapter."""
    address, answers, asked = web
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "c" * 40
    names = [*FILES, "training_args.bin", "README.md", "nested/adapter_model.safetensors", "adapter_model.bin"]
    siblings = [{"rfilename": name} for name in names]
    answers["/api/models/team/adapter"] = (200, {"id": "team/adapter", "sha": commit, "siblings": siblings}, {})
    for name in FILES:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{name}"'}
        answers[f"/team/adapter/resolve/{commit}/{name}"] = (200, name.encode(), headers)
    return answers, asked


def test_local_is_absolute_or_below_the_hub_cache(sources, tmp_path):
    assert sources.fetch(str(tmp_path), "LOCAL", None) == tmp_path
    assert sources.fetch("team/adapter", "local", None).parts[-2:] == ("team", "adapter")
    with pytest.raises(AdapterError, match="too short for prefix filtering"):
        sources.fetch("/a/b", "local", None)


@pytest.mark.parametrize("adapter_id", ["s3://adapters/team/a1/", "adapters/team/a1", "s3://adapters/team/a1"])
def test_s3_downloads_every_object_below_the_prefix(adapter_id, bucket, sources):
    put(bucket, "team/a1")
    put(bucket, "team/a1/checkpoint-5", ["optimizer.pt"])
    directory = sources.fetch(adapter_id, "s3", None)
    assert (directory / FILES[1]).read_bytes() == FILES[1].encode()
    assert (directory / "checkpoint-5" / "optimizer.pt").is_file()


def test_s3_is_downloaded_once(bucket, sources):
    """Overwriting in place does not reach a running server; a new version needs a new id."""
    put(bucket, "team/a1")
    first = sources.fetch("s3://adapters/team/a1/", "s3", None)
    bucket.put_object(Bucket="adapters", Key=f"team/a1/{FILES[1]}", Body=b"new")
    assert sources.fetch("s3://adapters/team/a1/", "s3", None) == first
    assert (first / FILES[1]).read_bytes() == FILES[1].encode()


def test_s3_prefix_without_slash_trips_over_a_sibling(bucket, sources):
    put(bucket, "team/a1")
    put(bucket, "team/a10")
    with pytest.raises(AdapterError, match=r"404.*HeadObject"):
        sources.fetch("s3://adapters/team/a1", "s3", None)
    assert sources.fetch("s3://adapters/team/a1/", "s3", None).is_dir()


def test_s3_at_the_root_sees_several_models(bucket, sources):
    put(bucket, "a1")
    put(bucket, "a10")
    with pytest.raises(AdapterError, match="Multiple models found for model_id"):
        sources.fetch("s3://adapters/a1", "s3", None)


@pytest.mark.parametrize(
    ("adapter_id", "message"),
    [
        ("s3://adapters/none/", "No .safetensors weights found"),
        ("s3://no-such-bucket/team/a1/", "NoSuchBucket"),
        ("s3://adapters", "should be of the form"),
        ("s3:/", "too short"),
    ],
)
def test_s3_refusals_name_the_reason(adapter_id, message, bucket, sources):
    del bucket
    with pytest.raises(AdapterError, match=message):
        sources.fetch(adapter_id, "s3", None)


def test_s3_bucket_may_come_from_the_environment(bucket, sources, monkeypatch):
    monkeypatch.setenv("PREDIBASE_MODEL_BUCKET", "adapters")
    monkeypatch.setenv("PREDIBASE_MODEL_FOLDER", "models")
    put(bucket, "models/team/a1")
    assert (sources.fetch("team/a1", "s3", None) / FILES[0]).is_file()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_pbase_asks_the_control_plane_with_the_requests_token(scheme, gateway, sources, tmp_path):
    answers, asked = gateway
    answers["/v2/repos/support/version/4"] = (200, {"adapterPath": f"{scheme}{tmp_path}"}, {})
    assert sources.fetch("support/4", "pbase", "secret") == tmp_path
    assert asked == [("/v2/repos/support/version/4", "Bearer secret")]


def test_pbase_path_may_be_s3(gateway, bucket, sources):
    answers, _ = gateway
    put(bucket, "tenant/support/4")
    answers["/v2/repos/support/version/4"] = (200, {"adapterPath": "s3://adapters/tenant/support/4/"}, {})
    assert (sources.fetch("support/4", "pbase", "secret") / FILES[0]).is_file()


def test_pbase_falls_back_to_the_older_address(gateway, bucket, sources):
    answers, asked = gateway
    prefix = "run/artifacts/model/model_weights"
    put(bucket, prefix)
    answers["/v1/models/version/name/support?version=4"] = (200, {"uuid": "adapters", "bestRunID": "run"}, {})
    assert (sources.fetch("support/4", "pbase", "secret") / FILES[0]).is_file()
    assert [path for path, _ in asked] == [
        "/v2/repos/support/version/4",
        "/v1/models/version/name/support?version=4",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [({"adapterPath": None}, "not yet available"), ({"adapterPath": "/x", "status": "pending"}, "not yet available")],
)
def test_pbase_versions_that_are_not_ready_are_refused(body, message, gateway, sources):
    answers, _ = gateway
    answers["/v2/repos/support/version/4"] = (200, body, {})
    with pytest.raises(AdapterError, match=message):
        sources.fetch("support/4", "pbase", "secret")


def test_pbase_refusals_never_show_the_token(gateway, sources):
    del gateway
    with pytest.raises(AdapterError, match="answered 404") as refused:
        sources.fetch("support/9", "pbase", "very-secret")
    assert "very-secret" not in str(refused.value)
    with pytest.raises(AdapterError, match="api_token must be provided"):
        sources.fetch("support/9", "pbase", None)
    with pytest.raises(AdapterError, match="Invalid model id"):
        sources.fetch("a/b/c", "pbase", "very-secret")


def test_hub_takes_only_adapter_files_and_the_requests_token(hub, sources):
    _, asked = hub
    directory = sources.fetch("team/adapter", "hub", "secret")
    assert {path.name for path in directory.iterdir()} == set(FILES)
    assert {authorization for _, authorization in asked} == {"Bearer secret"}


def test_hub_sends_no_token_of_its_own(hub, sources, monkeypatch):
    """Only LORAX_USE_GLOBAL_HF_TOKEN lets the server's own token serve a request without one."""
    _, asked = hub
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "servers")
    sources.fetch("team/adapter", "hub", None)
    assert {authorization for _, authorization in asked} == {None}
    asked.clear()
    monkeypatch.setenv("LORAX_USE_GLOBAL_HF_TOKEN", "1")
    sources.fetch("team/adapter", "hub", None)
    assert {authorization for _, authorization in asked} == {"Bearer servers"}


@pytest.mark.parametrize("adapter_id", ["team/none", "not a name", "/absolute/path"])
def test_hub_refusals_are_adapter_errors(adapter_id, hub, sources):
    del hub
    with pytest.raises(AdapterError, match="cannot download adapter"):
        sources.fetch(adapter_id, "hub", None)


def test_unknown_source_is_named(sources):
    with pytest.raises(AdapterError, match="Invalid source 'ftp' when downloading adapter 'x/y'"):
        sources.fetch("x/y", "ftp", None)
