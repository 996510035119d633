"""How we speak HTTP: one client factory, one way to call, bounded repeats.

The client repeats idempotent requests, the Prefect task a whole step, and nobody else anything, because budgets
multiply. Routes and reply shapes are the clients' (``predibase``, ``lorax``); what failures mean is ``http_errors``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import math
import os
import random
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import SecretStr

from slipway import __version__
from slipway.errors import ConfigurationError, ProtocolError, SlipwayError, StoreError
from slipway.services.http_errors import (
    Service,
    bare_url,
    error_of_status,
    quoted,
    retry_after_seconds,
    translate,
    translated,
)

__all__ = [
    "NO_RETRY",
    "RetryPolicy",
    "Service",
    "Timeouts",
    "call",
    "certificates",
    "common_headers",
    "download",
    "file_chunks",
    "is_loopback",
    "json_body",
    "make_client",
    "parse_address",
    "repeated",
    "within",
]

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
"""Read and sent at a time; larger pieces measured no faster."""

KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which uvicorn closes an idle connection, so that we do not send into a closing one."""

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""After these the service has seen nothing, so that any request may be repeated."""

_BROKEN_OFF = (*_NEVER_SENT, httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
"""After these an idempotent request may be repeated. Read timeouts are not among them: a repeat doubles the load."""

RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """The four waits of one request, in seconds, and how long sending and reply may take together.

    ``read_seconds`` is between two pieces of a reply, so that alone it does not end one that comes byte by byte.
    ``whole_seconds`` does, for the requests of a ``Channel``: from the first byte sent to the last received.
    """

    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    write_seconds: float = 60.0
    pool_seconds: float = 60.0
    whole_seconds: float = math.inf


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When to repeat, and when to stop.

    The wait after attempt n is ``min(longest, first * 2**(n-1))``, of which a random half to whole is taken; a longer
    wait that the service asks for wins, unless it goes beyond ``total_seconds``: then the error is raised at once.

    Attributes:
        attempts: At most so many, the first included.
        total_seconds: No attempt is begun later than this after the first.
        first_wait_seconds: See above.
        longest_wait_seconds: See above.
        statuses: Replies after which an idempotent request is repeated. After 429 any is: it was not worked on.
        sleep: Waits; tests inject one that does not.
        monotonic: Tells the time that ``total_seconds`` is counted in.
        fraction: Gives the random numbers in [0, 1).
    """

    attempts: int = 4
    total_seconds: float = 60.0
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 10.0
    statuses: frozenset[int] = RETRIED_STATUSES
    sleep: Callable[[float], Awaitable[object]] = field(default=asyncio.sleep, repr=False)
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)
    fraction: Callable[[], float] = field(default=random.random, repr=False)

    def wait_seconds(self, attempt: int) -> float:
        """Tell the wait after the n-th attempt, n from 1."""
        longest = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (attempt - 1))
        return longest * (0.5 + self.fraction() / 2)


NO_RETRY = RetryPolicy(attempts=1)


def make_client(
    base_url: str,
    *,
    token: SecretStr | None,
    service: Service,
    timeouts: Timeouts | None = None,
    connections: int = 100,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """Make a client with pooled connections; it connects to nothing yet.

    Proxies and certificates of the environment are obeyed, except on loopback, where a proxy cannot help.

    Args:
        base_url: ``http(s)://HOST[:PORT][/PATH]``; empty for a client that is given whole addresses.
        token: Sent as ``Authorization: Bearer``.
        service: Named in errors.
        timeouts: The four waits.
        connections: At most so many at once.
        transport: In place of the network, for tests.

    Raises:
        ConfigurationError: The address or the token cannot be used.
    """
    timeouts = timeouts or Timeouts()
    headers = common_headers(token, service)
    url = parse_address(base_url, service) if base_url else httpx.URL()
    with translated(service, "connecting to", base_url):
        obeys_environment = not is_loopback(url.host)
        return httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(
                connect=timeouts.connect_seconds,
                read=timeouts.read_seconds,
                write=timeouts.write_seconds,
                pool=timeouts.pool_seconds,
            ),
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_SECONDS
            ),
            trust_env=obeys_environment,
            verify=certificates(trust_env=obeys_environment),
            transport=transport,
        )


