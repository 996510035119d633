"""A control plane process over a small stand-in for the LoRAX-compatible server, and a client for it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

SERVING_COMMAND = shlex.join([sys.executable, str(Path(__file__).with_name("fake_lorax.py"))])
BASE_ID = "slipway/tiny-llama"
TENANT = "local"


class ControlPlane:
    """A control plane process that can be killed and started again on the same home and port."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.base = home.parent / "base"
        self.base.mkdir(parents=True, exist_ok=True)
        (self.base / "config.json").write_text(json.dumps({"max_position_embeddings": 128}))
        self._options = options
        self._process: subprocess.Popen | None = None
        self.url = ""

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "sandbox.control_plane", "--home", str(self.home)]
        command += ["--base", f"{BASE_ID}={self.base}", "--serving-command", SERVING_COMMAND, *self._options]
        return [*command, "--port", self.url.rpartition(":")[2] or "0", "--exit-with-parent", str(os.getpid())]

    def start(self) -> None:
        log = (self.home.parent / "control-plane.log").open("a")
        self._process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        line = self._process.stdout.readline()
        assert line.startswith("ready "), (self.home.parent / "control-plane.log").read_text()
        self.url = line.split()[1]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._process.stdout.close()

    def children(self) -> int:
        """Count the serving processes that say this control plane is their parent."""
        mark = f"--exit-with-parent\0{self._process.pid}\0"
        count = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                count += mark in path.read_text()
        return count

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)


class Conversation:
    """What the tests say to a control plane, again and again."""

    def __init__(self, client: httpx.Client) -> None:
        self.http = client
        self.repo = f"repo-{uuid4().hex[:8]}"  # of its own, as tags are never given out again

    def start_upload(self, repo: str, config: str = "", weights: bytes = b"weights") -> str:
        """Do the first two steps; returns the upload token."""
        reply = self.http.post("/v2/adapters/upload", json={"repo": repo})
        assert reply.status_code == 200, reply.text
        started = reply.json()
        files = {
            "adapter_config.json": config.encode() or json.dumps({"base_model_name_or_path": BASE_ID}).encode(),
            "adapter_model.safetensors": weights,
        }
        for name, content in files.items():
            put = httpx.put(started["presignedUrls"][name], content=content, headers=started["requiredHeaders"])
            assert put.status_code == 200, put.text
        return started["uploadToken"]

    def finish_upload(self, token: str) -> httpx.Response:
        return self.http.put("/v2/adapters/upload/", json={"uploadToken": token})

    def upload(self, repo: str = "", **files) -> str:
        """Upload an adapter; returns its id."""
        repo = repo or self.repo
        self.http.post("/v2/repos", json={"name": repo, "existsOk": True}).raise_for_status()
        reply = self.finish_upload(self.start_upload(repo, **files))
        assert reply.status_code == 200, reply.text
        return f"{repo}/{reply.json()['tag']}"

    def deploy(self, name: str = "prod", *, wait_for: str = "ready", **config) -> dict:
        reply = self.http.post("/v2/deployments", json={"name": name, "config": {"baseModel": BASE_ID, **config}})
        assert reply.status_code == 200, reply.text
        return self.wait_for(name, wait_for)

    def deployment(self, name: str = "prod") -> dict:
        return self.http.get(f"/v2/deployments/{name}").json()["data"]

    def wait_for(self, name: str, *statuses: str, seconds: float = 20) -> dict:
        deadline = time.monotonic() + seconds
        while (found := self.deployment(name))["status"] not in statuses:
            assert time.monotonic() < deadline, f"{found} {self.events(name)}"
            time.sleep(0.02)
        return found

    def events(self, name: str = "prod") -> list[str]:
        reply = self.http.get(f"/llms/{name}/events?detailed=false")
        assert reply.status_code == 200
        return [event["eventType"] for event in reply.json()["ComputeEvents"]]

    def generate(self, name: str = "prod", *, adapter: str | None = None, **body) -> httpx.Response:
        parameters = {"adapter_id": adapter, "adapter_source": "pbase"}
        return self.http.post(
            f"/{TENANT}/deployments/v2/llms/{name}/generate", json={"inputs": "x", "parameters": parameters, **body}
        )

    def inject(self, **fault) -> str:
        reply = self.http.post("/sandbox/faults", json=fault)
        assert reply.status_code == 200, reply.text
        return reply.json()["id"]


@pytest.fixture(scope="module")
def shared_plane(tmp_path_factory):
    """One process for a module's tests that neither kill it nor mind what others left there."""
    plane = ControlPlane(tmp_path_factory.mktemp("plane") / "home")
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def talk(shared_plane):
    with shared_plane.client() as client:
        yield Conversation(client)
        client.delete("/sandbox/faults")
        for deployment in client.get("/v2/deployments?type=private").json()["data"]:
            client.delete(f"/v2/deployments/{deployment['name']}")
        for repo in client.get("/v2/repos?limit=1000").json()["data"]["repos"]:
            client.delete(f"/v2/repos/{repo['name']}")


@pytest.fixture
def make_plane(tmp_path):
    """Make control planes of one's own, stopped at the end whatever happens."""
    planes = []

    def make(*options: str) -> ControlPlane:
        plane = ControlPlane(tmp_path / f"plane{len(planes)}" / "home", *options)
        plane.start()
        planes.append(plane)
        return plane

    yield make
    for plane in planes:
        plane.stop()


@pytest.fixture
def converse():
    """Make a conversation over a client, for tests with a control plane of their own."""
    return Conversation
