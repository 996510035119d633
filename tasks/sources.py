"""Pull."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from prefect import task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.logging import get_run_logger

from slipway.adapter import AdapterUri, Bundle
from slipway.progress import Kind, ProgressEvent, Unit, emit, listening
from slipway.release import Step
from slipway.services.sources import source_for
from slipway.services.workspace import open_workspace
from slipway.uri import parse_adapter_uri
from tasks.options import REMOTE

__all__ = ["pull_adapter"]

UPDATE_SECONDS = 1.0
"""Between updates of the progress artifact: each is a request to the Prefect server."""


@task(name="pull", task_run_name="pull-{name}", **REMOTE)
async def pull_adapter(adapter: str, *, name: str) -> Bundle:
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
    async with _progress(uri, name):
        bundle = await source_for(uri).pull(uri, workspace.store)
    message = f"{bundle.digest[:19]} ({bundle.size_bytes / 1e6:.1f} MB, {len(bundle.files)} files)"
    emit(ProgressEvent(step=Step.PULL, kind=Kind.FINISHED, message=message, seconds=time.monotonic() - started))
    get_run_logger().info("pulled %s as %s", adapter, message)
    return bundle


@asynccontextmanager
async def _progress(uri: AdapterUri, name: str) -> AsyncIterator[None]:
    """Keep a Prefect progress artifact of a pull's bytes; none is made when nothing has to be moved."""
    last: ProgressEvent | None = None

    def listen(event: ProgressEvent) -> None:
        nonlocal last
        if event.unit is Unit.BYTES and event.subject == str(uri):
            last = event

    async def update() -> None:
        shown: ProgressEvent | None = None
        artifact: UUID | None = None
        try:
            while True:
                await asyncio.sleep(UPDATE_SECONDS)
                if last is not None and last is not shown:
                    shown = last
                    artifact = await _show(artifact, name, shown)
        finally:
            if last is not None and last is not shown:
                await asyncio.shield(_show(artifact, name, last))

    updates = asyncio.create_task(update())
    try:
        with listening(listen):
            yield
    finally:
        updates.cancel()
        await asyncio.gather(updates, return_exceptions=True)


async def _show(artifact: UUID | None, name: str, event: ProgressEvent) -> UUID:
    percent = 100.0 * event.done / event.total if event.total else 0.0
    if artifact is None:
        return await acreate_progress_artifact(
            progress=percent,
            key=f"pulling-{name}",
            description=f"Pull of {event.subject}: {event.total / 1e6:.1f} MB",
        )
    await aupdate_progress_artifact(artifact, percent)
    return artifact
