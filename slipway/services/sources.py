"""The sources by kind. A new one is a module and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from slipway.adapter import AdapterUri, Source
from slipway.errors import ConfigurationError
from slipway.services.interface import AdapterSource
from slipway.services.local import LocalSource

__all__ = ["SOURCES", "source_for"]

SOURCES: Final[Mapping[Source, Callable[[], AdapterSource]]] = {Source.LOCAL: LocalSource}


def source_for(uri: AdapterUri) -> AdapterSource:
    """Find the source that fetches an address.

    Raises:
        ConfigurationError: Slipway does not fetch from there.
    """
    if uri.source not in SOURCES:
        raise ConfigurationError(
            f"{uri} cannot be pulled: this version of Slipway does not fetch from {uri.source}.",
            fix="Download the adapter and give its directory.",
        )
    return SOURCES[uri.source]()
