"""What the tests of the command line share: desks to give commands at, and the real servers behind the commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from slipway import cli
from slipway.services.processes import ServerProcess, free_port

ROOT = Path(__file__).parents[3]
BASE_DIRECTORY = ROOT / "sandbox" / "base_model"
BASE = "slipway/tiny-llama"
SPARE_BASE = "slipway/spare"
"""The same model under another name: nothing of it is running, so that a release has to create a deployment."""

CASES = ("one horse", "two horses", "old stone", "red table", "book river", "night eye")
HIDDEN = 128
LAYERS = 2
RANK = 8


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails if there is anything else."""
        return json.loads(self.out)


@dataclass(kw_only=True)
class Desk:
    """A directory with configs and adapters, and an environment of its own, to give commands in."""

    directory: Path
    environment: dict[str, str]
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str] | None

    def run(self, *arguments: str | Path, **options: Any) -> Ran:
        """Give a command to the installed program, as a user does."""
        with self.start(*arguments, **options) as process:
            return self.end(process)

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Begin a command."""
        program = str(Path(sys.executable).with_name("slipway"))
        given = {"env": self.environment, "stdin": subprocess.DEVNULL, "stdout": PIPE, "stderr": PIPE, **options}
        return subprocess.Popen([program, *map(str, arguments)], cwd=self.directory, text=True, **given)

    def end(self, process: subprocess.Popen[str], *, seconds: float = 120) -> Ran:
        """Wait for a command's end; one that takes too long is killed and fails the test."""
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ran(code=process.returncode, out=out or "", err=err)

    def call(self, *arguments: str | Path) -> Ran:
        """Give a command in this process: the same entry point, without the time that a process takes to start."""
        for name in [name for name in os.environ if name.startswith(("SLIPWAY", "PREDIBASE", "PREFECT", "LORAX"))]:
            self.patch.delenv(name)
        for name, value in self.environment.items():
            self.patch.setenv(name, value)
        self.patch.chdir(self.directory)
        self.patch.setattr(sys, "argv", ["slipway", *map(str, arguments)])
        self.capture.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        printed = self.capture.readouterr()
        return Ran(code=exit_.value.code, out=printed.out, err=printed.err)

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def target(self, name: str, **changes: Any) -> None:
        """Write ``configs/targets/NAME.yaml``: the sandbox's, changed."""
        document = yaml.safe_load((ROOT / "configs" / "targets" / "sandbox.yaml").read_text())
        self.write(f"configs/targets/{name}.yaml", yaml.safe_dump({**document, **changes}))

    def adapter(self, name: str, *, seed: int = 1, base: str = BASE, config: Mapping[str, Any] | None = None) -> Path:
        """Write an adapter that visibly changes the tiny base, and was never trained."""
        directory = self.directory / name
        directory.mkdir()
        chance = np.random.default_rng(seed)
        tensors = {}
        for layer in range(LAYERS):
            for module in ("q_proj", "v_proj"):
                prefix = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                for kind, shape in (("lora_A", (RANK, HIDDEN)), ("lora_B", (HIDDEN, RANK))):
                    tensors[f"{prefix}.{kind}.weight"] = 0.2 * chance.standard_normal(shape).astype("<f4")
        save_file(tensors, directory / "adapter_model.safetensors")
        members = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": RANK,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj"],
            **(config or {}),
        }
        (directory / "adapter_config.json").write_text(json.dumps(members))
        return directory


@pytest.fixture(scope="session")
def make_desk() -> Callable[..., Desk]:
    """Set a desk up in an empty directory, with a suite and a gate ``any`` that let everything through."""

    def make(
        directory: Path, patch: pytest.MonkeyPatch | None = None, capture: pytest.CaptureFixture[str] | None = None
    ) -> Desk:
        directory.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "SLIPWAY_HOME": str(directory / "home"),
            "DO_NOT_TRACK": "1",
            "COLUMNS": "100",
        }
        desk = Desk(directory=directory, environment=environment, patch=patch, capture=capture)
        shutil.copytree(ROOT / "configs" / "bases", directory / "configs" / "bases")
        desk.target("sandbox")
        tests = [{"description": f"case-{number}", "vars": {"text": text}} for number, text in enumerate(CASES)]
        suite = {
            "description": "Anything goes",
            "prompts": ["translate: {{text}}\nanswer:"],
            "defaultTest": {"assert": [{"type": "regex", "value": ".*"}]},
            "tests": tests,
        }
        desk.write("configs/suites/any.yaml", yaml.safe_dump(suite))
        gate = {"min_cases": 2, "require": [{"metric": "pass_rate", "at_least": 0.2}]}
        desk.write("configs/gates/any.yaml", yaml.safe_dump(gate))
        return desk

    return make


