"""The lean HTTP client against a server that sends exactly the bytes that a test says, when it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
from dataclasses import replace

import httpx
import pytest
from pydantic import SecretStr

from slipway.errors import (
    ConfigurationError,
    InvalidRequestError,
    ProtocolError,
    ServiceTimeoutError,
    UnavailableError,
)
from slipway.services.channel import open_channel
from slipway.services.http import NO_RETRY, Service, Timeouts
from slipway.services.http_errors import OversizedReplyError
from slipway.services.lorax import LoraxClient
from slipway.services.wire import Wire

SERVICE = Service(name="Test service", token_variable="TOKEN_VARIABLE", address_variable="ADDRESS_VARIABLE")
SHORT = Timeouts(connect_seconds=2.0, read_seconds=0.15, write_seconds=0.15, pool_seconds=0.15)
BASE = {"adapter_id": None, "adapter_source": None}


def ok(body=b"{}", *headers):
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class RawServer:
    """Passes each request, head and body, to ``answer`` together with the writer; counts connections."""

    def __init__(self, answer, *, tls=None) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = self.ended = 0
        self._answer = answer
        self._tls = tls
        self._serving: set[asyncio.Task] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0)  # in which the connections that were cut off are closed

    async def _serve(self, reader, writer):
        self.connections += 1
        self._serving.add(asyncio.current_task())
        try:
            await self._converse(reader, writer)
        finally:
            self.ended += 1
            writer.transport.abort() if self._tls else writer.close()

    async def _converse(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                self.requests.append((head, await reader.readexactly(length)))
                await self._answer(writer, len(self.requests))
                await writer.drain()


def says(*messages):
    """Answer the n-th request with the n-th message, the last one again and again."""

    async def answer(writer, number):
        writer.write(messages[min(number, len(messages)) - 1])

    return answer


def says_and_closes(message):
    async def answer(writer, _number):
        writer.write(message)
        writer.close()

    return answer


@contextlib.asynccontextmanager
async def wired(answer, **options):
    async with RawServer(answer) as server:
        wire = make_wire(server.url, **options)
        try:
            yield server, wire
        finally:
            await wire.aclose()


def make_wire(url, *, timeouts=SHORT, connections=8, headers=None, **options):
    return Wire(httpx.URL(url), headers or {}, timeouts=timeouts, connections=connections, **options)


# --- replies


async def test_requests_one_after_the_other_keep_to_one_connection():
    async with wired(says(ok(b"1"), ok(b"2"))) as (server, wire):
        replies = [await wire.send("POST", "/generate", b'{"a":1}') for _ in range(5)]
    assert [reply.body for reply in replies] == [b"1", b"2", b"2", b"2", b"2"]
    assert server.connections == 1
    assert replies[0].status_code == 200
    assert replies[0].elapsed_ms > 0


async def test_the_request_is_plain_http():
    async with RawServer(says(ok())) as server:
        wire = make_wire(f"{server.url}/tenant/llms/a%20b/", headers={"Authorization": "Bearer pb_x"})
        await wire.send("POST", "/generate", b'{"a":1}')
        await wire.send("GET", "info")
        await wire.aclose()
    head, body = server.requests[0]
    assert head.split(b"\r\n") == [
        b"POST /tenant/llms/a%20b/generate HTTP/1.1",
        b"Host: 127.0.0.1:%d" % server.port,
        b"Accept: */*",
        b"Authorization: Bearer pb_x",
        b"Content-Type: application/json",
        b"Content-Length: 7",
        b"",
        b"",
    ]
    assert body == b'{"a":1}'
    assert server.requests[1][0].startswith(b"GET /tenant/llms/a%20b/info HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "path", ["/a b", "/a\r\nX-Injected: 1", "/ä", "/a?b=\x00"], ids=["space", "line break", "umlaut", "null"]
)
async def test_a_path_cannot_bring_a_line_of_its_own(path):
    async with wired(says(ok())) as (server, wire):
        with contextlib.suppress(httpx.InvalidURL):
            await wire.send("POST", path)
    for head, _ in server.requests:
        assert head.count(b"\r\n") == 6
        assert head.isascii()


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\0b", "ä"])
def test_a_header_cannot_bring_a_line_of_its_own(value):
    with pytest.raises(httpx.LocalProtocolError) as caught:
        make_wire("http://127.0.0.1:1", headers={"Authorization": value})
    assert value not in str(caught.value)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_chunks_are_put_together_and_trailers_dropped():
    async def answer(writer, _number):
        for piece in (CHUNKED + b"3\r\nab", b"c\r\n2;x=y\r\nde\r\n", b"0\r\nx-trailer: 1\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with wired(answer) as (server, wire):
        replies = [await wire.send("POST", "/", b"") for _ in range(2)]
    assert [reply.body for reply in replies] == [b"abcde", b"abcde"]
    assert "x-trailer" not in replies[0].headers
    assert server.connections == 1


async def test_a_reply_without_a_length_ends_with_the_connection():
    async with wired(says_and_closes(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as (server, wire):
        assert (await wire.send("POST", "/")).body == b"all of it"
        assert (await wire.send("POST", "/")).body == b"all of it"
    assert server.connections == 2


async def test_a_reply_of_another_coding_does_not_end_with_the_connection():
    """It would have been cut off by chance as well as by intent."""
    async with wired(says_and_closes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc")) as (_, wire):
        with pytest.raises(httpx.RemoteProtocolError):
            await wire.send("POST", "/")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nconnection: close", b"HTTP/1.0 200 OK"])
async def test_a_connection_that_the_server_ends_is_not_used_again(head):
    """Even when the server is slow to end it."""
    async with wired(says(head + b"\r\ncontent-length: 2\r\n\r\nhi")) as (server, wire):
        for _ in range(2):
            assert (await wire.send("POST", "/")).body == b"hi"
    assert server.connections == 2


async def test_a_reply_in_single_bytes_is_read():
    message = ok(b'{"a": 1}', b"x-queue-time: 3")

    async def answer(writer, _number):
        for index in range(len(message)):
            writer.write(message[index : index + 1])
            await writer.drain()
            await asyncio.sleep(0.0005)

    async with wired(answer) as (_, wire):
        reply = await wire.send("POST", "/")
    assert (reply.body, reply.headers["x-queue-time"]) == (b'{"a": 1}', "3")


async def test_what_announces_a_reply_is_not_the_reply():
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with wired(says(b"HTTP/1.1 100 Continue\r\n\r\n" + early + ok(b"hi"))) as (_, wire):
        reply = await wire.send("POST", "/")
    assert (reply.status_code, reply.body) == (200, b"hi")
    assert "link" not in reply.headers


async def test_headers_of_odd_bytes_are_kept_as_http_has_them():
    headers = (b"X-Odd: \xff\x80 \xe4 ", b"X-Empty:", b"X-Twice: a", b"x-twice: b")
    async with wired(says(ok(b"{}", *headers))) as (_, wire):
        reply = await wire.send("POST", "/")
    assert reply.headers["x-odd"] == "\xff\x80 \xe4"
    assert (reply.headers["x-empty"], reply.headers["x-twice"]) == ("", "a, b")


async def test_a_reply_of_some_megabytes_is_whole():
    body = bytes(range(256)) * 20_000
    async with wired(says(ok(body)), timeouts=Timeouts()) as (_, wire):
        assert (await wire.send("POST", "/")).body == body


@pytest.mark.parametrize("size", [1000, 1001])
async def test_a_reply_beyond_the_limit_is_refused(size):
    body = b"x" * (size - len(ok(b"")) - 2)
    async with wired(says(ok(body)), max_reply_bytes=1000) as (_, wire):
        assert len(ok(body)) == size
        if size <= 1000:
            assert (await wire.send("POST", "/")).body == body
            return
        with pytest.raises(OversizedReplyError):
            await wire.send("POST", "/")


# --- broken replies

HALVES = [
    b"",
    b"HTTP/1.1 200 O",
    b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
    CHUNKED + b"5\r\nab",
    CHUNKED + b"2\r\nab\r\n",
]


@pytest.mark.parametrize("half", HALVES)
async def test_half_a_reply_is_no_reply(half):
    async with wired(says_and_closes(half)) as (server, wire):
        with pytest.raises(httpx.RemoteProtocolError):
            await wire.send("POST", "/")
    assert len(server.requests) == 1


GARBAGE = [
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"\x16\x03\x01\x00\x00",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    CHUNKED + b"zz\r\n",
    b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_refused(garbage):
    async with wired(says(garbage)) as (_, wire):
        with pytest.raises(httpx.RemoteProtocolError):
            await wire.send("POST", "/")


async def test_what_follows_a_reply_unasked_is_never_the_next_reply():
    """Else one case would be graded on another one's answer."""
    async with wired(says(ok(b"mine") + ok(b"not mine"), ok(b"next"))) as (server, wire):
        assert (await wire.send("POST", "/")).body == b"mine"
        assert (await wire.send("POST", "/")).body == b"next"
    assert server.connections == 2


