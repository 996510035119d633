"""Releases that are cut: by kill -9, at every moment that matters, and by being told to stop.

After a kill, the next run ends as one that nothing happened to; told to stop, a release takes down what it created.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORKS = """
import json, os, signal, sys

from slipway.cli.prefect_session import prepare_prefect
from slipway.services.ledger_store import Ledger

prepare_prefect()
from slipway.cli import main, release
import flows.release


class Goodbye:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def say_goodbye():
    told = Goodbye()
    del told


ACTIONS = {
    "kill": lambda: os.killpg(0, signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "ctrl-c": lambda: os.kill(os.getpid(), signal.SIGINT),
    "term in a destructor": say_goodbye,
}


def act_at(moment, action):
    method, field, value = moment.split(":")
    record = getattr(Ledger, method)

    def record_and_act(self, *arguments, **facts):
        result = record(self, *arguments, **facts)
        said = [*map(str, arguments), *(str(facts[key]) for key in ("stage", "status", "kind") if key in facts)]
        if all(word in said for word in (field, value) if word):
            setattr(Ledger, method, record)
            ACTIONS[action]()
        return result

    setattr(Ledger, method, record_and_act)


def run(order):
    os.setsid()
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv[1:] = order["arguments"]
    if order["moment"]:
        act_at(order["moment"], order["action"])
    main()


print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(json.loads(line))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs the command line again and again, each time in a process group of its own: importing it takes longer than most
of what is cut here, so that is done once, and each run is a fork. A run can be told to act, such as to kill itself, the
moment after a given fact is in the ledger."""


class Forks:
    """The process that forks the runs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._read() == "ready"

    def run(self, **order: object) -> int:
        """Start a run; returns its process id. The run before must have ended."""
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def end(self, seconds: float) -> int | None:
        """Wait for the run to end; its exit code as subprocess gives it, None if it has not ended in time."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return int(self._read()) if ready else None

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _read(self) -> str:
        return self._process.stdout.readline().strip()


class Run:
    """One run of the command line."""

    def __init__(self, forks: Forks, output: Path, **order: object) -> None:
        self._forks = forks
        self._output = output
        self._code: int | None = None
        self.pid = forks.run(output=str(output), **order)

    def end(self, seconds: float = 90) -> int | None:
        """As ``Forks.end``, but for this run, and also after it has ended."""
        if self._code is None:
            self._code = self._forks.end(seconds)
        return self._code

    @property
    def printed(self) -> str:
        return self._output.read_text()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with all its children, without asking."""
        os.killpg(self.pid, signal.SIGKILL)
        assert self.end() == -signal.SIGKILL


MOMENTS = (
    "record_step:pull:finished",
    "record_step:inspect:finished",
    "record_upload::intended",
    "record_upload::token",
    "record_upload::sent",
    "record_upload::committed",
    "record_step:upload:finished",
    "record_deployment::intended",
    "record_deployment::created",
    "record_deployment::ready",
    "record_step:serve:finished",
    "record_step:prove:finished",
    "record_step:evaluate:finished",
    "record_step:gate:finished",
    "promote::promote",
)
"""Each later than the ones before it, also in a release that skips what an earlier run of it did."""


@pytest.fixture(scope="module")
def forks(prefect_server) -> Iterator[Forks]:
    started = Forks(prefect_server.environment)
    yield started
    started.close()


@pytest.fixture
def environment(workspace, prefect_server, sandbox) -> dict[str, str]:
    return {**os.environ, **prefect_server.environment}


@pytest.fixture
def arguments(sandbox, name, suite, gate) -> list[str]:
    return ["release", sandbox.adapter("translate-v1"), "--name", name, "--suite", suite, "--gate", gate]


@pytest.fixture
def command(forks, environment, arguments, tmp_path) -> Iterator[Callable[..., Run]]:
    """Start ``slipway release``, or what is given; ``moment`` is a method of the ledger and two words that it gets."""
    output = tmp_path / "printed.txt"
    runs: list[Run] = []

    def start(*other: str, moment: str = "", action: str = "") -> Run:
        order = {"environment": environment, "arguments": other or arguments, "moment": moment, "action": action}
        runs.append(Run(forks, output, **order))
        return runs[-1]

    yield start
    if runs and runs[-1].end(0) is None:
        runs[-1].kill()


def finish(run: Run) -> str:
    """Wait for a run that must promote."""
    assert run.end() == 0, run.printed
    return run.printed


def wait_until(is_so: Callable[[], object], run: Run) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert run.end(0) is None, run.printed
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_as_if_nothing_happened(workspace, sandbox, name) -> None:
    """One release, one version, one deployment, one promotion; nothing open and nothing leased."""
    ledger = workspace.ledger
    (release,) = ledger.releases(name)
    assert release.outcome == "promoted"
    (promotion,) = ledger.promotions(name, "sandbox")
    assert promotion.release_id == release.id
    assert sandbox.versions(name) == [1]
    assert promotion.adapter_id == f"{name}/1"
    uploads = ledger.uploads(target="sandbox@local", digest=promotion.digest)
    assert [upload.version for upload in uploads if upload.version] == [f"{name}/1"]
    assert not any(upload.is_open for upload in uploads)
    assert list(sandbox.deployments().values()) == ["ready"]
    (deployment,) = ledger.created_deployments("sandbox@local")
    assert deployment.name in sandbox.deployments()
    assert (deployment.is_open, deployment.release_id) == (True, release.id)


def test_release_killed_after_everything_it_writes_down_ends_as_one_that_was_not(
    command, environment, arguments, workspace, sandbox, prefect_server, name
):
    """One release, cut again and again: each run gets one fact further than the run before.

    The last is started as a user starts it, in a fresh process.
    """
    sandbox.clear_deployments()
    for moment in MOMENTS:
        run = command(moment=moment, action="kill")
        assert run.end() == -signal.SIGKILL, f"{moment} was never reached: {run.printed}"
        assert workspace.ledger.releases(name)[0].is_open, moment
    last = subprocess.run(
        [sys.executable, "-c", "from slipway.cli import main; main()", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert last.returncode == 0, last.stderr
    assert f"promoted {name}-1" in last.stdout
    assert_as_if_nothing_happened(workspace, sandbox, name)
    promotion, release = workspace.ledger.promotions(name)[0], workspace.ledger.releases(name)[0]
    assert release.ended.evidence["results_sha256"] == promotion.evidence_digest != ""
    (evaluation,) = prefect_server.artifacts(f"evaluation-{name}")
    assert f"{name}-1" in evaluation["description"]


def test_release_killed_before_its_last_word_says_it_when_it_runs_again(command, workspace, sandbox, name):
    assert command(moment="record_step:promote:finished", action="kill").end() == -signal.SIGKILL
    finish(command())
    (release,) = workspace.ledger.releases(name)
    assert release.outcome == "promoted"
    assert all(state.status == "finished" for state in release.steps.values())
    assert any("is at least" in reason for reason in release.ended.reasons), "the reasons are those of the verdict"


def test_release_killed_while_the_registry_makes_the_version_finds_it(command, workspace, sandbox, name):
    """The version comes to be after the process that asked for it has died."""
    sandbox.arm("delay", "/v2/adapters/upload/", method="PUT", seconds=1.0)
    run = command()
    wait_until(lambda: not sandbox.armed(), run)
    run.kill()
    finish(command())
    (upload,) = workspace.ledger.uploads(target="sandbox@local", digest=workspace.ledger.promotions(name)[0].digest)
    assert upload.version == f"{name}/1"
    assert sandbox.versions(name) == [1]


def test_release_killed_while_it_sends_a_file_uploads_again(command, workspace, sandbox, name):
    sandbox.arm("delay", "/sandbox/uploads/*/adapter_model.safetensors", method="PUT", seconds=1.0)
    run = command()
    wait_until(lambda: not sandbox.armed(), run)
    run.kill()
    finish(command())
    uploads = workspace.ledger.uploads(target="sandbox@local", digest=workspace.ledger.promotions(name)[0].digest)
    assert [upload.stage for upload in uploads] == ["abandoned", "committed"]
    assert sandbox.versions(name) == [1]


def test_release_killed_while_a_deployment_is_being_created_adopts_it(command, workspace, sandbox, name):
    """The deployment comes to be after the process that asked for it has died."""
    sandbox.clear_deployments()
    sandbox.arm("delay", "/v2/deployments", method="POST", seconds=0.5)
    run = command()
    wait_until(lambda: not sandbox.armed(), run)
    run.kill()
    finish(command())
    assert_as_if_nothing_happened(workspace, sandbox, name)


def assert_all_is_down(workspace, sandbox, name) -> None:
    """What the release created is gone, here and there, and the release can be continued."""
    assert sandbox.deployments() == {}
    assert [state.stage for state in workspace.ledger.created_deployments()] == ["deleted"]
    assert workspace.ledger.releases(name)[0].is_open


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "ctrl-c"])
@pytest.mark.parametrize("moment", ["while it creates it", "while it waits for it"])
def test_release_told_to_stop_takes_down_the_deployment_that_it_creates(
    command, workspace, sandbox, name, number, moment
):
    sandbox.clear_deployments()
    if moment == "while it creates it":
        sandbox.arm("delay", "/v2/deployments", method="POST", seconds=1.0)
    else:
        sandbox.arm("delay-start", "*", seconds=60)
    run = command()
    wait_until(lambda: not sandbox.armed(), run)
    run.send(number)
    assert run.end() == 128 + number, run.printed
    if moment == "while it creates it":
        time.sleep(1.0)  # so that a deployment whose creation was given up would be there by now
    assert_all_is_down(workspace, sandbox, name)


@pytest.mark.parametrize(
    ("moment", "action"),
    [
        ("record_deployment::intended", "term in a destructor"),
        ("record_deployment::ready", "term in a destructor"),
        ("record_deployment::ready", "term"),
        ("record_deployment::ready", "ctrl-c"),
        ("record_step:evaluate:started", "term in a destructor"),
    ],
)
def test_release_told_to_stop_where_an_exception_would_be_lost_takes_down_its_deployment(
    command, workspace, sandbox, name, moment, action
):
    """Python drops what a signal's handler raises in a destructor; the release would run on, and promote."""
    sandbox.clear_deployments()
    run = command(moment=moment, action=action)
    assert run.end() == 128 + (signal.SIGINT if action == "ctrl-c" else signal.SIGTERM), run.printed
    assert "the same command continues it" in run.printed
    assert_all_is_down(workspace, sandbox, name)


def test_release_told_to_stop_right_after_it_promoted_leaves_the_champion_its_deployment(
    command, workspace, sandbox, name
):
    sandbox.clear_deployments()
    assert command(moment="promote::promote", action="term").end() == 128 + signal.SIGTERM
    assert list(sandbox.deployments().values()) == ["ready"]
    finish(command())
    assert_as_if_nothing_happened(workspace, sandbox, name)


def test_rollback_told_to_stop_takes_down_the_deployment_that_it_created(
    command, arguments, write_target, workspace, sandbox, name
):
    """Also in the moment in which it is there and the flow does not know yet. The champion is served by another one."""
    finish(command())
    sandbox.clear_deployments()
    second = [argument.replace("translate-v1", "translate-v2") for argument in arguments]
    finish(command(*second, "--target", write_target(name="elsewhere")))
    sandbox.clear_deployments()
    run = command("rollback", name, moment="record_deployment::ready", action="term")
    assert run.end() == 128 + signal.SIGTERM, run.printed
    assert sandbox.deployments() == {}
    stages = {state.name: state.stage for state in workspace.ledger.created_deployments()}
    assert stages.pop("elsewhere") == "ready"
    assert list(stages.values()) == ["deleted"]
    assert [promotion.kind for promotion in workspace.ledger.promotions(name)] == ["promote", "promote"]


def test_release_told_to_stop_twice_ends_at_once(command, workspace, sandbox, name):
    """Who cannot wait for the deletion has the ledger's word for what is left; the next run continues from there."""
    sandbox.clear_deployments()
    sandbox.arm("delay", "/v2/deployments/*", method="DELETE", seconds=8)
    run = command(moment="record_deployment::ready", action="term")
    wait_until(lambda: not sandbox.armed(), run)
    assert run.end(1.2) is None
    run.send(signal.SIGTERM)
    assert run.end(10) == -signal.SIGTERM, run.printed
    assert [state.stage for state in workspace.ledger.created_deployments()] == ["deleting"]
    while sandbox.deployments():  # the next test may create one of the same name, which this deletion must not meet
        time.sleep(0.1)
