"""prefect.yaml, and the names under which flows and tasks appear: what people filter by must not change by accident."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENT = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS = {deployment["name"]: deployment for deployment in DOCUMENT["deployments"]}

FLOWS = {
    "flows.release.release": ("release", "release-{name}-to-{target}"),
    "flows.rollback.rollback": ("rollback", "rollback-{name}-on-{target}"),
}

TASKS = {
    "tasks.sources.pull_adapter": ("pull", "pull-{name}", 1),
    "tasks.inspection.inspect_adapter": ("inspect", "inspect-{release_id}", 0),
    "tasks.fitting.fit_adapter": ("fit", "fit-{release_id}", 0),
    "tasks.registry.upload_adapter": ("upload", "upload-{release_id}", 1),
    "tasks.serving.serve_base": ("attach-or-deploy", "serve-{release_id}", 1),
    "tasks.serving.prove_adapter_live": ("prove-live", "prove-{release_id}", 1),
    "tasks.evaluation.evaluate_arms": ("evaluate", "evaluate-{release_id}", 1),
    "tasks.evaluation.decide_verdict": ("gate", "gate-{release_id}", 0),
    "tasks.promotion.promote_candidate": ("promote", "promote-{release_id}", 0),
    "tasks.promotion.restore_champion": ("restore", "restore-{name}", 0),
    "tasks.serving.take_down": ("take-down", "take-down-{deployment}", 0),
}


def load(entrypoint: str):
    module, _, name = entrypoint.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_deployments_are_release_and_rollback():
    assert sorted(DEPLOYMENTS) == ["release", "rollback"]
    assert {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS.values()} == {"slipway"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_entrypoint_is_a_flow_and_prefect_loads_it(name):
    from prefect.flows import Flow, load_flow_from_entrypoint

    entrypoint = DEPLOYMENTS[name]["entrypoint"]
    assert isinstance(load(entrypoint), Flow)
    assert load_flow_from_entrypoint(entrypoint).name == name


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_parameters_are_the_flows_own_and_its_required_ones_are_given_by_the_trigger(name):
    deployment = DEPLOYMENTS[name]
    signature = inspect.signature(load(deployment["entrypoint"]).fn).parameters
    required = {key for key, parameter in signature.items() if parameter.default is inspect.Parameter.empty}
    fixed = set(deployment.get("parameters", {}))
    assert fixed <= set(signature)
    for trigger in deployment.get("triggers", []):
        assert set(trigger["parameters"]) <= set(signature)
        assert required <= fixed | set(trigger["parameters"])


def test_release_is_started_by_the_event_adapter_trained():
    (trigger,) = DEPLOYMENTS["release"]["triggers"]
    assert trigger["expect"] == ["adapter.trained"]
    assert trigger["enabled"] is True


def test_defaults_of_deployment_and_trigger_name_files_that_exist():
    given = dict(DEPLOYMENTS["release"]["parameters"])
    for kind in ("target", "suite", "gate"):
        assert (ROOT / "configs" / f"{kind}s" / f"{given[kind]}.yaml").is_file()
        assert f"default('{given[kind]}'" in DEPLOYMENTS["release"]["triggers"][0]["parameters"][kind]


@pytest.mark.parametrize("entrypoint", FLOWS)
def test_flow_keeps_its_names(entrypoint):
    flow = load(entrypoint)
    assert (flow.name, flow.flow_run_name) == FLOWS[entrypoint]
    assert flow.persist_result is False


@pytest.mark.parametrize("entrypoint", TASKS)
def test_task_keeps_its_names_and_caches_nothing(entrypoint):
    """The ledger decides what was done already; a cached task would forget what happened to the services."""
    from prefect.cache_policies import NO_CACHE

    task = load(entrypoint)
    assert (task.name, task.task_run_name, task.retries) == TASKS[entrypoint]
    assert task.cache_policy == NO_CACHE
    assert task.persist_result is False


def test_every_task_is_in_this_list():
    from prefect.tasks import Task

    found = set()
    for path in sorted((ROOT / "tasks").glob("*.py")):
        module = importlib.import_module(f"tasks.{path.stem}")
        functions = [item.fn for item in vars(module).values() if isinstance(item, Task)]
        found |= {f"{function.__module__}.{function.__name__}" for function in functions}
    assert found == set(TASKS)
