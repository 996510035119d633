"""The release flow on real parts: every way it can end, and what each leaves behind."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

import httpx
import pytest
import yaml

from slipway.errors import ChampionMovedError, ConfigurationError, DeploymentError
from slipway.results_io import read_results

ROOT = Path(__file__).parents[2]

STEPS = ["pull", "inspect", "upload", "serve", "prove", "evaluate", "gate", "promote"]


async def ended(state, expected: str):
    """The outcome of a run that must have ended well, under a name of its own."""
    assert (state.type.value, state.name) == ("COMPLETED", expected), state.message
    return await state.result()


async def failed(state, error: type[Exception]) -> Exception:
    """The error of a run that must have failed."""
    assert (state.type.value, state.name) == ("FAILED", "Failed"), state
    found = await state.result(raise_on_failure=False)
    assert type(found) is error
    return found


def only_release(workspace, name):
    (release,) = workspace.ledger.releases(name)
    return release


def forgotten(workspace) -> list[str]:
    """Serving deployments that the ledger thinks may still be there."""
    return [state.name for state in workspace.ledger.created_deployments() if state.is_open]


async def test_first_release_creates_a_deployment_and_is_judged_against_the_base_alone(
    run_release, workspace, sandbox, prefect_server, name
):
    """The deployment's creation is answered 500 although it happened: there is one deployment, and it is ours."""
    sandbox.clear_deployments()
    sandbox.arm("commit-then-status", "/v2/deployments", method="POST", status=500)
    outcome = await ended(await run_release("translate-v1"), "Promoted")
    assert sandbox.armed() == []
    assert any("no champion yet" in reason for reason in outcome.reasons)
    assert (outcome.adapter_id, outcome.champion) == (f"{name}/1", f"{name}/1")
    assert list(sandbox.deployments().values()) == ["ready"]
    assert forgotten(workspace) == list(sandbox.deployments())

    release = only_release(workspace, name)
    assert release.outcome == "promoted"
    assert list(release.steps) == STEPS
    assert all(release.finished(step) for step in STEPS)
    assert release.steps["serve"].data["created"] is True
    assert list(outcome.seconds) == STEPS[1:]
    (promotion,) = workspace.ledger.promotions(name, "sandbox")
    assert promotion.evidence_digest == release.ended.evidence["results_sha256"]
    assert len(outcome.results.read_text().splitlines()) == 2 * 24

    (run,) = prefect_server.runs(name)
    assert (run["name"], run["state"]["name"]) == (f"{release.id} to sandbox", "Promoted")
    assert run["tags"] == [f"adapter:{name}", "base:slipway/tiny-llama", "target:sandbox"]
    (report,) = prefect_server.artifacts(f"release-{name}")
    assert (report["type"], report["data"]) == ("markdown", outcome.report.with_suffix(".md").read_text())
    assert outcome.report.as_uri() in report["data"]
    assert "Promoted" in outcome.report.read_text()
    assert 'skipped="0"' in (outcome.report.parent / "junit.xml").read_text()
    (evaluation,) = prefect_server.artifacts(f"evaluation-{name}")
    assert (evaluation["type"], len(json.loads(evaluation["data"]))) == ("table", 2)
    (progress,) = prefect_server.artifacts(f"evaluating-{name}")
    assert (progress["type"], float(progress["data"])) == ("progress", 100.0)
    events = prefect_server.events(name, expected=2)
    assert [event["event"] for event in events] == ["adapter.released", "adapter.promoted"]
    assert {event["payload"]["adapter_id"] for event in events} == {f"{name}/1"}
    assert {related["prefect.resource.id"] for event in events for related in event["related"]} >= {
        f"slipway.release.{release.id}",
        f"prefect.flow-run.{run['id']}",
    }


