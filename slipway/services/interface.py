"""The seams behind which I/O happens."""

from __future__ import annotations

from typing import Protocol

from slipway.adapter import AdapterUri, Bundle
from slipway.services.store import BundleStore

__all__ = ["AdapterSource"]


class AdapterSource(Protocol):
    """A kind of place that adapters are fetched from."""

    async def pull(self, uri: AdapterUri, store: BundleStore) -> Bundle:
        """Fetch an adapter's files into the store.

        Safe to repeat: what the store has already is returned as it is, and none of its bytes are transferred again; a
        pull that was cut goes on where it stopped.

        Raises:
            AdapterNotFoundError: There is no adapter at that address.
            SourceError: It cannot be fetched.
            ServiceError: The registry that has it refuses or fails.
            StoreError: It cannot be kept.
        """
        ...
