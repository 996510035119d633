"""One kept-alive HTTP/1.1 connection: sends one request at a time and reads its reply, whole and within its time.

Knows framing and time; what is sent where, and what a status means, is for others. Fails with httpx's exceptions, so
that what they mean is decided in one place (``http_errors``). The parser is llhttp, Node's, which refuses what could be
read in two ways: two lengths, a length beside chunks, folded headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import httpx
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from slipway.services.http import Timeouts
from slipway.services.http_errors import OversizedReplyError

__all__ = ["READ_BYTES", "Connection", "Headers", "RawReply"]


_Places = Mapping[str, tuple[int, ...]]


class Headers(Mapping[str, str]):
    """Headers of a reply, decoded when asked for: of a dozen that a server sends, five are of use.

    Names are in lower case; values in ISO 8859-1, as HTTP has them, several of one name joined by commas.

    Args:
        places: Of each name among the values.
        values: As received.
    """

    __slots__ = ("_places", "_values")

    def __init__(self, places: _Places, values: Sequence[bytes]) -> None:
        self._places = places
        self._values = values

    def __getitem__(self, name: str) -> str:
        places = self._places[name]
        if len(places) == 1:
            return self._values[places[0]].decode("latin-1").rstrip(" \t")
        return ", ".join([self._values[place].decode("latin-1").rstrip(" \t") for place in places])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class RawReply(NamedTuple):
    """A reply, read whole.

    Attributes:
        status_code: As sent.
        headers: See ``Headers``.
        body: Its bytes, without chunks.
        elapsed_ms: From the first byte sent to the last byte received, without waiting for a connection.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: float

    def as_httpx(self, method: str, url: str) -> httpx.Response:
        """Give the reply in httpx's form, for what judges replies in that one."""
        # What these headers say of the body is true no more: the parser took its length and chunks off.
        headers = {name: value for name, value in self.headers.items() if name not in _FRAMING}
        return httpx.Response(
            self.status_code,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            content=self.body,
            request=httpx.Request(method, url),
        )


_LENGTHS = frozenset({"content-length", "transfer-encoding"})
_FRAMING = _LENGTHS | {"content-encoding"}


READ_BYTES = 1 << 16
"""Read from the system at a time."""


