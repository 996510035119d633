"""A lean HTTP client for requests by the thousand: kept-alive connections to one address, and nothing else.

An evaluation may not take more than some tenths of a millisecond of processor time per request, grading and recording
included, or the server idles. httpx takes about one millisecond, and more the more connections there are. What this
client leaves out, it leaves to httpx: proxies, redirects, cookies, compression, streams.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping

import httpx

from slipway.services.http import KEEPALIVE_SECONDS, Timeouts, is_loopback
from slipway.services.wire_connection import READ_BYTES, Connection, RawReply

__all__ = ["MAX_REPLY_BYTES", "Wire"]

MAX_REPLY_BYTES = 64 << 20
"""Far above any generation; only what is no LoRAX server would send more."""

_HAPPY_EYEBALLS_SECONDS = 0.25
"""Head start of the first address of a name before the next is tried beside it (RFC 8305, section 5)."""

_OPENED_TOGETHER = 32
"""Connections opened ahead go in groups of so many, so that requests in between wait only for some milliseconds."""

_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)
"""What befalls a request on a connection that the server has closed meanwhile."""

_SEPARATORS = frozenset("\r\n\0")


class Wire:
    """A pool of connections to one address; the one used last is taken first, so that the others may rest and close.

    All requests must be ones that may be repeated without harm: a server closes an idle connection whenever it likes,
    and a request that meets such a close, with nothing of a reply received, is sent once more on a new connection.

    Args:
        address: Scheme, host, port and a path that all requests are below. Without user and password.
        headers: Of every request.
        timeouts: Each of the four waits is watched, and the whole.
        connections: At most so many, and so many requests in flight; further ones wait.
        certificates: Trusted ones, for https.
        max_reply_bytes: A longer reply is an error.

    Raises:
        httpx.LocalProtocolError: A header would break its line, or is not ASCII.
    """

    def __init__(
        self,
        address: httpx.URL,
        headers: Mapping[str, str],
        *,
        timeouts: Timeouts,
        connections: int,
        certificates: ssl.SSLContext | None = None,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self._base = str(address).rstrip("/")
        self._host = address.raw_host.decode("ascii")
        self._port = address.port or (443 if address.scheme == "https" else 80)
        self._certificates = certificates if address.scheme == "https" else None
        self._common = _head({"Host": address.netloc.decode("ascii"), "Accept": "*/*", **headers})
        self._timeouts = timeouts
        self._max_reply_bytes = max_reply_bytes
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connections = connections
        self._free_slots = connections
        self._queue: deque[asyncio.Future[None]] = deque()
        self._heads: dict[tuple[str, str], bytes] = {}
        self._opening: asyncio.Task[None] | None = None
        self._is_closed = False

    async def send(self, method: str, path: str, body: bytes = b"") -> RawReply:
        """Send one request and read its reply whole.

        Args:
            method: Such as ``POST``.
            path: Below the address.
            body: JSON.

        Raises:
            httpx.HTTPStatusError: The status is no success; its ``response`` is read.
            httpx.TransportError: One of its classes, when there is no whole reply.
            httpx.DecodingError: The reply is compressed, which we did not ask for.
            OversizedReplyError: It is too long.
            httpx.InvalidURL: The path cannot be part of an address.
        """
        request = b"%b%d\r\n\r\n%b" % (self._heads.get((method, path)) or self._head_of(method, path), len(body), body)
        if self._free_slots > 0:
            self._free_slots -= 1
        else:
            await self._wait_for_slot()
        try:
            connection = self._pop_idle()
            if connection is None:
                reply = await self._exchange_on_new(request)
            else:
                try:
                    reply = await connection.exchange(request)
                except BaseException as error:  # a cancelled request too: its reply must not become that of the next
                    connection.close()
                    if connection.has_received or not isinstance(error, _BROKEN):
                        raise
                    reply = await self._exchange_on_new(request)
                else:
                    if connection.is_open:
                        self._idle.append(connection)
        finally:
            self._release_slot()
        if not 200 <= reply.status_code < 300 or "content-encoding" in reply.headers:
            self._raise_for(reply, method, path)
        return reply

    def open_ahead(self, count: int) -> None:
        """Begin to open connections for requests to come, so that these find them open.

        What goes wrong here is not told: the requests will meet it too.

        Args:
            count: So many in all, though no more than the pool may have.
        """
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open_up_to(min(count, self._connections)))

    async def aclose(self) -> None:
        """Close all connections; requests must have ended."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self._idle.clear()
        for connection in list(self._open):
            connection.close()
        if self._open:
            await asyncio.wait([connection.lost for connection in self._open], timeout=1.0)

    # What is sent

    def _head_of(self, method: str, path: str) -> bytes:
        """All of a request's head but the number after its last colon, made once."""
        target = httpx.URL(self._whole(path)).raw_path
        head = b"%b %b HTTP/1.1\r\n%b" % (method.encode("ascii"), target, self._common)
        head += b"Content-Type: application/json\r\nContent-Length: "
        self._heads[method, path] = head
        return head

    def _whole(self, path: str) -> str:
        return f"{self._base}/{path.lstrip('/')}"

    # Connections

    async def _exchange_on_new(self, request: bytes) -> RawReply:
        connection = await self._connect()
        try:
            reply = await connection.exchange(request)
        except BaseException:  # a cancelled request too: its reply must not become that of the next
            connection.close()
            raise
        if connection.is_open:
            self._idle.append(connection)
        return reply

    def _pop_idle(self) -> Connection | None:
        since = asyncio.get_running_loop().time() - KEEPALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.idle_since >= since:
                return connection
            connection.close()
        return None

    async def _open_up_to(self, count: int) -> None:
        while (missing := count - len(self._open)) > 0:
            group = [self._connect() for _ in range(min(missing, _OPENED_TOGETHER))]
            found = await asyncio.gather(*group, return_exceptions=True)
            opened = [connection for connection in found if isinstance(connection, Connection)]
            self._idle.extend(opened)
            if len(opened) < len(found):
                return

    async def _connect(self) -> Connection:
        if self._is_closed:
            raise RuntimeError("the client is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeouts.connect_seconds):
                _, connection = await loop.create_connection(
                    self._make_connection,
                    self._host,
                    self._port,
                    ssl=self._certificates,
                    server_hostname=self._host if self._certificates else None,
                    happy_eyeballs_delay=None if is_loopback(self._host) else _HAPPY_EYEBALLS_SECONDS,
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: of a name that cannot be looked up
            raise httpx.ConnectError(str(error)) from error
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    def _make_connection(self) -> Connection:
        return Connection(self._timeouts, max_reply_bytes=self._max_reply_bytes, buffer=self._buffer)

    # Slots

    async def _wait_for_slot(self) -> None:
        slot = asyncio.get_running_loop().create_future()
        self._queue.append(slot)
        try:
            async with asyncio.timeout(self._timeouts.pool_seconds):
                await slot
        except BaseException as error:
            if slot.done() and not slot.cancelled():  # handed to us in the moment in which we gave up
                self._release_slot()
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout("") from error
            raise

    def _release_slot(self) -> None:
        """Hand the slot to who waits longest, or keep it."""
        while self._queue:
            slot = self._queue.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._free_slots += 1

    def _raise_for(self, reply: RawReply, method: str, path: str) -> None:
        response = reply.as_httpx(method, self._whole(path))
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            raise httpx.DecodingError("the reply is compressed", request=response.request)
        response.raise_for_status()


def _head(headers: Mapping[str, str]) -> bytes:
    for name, value in headers.items():
        if not (name + value).isascii() or not _SEPARATORS.isdisjoint(name + value):
            raise httpx.LocalProtocolError(f"the header {name!r} would break its line")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
