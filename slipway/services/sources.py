"""The sources by kind. A new one is a module and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from slipway.adapter import AdapterUri, Source
from slipway.services.hub import HubSource
from slipway.services.interface import AdapterSource
from slipway.services.local import LocalSource
from slipway.services.s3 import S3Source

__all__ = ["SOURCES", "source_for"]


def _registry() -> AdapterSource:
    from slipway.services.registry import RegistrySource  # noqa: PLC0415  # brings an HTTP client, a tenth of a second

    return RegistrySource()


SOURCES: Final[Mapping[Source, Callable[[], AdapterSource]]] = {
    Source.LOCAL: LocalSource,
    Source.HUB: HubSource,
    Source.S3: S3Source,
    Source.PBASE: _registry,
}


def source_for(uri: AdapterUri) -> AdapterSource:
    """Find the source that fetches an address."""
    return SOURCES[uri.source]()
