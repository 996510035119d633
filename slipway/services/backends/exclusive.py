"""Do a piece of work as the only process, waiting for another that does it now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from slipway.errors import LeaseHeldError
from slipway.services.leases import Lease
from slipway.services.ledger_store import Ledger

__all__ = ["exclusively"]

POLL_SECONDS = 1.0


@asynccontextmanager
async def exclusively(ledger: Ledger, resource: str, *, patience_seconds: float) -> AsyncIterator[Lease]:
    """Hold the ledger's lease on a resource for the length of a block, and give it.

    Two adapters of one base that finish training together are released together: the second must find what the first
    made, and not fail because somebody is at it.

    Args:
        ledger: Shared by all processes that may do this work.
        resource: What to be alone with.
        patience_seconds: How long to wait for another process.

    Raises:
        LeaseHeldError: The other did not end in time.
    """
    deadline = time.monotonic() + patience_seconds
    with ExitStack() as held:
        while True:
            try:
                lease = held.enter_context(ledger.lease(resource))
                break
            except LeaseHeldError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(POLL_SECONDS)
        yield lease
