"""How requests reach one service: over the lean wire, or through httpx where only that can go."""

from __future__ import annotations

from typing import Protocol
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic import SecretStr

from slipway.services.http import (
    Service,
    Timeouts,
    certificates,
    common_headers,
    is_loopback,
    make_client,
    parse_address,
    within,
)
from slipway.services.http_errors import translated
from slipway.services.wire import Wire
from slipway.services.wire_connection import RawReply

__all__ = ["Channel", "open_channel"]


class Channel(Protocol):
    """Sends one request at a time to each of several connections; fails with httpx's exceptions."""

    async def send(self, method: str, path: str, body: bytes = b"") -> RawReply:
        """Send a JSON body and read the reply; ``httpx.HTTPStatusError`` when it is no success."""

    def open_ahead(self, count: int) -> None:
        """Begin to open connections for requests to come, where that is possible."""

    async def aclose(self) -> None:
        """Close all connections."""


def open_channel(
    base_url: str,
    *,
    token: SecretStr | None,
    service: Service,
    timeouts: Timeouts,
    connections: int,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Channel:
    """Make a channel; it connects to nothing yet.

    Proxies and certificates of the environment are obeyed, except on loopback, where a proxy cannot help.

    Args:
        base_url: ``http(s)://HOST[:PORT][/PATH]``.
        token: Sent as ``Authorization: Bearer``.
        service: Named in errors.
        timeouts: The four waits, and the whole.
        connections: At most so many at once.
        transport: In place of the network, for tests.

    Raises:
        ConfigurationError: The address or the token cannot be used.
    """
    address = parse_address(base_url, service)
    if transport is not None or address.userinfo or _has_proxy(address):
        return _Httpx(
            make_client(
                base_url,
                token=token,
                service=service,
                timeouts=timeouts,
                connections=connections,
                transport=transport,
            ),
            timeouts.whole_seconds,
        )
    with translated(service, "connecting to", base_url):
        return Wire(
            address,
            common_headers(token, service),
            timeouts=timeouts,
            connections=connections,
            certificates=certificates(trust_env=not is_loopback(address.host)) if address.scheme == "https" else None,
        )


class _Httpx:
    """The same through httpx, which knows proxies."""

    def __init__(self, client: httpx.AsyncClient, whole_seconds: float) -> None:
        self._client = client
        self._whole_seconds = whole_seconds

    async def send(self, method: str, path: str, body: bytes = b"") -> RawReply:
        headers = {"Content-Type": "application/json"}
        async with within(self._whole_seconds):
            response = (await self._client.request(method, path, content=body, headers=headers)).raise_for_status()
        elapsed_ms = response.elapsed.total_seconds() * 1000.0
        return RawReply(response.status_code, dict(response.headers.items()), response.content, elapsed_ms)

    def open_ahead(self, count: int) -> None:
        """Do nothing: httpx opens connections when it needs them."""

    async def aclose(self) -> None:
        await self._client.aclose()


def _has_proxy(address: httpx.URL) -> bool:
    """Tell whether a proxy of the environment may apply; httpx then decides, in its own reading of NO_PROXY."""
    if is_loopback(address.host):
        return False
    return bool({address.scheme, "all"} & getproxies().keys()) and not proxy_bypass(address.host)