async def test_champion_stays_until_something_better_comes_and_can_be_brought_back(
    run_release, run_rollback, workspace, sandbox, prefect_server, name
):
    """A week of one adapter: promoted, better, worse, the same again, and back."""
    await ended(await run_release("translate-v1"), "Promoted")
    with pytest.raises(ConfigurationError, match="only champion that"):
        await (await run_rollback()).result()

    second = await ended(await run_release("translate-v2"), "Promoted")
    assert any("champion" in reason for reason in second.reasons)
    assert not any("no champion" in reason for reason in second.reasons)
    assert only_steps(workspace, second.release_id)["serve"]["created"] is False
    arms = {json.loads(line)["arm"] for line in second.results.read_text().splitlines()}
    assert arms == {"candidate", "champion", "base"}
    first, page = workspace.ledger.promotions(name)[0], second.report.read_text()
    assert first.digest in page, "whoever audits the report can tell which bytes the champion was"
    assert all(f"<dt>{fact}</dt>" in page for fact in ("address", "version", "model", "precision"))

    worse = await ended(await run_release("translate-undertrained"), "Held")
    assert worse.exit_code == 1
    assert worse.champion == second.adapter_id
    assert any("pass_rate" in reason and "0.60" in reason for reason in worse.reasons)

    again = await ended(await run_release("translate-v2"), "Unchanged")
    assert "are the champion already" in again.reasons[0]
    assert (again.exit_code, again.adapter_id) == (0, second.adapter_id)
    assert sandbox.versions(name) == [1, 2, 3]

    back = await ended(await run_rollback(), "RolledBack")
    assert (back.champion, back.is_rollback) == (f"{name}/1", True)
    forward = await ended(await run_rollback(to=second.release_id), "RolledBack")
    assert forward.champion == f"{name}/2"
    with pytest.raises(ConfigurationError, match="no former champion"):
        await (await run_rollback(to=worse.release_id)).result()

    assert [item.kind for item in workspace.ledger.promotions(name)] == ["promote", "promote", "rollback", "rollback"]
    outcomes = [release.outcome for release in workspace.ledger.releases(name)]
    assert outcomes == ["promoted", "promoted", "held", "unchanged"]
    assert len(prefect_server.artifacts(f"release-{name}")) == 6
    events = [event["event"] for event in prefect_server.events(name, expected=9)]
    assert sorted(events) == sorted(
        ["adapter.released"] * 4 + ["adapter.promoted"] * 2 + ["adapter.held"] + ["adapter.rolled-back"] * 2
    )
    states = [run["state"]["name"] for run in prefect_server.runs(name)]
    assert states == [
        "Promoted",
        "Failed",
        "Promoted",
        "Held",
        "Unchanged",
        "RolledBack",
        "RolledBack",
        "Failed",
    ]


def only_steps(workspace, release_id):
    return {step: dict(state.data) for step, state in workspace.ledger.release(release_id).steps.items()}


@pytest.mark.parametrize(
    ("adapter", "word"), [("translate-nan", "NaN"), ("wrong-base", "base")], ids=["nan", "wrong-base"]
)
async def test_broken_adapter_is_refused_before_anything_is_uploaded(
    run_release, workspace, sandbox, prefect_server, name, adapter, word
):
    outcome = await ended(await run_release(adapter), "Held")
    assert outcome.outcome == "refused"
    assert any(word in reason for reason in outcome.reasons), outcome.reasons
    assert (outcome.adapter_id, outcome.champion, outcome.results) == ("", "", None)
    assert sandbox.versions(name) is None
    assert list(only_release(workspace, name).steps) == ["pull", "inspect"]
    (report,) = prefect_server.artifacts(f"release-{name}")
    assert all(reason.split(":")[0] in report["data"] for reason in outcome.reasons)


async def test_version_of_the_registry_is_released_under_another_name(run_release, prefect_server, name):
    """Pulled through the registry, with a progress artifact of the bytes; the digest is known, and so the version."""
    await ended(await run_release("translate-v2"), "Promoted")
    outcome = await ended(await run_release(f"pbase://{name}/1", name=f"{name}-copy"), "Promoted")
    assert outcome.adapter_id == f"{name}/1"
    (pulled,) = prefect_server.artifacts(f"pulling-{name}-copy")
    assert (pulled["type"], float(pulled["data"])) == ("progress", 100.0)