def parse_address(base_url: str, service: Service) -> httpx.URL:
    """Read the address of a service.

    Raises:
        ConfigurationError: It is none, or neither http nor https.
    """
    with translated(service, "connecting to", base_url):
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise httpx.UnsupportedProtocol(base_url)
    return url


def common_headers(token: SecretStr | None, service: Service) -> dict[str, str]:
    """Give the headers of every request: who we are, and the token.

    Raises:
        ConfigurationError: The token cannot stand in a header.
    """
    headers = {"User-Agent": f"slipway/{__version__}"}
    if token is not None:
        headers["Authorization"] = f"Bearer {_checked(token, service)}"
    return headers


def certificates(*, trust_env: bool) -> ssl.SSLContext:
    """Give the trusted certificates, shared by all clients.

    Args:
        trust_env: Read ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``.
    """
    return _certificates(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=8)
def _certificates(trust_env: bool, _file: str | None, _directory: str | None) -> ssl.SSLContext:  # noqa: FBT001  # httpx's own switch
    """The trusted certificates, read once for all clients: that takes longer than many requests, some 20 to 60 ms.

    The unused arguments are what httpx reads from the environment, so that a change there is noticed.
    """
    return httpx.create_ssl_context(trust_env=trust_env)


def _checked(token: SecretStr, service: Service) -> str:
    text = token.get_secret_value().strip()
    # Anything else makes httpx quote the whole header in its exception.
    if not text or not all("!" <= character <= "~" for character in text):
        name = service.token_variable or "the token"
        raise ConfigurationError(
            f"{service.name}: {name} holds no token: it is empty, or has spaces, line breaks or accents in it.",
            fix=f"Set {name} to the token alone, without quotes.",
        )
    return text


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, as far as its name says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def call(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    service: Service,
    idempotent: bool,
    retry: RetryPolicy | None = None,
    json: object = None,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    content: Callable[[], AsyncIterable[bytes]] | None = None,
    whole_seconds: float = math.inf,
) -> httpx.Response:
    """Send a request, repeat it where that is safe and may help, and return the successful reply, read whole.

    Args:
        client: From ``make_client``.
        method: Such as ``GET``.
        url: Path below the client's base, or a whole address.
        service: Named in errors.
        idempotent: Whether doing it twice does no harm. If not, it is repeated only when the service never saw it (no
            connection) or turned it away (429).
        retry: Budget of repeats.
        json: Body.
        params: Query.
        headers: Further headers.
        content: Makes the body anew for each attempt, for bodies too large for memory; give ``Content-Length`` too.
        whole_seconds: For one attempt, reply and all, however steadily that comes.

    Raises:
        ServiceError: One of its classes, or ConfigurationError for an address that cannot be called.
    """

    async def send() -> httpx.Response:
        async with within(whole_seconds):
            response = await client.request(
                method, url, json=json, params=params, headers=headers, content=content() if content else None
            )
        return response.raise_for_status()

    return await repeated(
        send, method, _whole(client, url), service=service, idempotent=idempotent, retry=retry or RetryPolicy()
    )


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Raise ``httpx.ReadTimeout`` where the block takes longer: httpx itself only watches single pieces."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise httpx.ReadTimeout("") from error


