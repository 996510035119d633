"""Fit."""

from __future__ import annotations

import asyncio

from prefect import task

from slipway.adapter import Bundle
from slipway.release import Step
from slipway.services.fitting import Fitted, Refused, fit_bundle
from slipway.services.workspace import open_workspace
from slipway.targets import Target
from tasks.inspection import base_facts
from tasks.journal import journaled
from tasks.options import LOCAL

__all__ = ["Fitted", "Refused", "fit_adapter"]


@task(name="fit", task_run_name="fit-{release_id}", **LOCAL)
async def fit_adapter(bundle: Bundle, *, target: Target, base_model: str, release_id: str) -> Fitted | Refused:
    """Bring a bundle into the form that the target's servers compute rightly. The same bundle gives the same one.

    Raises:
        SourceError: The base's facts cannot be had.
        StoreError: The store cannot be written.
        ConfigurationError: The weights are a pickle and torch is not installed.
    """
    workspace = open_workspace()
    with journaled(workspace.ledger, release_id, Step.FIT) as note:
        base = base_facts(target, base_model)
        fitted = await asyncio.to_thread(
            fit_bundle, bundle, base, workspace.store, tensor_parallel=target.server.tensor_parallel
        )
        if isinstance(fitted, Refused):
            note.message = f"refused: {fitted.reasons[0]}"
            note.data = {"reasons": list(fitted.reasons)}
            return fitted
        workspace.ledger.record_bundle(
            digest=fitted.bundle.digest,
            uri=fitted.bundle.uri,
            resolved_revision=fitted.bundle.resolved_revision,
            size_bytes=fitted.bundle.size_bytes,
            base_model=base_model,
            derived_from=fitted.derived_from,
            changes=fitted.changes,
        )
        note.message = f"{'; '.join(fitted.changes)}; proven for {fitted.proof.modules} modules"
        note.data = {
            "digest": fitted.bundle.digest,
            "derived_from": fitted.derived_from,
            "changes": list(fitted.changes),
            "proof": str(fitted.proof),
        }
        return fitted