async def test_too_little_evidence_decides_nothing(run_release, workspace, prefect_server, write_gate, name):
    """Neither promoted nor held: a person has to look, and the exit code says so."""
    outcome = await ended(await run_release("translate-v1", gate=write_gate(min_cases=100)), "Inconclusive")
    assert (outcome.outcome, outcome.exit_code) == ("inconclusive", 3)
    assert any("at least 100" in reason for reason in outcome.reasons), outcome.reasons
    assert workspace.ledger.promotions(name) == ()
    events = [event["event"] for event in prefect_server.events(name, expected=2)]
    assert events == ["adapter.released", "adapter.held"]


async def test_first_release_is_held_where_the_gate_wants_a_champion_to_compare_with(run_release, write_gate):
    outcome = await ended(await run_release("translate-v1", gate=write_gate(first_release="refuse")), "Held")
    assert any("first_release: refuse" in reason for reason in outcome.reasons)


async def test_a_held_candidate_cannot_be_repeated_until_it_passes(run_release, workspace):
    """The same evidence decides the same; new answers of the same bytes to the same cases are decided more strictly."""
    releases = [
        await ended(await run_release("translate-undertrained"), "Held"),
        await ended(await run_release("translate-undertrained"), "Held"),
        await ended(await run_release("translate-undertrained", fresh=True), "Held"),
    ]
    steps = [workspace.ledger.release(outcome.release_id).steps for outcome in releases]
    assert [step["gate"].data["attempt"] for step in steps] == [1, 1, 2]
    assert steps[1]["evaluate"].data["asked"] == 0
    assert steps[2]["evaluate"].data["asked"] > 0
    assert "attempt 2" in releases[2].reasons[1]
    assert "decided on before" in steps[1]["gate"].data["message"]
    assert "97.5 % confidence" in steps[2]["gate"].data["message"]


async def test_a_release_held_early_and_repeated_is_no_new_attempt(run_release, workspace, tmp_path, write_gate):
    """Decided as attempt 2, its few answers would not settle the verdict: more would be asked, and that would count."""
    target = yaml.safe_load((ROOT / "configs" / "targets" / "sandbox.yaml").read_text(encoding="utf-8"))
    (tmp_path / "sandbox.yaml").write_text(yaml.safe_dump({**target, "max_concurrency": 1}), encoding="utf-8")
    request = {
        "target": str(tmp_path / "sandbox.yaml"),
        "gate": write_gate(min_cases=5, require=[{"metric": "pass_rate", "at_least": 0.9}]),
    }
    outcomes = [
        await ended(await run_release("translate-undertrained", **request), "Held"),
        await ended(await run_release("translate-undertrained", **request), "Held"),
        await ended(await run_release("translate-undertrained", fresh=True, **request), "Held"),
    ]
    first, again, fresh = (workspace.ledger.release(outcome.release_id).steps for outcome in outcomes)
    assert "not asked, as the verdict was certain" in first["evaluate"].data["message"]
    assert again["evaluate"].data["asked"] == 0
    assert again["evaluate"].data["reused"] == first["evaluate"].data["asked"]
    assert [steps["gate"].data["attempt"] for steps in (first, again, fresh)] == [1, 1, 2]
    assert outcomes[1].reasons == outcomes[0].reasons
    assert "decided on before" in again["gate"].data["message"]
    lines = [read_results(workspace.release_directory(outcome.release_id) / "results.jsonl") for outcome in outcomes]
    assert lines[1] == lines[0]


