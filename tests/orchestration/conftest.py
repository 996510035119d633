"""Real parts for the flows: one Prefect server and one sandbox for the session, a ledger for each test."""

from __future__ import annotations

import gc
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from slipway.services import workspace as workspaces
from slipway.services.processes import ServerProcess

ROOT = Path(__file__).parents[2]
CANARY = "canary-4b7e-ROTATE-me-9d02"
"""The session's Predibase token. It looks like nothing in particular, so only knowing it can mask it."""

TRAIN_SECONDS = 300.0
SLOWEST_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """The running sandbox, and a connection to its control plane that no fault and no limit of ours touches."""

    environment: Mapping[str, str]
    state: Path
    log: Path
    http: httpx.Client
    canary: str = CANARY

    def adapter(self, name: str) -> str:
        """Path of a trained adapter."""
        return str(Path(self.environment["SLIPWAY_SANDBOX_ADAPTERS"]) / name)

    def arm(self, kind: str, path: str, **fault: Any) -> None:
        """Script a fault; see ``sandbox/control_plane/faults.py``."""
        self.http.post("/sandbox/faults", json={"kind": kind, "path": path, **fault}).raise_for_status()

    def armed(self) -> list[dict[str, Any]]:
        """The faults that are not yet spent."""
        return self.http.get("/sandbox/faults").json()["faults"]

    def disarm(self) -> None:
        self.http.delete("/sandbox/faults").raise_for_status()

    def versions(self, repository: str) -> list[int] | None:
        """Tags of a repository; None when there is none."""
        reply = self.http.get(f"/v2/repos/{repository}")
        if reply.status_code == 404:
            return None
        return [version["tag"] for version in reply.raise_for_status().json()["versions"]]

    def deployments(self) -> dict[str, str]:
        """Status of each private serving deployment."""
        found = self.http.get("/v2/deployments").raise_for_status().json()["data"]
        return {item["name"]: item["status"] for item in found if item["type"] != "shared"}

    def clear_deployments(self) -> None:
        """Delete them, so that the next release has to create one."""
        for name in self.deployments():
            self.http.delete(f"/v2/deployments/{name}").raise_for_status()


@dataclass(frozen=True, kw_only=True)
class PrefectServer:
    """The session's Prefect server."""

    url: str
    home: Path
    database: Path
    http: httpx.Client
    environment: Mapping[str, str] = field(default_factory=dict)

    def runs(self, name: str) -> list[dict[str, Any]]:
        """Flow runs of an adapter, oldest first."""
        found = self.http.post("/flow_runs/filter", json={"sort": "START_TIME_ASC"}).raise_for_status().json()
        return [run for run in found if run["parameters"].get("name") == name]

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """Every version of an artifact, oldest first."""
        body = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
        return list(reversed(self.http.post("/artifacts/filter", json=body).raise_for_status().json()))

    def events(self, adapter: str, *, expected: int) -> list[dict[str, Any]]:
        """Slipway's events of an adapter, oldest first, once there are as many as expected: they arrive late."""
        body = {"filter": {"resource": {"id": [f"slipway.adapter.{adapter}"]}, "order": "ASC"}, "limit": 50}
        deadline = time.monotonic() + 20
        while True:
            found = self.http.post("/events/filter", json=body).raise_for_status().json()["events"]
            if len(found) >= expected or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow what real parts need.

    Prefect leaves connections to its own server open when the event loop of a flow ends. And whichever test comes first
    waits for the servers, and for adapters that are not in the cache.
    """
    leaks = pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    )
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(leaks)
            item.add_marker(pytest.mark.timeout(SLOWEST_SECONDS))


@pytest.fixture(autouse=True)
def connections_are_collected() -> Iterator[None]:
    """Those connections are found at the next garbage collection, which must not be in a test of something else."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def sandbox_start(tmp_path_factory) -> Iterator[tuple[ServerProcess, Path]]:
    """The sandbox as users start it, with a token that can be looked for. Not waited for: Prefect starts meanwhile."""
    state = tmp_path_factory.mktemp("sandbox")
    (state / "token").write_text(CANARY + "\n")
    home = os.environ.get("SLIPWAY_HOME") or str(ROOT / ".slipway")
    command = [sys.executable, "-m", "sandbox", "--home", home, "--state", str(state)]
    with ServerProcess("the sandbox", command, log=tmp_path_factory.mktemp("logs") / "sandbox.log") as process:
        yield process, state