async def test_what_comes_unasked_later_is_never_the_next_reply():
    async def answer(writer, number):
        writer.write(ok(b"%d" % number))
        if number == 1:
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")

    async with wired(answer) as (server, wire):
        assert (await wire.send("POST", "/")).body == b"1"
        await asyncio.sleep(0.06)
        assert (await wire.send("POST", "/")).body == b"2"
    assert server.connections == 2


async def test_a_compressed_reply_is_refused():
    async with wired(says(ok(b"x", b"content-encoding: gzip"))) as (_, wire):
        with pytest.raises(httpx.DecodingError):
            await wire.send("POST", "/")


async def test_a_bad_status_comes_with_its_reply():
    message = b'HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 13\r\n\r\n{"error":"x"}'
    async with wired(says(message)) as (server, wire):
        for _ in range(2):
            with pytest.raises(httpx.HTTPStatusError) as caught:
                await wire.send("POST", "/generate")
    response = caught.value.response
    assert (response.status_code, response.json(), response.headers["retry-after"]) == (429, {"error": "x"}, "7")
    assert str(response.request.url) == f"{server.url}/generate"
    assert server.connections == 1


# --- connections that end


async def test_a_request_that_meets_a_closing_connection_is_sent_once_more():
    async def answer(writer, number):
        if number == 2:
            writer.close()  # without a word, as a server does whose patience with an idle connection ends just now
        else:
            writer.write(ok(b"%d" % number))

    async with wired(answer) as (server, wire):
        assert (await wire.send("POST", "/", b"a")).body == b"1"
        assert (await wire.send("POST", "/", b"b")).body == b"3"
    assert [body for _, body in server.requests] == [b"a", b"b", b"b"]


