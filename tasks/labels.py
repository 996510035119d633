"""Name and tag the present flow run, so that people find it in the Prefect UI."""

from __future__ import annotations

from collections.abc import Collection

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

__all__ = ["label_run"]


async def label_run(name: str, *, tags: Collection[str]) -> None:
    """Give the run a name that tells it from its neighbours; a run gets its first name before we know the release.

    Args:
        name: Such as ``support-3 to production``.
        tags: Added to those that the Prefect deployment set.
    """
    run_id = flow_run.id
    if run_id is None:
        return
    async with get_client() as client:
        await client.update_flow_run(run_id, name=name, tags=sorted({*flow_run.tags, *tags}))
