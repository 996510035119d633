"""Upload."""

from __future__ import annotations

from prefect import task

from slipway.adapter import Bundle
from slipway.release import Step
from slipway.services.backends import PublishedAdapter, open_backend
from slipway.services.workspace import open_workspace
from slipway.targets import Target
from tasks.journal import journaled
from tasks.options import REMOTE, load_token

__all__ = ["upload_adapter"]


@task(name="upload", task_run_name="upload-{release_id}", **REMOTE)
async def upload_adapter(
    bundle: Bundle, *, name: str, target: Target, target_name: str, release_id: str
) -> PublishedAdapter:
    """Make the bundle a version in the target's registry, once per digest.

    Raises:
        ServiceError: The registry cannot be used.
        LeaseHeldError: Another process uploads the same bytes right now.
    """
    ledger = open_workspace().ledger
    with journaled(ledger, release_id, Step.UPLOAD) as note:
        async with open_backend(target, target_name, ledger, token=await load_token(target)) as backend:
            published = await backend.publish(bundle, repository=name, description=f"Slipway release {release_id}")
        note.message = f"{published.adapter_id}" + (" (these bytes were there already)" if published.reused else "")
        note.data = {"adapter_id": published.adapter_id, "reused": published.reused}
        return published