async def download(
    client: httpx.AsyncClient,
    url: str,
    destination: Path,
    *,
    service: Service,
    retry: RetryPolicy | None = None,
    on_bytes: Callable[[int, int], object] | None = None,
) -> int:
    """Fetch a file, streamed; it appears under its name only when it is whole.

    Redirects are followed, without our token when they leave the host.

    Args:
        client: To ask with.
        url: Relative to the client's.
        destination: The file.
        service: For messages.
        retry: Budget for repeats.
        on_bytes: Told how many bytes this attempt has received and how many there are, 0 if unknown; may raise to stop.

    Returns:
        Its size in bytes.

    Raises:
        ServiceError: As ``call``.
        StoreError: The file cannot be written.
    """
    part = destination.with_name(f"{destination.name}.part")

    async def send() -> None:
        async with client.stream("GET", url, follow_redirects=True) as response:
            if not response.is_success:
                await response.aread()
                response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0))
            received = 0
            with part.open("wb") as file:
                async for chunk in response.aiter_bytes(_CHUNK_BYTES):
                    await asyncio.to_thread(file.write, chunk)
                    received += len(chunk)
                    if on_bytes is not None:
                        on_bytes(received, total)

    try:
        await repeated(send, "GET", _whole(client, url), service=service, idempotent=True, retry=retry or RetryPolicy())
        part.replace(destination)
        return (await asyncio.to_thread(destination.stat)).st_size
    except OSError as error:
        raise StoreError(
            f"{destination} cannot be written: {error.strerror or error}.",
            fix="Free some space or choose another directory, then run this again.",
        ) from error
    finally:
        part.unlink(missing_ok=True)


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """Read a file in pieces for a request's body, so that memory stays flat whatever its size."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk


async def repeated(
    send: Callable[[], Awaitable[_T]],
    method: str,
    url: str,
    *,
    service: Service,
    idempotent: bool,
    retry: RetryPolicy,
) -> _T:
    """Send, and again where that is safe and may help.

    Args:
        send: One attempt; raises httpx's exceptions, ``HTTPStatusError`` (with its reply read whole) for a bad status.
        method: For messages.
        url: For messages, whole.
        service: Named in errors.
        idempotent: As for ``call``.
        retry: Budget of repeats.

    Returns:
        What ``send`` returned.

    Raises:
        ServiceError: As ``call``.
    """
    began = retry.monotonic()
    for attempt in itertools.count(1):
        asked: float | None = None
        failure: SlipwayError
        try:
            return await send()
        except httpx.HTTPStatusError as error:
            failure = error_of_status(error.response, service)
            may_repeat = error.response.status_code in (retry.statuses if idempotent else {429})
            asked = retry_after_seconds(error.response.headers)
        except _BROKEN_OFF as error:
            failure = translate(error, service, method, url)
            failure.__cause__ = error
            may_repeat = idempotent or isinstance(error, _NEVER_SENT)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError) as error:
            raise translate(error, service, method, url) from error
        wait = max(retry.wait_seconds(attempt), asked or 0.0)
        spent = retry.monotonic() - began
        if not may_repeat or attempt >= retry.attempts or spent + wait > retry.total_seconds:
            raise failure
        logger.info("%s Waiting %.1f s before attempt %d of %d.", failure.message, wait, attempt + 1, retry.attempts)
        await retry.sleep(wait)
    raise AssertionError("unreachable")  # pragma: no cover  # the count never ends


def _whole(client: httpx.AsyncClient, url: str) -> str:
    return url if url.startswith(("http://", "https://")) else f"{str(client.base_url).rstrip('/')}/{url.lstrip('/')}"


def json_body(response: httpx.Response, service: Service) -> object:
    """Read a reply as JSON; an empty 204 is an empty object.

    Raises:
        ProtocolError: It is not JSON.
    """
    if response.status_code == 204:
        return {}
    try:
        body: object = response.json()
    except (ValueError, RecursionError) as error:
        kind = quoted(response.headers.get("content-type", "nothing in particular").partition(";")[0], service, 80)
        raise ProtocolError(
            f"{service.name}: {response.request.method} {bare_url(response.request.url)} was answered "
            f"{response.status_code} with {kind} that is not JSON.",
            service=service.name,
            url=bare_url(response.request.url),
            status_code=response.status_code,
            fix=f"Check that {service.address_variable or 'the address'} is the service, not a page in front of it.",
        ) from error
    return body