async def test_person_is_asked_where_the_gate_says_so(run_release, workspace, prefect_server, write_gate, monkeypatch):
    monkeypatch.setattr("flows.release.APPROVAL_POLL_SECONDS", 1)
    gate = write_gate(approval="human")

    async def answer(name: str, **said: object) -> None:
        deadline = time.monotonic() + 60
        while not (runs := prefect_server.runs(name)) or runs[0]["state"]["type"] != "PAUSED":
            assert time.monotonic() < deadline, runs
            await asyncio.sleep(0.1)
        url = f"/flow_runs/{runs[0]['id']}/resume"
        while True:  # the run is paused a moment before its form is there; 503 is Prefect's SQLite, locked by others
            reply = prefect_server.http.post(url, json={"run_input": said})
            if reply.is_success and reply.json()["status"] == "ACCEPT":
                return
            assert reply.is_success or reply.status_code == httpx.codes.SERVICE_UNAVAILABLE, reply.text
            assert time.monotonic() < deadline, reply.text
            await asyncio.sleep(0.1)

    yes, no, asked_before, *_ = await asyncio.gather(
        run_release("translate-v1", name="bot-yes", gate=gate),
        run_release("translate-v2", name="bot-no", gate=gate),
        run_release("translate-v2", name="bot-asked-before", gate=gate, approved=True),
        answer("bot-yes", approve=True),
        answer("bot-no", approve=False, reason="not on a Friday"),
    )
    await ended(yes, "Promoted")
    await ended(asked_before, "Promoted")
    refused = await ended(no, "Held")
    assert refused.reasons == ("a person said no: not on a Friday.",)
    assert workspace.ledger.promotions("bot-no") == ()


async def test_deployment_of_a_held_release_goes_and_one_that_others_use_stays(
    run_release, workspace, sandbox, write_gate, name
):
    sandbox.clear_deployments()
    impossible = write_gate(require=[{"metric": "latency_ms.p95", "at_most": 0.001}])
    held = await ended(await run_release("translate-v1", gate=impossible), "Held")
    assert only_steps(workspace, held.release_id)["serve"]["created"] is True
    assert sandbox.deployments() == {}
    assert forgotten(workspace) == []

    promoted = await ended(await run_release("translate-v1"), "Promoted")
    assert promoted.adapter_id == held.adapter_id, "the version of the held release serves again"
    assert sandbox.versions(name) == [1]
    await ended(await run_release("translate-v2", name=f"{name}-other", gate=impossible), "Held")
    assert list(sandbox.deployments().values()) == ["ready"]


async def test_deployment_created_by_a_failed_release_stays_for_a_champion_proved_on_it_meanwhile(
    run_release, workspace, sandbox, name, monkeypatch
):
    """The release that created it fails at its gate, after another became champion on it."""
    import flows.release as flow

    sandbox.clear_deployments()
    decide = flow.decide_verdict

    async def decide_late(*arguments, release_id: str, **more):
        if release_id.startswith(f"{name}-first-"):
            await ended(await run_release("translate-v2", name=f"{name}-second"), "Promoted")
            raise DeploymentError("the power went off.", deployment="any", status="errored")
        return await decide(*arguments, release_id=release_id, **more)

    monkeypatch.setattr(flow, "decide_verdict", decide_late)
    await failed(await run_release("translate-v1", name=f"{name}-first"), DeploymentError)
    assert only_steps(workspace, f"{name}-first-1")["serve"]["created"] is True
    assert only_steps(workspace, f"{name}-second-1")["serve"]["created"] is False
    assert list(sandbox.deployments().values()) == ["ready"]


async def test_deployment_that_ends_errored_is_deleted_and_the_run_fails(
    run_release, workspace, sandbox, prefect_server, name
):
    sandbox.clear_deployments()
    sandbox.arm("fail-start", "*")
    error = await failed(await run_release("translate-v1"), DeploymentError)
    assert "ended errored. It was deleted again." in error.message
    assert error.fix
    assert sandbox.deployments() == {}
    assert forgotten(workspace) == []
    release = only_release(workspace, name)
    assert release.is_open
    assert release.steps["serve"].status == "failed"
    (run,) = prefect_server.runs(name)
    assert error.message in run["state"]["message"]
    assert error.fix in run["state"]["message"]


