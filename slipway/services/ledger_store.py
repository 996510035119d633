"""The ledger in its database: facts written down, and read back folded.

Every write is one transaction and is on disk when the call returns, so a fact recorded before an effect survives
whatever the effect does. What the facts mean is ``slipway.ledger``; opening the database is ``ledger_engine``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from slipway.services.leases import DEFAULT_TTL_SECONDS, Lease, hold_lease, process_holder
from slipway.services.ledger_deployments import RecordsDeployments
from slipway.services.ledger_promotions import RecordsPromotions
from slipway.services.ledger_releases import RecordsReleases
from slipway.services.ledger_uploads import RecordsUploads

__all__ = ["Ledger"]


class Ledger(RecordsUploads, RecordsDeployments, RecordsReleases, RecordsPromotions):
    """The record of what was uploaded, deployed, released and promoted.

    Opening migrates the database when it is new or old. Threads may share one instance; each process opens its own.
    Every text passes ``slipway.redaction`` on its way in; only a registry's upload token, which makes an upload's last
    step repeatable and opens nothing else, is kept as it is.

    Args:
        url: SQLAlchemy URL; None reads ``SLIPWAY_LEDGER_URL`` or takes ``ledger.db`` in ``SLIPWAY_HOME``.
        clock: Gives the aware time that facts are stamped with.
        secrets: Known secret values to mask, in place of those found in the environment.

    Raises:
        LedgerError: From every method, when the database cannot be opened, read or written.
    """

    def lease(self, resource: str, *, ttl_seconds: float = DEFAULT_TTL_SECONDS) -> AbstractContextManager[Lease]:
        """Hold the lease on a piece of work for the length of a ``with`` block; renewed by a thread meanwhile.

        A lease whose holder is a dead process of this host is taken over at once; one from another host when it has run
        out.

        Args:
            resource: The work, such as ``upload:predibase:sha256:...``.
            ttl_seconds: How long it outlives a holder that cannot renew it.

        Raises:
            LeaseHeldError: On entering, when another live holder has it.
        """
        return hold_lease(self._engine, resource, process_holder(), clock=self._clock, ttl_seconds=ttl_seconds)