class Connection(asyncio.BufferedProtocol):
    """A connection for one exchange after the other.

    Time is watched by one timer per connection, which is not moved with every piece of data but finds out, when it
    fires, whether the time is really over: thousands of requests a second then set no timers at all.

    What arrives is read into a buffer that is given and may be shared: it is parsed before anything else is read. The
    loop's own way is a new buffer of 256 KB for each read, which took 20 microseconds of a request's 100.

    Args:
        timeouts: ``write_seconds`` until the request is handed to the system whole, ``read_seconds`` between two
            pieces of the reply, ``whole_seconds`` for all of it.
        max_reply_bytes: A longer reply is an error.
        buffer: Of ``READ_BYTES``.
    """

    def __init__(self, timeouts: Timeouts, *, max_reply_bytes: int, buffer: memoryview) -> None:
        self.is_open = False
        self.idle_since = 0.0
        """By the loop's clock: when it was opened, or its last reply was whole."""
        self.has_received = False
        """Whether anything came since the last request."""
        self.lost: asyncio.Future[None]
        """Done when the socket is closed."""
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._max_reply_bytes = max_reply_bytes
        self._buffer = buffer
        self._transport: asyncio.Transport
        self._parser: HttpResponseParser
        self._waiter: asyncio.Future[RawReply] | None = None
        self._sent_at = 0.0
        self._is_writing = False
        self._deadline = 0.0
        self._end = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._received_bytes = 0
        self._names: list[bytes] = []
        self._last_names: list[bytes] = []
        self._places: _Places = {}
        self._values: list[bytes] = []
        self._pieces: list[bytes] = []
        self._is_in_body = False
        self._stays_open = True

    def exchange(self, request: bytes) -> asyncio.Future[RawReply]:
        """Send a request, head and body.

        Returns:
            A future of its reply; when it is cancelled, close the connection, or the next request gets its reply. Its
            exceptions are ``httpx.ReadError``, ``WriteError``, ``RemoteProtocolError``, ``ReadTimeout``,
            ``WriteTimeout`` and ``OversizedReplyError``.
        """
        self._waiter = waiter = self._loop.create_future()
        self.has_received = False
        self._received_bytes = 0
        self._sent_at = now = self._loop.time()
        self._end = now + self._timeouts.whole_seconds
        self._deadline = min(now + self._timeouts.read_seconds, self._end)
        self._transport.write(request)
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)
        return waiter

    def close(self) -> None:
        """Close at once; what is still to come is thrown away."""
        self.is_open = False
        self._transport.abort()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        # So that ``pause_writing`` and ``resume_writing`` tell of anything that the system has not taken.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._parser = HttpResponseParser(self)
        self.lost = self._loop.create_future()
        self.is_open = True
        self.idle_since = self._loop.time()

    def pause_writing(self) -> None:
        """The system takes no more for now."""
        self._is_writing = True
        self._deadline = min(self._loop.time() + self._timeouts.write_seconds, self._end)
        self._hurry()

    def resume_writing(self) -> None:
        """The request is out."""
        self._is_writing = False
        self._deadline = min(self._loop.time() + self._timeouts.read_seconds, self._end)
        self._hurry()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the interface's
        """Say where to put what arrives."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read on."""
        if self._waiter is None:  # nobody asked; a server says goodbye in this way, with a 408 before it hangs up
            self.close()
            return
        self.has_received = True
        self._received_bytes += nbytes
        if self._received_bytes > self._max_reply_bytes:
            self.close()
            self._fail(OversizedReplyError(f"more than {self._max_reply_bytes} bytes"))
            return
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (HttpParserError, HttpParserUpgrade) as error:
            self.close()
            self._fail(httpx.RemoteProtocolError(str(error)))
            return
        if self._waiter is not None and not self._is_writing:
            self._deadline = min(self._loop.time() + self._timeouts.read_seconds, self._end)

    def eof_received(self) -> None:
        """The server sends no more. A reply that says nothing of its length is thereby whole."""
        if self._is_in_body and _LENGTHS.isdisjoint(_places_of(self._names)):
            self.on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits, if anybody still does."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_writing:
            self._fail(httpx.WriteError(str(exc or "closed while we were sending")))
        elif exc is not None:
            self._fail(httpx.ReadError(str(exc)))
        else:
            self._fail(httpx.RemoteProtocolError("the server closed the connection before its reply was whole"))
        if not self.lost.done():
            self.lost.set_result(None)

    # Called by the parser

    def on_message_begin(self) -> None:
        """Notice a reply that nobody asked for, behind one that somebody did."""
        if self._waiter is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers behind a body are of no use to anybody here."""
        if not self._is_in_body:
            self._names.append(name)
            self._values.append(value)

    def on_headers_complete(self) -> None:
        """Note whether the connection outlives this reply, which the parser knows only now."""
        self._is_in_body = True
        self._stays_open = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Keep a piece."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Hand the reply over, unless it is one that only announces another (1xx)."""
        status = self._parser.get_status_code()
        names, self._names = self._names, []
        values, self._values = self._values, []
        pieces, self._pieces = self._pieces, []
        self._is_in_body = False
        waiter = self._waiter
        if status < 200 or waiter is None:
            return
        if names != self._last_names:  # a server sends the same ones with every reply
            self._last_names, self._places = names, _places_of(names)
        self._waiter = None
        self.idle_since = now = self._loop.time()
        if not self._stays_open or self._is_writing:
            self.close()
        if not waiter.done():
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            waiter.set_result(RawReply(status, Headers(self._places, values), body, (now - self._sent_at) * 1000.0))

    # The clock

    def _hurry(self) -> None:
        """Set the timer anew if it would fire too late."""
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)
        else:
            self.close()
            self._fail(httpx.WriteTimeout("") if self._is_writing else httpx.ReadTimeout(""))

    def _fail(self, error: Exception) -> None:
        """Raise in who waits; a reply that is whole already is not taken back."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)


def _places_of(names: Sequence[bytes]) -> _Places:
    """Tell where each header stands, by its name in lower case."""
    places: dict[str, tuple[int, ...]] = {}
    for place, name in enumerate(names):
        key = name.decode("latin-1").lower()
        places[key] = (*places.get(key, ()), place)
    return places
