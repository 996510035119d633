"""Inspect."""

from __future__ import annotations

from dataclasses import replace

from prefect import task

from slipway.adapter import Bundle
from slipway.adapter_config import AdapterConfig, read_adapter_config
from slipway.base_model import BaseModel, resolve_base
from slipway.configs import ConfigKind, config_directory
from slipway.inspection import Inspection, inspect_bundle
from slipway.profiles import find_profile
from slipway.release import Step
from slipway.services.workspace import open_workspace
from slipway.targets import Target
from tasks.journal import journaled
from tasks.options import LOCAL

__all__ = ["base_facts", "base_to_serve", "inspect_adapter"]


def base_to_serve(target: Target, bundle: Bundle) -> str:
    """The base that an adapter asks for, as the target's deployments name it.

    For an adapter that asks for none the target serves, it is the target's first: inspection then finds the mismatch.
    """
    config = read_adapter_config(bundle.directory / "adapter_config.json")
    named = config.base_model_name_or_path if isinstance(config, AdapterConfig) else None
    return target.served_base(named or "") or next(iter(target.bases))


def base_facts(target: Target, base_model: str) -> BaseModel:
    """The facts of a base that the target serves, under the name that its deployments give it.

    Raises:
        SourceError: They cannot be had.
    """
    served = target.bases[base_model]
    facts = resolve_base(served.facts or base_model, bases_directory=config_directory() / ConfigKind.BASE)
    return replace(facts, id=base_model, aliases=(facts.id, *facts.aliases, *served.also_known_as))


@task(name="inspect", task_run_name="inspect-{release_id}", **LOCAL)
async def inspect_adapter(bundle: Bundle, *, target: Target, base_model: str, release_id: str) -> Inspection:
    """Judge a bundle against the base that the target serves.

    Raises:
        SourceError: The base's facts cannot be had, so nothing can be said.
    """
    with journaled(open_workspace().ledger, release_id, Step.INSPECT) as note:
        profile = find_profile(target.server.profile)
        inspection = inspect_bundle(bundle, base_facts(target, base_model), profile, target.server_facts())
        note.message = _in_short(inspection)
        note.data = {
            "verdict": inspection.verdict,
            "prediction": inspection.prediction,
            "findings": [finding.code for finding in inspection.findings],
        }
        return inspection


def _in_short(inspection: Inspection) -> str:
    if inspection.reasons:
        return f"{inspection.verdict}: {inspection.findings[0].message}"
    count = len(inspection.findings)
    return f"{inspection.verdict}" + (f", {count} remark{'s' * (count > 1)}" if count else "")
