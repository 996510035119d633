"""The release flow with an adapter that has to be fitted, and with a server that is not what its target file says."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from slipway.release import Step
from slipway.services import ledger_schema as schema

ROOT = Path(__file__).parents[2]


async def ended(state, expected: str):
    """The outcome of a run that must have ended well, under a name of its own."""
    assert (state.type.value, state.name) == ("COMPLETED", expected), state.message
    return await state.result()


@pytest.fixture
def claiming_peft(tmp_path) -> str:
    """A target file that promises PEFT's own behaviour of the sandbox's LoRAX."""
    target = yaml.safe_load((ROOT / "configs" / "targets" / "sandbox.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "claims" / "sandbox.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({**target, "server": {"profile": "peft"}}), encoding="utf-8")
    return str(path)


async def test_an_adapter_that_lorax_would_misread_is_fitted_and_promoted(
    run_release, workspace, sandbox, prefect_server, name
):
    """What is uploaded is the fitted bundle; what the champion is known by is what was asked for."""
    outcome = await ended(await run_release("translate-rslora"), "Promoted")
    (release,) = workspace.ledger.releases(name)
    assert list(release.steps)[:4] == ["pull", "inspect", "fit", "upload"]
    assert release.steps[Step.INSPECT].attempts == 2
    fit = release.steps[Step.FIT].data
    assert fit["derived_from"] == outcome.digest == release.opened.digest
    assert fit["digest"] != outcome.digest

    (record,) = workspace.ledger.bundles(fit["digest"])
    assert record.derived_from == outcome.digest
    assert list(record.changes) == fit["changes"]
    (promotion,) = workspace.ledger.promotions(name)
    assert promotion.digest == outcome.digest
    uploaded = {row["digest"] for row in workspace.ledger._rows(sa.select(schema.uploads))}
    assert uploaded == {fit["digest"]}

    (findings,) = prefect_server.artifacts(f"findings-{name}")
    rows = {row["code"]: row for row in json.loads(findings["data"])}
    assert (rows["scale.rslora"]["severity"], rows["scale.rslora"]["mended"]) == ("error", "by fit")
    (report,) = prefect_server.artifacts(f"release-{name}")
    assert "rewritten for the server" in report["data"]
    page = html.unescape(outcome.report.read_text())
    assert all(change in page for change in fit["changes"])
    assert fit["digest"] in page
    assert "mended by fit" in page

    await ended(await run_release("translate-rslora"), "Unchanged")
    assert sandbox.versions(name) == [1]


async def test_an_adapter_that_cannot_be_fitted_is_refused_before_anything_is_uploaded(
    run_release, workspace, sandbox, prefect_server, name, tmp_path
):
    adapter = tmp_path / "dora"
    shutil.copytree(sandbox.adapter("translate-rslora"), adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    outcome = await ended(await run_release(str(adapter)), "Held")
    assert outcome.outcome == "refused"
    assert any("DoRA" in reason for reason in outcome.reasons)
    assert sandbox.versions(name) is None
    (release,) = workspace.ledger.releases(name)
    assert list(release.steps) == ["pull", "inspect"]
    (findings,) = prefect_server.artifacts(f"findings-{name}")
    codes = [row["code"] for row in json.loads(findings["data"])]
    assert {"config.dora", "scale.rslora"} <= set(codes)
    assert not [row for row in json.loads(findings["data"]) if row["mended"]]


async def test_a_fitted_release_that_was_cut_goes_on_with_the_same_bytes(run_release, workspace, sandbox, name):
    """The registry made the version and could not say so, for good: the next run fits again and finds it by digest."""
    sandbox.arm("commit-then-status", "/v2/adapters/upload*", method="PUT", status=500, count=20)
    assert (await run_release("translate-rslora")).name == "Failed"
    sandbox.disarm()
    outcome = await ended(await run_release("translate-rslora"), "Promoted")
    assert outcome.adapter_id == f"{name}/1"
    assert sandbox.versions(name) == [1]
    (release,) = workspace.ledger.releases(name)
    assert release.steps[Step.FIT].attempts == 2


@pytest.mark.parametrize(
    ("adapter", "words"),
    [("silently-ignored", "accepted the adapter and ignored it"), ("translate-rslora", "something else than PEFT")],
)
async def test_a_server_that_is_not_what_its_target_file_says_is_caught_by_the_live_proof(
    run_release, workspace, name, claiming_peft, adapter, words
):
    """By its file each adapter is sound for the promised server, and the running one answers 200 for both."""
    outcome = await ended(await run_release(adapter, target=claiming_peft), "Held")
    assert any(words in reason for reason in outcome.reasons), outcome.reasons
    assert outcome.results is None
    (release,) = workspace.ledger.releases(name)
    assert list(release.steps) == ["pull", "inspect", "upload", "serve", "prove"]
    assert workspace.ledger.promotions(name) == ()


async def test_the_same_adapter_is_served_in_full_once_it_is_fitted(run_release, workspace, name):
    """LoRAX drops every type of it as it was saved."""
    state = await run_release("silently-ignored")
    outcome = await state.result()
    (release,) = workspace.ledger.releases(name)
    assert release.finished(Step.PROVE) is not None
    assert outcome.results is not None
