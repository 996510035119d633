"""A server that answers what a test tells it to, faults included: a real socket, so that real clients break on it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from slipway.services.http import RetryPolicy


@dataclass(kw_only=True)
class Reply:
    """One answer. ``effect`` happens before anything is sent; ``reset`` then breaks the connection off."""

    status: int = 200
    json: object = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    reset: bool = False
    effect: Callable[[], None] | None = None


@dataclass(kw_only=True)
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class ScriptedServer:
    """Answers each ``METHOD /path`` with the replies told, in order; the last one again and again."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._replies: dict[str, list[Reply]] = {}
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # each response is two small writes

            def do(self) -> None:
                owner._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815  # http.server's names

            def log_message(self, *_args) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args) -> None:
                """Clients of these tests break connections off on purpose."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def on(self, route: str, *replies: Reply) -> None:
        self._replies[route] = list(replies)

    def count(self, route: str) -> int:
        return sum(f"{request.method} {request.path}" == route for request in self.seen)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        path = handler.path.partition("?")[0]
        with self._lock:
            headers = {key.lower(): value for key, value in handler.headers.items()}
            self.seen.append(Seen(method=handler.command, path=path, headers=headers, body=body))
            script = self._replies.get(f"{handler.command} {path}", [])
            reply = script.pop(0) if len(script) > 1 else (script or [Reply(status=404, json={"error": "no such"})])[0]
            if reply.effect:
                reply.effect()
        time.sleep(reply.delay_seconds)
        if reply.reset:
            # No lingering: the peer sees a reset, not an orderly end.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.shutdown(socket.SHUT_RD)
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.close()
            return
        content = reply.body if reply.body is not None else json.dumps(reply.json).encode()
        handler.send_response(reply.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **reply.headers}
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(b"" if reply.status == 204 else content)


@pytest.fixture
def reply() -> type[Reply]:
    """What the scripted server answers."""
    return Reply


@pytest.fixture
def server():
    """A scripted server of the test's own."""
    scripted = ScriptedServer()
    yield scripted
    scripted.stop()


@dataclass
class Waits:
    """A retry policy whose waits are noted and not waited."""

    seconds: list[float] = field(default_factory=list)

    async def _note(self, seconds: float) -> None:
        self.seconds.append(seconds)

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(
            attempts=3, total_seconds=60, sleep=self._note, monotonic=lambda: sum(self.seconds), fraction=lambda: 0.0
        )


@pytest.fixture
def waits() -> Waits:
    """Removes waiting, and tells how long it would have been."""
    return Waits()