@pytest.fixture(scope="session")
def prefect_server(sandbox_start, tmp_path_factory) -> Iterator[PrefectServer]:
    """A Prefect server for all tests of this directory; flows in this process use it too."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        PREFECT_SERVER_DATABASE_CONNECTION_URL,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    updates = {
        PREFECT_HOME: home,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(updates=updates), prefect_test_harness(server_startup_timeout=90):
        url = PREFECT_API_URL.value()
        database = Path(PREFECT_SERVER_DATABASE_CONNECTION_URL.value().partition(":///")[2])
        environment = {"PREFECT_API_URL": url, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1"}
        with httpx.Client(base_url=url, timeout=30) as http:
            yield PrefectServer(url=url, home=home, database=database, http=http, environment=environment)


@pytest.fixture(scope="session")
def sandbox_process(sandbox_start) -> Iterator[Sandbox]:
    """The sandbox, ready."""
    process, state = sandbox_start
    printed = process.wait_until(lambda text: text.rstrip().endswith("ready"), timeout_seconds=TRAIN_SECONDS)
    lines = [shlex.split(line)[1] for line in printed.splitlines() if line.startswith("export ")]
    environment = dict(line.split("=", 1) for line in lines)
    with httpx.Client(
        base_url=environment["PREDIBASE_GATEWAY"], headers={"Authorization": f"Bearer {CANARY}"}, timeout=30
    ) as http:
        yield Sandbox(environment=environment, state=state, log=process.log, http=http)


@pytest.fixture
def sandbox(sandbox_process, monkeypatch) -> Iterator[Sandbox]:
    """The sandbox, named by this process's environment, with no fault armed before and after."""
    for name, value in sandbox_process.environment.items():
        monkeypatch.setenv(name, value)
    sandbox_process.disarm()
    yield sandbox_process
    sandbox_process.disarm()


@pytest.fixture
def workspace(prefect_server, sandbox, tmp_path, monkeypatch) -> Iterator[workspaces.Workspace]:
    """A fresh SLIPWAY_HOME and ledger, with Prefect server and sandbox running."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLIPWAY_CONFIGS", str(ROOT / "configs"))
    monkeypatch.delenv("SLIPWAY_LEDGER_URL", raising=False)
    (tmp_path / "home").mkdir()
    opened = workspaces.open_workspace()
    yield opened
    opened.ledger.close()


@pytest.fixture
def name() -> str:
    """An adapter's name that no other test has used on the shared parts."""
    return f"bot-{uuid4().hex[:8]}"


@pytest.fixture
def suite(tmp_path) -> str:
    """Two dozen cases of the translation suite: enough for exact intervals to decide, and quick to ask."""
    document = yaml.safe_load((ROOT / "configs" / "suites" / "translate.yaml").read_text(encoding="utf-8"))
    plain = [case for case in document["tests"] if "late-words" not in case["metadata"]["tags"]]
    document["tests"] = plain[:24]
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return str(path)


@pytest.fixture
def write_gate(tmp_path) -> Callable[..., str]:
    """Write a gate that suits the small suite; keywords replace top-level keys."""

    def write(**changes: object) -> str:
        gate = {
            "min_cases": 10,
            "require": [{"metric": "pass_rate", "at_least": 0.6}],
            "against": {
                "champion": {"metric": "pass_rate", "margin": 0.3},
                "base": {"metric": "pass_rate", "better_by": 0.0},
            },
            **changes,
        }
        path = tmp_path / f"gate-{len(list(tmp_path.glob('gate-*.yaml')))}.yaml"
        path.write_text(yaml.safe_dump(gate), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def gate(write_gate) -> str:
    return write_gate()


@pytest.fixture
def write_target(tmp_path) -> Callable[..., str]:
    """Write a sandbox target whose deployment section has the given keys; its name in the ledger stays ``sandbox``."""

    def write(**deployment: object) -> str:
        target = yaml.safe_load((ROOT / "configs" / "targets" / "sandbox.yaml").read_text(encoding="utf-8"))
        target["deployment"] |= deployment
        path = tmp_path / "targets" / "sandbox.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(target), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run_release(workspace, sandbox, name, suite, gate) -> Callable[..., Any]:
    """Run the flow on one of the sandbox's adapters, or on a path; gives the final state."""
    from flows.release import release

    async def run(adapter: str, **changes: Any) -> Any:
        uri = adapter if "/" in adapter else sandbox.adapter(adapter)
        request = {"name": name, "target": "sandbox", "suite": suite, "gate": gate} | changes
        return await release(adapter=uri, **request, return_state=True)

    return run


@pytest.fixture
def run_rollback(workspace, name) -> Callable[..., Any]:
    """Run the rollback flow; gives the final state."""
    from flows.rollback import rollback

    async def run(**request: Any) -> Any:
        return await rollback(name=name, target="sandbox", return_state=True, **request)

    return run