async def test_a_request_that_was_half_answered_is_not_sent_once_more():
    async def answer(writer, number):
        writer.write(ok(b"1") if number == 1 else b"HTTP/1.1 200 OK\r\n")
        if number > 1:
            writer.close()

    async with wired(answer) as (server, wire):
        await wire.send("POST", "/")
        with pytest.raises(httpx.RemoteProtocolError):
            await wire.send("POST", "/")
    assert len(server.requests) == 2


async def test_a_new_connection_that_breaks_is_an_error_at_once():
    async with wired(says_and_closes(b"")) as (server, wire):
        with pytest.raises(httpx.RemoteProtocolError):
            await wire.send("POST", "/")
    assert len(server.requests) == 1


async def test_a_connection_that_rested_too_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr("slipway.services.wire.KEEPALIVE_SECONDS", 0.02)
    async with wired(says(ok())) as (server, wire):
        await wire.send("POST", "/")
        await asyncio.sleep(0.04)
        await wire.send("POST", "/")
    assert server.connections == 2


async def test_a_reset_is_an_error_of_reading():
    async def answer(writer, _number):
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with wired(answer) as (_, wire):
        with pytest.raises(httpx.ReadError):
            await wire.send("POST", "/")


# --- time


async def test_a_server_that_is_silent_is_a_read_timeout():
    async def answer(_writer, _number):
        await asyncio.sleep(0.4)

    async with wired(answer) as (_, wire):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(httpx.ReadTimeout):
            await wire.send("POST", "/")
        assert 0.1 < loop.time() - began < 0.35


async def test_a_slow_reply_that_goes_on_is_read():
    """The time is between two pieces; a long answer may take longer than that in all."""

    async def answer(writer, _number):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(0.08)
            writer.write(b"x")

    async with wired(answer) as (_, wire):
        assert (await wire.send("POST", "/")).body == b"xxxx"


@pytest.mark.parametrize("slow", [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b"HTTP/1.1 200 OK\r\nx-"])
async def test_a_reply_that_comes_byte_by_byte_has_an_end_too(slow):
    """Body or headers: each piece is in time, and the whole would never be."""

    async def answer(writer, _number):
        writer.write(slow)
        for _ in range(60):
            await asyncio.sleep(0.05)
            writer.write(b"x")
            await writer.drain()

    async with wired(answer, timeouts=replace(SHORT, whole_seconds=0.3)) as (_, wire):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(httpx.ReadTimeout):
            await wire.send("POST", "/")
        assert 0.25 < loop.time() - began < 1.0


