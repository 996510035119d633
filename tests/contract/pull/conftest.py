"""Places to pull from, on this machine, and processes that pull."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.services.sources import source_for
from slipway.services.store import BundleStore
from slipway.uri import parse_adapter_uri

CONFIG = json.dumps({"peft_type": "LORA", "r": 8}).encode()

PULL = """
import asyncio, sys
from pathlib import Path
from slipway.errors import SlipwayError
from slipway.services.sources import source_for
from slipway.services.store import BundleStore
from slipway.uri import parse_adapter_uri
uri, store = parse_adapter_uri(sys.argv[1]), BundleStore(root=Path(sys.argv[2]))
source = source_for(uri)
print("ready", flush=True)
sys.stdin.readline()
try:
    print(asyncio.run(source.pull(uri, store)).digest, flush=True)
except SlipwayError as error:
    print(type(error).__name__, "|", error.message, "|", error.fix, flush=True)
"""


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


hub_stand_in = _load("hub_stand_in")


@pytest.fixture
def store(tmp_path):
    return BundleStore(root=tmp_path / "home" / "bundles")


@pytest.fixture
def weights():
    """Random bytes: they stand for weights, which nothing looks into while pulling."""
    return os.urandom(6 << 20)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_stand_in.HubStandIn() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield server


@pytest.fixture
def pull(store):
    """Pull an address into the test's store."""

    def run(address: str):
        uri = parse_adapter_uri(address)
        return asyncio.run(source_for(uri).pull(uri, store))

    return run


@pytest.fixture
def puller(store):
    """Start processes that pull an address when they get a line; none outlives the test."""
    started = []

    def start(address: str, **environment: str):
        process = subprocess.Popen(
            [sys.executable, "-c", PULL, address, str(store.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def leftovers(store):
    """Names of what is on its way into the store."""

    def names() -> list[str]:
        incoming = store.root / ".incoming"
        return sorted(path.name for path in incoming.iterdir()) if incoming.exists() else []

    return names


tcp_proxy = _load("tcp_proxy")
odd_store_module = _load("odd_store")


@pytest.fixture(scope="module")
def moto_port():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """Credentials that any stand-in takes, and nothing from this machine's own configuration."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "aws_canary",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(moto_port, aws, monkeypatch):
    """The proxy before a bucket called ``adapters``; its ``client`` goes straight to the store."""
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto_port}")
    client.create_bucket(Bucket="adapters")
    with tcp_proxy.TcpProxy(moto_port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        proxy.client = client
        yield proxy
    for entry in client.list_objects_v2(Bucket="adapters").get("Contents", ()):
        client.delete_object(Bucket="adapters", Key=entry["Key"])
    client.delete_bucket(Bucket="adapters")
    client.close()


@pytest.fixture
def odd_store(aws, monkeypatch):
    with odd_store_module.OddStore() as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
        yield store


@pytest.fixture
def odd():
    """Functions of the odd store: ``etag`` and ``crc32``."""
    return odd_store_module
