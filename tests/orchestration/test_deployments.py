"""prefect.yaml as it is used: a server, a work pool, a worker, and an event from outside that starts a release."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from slipway.services.processes import ServerProcess, free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def deployed(workspace, tmp_path) -> Iterator[httpx.Client]:
    """A Prefect server with our deployments and a worker for them; yields a client of its API."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "SLIPWAY_ROOT": str(ROOT),
    }

    def prefect(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "prefect", *arguments]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            prefect(*arguments),
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(name: str, *arguments: str) -> ServerProcess:
        log = tmp_path / f"{arguments[0]}.log"
        return parts.enter_context(ServerProcess(name, prefect(*arguments), log=log, environment=environment))

    with ExitStack() as parts:
        server = start("the Prefect server", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        client = parts.enter_context(httpx.Client(base_url=url, timeout=30))
        server.wait_until(lambda _: _is_up(client), timeout_seconds=120)
        run("work-pool", "create", "slipway", "--type", "process")
        worker = start("the worker", "worker", "start", "--pool", "slipway", "--limit", "2")
        run("--no-prompt", "deploy", "--all")
        worker.wait_until(lambda text: "started!" in text, timeout_seconds=60)
        yield client
        worker.kill()  # asked politely, an idle worker takes its time


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(find: Callable[[], object], *, seconds: float) -> object:
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)
    return found


def test_event_adapter_trained_releases_the_adapter(deployed, workspace, sandbox, name, suite, gate, tmp_path):
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "adapter.trained",
        "resource": {"prefect.resource.id": f"slipway.adapter.{name}"},
        "payload": {
            "uri": sandbox.adapter("translate-v2"),
            "name": name,
            "target": "sandbox",
            "suite": suite,
            "gate": gate,
        },
    }
    for _ in range(2):  # delivered twice, it is one event
        assert deployed.post("/events", json=[event]).status_code == 204

    def finished() -> list[dict]:
        runs = deployed.post("/flow_runs/filter", json={}).raise_for_status().json()
        return [run for run in runs if run["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED"}]

    wait_for(finished, seconds=90)
    (run,) = deployed.post("/flow_runs/filter", json={}).json()
    logs = deployed.post("/logs/filter", json={"sort": "TIMESTAMP_ASC"}).json()
    assert run["state"]["name"] == "Promoted", [log["message"] for log in logs]
    assert run["name"] == f"{name}-1 to sandbox"
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["tags"] == [f"adapter:{name}", "base:slipway/tiny-llama", "slipway", "target:sandbox"]
    (promotion,) = workspace.ledger.promotions(name, "sandbox")
    assert promotion.adapter_id == f"{name}/1"
    assert sandbox.versions(name) == [1]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "prefect" / "prefect.db" in written
    assert [path for path in written if sandbox.canary.encode() in path.read_bytes()] == []