async def test_through_httpx_too_a_reply_has_an_end():
    """An address with a password goes through httpx, as one behind a proxy does."""

    async def answer(writer, _number):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        for _ in range(60):
            await asyncio.sleep(0.05)
            writer.write(b"x")
            await writer.drain()

    async with RawServer(answer) as server:
        timeouts = replace(SHORT, whole_seconds=0.3)
        url = server.url.replace("//", "//user:password@")
        channel = open_channel(url, token=None, service=SERVICE, timeouts=timeouts, connections=1)
        with pytest.raises(httpx.ReadTimeout):
            await channel.send("POST", "/generate")
        await channel.aclose()


async def test_the_time_of_one_request_is_not_that_of_the_next():
    """The timer is the connection's: the second request must neither be cut short by the first's, nor go unwatched."""

    async def answer(writer, number):
        await asyncio.sleep(0.1 if number < 3 else 0.5)
        writer.write(ok())

    async with wired(answer) as (_, wire):
        await wire.send("POST", "/")
        await wire.send("POST", "/")
        with pytest.raises(httpx.ReadTimeout):
            await wire.send("POST", "/")


async def test_a_server_that_takes_nothing_is_a_write_timeout():
    gate = asyncio.Event()

    async def serve(_reader, writer):
        writer.transport.pause_reading()
        await gate.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = make_wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(httpx.WriteTimeout):
        await wire.send("POST", "/", b"x" * (32 << 20))
    gate.set()
    await wire.aclose()
    server.close()
    await server.wait_closed()


async def test_a_refused_connection_is_a_connect_error():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wire = make_wire(f"http://127.0.0.1:{port}")
    with pytest.raises(httpx.ConnectError, match=r"refused|Connect call failed"):
        await wire.send("POST", "/")
    wire.open_ahead(4)
    await asyncio.sleep(0.02)
    await wire.aclose()


