"""Look at what a flow will need before Prefect is started: a bad request fails at once and leaves nothing open."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from slipway.adapter import Source
from slipway.errors import ConfigurationError
from slipway.services.backends import open_backend
from slipway.services.local import list_adapter_files
from slipway.services.sources import source_for
from slipway.services.workspace import open_workspace
from slipway.targets import Target
from slipway.uri import parse_adapter_uri

__all__ = ["check_adapter", "check_target", "reach_target"]


def check_adapter(adapter: str) -> None:
    """Make sure that an address is one that can be pulled, and that a local one leads to an adapter.

    Raises:
        ConfigurationError: It is no address that Slipway knows.
        SourceError: There is no adapter.
    """
    uri = parse_adapter_uri(adapter)
    source_for(uri)
    if uri.source is Source.LOCAL:
        list_adapter_files(Path(uri.location))


async def check_target(target: Target, name: str) -> None:
    """Make sure that the ledger opens, and that the target is there and lets us in.

    A token in a Prefect block can only be read within a flow; such a target is not asked.

    Raises:
        SlipwayError: The ledger, the target's addresses or its token are missing or wrong, or it does not answer.
    """
    if target.token_block is None:
        await reach_target(target, name)


async def reach_target(target: Target, name: str) -> str:
    """Ask a target who we are there; returns its name for the tenant or server.

    Raises:
        ConfigurationError: An address or the token is missing, or it serves none of the target's bases.
        ServiceError: It cannot be reached, or refuses us.
    """
    *others, last = target.bases
    async with open_backend(target, name, open_workspace().ledger) as backend:
        for base in others:
            with suppress(ConfigurationError):
                return await backend.check(base)
        return await backend.check(last)