@pytest.fixture
def desk(tmp_path, make_desk, monkeypatch, capfd) -> Desk:
    """A desk that knows no server."""
    return make_desk(tmp_path / "desk", monkeypatch, capfd)


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """The running Predibase-compatible control plane."""

    http: httpx.Client
    environment: dict[str, str]

    def inject(self, kind: str, path: str, **fault: Any) -> None:
        """Script a fault; see ``sandbox/control_plane/faults.py``."""
        self.http.post("/sandbox/faults", json={"kind": kind, "path": path, **fault}).raise_for_status()

    def versions(self, repository: str) -> int | None:
        """Count a repository's versions; None if there is no repository."""
        reply = self.http.get(f"/v2/repos/{repository}")
        return None if reply.status_code == 404 else len(reply.raise_for_status().json()["versions"])

    def deployments(self) -> set[str]:
        found = self.http.get("/v2/deployments").raise_for_status().json()["data"]
        return {deployment["name"] for deployment in found if deployment["type"] != "shared"}


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory) -> Iterator[ControlPlane]:
    """One for the session; it serves with the real LoRAX-compatible server."""
    directory = tmp_path_factory.mktemp("control-plane")
    command = [sys.executable, "-m", "sandbox.control_plane", "--home", str(directory / "home")]
    for base in (BASE, SPARE_BASE):
        command += ["--base", f"{base}={BASE_DIRECTORY}"]
    command += ["--exit-with-parent", str(os.getpid())]
    with ServerProcess("the control plane", command, log=directory / "log") as process:
        printed = process.wait_until(lambda text: "ready http" in text, timeout_seconds=60)
        url = re.search(r"ready (http\S+)", printed)[1]
        token = (directory / "home" / "token").read_text().strip()
        environment = {"PREDIBASE_GATEWAY": url, "PREDIBASE_SERVING": url, "PREDIBASE_API_TOKEN": token}
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
            yield ControlPlane(http=client, environment=environment)


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory) -> Iterator[dict[str, str]]:
    """One Prefect server for the session, so that a release does not have to start one."""
    directory = tmp_path_factory.mktemp("prefect")
    environment = {"PREFECT_HOME": str(directory), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    api = f"http://127.0.0.1:{port}/api"
    with ServerProcess("the Prefect server", command, log=directory / "log", environment=environment) as process:
        process.wait_until(lambda _: _answers(f"{api}/health"), timeout_seconds=120)
        yield {"PREFECT_API_URL": api, "PREFECT_HOME": str(directory)}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def served_desk(desk, control_plane) -> Iterator[Desk]:
    """A desk whose environment names the control plane; faults that a test leaves are taken away."""
    desk.environment |= control_plane.environment
    yield desk
    control_plane.http.delete("/sandbox/faults").raise_for_status()


@pytest.fixture
def release_desk(served_desk, prefect_environment) -> Desk:
    """A desk at which adapters can be released."""
    served_desk.environment |= prefect_environment
    return served_desk


@pytest.fixture(scope="session")
def released(tmp_path_factory, make_desk, control_plane, prefect_environment) -> tuple[Desk, list[Ran]]:
    """A desk with a past: ``support`` was released twice and rolled back, and a deployment of its base is running."""
    desk = make_desk(tmp_path_factory.mktemp("released") / "desk")
    desk.environment |= control_plane.environment | prefect_environment
    runs = []
    for seed in (1, 2):
        adapter = desk.adapter(f"support-v{seed}", seed=seed)
        runs.append(desk.run("release", adapter, "--name", "support", "--suite", "any", "--gate", "any", "--json"))
    runs.append(desk.run("rollback", "support", "--json"))
    for run in runs:
        assert run.code == 0, run.err + run.out
    return desk, runs
