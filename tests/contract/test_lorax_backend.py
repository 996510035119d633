"""A self-hosted LoRAX gets adapters by path, through S3 and through the Hub, and really serves what it was given."""

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr
from safetensors.numpy import save_file

from slipway.adapter import Source
from slipway.errors import AuthenticationError, ConfigurationError, NotFoundError, UnavailableError
from slipway.services.backends import open_backend
from slipway.services.ledger_store import Ledger
from slipway.services.processes import ServerProcess, free_port
from slipway.services.sources import source_for
from slipway.services.store import BundleStore
from slipway.targets import Target
from slipway.uri import parse_adapter_uri

ROOT = Path(__file__).parents[2]
BASE = "slipway/tiny-llama"
TOKEN = "hf_canary"


class HubHandler(BaseHTTPRequestHandler):
    """As much of the Hub as creating a repository, committing small files and fetching them needs."""

    protocol_version = "HTTP/1.1"
    repositories: dict[str, dict[str, bytes]]
    tokens: set[str]

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def is_refused(self):
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return False
        self.answer(
            {"error": "Invalid credentials"}, 401, X_Error_Message="Invalid credentials in Authorization header"
        )
        return True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.is_refused():
            return
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            self.repositories.setdefault(name, {})
            self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            self.answer({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        elif "/commit/" in path:
            files = self.repositories[path.removeprefix("/api/models/").split("/commit/")[0]]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {
                    "success": True,
                    "commitUrl": f"http://{self.headers['Host']}/acme/x/commit/{'c' * 40}",
                    "commitOid": "c" * 40,
                    "hookOutput": "",
                }
            )
        else:
            self.answer({"error": "no such route"}, 404)

    def do_GET(self):
        if self.is_refused():
            return
        path = unquote(urlsplit(self.path).path)
        name, files = self.repository(path)
        if files is None:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": file} for file in sorted(files)]
            self.answer({"id": name, "sha": "c" * 40, "siblings": siblings})
        else:
            file = path.split("/resolve/")[1].split("/", 1)[1]
            data = files.get(file)
            if data is None:
                self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit="c" * 40)
            else:
                etag = f'"{hashlib.sha256(data).hexdigest()}"'
                self.answer(data, X_Repo_Commit="c" * 40, ETag=etag, Content_Type="application/octet-stream")

    do_HEAD = do_GET  # noqa: N815  # the name that http.server looks for

    def repository(self, path):
        text = path.removeprefix("/api/models/").lstrip("/")
        name = "/".join(text.split("/")[:2])
        return name, self.repositories.get(name)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    handler = type("Handler", (HubHandler,), {"repositories": {}, "tokens": {TOKEN}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(scope="module")
def lorax(hub, s3, tmp_path_factory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("lorax")
    command = [sys.executable, "-m", "sandbox.lorax", "--model-dir", str(ROOT / "sandbox" / "base_model")]
    server = ServerProcess(
        "LoRAX",
        [*command, "--model-id", BASE, "--host", "127.0.0.1", "--port", "0"],
        log=home / "lorax.log",
        environment={
            "S3_ENDPOINT_URL": s3,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "HF_ENDPOINT": hub,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        },
    )
    with server:
        printed = server.wait_until(lambda text: "ready http" in text, timeout_seconds=90)
        yield next(line.split()[1] for line in printed.splitlines() if line.startswith("ready http"))


@pytest.fixture(autouse=True)
def environment(monkeypatch, lorax, hub, s3):
    monkeypatch.setenv("LORAX_URL", lorax)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("HF_ENDPOINT", hub)
    # Another test may have imported it before, and it reads the variable once.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", hub + template)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("PREDIBASE_API_TOKEN", raising=False)


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
async def bundle(tmp_path, request):
    """An adapter of random weights, another one for each test."""
    chance = np.random.default_rng(int(hashlib.sha256(request.node.name.encode()).hexdigest()[:8], 16))
    folder = tmp_path / "adapter"
    folder.mkdir()
    tensors = {}
    for layer in range(2):
        key = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{key}.lora_A.weight"] = chance.normal(size=(8, 128)).astype(np.float32)
        tensors[f"{key}.lora_B.weight"] = chance.normal(size=(128, 8)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": BASE,
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    uri = parse_adapter_uri(str(folder))
    return await source_for(uri).pull(uri, BundleStore(root=tmp_path / "bundles"))


def make_target(**handover) -> Target:
    return Target.model_validate({"kind": "lorax", "bases": {BASE: {}}, "handover": handover or {"source": "local"}})


async def publish_and_ask(target, ledger, bundle):
    """Hand the adapter over twice, then let the server answer under it and under the base."""
    backend = open_backend(target, "lorax", ledger)
    async with backend:
        first = await backend.publish(bundle, repository="support", description="test")
        second = await backend.publish(bundle, repository="support", description="test")
        assert (first.reused, second.reused) == (False, True)
        assert second.adapter_id == first.adapter_id
        deployment = await backend.serve(BASE, release_id="support-1")
        async with backend.client(deployment) as client:
            base = await client.generate("big red boat", adapter_id=None, adapter_source=None)
            adapted = await client.generate("big red boat", adapter_id=first.adapter_id, adapter_source=first.source)
        assert adapted.headers.adapter_id == first.adapter_id
        assert adapted.text != base.text
    return first


async def test_by_path_the_server_reads_our_store(ledger, bundle):
    published = await publish_and_ask(make_target(), ledger, bundle)
    assert (published.adapter_id, published.source) == (str(bundle.directory), Source.LOCAL)


async def test_by_path_into_a_shared_directory(ledger, bundle, tmp_path):
    shared = tmp_path / "shared"
    published = await publish_and_ask(make_target(source="local", location=str(shared)), ledger, bundle)
    assert Path(published.adapter_id).parent == shared
    assert {entry.name for entry in Path(published.adapter_id).iterdir()} == {file.name for file in bundle.files}
    assert [entry.name for entry in shared.iterdir()] == [Path(published.adapter_id).name], (
        "nothing half-done beside it"
    )


async def test_through_s3(ledger, bundle, s3):
    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="adapters")
    published = await publish_and_ask(make_target(source="s3", location="s3://adapters/team"), ledger, bundle)
    assert published.source is Source.S3
    assert published.adapter_id.startswith("s3://adapters/team/support-")
    assert published.adapter_id.endswith("/"), "without the slash LoRAX would also list siblings that share the prefix"


async def test_through_the_hub(ledger, bundle):
    published = await publish_and_ask(make_target(source="hub", location="acme"), ledger, bundle)
    assert published.source is Source.HUB
    assert published.adapter_id.startswith("acme/support-")


async def test_a_missing_bucket_is_named(ledger, bundle):
    async with open_backend(make_target(source="s3", location="s3://nowhere"), "lorax", ledger) as backend:
        with pytest.raises(NotFoundError, match="nowhere"):
            await backend.publish(bundle, repository="support", description="test")


async def test_a_refused_hub_token_is_named(ledger, bundle, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    async with open_backend(make_target(source="hub", location="acme"), "lorax", ledger) as backend:
        with pytest.raises(AuthenticationError, match="HF_TOKEN") as caught:
            await backend.publish(bundle, repository="refused", description="test")
    assert "hf_wrong" not in str(caught.value)


async def test_an_unreachable_store_is_named(ledger, bundle, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    async with open_backend(make_target(source="s3", location="s3://adapters"), "lorax", ledger) as backend:
        with pytest.raises(UnavailableError, match="AWS_ENDPOINT_URL_S3"):
            await backend.publish(bundle, repository="support", description="test")


async def test_a_server_of_another_base_is_refused(ledger):
    target = Target.model_validate({"kind": "lorax", "bases": {"org/other": {}}})
    async with open_backend(target, "lorax", ledger, token=SecretStr("x")) as backend:
        with pytest.raises(ConfigurationError, match="slipway/tiny-llama"):
            await backend.serve("org/other", release_id="support-1")
