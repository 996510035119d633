"""Pull."""

from __future__ import annotations

import time

from prefect import task
from prefect.logging import get_run_logger

from slipway.adapter import Bundle
from slipway.progress import Kind, ProgressEvent, emit
from slipway.release import Step
from slipway.services.sources import source_for
from slipway.services.workspace import open_workspace
from slipway.uri import parse_adapter_uri
from tasks.options import REMOTE

__all__ = ["pull_adapter"]


@task(name="pull", task_run_name="pull-{name}", **REMOTE)
async def pull_adapter(adapter: str, *, name: str) -> Bundle:  # noqa: ARG001  # Prefect names the run by it
    """Fetch an adapter into the local store.

    The release does not exist in the ledger yet: its identity is the digest that this step finds.

    Args:
        adapter: Its URI.
        name: The adapter's name, for the run's name.

    Raises:
        SourceError: It cannot be fetched.
        StoreError: It cannot be stored.
    """
    started = time.monotonic()
    emit(ProgressEvent(step=Step.PULL, kind=Kind.STARTED))
    uri = parse_adapter_uri(adapter)
    workspace = open_workspace()
    bundle = await source_for(uri).pull(uri, workspace.store)
    message = f"{bundle.digest[:19]} ({bundle.size_bytes / 1e6:.1f} MB, {len(bundle.files)} files)"
    emit(ProgressEvent(step=Step.PULL, kind=Kind.FINISHED, message=message, seconds=time.monotonic() - started))
    get_run_logger().info("pulled %s as %s", adapter, message)
    return bundle
