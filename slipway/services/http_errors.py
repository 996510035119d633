"""What a failed HTTP exchange means: every ``httpx`` exception and every bad status, as an error of ours.

A message says what happened and to what; its ``fix`` what to do. Tokens never appear: replies may echo them, so
everything a service says is scrubbed before it is quoted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from slipway.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    GenerationError,
    InvalidRequestError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    ServiceError,
    ServiceTimeoutError,
    SlipwayError,
    UnavailableError,
)
from slipway.redaction import scrub_text, secrets_from_environment

__all__ = [
    "OversizedReplyError",
    "Service",
    "bare_url",
    "error_of_status",
    "quoted",
    "retry_after_seconds",
    "translate",
    "translated",
]

_QUOTED_CHARACTERS = 500
"""How much of a service's own words a message quotes."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Whom we are talking to, in words for a person.

    Attributes:
        name: Such as ``Predibase control plane``.
        token_variable: Environment variable with its token; empty if it takes none.
        address_variable: Environment variable with its address; empty if it has none.
        denied_fix: What to do about 401 and 403, where that is not to correct the token.
        secrets: Values that messages must not show, such as the token in use.
        mask: Hides in what the service says what is private of what it was asked; None where nothing is.
    """

    name: str
    token_variable: str = ""
    address_variable: str = ""
    denied_fix: str = ""
    secrets: frozenset[str] = frozenset()
    mask: Callable[[str], str] | None = None

    def __repr__(self) -> str:
        return f"Service({self.name!r})"


class OversizedReplyError(httpx.RequestError):
    """A reply is longer than we read; httpx has no such limit, and so no word for it."""


@contextmanager
def translated(service: Service, method: str, url: httpx.URL | str) -> Iterator[None]:
    """Translate every exception that httpx raises in the block."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError) as error:
        raise translate(error, service, method, url) from error


@dataclass(frozen=True, kw_only=True)
class _Meaning:
    """What httpx's exceptions mean: ours, the end of the sentence, and the fix, with ``{address}`` and ``{token}``."""

    kinds: tuple[type[Exception], ...]
    error: type[ServiceError | ConfigurationError]
    text: str
    fix: str


_LOOK = "Check that it runs and that {address} is right; then run this again."

_MEANINGS = (
    _Meaning(
        kinds=(httpx.InvalidURL, httpx.UnsupportedProtocol),
        error=ConfigurationError,
        text="this is no address to call.",
        fix="Correct {address}: http(s)://HOST[:PORT].",
    ),
    # What httpx says of this one quotes the offending header, which may be the token.
    _Meaning(
        kinds=(httpx.LocalProtocolError, httpx.CookieConflict),
        error=ConfigurationError,
        text="the request cannot be sent, a header or the address has characters that HTTP does not allow.",
        fix="Look for spaces and line breaks in {token} and in {address}.",
    ),
    _Meaning(
        kinds=(httpx.PoolTimeout,),
        error=ServiceTimeoutError,
        text="no free connection in time.",
        fix="Lower the number of concurrent requests.",
    ),
    _Meaning(kinds=(httpx.ConnectTimeout,), error=ServiceTimeoutError, text="no connection in time.", fix=_LOOK),
    _Meaning(
        kinds=(httpx.WriteTimeout,),
        error=ServiceTimeoutError,
        text="it stopped taking our data.",
        fix="Run this again; if it stays, look at the network.",
    ),
    _Meaning(
        kinds=(httpx.TimeoutException,),
        error=ServiceTimeoutError,
        text="no answer in time.",
        fix="It may be busy or starting: run this again, or allow more time.",
    ),
    _Meaning(
        kinds=(httpx.ProxyError,),
        error=UnavailableError,
        text="the proxy refused.",
        fix="Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
    ),
    _Meaning(kinds=(httpx.ConnectError,), error=UnavailableError, text="no connection ({reason}).", fix=_LOOK),
    _Meaning(
        kinds=(httpx.TooManyRedirects,),
        error=ProtocolError,
        text="it redirects in circles.",
        fix="Correct {address}.",
    ),
    _Meaning(
        kinds=(httpx.DecodingError,),
        error=ProtocolError,
        text="its reply is compressed in a way that cannot be read.",
        fix="Check that no proxy changes the replies.",
    ),
    _Meaning(
        kinds=(OversizedReplyError,),
        error=ProtocolError,
        text="its reply is longer than any answer of that service.",
        fix="Check that {address} is the service; if it is, ask it for less.",
    ),
    _Meaning(
        kinds=(httpx.TransportError,), error=UnavailableError, text="the connection broke off ({kind}).", fix=_LOOK
    ),
    _Meaning(
        kinds=(Exception,), error=ProtocolError, text="the reply could not be read ({kind}).", fix="Report this defect."
    ),
)
"""The first that fits counts, so that a class stands before its parents."""

_UNTRUSTED = _Meaning(
    kinds=(httpx.ConnectError,),
    error=UnavailableError,
    text="its TLS certificate is not trusted.",
    fix="Point SSL_CERT_FILE at the certificates of your network, or correct {address}.",
)