async def test_deployment_that_never_gets_ready_is_deleted_at_the_deadline(
    run_release, workspace, sandbox, write_target
):
    sandbox.clear_deployments()
    sandbox.arm("delay-start", "*", seconds=60)
    target = write_target(ready_timeout_seconds=1.0)
    error = await failed(await run_release("translate-v1", target=target), DeploymentError)
    assert "was not ready within 1 s" in error.message
    assert "It was deleted again" in error.message
    assert "ready_timeout_seconds" in error.fix
    assert sandbox.deployments() == {}
    assert forgotten(workspace) == []


async def test_nothing_is_promoted_when_the_champion_moved_in_between(run_release, workspace, name, monkeypatch):
    """The evidence compares with a champion that is none any more; the repeat compares with the one of now."""
    import flows.release as flow

    decide = flow.decide_verdict

    async def decide_late(*arguments, **more):
        verdict = await decide(*arguments, **more)
        monkeypatch.setattr(flow, "decide_verdict", decide)
        await ended(await run_release("translate-v1"), "Promoted")
        return verdict

    monkeypatch.setattr(flow, "decide_verdict", decide_late)
    error = await failed(await run_release("translate-v2"), ChampionMovedError)
    assert f"{name}/2 ({name}-2)" in error.message
    (promotion,) = workspace.ledger.promotions(name)
    assert promotion.release_id == f"{name}-2"
    assert workspace.ledger.release(f"{name}-1").is_open

    repeated = await ended(await run_release("translate-v2"), "Promoted")
    assert repeated.release_id == f"{name}-1"
    assert any("champion's" in reason for reason in repeated.reasons), repeated.reasons
    assert [item.release_id for item in workspace.ledger.promotions(name)] == [f"{name}-2", f"{name}-1"]


async def test_upload_whose_last_step_is_answered_500_after_it_happened_makes_one_version(
    run_release, workspace, sandbox, name
):
    sandbox.arm("commit-then-status", "/v2/adapters/upload/", method="PUT", status=500)
    state = await run_release("translate-v1")
    assert sandbox.armed() == []
    if state.name == "Failed":  # a 500 is not repeated blindly; the repeated release sends the same upload token again
        state = await run_release("translate-v1")
    outcome = await ended(state, "Promoted")
    assert outcome.adapter_id == f"{name}/1"
    assert sandbox.versions(name) == [1]
    (upload,) = workspace.ledger.uploads(target="sandbox@local", digest=outcome.digest)
    assert upload.version == f"{name}/1"


async def test_same_bytes_from_another_place_reuse_the_version(run_release, workspace, sandbox, name, tmp_path):
    first = await ended(await run_release("translate-undertrained"), "Held")
    copy = tmp_path / "copy"
    shutil.copytree(sandbox.adapter("translate-undertrained"), copy)
    second = await ended(await run_release(str(copy)), "Held")
    assert (second.adapter_id, second.digest) == (first.adapter_id, first.digest)
    assert only_steps(workspace, second.release_id)["upload"]["reused"] is True
    assert sandbox.versions(name) == [1]


async def test_bad_request_fails_before_anything_happens(run_release, workspace, name):
    for change, words in [
        ({"target": "nowhere"}, "no target called 'nowhere'"),
        ({"suite": "nothing"}, "no suite called 'nothing'"),
        ({"name": "Not A Name"}, "cannot be an adapter's name"),
    ]:
        error = await failed(await run_release("translate-v1", **change), ConfigurationError)
        assert words in error.message
        assert error.exit_code == 2
    assert workspace.ledger.releases() == ()
    assert not Path(workspace.home.bundles).exists()


async def test_rollback_without_a_champion_says_so(run_rollback, name):
    error = await failed(await run_rollback(), ConfigurationError)
    assert f"{name} has no champion on sandbox" in error.message
