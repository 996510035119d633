"""kill -9 at every moment that matters: run again, a release ends as one that nothing happened to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DIE_AT = """
import os, signal, sys
from slipway.cli import main
from slipway.services.ledger_store import Ledger

method, field, value = sys.argv.pop(1).split(":")
record = getattr(Ledger, method)

def record_and_die(self, *arguments, **facts):
    result = record(self, *arguments, **facts)
    said = [*map(str, arguments), *(str(facts[key]) for key in ("stage", "status", "kind") if key in facts)]
    if all(word in said for word in (field, value) if word):
        os.killpg(0, signal.SIGKILL)
    return result

setattr(Ledger, method, record_and_die)
main()
"""
"""The command line, in a process group that kills itself the moment after a given fact is in the ledger."""

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


@pytest.fixture
def command(workspace, prefect_server, sandbox, name, suite, gate) -> Callable[..., subprocess.Popen[str]]:
    """Start ``slipway release`` in a process group of its own."""
    environment = {**os.environ, **prefect_server.environment}
    release = ["release", sandbox.adapter("translate-v1"), "--name", name, "--suite", suite, "--gate", gate]

    def start(*, die_at: str = "") -> subprocess.Popen[str]:
        program = ["-c", DIE_AT, die_at] if die_at else ["-c", "from slipway.cli import main; main()"]
        return subprocess.Popen(
            [sys.executable, *program, *release],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a run that must promote."""
    printed, _ = process.communicate(timeout=90)
    assert process.returncode == 0, printed
    return printed


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def wait_until(is_so: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert process.poll() is None, process.communicate()[0]
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
    command, workspace, sandbox, prefect_server, name
):
    """One release, cut again and again: each run gets one fact further than the run before."""
    sandbox.clear_deployments()
    for moment in MOMENTS:
        process = command(die_at=moment)
        printed, _ = process.communicate(timeout=90)
        assert process.returncode == -signal.SIGKILL, f"{moment} was never reached: {printed}"
        assert workspace.ledger.releases(name)[0].is_open, moment
    printed = finish(command())
    assert f"promoted {name}-1" in printed
    assert_as_if_nothing_happened(workspace, sandbox, name)
    promotion, release = workspace.ledger.promotions(name)[0], workspace.ledger.releases(name)[0]
    assert release.ended.evidence["results_sha256"] == promotion.evidence_digest != ""
    (evaluation,) = prefect_server.artifacts(f"evaluation-{name}")
    assert f"{name}-1" in evaluation["description"]


def test_release_killed_before_its_last_word_says_it_when_it_runs_again(command, workspace, sandbox, name):
    process = command(die_at="record_step:promote:finished")
    process.communicate(timeout=90)
    assert process.returncode == -signal.SIGKILL
    finish(command())
    (release,) = workspace.ledger.releases(name)
    assert release.outcome == "promoted"
    assert all(state.status == "finished" for state in release.steps.values())
    assert any("is at least" in reason for reason in release.ended.reasons), "the reasons are those of the verdict"


def test_release_killed_while_the_registry_makes_the_version_finds_it(command, workspace, sandbox, name):
    """The version comes to be after the process that asked for it has died."""
    sandbox.arm("delay", "/v2/adapters/upload/", method="PUT", seconds=1.0)
    process = command()
    wait_until(lambda: not sandbox.armed(), process)
    kill(process)
    finish(command())
    (upload,) = workspace.ledger.uploads(target="sandbox@local", digest=workspace.ledger.promotions(name)[0].digest)
    assert upload.version == f"{name}/1"
    assert sandbox.versions(name) == [1]


def test_release_killed_while_it_sends_a_file_uploads_again(command, workspace, sandbox, name):
    sandbox.arm("delay", "/sandbox/uploads/*/adapter_model.safetensors", method="PUT", seconds=1.0)
    process = command()
    wait_until(lambda: not sandbox.armed(), process)
    kill(process)
    finish(command())
    uploads = workspace.ledger.uploads(target="sandbox@local", digest=workspace.ledger.promotions(name)[0].digest)
    assert [upload.stage for upload in uploads] == ["abandoned", "committed"]
    assert sandbox.versions(name) == [1]


def test_release_killed_while_a_deployment_is_being_created_adopts_it(command, workspace, sandbox, name):
    """The deployment comes to be after the process that asked for it has died."""
    sandbox.clear_deployments()
    sandbox.arm("delay", "/v2/deployments", method="POST", seconds=0.5)
    process = command()
    wait_until(lambda: not sandbox.armed(), process)
    kill(process)
    finish(command())
    assert_as_if_nothing_happened(workspace, sandbox, name)


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
    process = command()
    wait_until(lambda: not sandbox.armed(), process)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0, printed
    assert sandbox.deployments() == {}
    assert [state.stage for state in workspace.ledger.created_deployments()] == ["deleted"]
    assert workspace.ledger.releases(name)[0].is_open