def translate(error: Exception, service: Service, method: str, url: httpx.URL | str) -> SlipwayError:
    """Say what an httpx exception means."""
    if isinstance(error, httpx.HTTPStatusError):
        return error_of_status(error.response, service)
    untrusted = isinstance(error, httpx.ConnectError) and "CERTIFICATE" in str(error).upper()
    meaning = _UNTRUSTED if untrusted else next(row for row in _MEANINGS if isinstance(error, row.kinds))
    reason = quoted(_reason(error), service, 120) if meaning.error is UnavailableError else ""
    text = meaning.text.format(reason=reason, kind=type(error).__name__)
    message = f"{service.name}: {method} {bare_url(url)}: {text}"
    fix = meaning.fix.format(
        address=service.address_variable or "the address", token=service.token_variable or "the token"
    )
    if issubclass(meaning.error, ServiceError):
        return meaning.error(message, service=service.name, url=bare_url(url), fix=fix)
    return meaning.error(message, fix=fix)


def quoted(text: str, service: Service, characters: int) -> str:
    """Mask and shorten, in this order, what a service says.

    It may say our secrets back, also ones that are for another, and what it was asked.
    """
    text = scrub_text(text, service.secrets | secrets_from_environment(os.environ))
    return (text if service.mask is None else service.mask(text))[:characters]


def _reason(error: Exception) -> str:
    """Shorten what the operating system said: ``[Errno 111] Connection refused``, not the whole list of attempts."""
    text = str(error).strip().splitlines()
    return text[0] if text and text[0] else type(error).__name__


def error_of_status(response: httpx.Response, service: Service) -> SlipwayError:
    """Say what a reply that is no success means. The body must have been read.

    Args:
        response: With a status of 300 or more.
        service: Who answered.
    """
    status = response.status_code
    said, error_type = _said(response, service)
    address = bare_url(response.request.url)
    message = f"{service.name}: {response.request.method} {address} was answered {status}"
    message = f"{message}: {said}" if said else message
    message += "" if message.endswith((".", "!", "?")) else "."
    kind, fix = _kind_and_fix(status, service)
    wait = retry_after_seconds(response.headers)
    if kind is RateLimitedError and wait is not None:
        fix = f"Run this again in {math.ceil(wait)} s, or lower the number of concurrent requests."
    error = kind(message, service=service.name, url=address, status_code=status, error_type=error_type, fix=fix)
    if isinstance(error, RateLimitedError | UnavailableError):
        error.retry_after_seconds = wait
    return error


_REFUSED = (InvalidRequestError, "The service does not accept this request; correct what it names.")
_IN_TROUBLE = (UnavailableError, "The service is in trouble: run this again later; if it stays, tell its operator.")
_UNEXPECTED = (ProtocolError, "A redirect or an unfinished reply is not expected here: check {address}.")
_STATUSES: dict[int, tuple[type[ServiceError], str]] = {
    401: (AuthenticationError, "Set {token} to a valid token of this service."),
    403: (AuthenticationError, "The token in {token} may not do this; use one that may."),
    404: (NotFoundError, "Check the name, and that {address} points at the right service."),
    408: (ServiceTimeoutError, "Run this again."),
    409: (
        ConflictError,
        "Something of that name is there already or is being changed; look at it, then run this again.",
    ),
    424: (GenerationError, "The server could not fetch or load the adapter, or its batch failed: its text says which."),
    429: (RateLimitedError, "Wait a little and run this again, or lower the number of concurrent requests."),
}


def _kind_and_fix(status: int, service: Service) -> tuple[type[ServiceError], str]:
    other = _IN_TROUBLE if status >= 500 else _REFUSED if status >= 400 else _UNEXPECTED
    kind, fix = _STATUSES.get(status, other)
    if kind is AuthenticationError and service.denied_fix:
        fix = service.denied_fix
    address, token = service.address_variable or "the address", service.token_variable or "the token"
    return kind, fix.format(address=address, token=token)


def _said(response: httpx.Response, service: Service) -> tuple[str, str]:
    """Find the text and the LoRAX error type in the shapes that the services use, or in plain text."""
    error_type = ""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        # Not in the coding that its header names: Python also knows ones that are of no text, and fail in other ways.
        is_text = response.headers.get("content-type", "").startswith("text/plain")
        said = response.content.decode("utf-8", "replace") if is_text else ""
    else:
        said, error_type = _said_in(body)
    return quoted(" ".join(said.split()), service, _QUOTED_CHARACTERS), quoted(error_type, service, 80)


def _said_in(body: object) -> tuple[str, str]:
    if not isinstance(body, dict):
        return "", ""
    said = body.get("error") or body.get("detail") or body.get("message") or ""
    if isinstance(said, dict):
        said = said.get("message") or said
    error_type = body.get("error_type")
    text = said if isinstance(said, str) else json.dumps(said)
    return text, error_type if isinstance(error_type, str) else ""


def retry_after_seconds(headers: httpx.Headers, *, now: datetime | None = None) -> float | None:
    """Read how long a service wants us to wait; None if it does not say, or says nonsense.

    ``Retry-After`` is seconds or an HTTP date (RFC 9110, section 10.2.3). Predibase's shared endpoints send
    ``x-ratelimit-reset``, in seconds, in its place.
    """
    text = (headers.get("retry-after") or headers.get("x-ratelimit-reset") or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, OverflowError):  # of a year that no number holds
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
    return seconds if 0 <= seconds < float("inf") else None


def bare_url(url: httpx.URL | str) -> str:
    """Cut user, password, query and fragment off an address, so that it can be shown."""
    try:
        return str(httpx.URL(url).copy_with(username="", password="", query=None, fragment=None))
    except (httpx.InvalidURL, TypeError, ValueError):
        return scrub_text(str(url).partition("?")[0])
