"""What a release keeps and shows of fitting, without running one."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from slipway.inspection import inspect_bundle
from slipway.profiles import find_profile
from slipway.report import FindingLine, FitLine, ReportData, render_html
from slipway.targets import Target, load_target
from tasks.dossier import Dossier

ROOT = Path(__file__).parents[3]
PROFILE = find_profile()


def test_report_shows_changes_and_origin():
    fit = FitLine(digest="sha256:new", derived_from="sha256:old", changes=("a", "b | c"), proof="3 modules agree")
    text = render_html(
        ReportData(
            name="bot",
            release_id="bot-1",
            outcome="promoted",
            fit=fit,
            findings=(
                FindingLine(severity="error", code="scale.rslora", message="x", mended=True),
                FindingLine(severity="warning", code="modules.width", message="y"),
            ),
        )
    )
    section = text[text.index("<h3>Fit</h3>") : text.index("<h3>Findings of the inspection</h3>")]
    assert "sha256:new" in section
    assert "sha256:old" in section
    assert ">a</li>" in section
    assert "3 modules agree" in section
    assert "error, mended by fit" in text
    assert ">warning</span>" in text


def test_report_of_an_adapter_that_was_not_fitted_says_nothing_of_it():
    assert "<h3>Fit</h3>" not in render_html(ReportData(name="bot", release_id="bot-1", outcome="promoted"))


def test_dossier_tells_what_was_mended_and_what_is_left(make_adapter, pull, base, fit):
    directory = make_adapter(rank=4)
    bundle = pull(directory)
    before = inspect_bundle(bundle, base, PROFILE)
    fitted = fit(directory=directory)
    dossier = Dossier(plan=None, bundle=bundle, base_model="org/base", release_id="x-1", champion=None)
    assert dossier.findings == ()
    assert dossier.servable is bundle
    dossier.inspection = before
    assert {line.code: line.mended for line in dossier.findings}["rank.padding"] is False
    dossier.fitted = fitted
    dossier.fitted_inspection = inspect_bundle(fitted.bundle, base, PROFILE)
    assert dossier.servable is fitted.bundle
    mended = {line.code: line.mended for line in dossier.findings}
    assert mended.pop("rank.padding")
    assert not any(mended.values())


def test_dossier_shows_what_only_the_fitted_bundle_has(make_adapter, pull, base, fit):
    directory = make_adapter(rank=4)
    before = inspect_bundle(pull(directory), base, PROFILE)
    dossier = Dossier(plan=None, bundle=before.bundle, base_model="org/base", release_id="x-1", champion=None)
    dossier.inspection, dossier.fitted = replace(before, findings=()), fit(directory=directory)
    dossier.fitted_inspection = before
    assert [line.code for line in dossier.findings] == [finding.code for finding in before.findings]


def target(**server) -> Target:
    return Target.model_validate({"kind": "sandbox", "bases": {"org/base": {}}, "server": server})


def test_server_of_a_target_is_what_the_rules_ask_about():
    facts = target(tensor_parallel=2, gpu_memory_gb=24, adapter_memory_fraction=0.2).server_facts()
    assert (facts.tensor_parallel, facts.gpu_memory_bytes, facts.adapter_memory_fraction) == (2, 24 * 10**9, 0.2)
    assert target().server_facts().gpu_memory_bytes is None


def test_preloaded_adapters_are_the_deployments():
    document = {"kind": "sandbox", "bases": {"b": {}}, "deployment": {"preloaded_adapters": ["a/1"]}}
    assert Target.model_validate(document).server_facts().preloads_adapters
    assert not target().server_facts().preloads_adapters


@pytest.mark.parametrize("server", [{"tensor_parallel": 0}, {"tensor_parallel": 65}, {"gpu_memory_gb": 0}, {"x": 1}])
def test_impossible_servers_are_refused(server):
    with pytest.raises(ValueError, match="server"):
        target(**server)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "targets").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_targets_name_a_profile_that_there_is(path):
    assert find_profile(load_target(path).server.profile).rules
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "slipway" / "fit").glob("*.py")), ids=lambda path: path.stem)
def test_rewrites_are_pure(path):
    """They take values and give values: no files, no processes, no services, no torch."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    forbidden = {"os", "pathlib", "subprocess", "socket", "torch", "tempfile", "mmap", "safetensors", "peft"}
    assert not {name for name in names if name.split(".")[0] in forbidden or name.startswith("slipway.services")}