async def test_a_connection_that_does_not_come_is_a_connect_timeout():
    """A listener whose queue is full drops what else wants in."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        wire = make_wire(f"http://127.0.0.1:{full.getsockname()[1]}", timeouts=Timeouts(connect_seconds=0.1))
        with pytest.raises(httpx.ConnectTimeout):
            await wire.send("POST", "/")
        await wire.aclose()
        for filler in fillers:
            filler.close()


async def test_waiting_for_a_connection_has_its_own_time():
    async def answer(writer, _number):
        await asyncio.sleep(0.3)
        writer.write(ok())

    async with wired(answer, connections=1, timeouts=Timeouts(pool_seconds=0.05)) as (server, wire):
        first = asyncio.create_task(wire.send("POST", "/"))
        await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await wire.send("POST", "/")
        await first
        await wire.send("POST", "/")
    assert server.connections == 1


# --- many


async def test_a_hundred_at_once_get_each_their_own_reply():
    async def echo(writer, number):
        body = server.requests[number - 1][1]
        await asyncio.sleep(0.005 * (number % 3))
        writer.write(ok(body))

    async with wired(echo, connections=20, timeouts=Timeouts()) as (server, wire):
        replies = await asyncio.gather(*(wire.send("POST", "/", b"%d" % number) for number in range(100)))
    assert [reply.body for reply in replies] == [b"%d" % number for number in range(100)]
    assert server.connections <= 20


async def test_connections_opened_ahead_are_there_and_used():
    async with wired(says(ok()), connections=6) as (server, wire):
        wire.open_ahead(100)
        while server.connections < 6:
            await asyncio.sleep(0.005)
        await asyncio.gather(*(wire.send("POST", "/") for _ in range(6)))
        assert server.connections == 6


async def test_a_cancelled_request_closes_its_connection_and_frees_its_place():
    async def answer(writer, number):
        await asyncio.sleep(0.1 if number == 1 else 0)
        writer.write(ok(b"%d" % number))

    async with wired(answer, connections=1, timeouts=Timeouts()) as (server, wire):
        task = asyncio.create_task(wire.send("POST", "/"))
        waiting = asyncio.create_task(wire.send("POST", "/"))
        while not server.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await waiting).body == b"2"
    assert server.connections == 2


async def test_a_request_cancelled_while_it_waits_takes_no_place_along():
    async with wired(says(ok()), connections=1) as (_, wire):
        for _ in range(3):
            tasks = [asyncio.create_task(wire.send("POST", "/")) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(done[1], asyncio.CancelledError)
            assert [reply.status_code for reply in (done[0], done[2])] == [200, 200]


async def test_closing_closes_every_connection():
    async with RawServer(says(ok())) as server:
        wire = make_wire(server.url)
        await asyncio.gather(*(wire.send("POST", "/") for _ in range(5)))
        await wire.aclose()
        await asyncio.sleep(0.02)
        assert server.ended == server.connections == 5
        with pytest.raises(RuntimeError):
            await wire.send("POST", "/")


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


async def test_an_untrusted_certificate_is_refused_with_its_own_fix(tls):
    async with RawServer(says(ok()), tls=tls) as server:
        async with LoraxClient(server.url, retry=NO_RETRY) as client:
            with pytest.raises(UnavailableError, match="certificate is not trusted") as caught:
                await client.info()
        assert "SSL_CERT_FILE" in caught.value.fix
    assert server.requests == []


async def test_a_trusted_certificate_is_spoken_through(tls, certificate):
    trusted = ssl.create_default_context(cafile=certificate[1])
    body = b"x" * 300_000
    async with RawServer(says(ok(body)), tls=tls) as server:
        wire = make_wire(server.url, certificates=trusted, timeouts=Timeouts())
        for _ in range(3):
            assert (await wire.send("POST", "/", body)).body == body
        await wire.aclose()
    assert server.connections == 1
    assert server.requests[2][1] == body


async def test_a_certificate_for_another_host_is_refused(tls, certificate):
    trusted = ssl.create_default_context(cafile=certificate[1])
    async with RawServer(says(ok()), tls=tls) as server:
        wire = make_wire(f"https://localhost:{server.port}", certificates=trusted)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
            await wire.send("POST", "/")
        await wire.aclose()


# --- as errors of ours

MEANINGS = [
    (says_and_closes(b""), UnavailableError),
    (says_and_closes(HALVES[3]), UnavailableError),
    (says(GARBAGE[0]), UnavailableError),
    (says(ok(b"x", b"content-encoding: br")), ProtocolError),
    (says(ok(b"[" * 100_000)), ProtocolError),
    (says(b'HTTP/1.1 422 No\r\ncontent-length: 19\r\n\r\n{"error":"no pb_x"}'), InvalidRequestError),
    (says(b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n"), ProtocolError),
]


@pytest.mark.parametrize(("answer", "kind"), MEANINGS)
async def test_what_goes_wrong_is_an_error_of_ours(answer, kind):
    async with RawServer(answer) as server:
        async with LoraxClient(server.url, SecretStr("pb_x"), retry=NO_RETRY, timeouts=SHORT) as client:
            with pytest.raises(kind) as caught:
                await client.generate("a", **BASE)
        assert "pb_x" not in str(caught.value)
        assert caught.value.url == f"{server.url}/generate"
    assert len(server.requests) == 1


async def test_silence_is_a_timeout_of_ours():
    async def answer(_writer, _number):
        await asyncio.sleep(0.3)

    async with RawServer(answer) as server, LoraxClient(server.url, retry=NO_RETRY, timeouts=SHORT) as client:
        with pytest.raises(ServiceTimeoutError, match="no answer in time"):
            await client.generate("a", **BASE)


@pytest.mark.parametrize("url", ["", "ftp://host", "host:80", "http://"])
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(ConfigurationError):
        LoraxClient(url)


# --- which way


def channel(url):
    return open_channel(url, token=None, service=SERVICE, timeouts=Timeouts(), connections=2)


@pytest.mark.parametrize(
    ("url", "proxies", "is_wire"),
    [
        ("http://far.example", {}, True),
        ("https://far.example", {"https_proxy": "http://127.0.0.1:1"}, False),
        ("https://far.example", {"all_proxy": "http://127.0.0.1:1"}, False),
        ("https://far.example", {"http_proxy": "http://127.0.0.1:1"}, True),
        ("https://far.example", {"https_proxy": "http://127.0.0.1:1", "no_proxy": "far.example"}, True),
        ("https://far.example", {"https_proxy": "http://127.0.0.1:1", "no_proxy": "near.example"}, False),
        ("http://127.0.0.1:8080", {"http_proxy": "http://127.0.0.1:1"}, True),
        ("http://localhost:8080", {"http_proxy": "http://127.0.0.1:1"}, True),
        ("http://user:secret@far.example", {}, False),
    ],
)
async def test_proxies_are_left_to_httpx(monkeypatch, url, proxies, is_wire):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    found = channel(url)
    assert isinstance(found, Wire) is is_wire
    await found.aclose()


async def test_a_proxy_is_asked_for_what_is_far(monkeypatch):
    async with RawServer(says(ok(json.dumps({"model_id": "m"}).encode()))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with LoraxClient("http://far.example/llms/x") as client:
            client.open_ahead(3)
            assert (await client.info()).model_id == "m"
    assert proxy.requests[0][0].startswith(b"GET http://far.example/llms/x/info HTTP/1.1\r\n")
