"""A server that answers every request like LoRAX, the same thing, after a fixed time, and turns away what is too much.

A program of its own (``python stub_server.py --delay-ms 50 --most 256``), so that it has a processor to itself, and as
lean as Python allows, so that what is measured is the client. Prints ``ready http://HOST:PORT``; ends with its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import time
from collections import deque

TOKENS = 8
TICK_SECONDS = 0.0005
"""Requests are looked for so often, and answers may be early or late by so much. To wait for them in the kernel would
make each ``send`` of the client wake this process, at the client's cost; a server on another machine does not."""
IDLE_TICKS = 2000
"""After so many ticks without a request it does wait in the kernel."""


def _message(status: str, body: object, headers: dict[str, str]) -> bytes:
    content = json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + content


def _answer(delay_ms: float) -> bytes:
    """What LoRAX answers ``/generate`` with details, in headers and body."""
    tokens = [{"id": 300 + n, "text": f" w{n}", "logprob": -0.125 * n, "special": False} for n in range(TOKENS)]
    details = {
        "finish_reason": "length", "prompt_tokens": 12, "generated_tokens": TOKENS, "skipped_tokens": 0, "seed": None,
        "prefill": [], "tokens": tokens,
    }  # fmt: skip
    body = {"generated_text": "".join(str(token["text"]) for token in tokens), "details": details}
    times = {
        "x-compute-time": delay_ms, "x-total-time": delay_ms, "x-validation-time": 0, "x-queue-time": 1,
        "x-inference-time": delay_ms - 1, "x-time-per-token": (delay_ms - 1) / TOKENS,
    }  # fmt: skip
    counts = {"x-compute-characters": 60, "x-prompt-tokens": 12, "x-generated-tokens": TOKENS}
    names = {"x-compute-type": "gpu+optimized", "x-model-id": "stub/base"}
    return _message("200 OK", body, {name: str(value) for name, value in {**names, **times, **counts}.items()})


TOO_MANY = _message(
    "429 Too Many Requests", {"error": "Model is overloaded", "error_type": "overloaded"}, {"x-stub": "full"}
)


INFO = _message("200 OK", {"model_id": "stub/base", "version": "stub"}, {})


class Stub:
    """The server.

    Args:
        delay_seconds: From the whole request to its answer.
        most: So many requests may wait for their answers; further ones get 429 at once.
    """

    def __init__(self, delay_seconds: float, most: int) -> None:
        self._delay = delay_seconds
        self._most = most
        self._answer = _answer(delay_seconds * 1000)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._peers: dict[int, socket.socket] = {}
        self._unread: dict[int, bytes] = {}
        self._due: deque[tuple[float, socket.socket]] = deque()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Answer until the parent is gone."""
        parent = os.getppid()
        listening = self._listener.fileno()
        idle_ticks = 0
        while os.getppid() == parent:
            for number, _ in self._poll.poll(0 if idle_ticks < IDLE_TICKS else 1):
                idle_ticks = 0
                if number == listening:
                    self._accept()
                else:
                    self._read(number)
            now = time.monotonic() + TICK_SECONDS
            while self._due and self._due[0][0] <= now:
                _, peer = self._due.popleft()
                self._send(peer, self._answer)
            time.sleep(TICK_SECONDS)
            idle_ticks += 1

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                peer, _ = self._listener.accept()
                peer.setblocking(False)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers[peer.fileno()] = peer
                self._poll.register(peer, select.EPOLLIN)

    def _read(self, number: int) -> None:
        peer = self._peers[number]
        try:
            data = peer.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(number)
            del self._peers[number]
            self._unread.pop(number, None)
            peer.close()
            return
        if number in self._unread:
            data = self._unread.pop(number) + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + _length(data[:end]):
            self._unread[number] = data
        elif data.startswith(b"GET "):
            self._send(peer, INFO)
        elif len(self._due) >= self._most:
            self._send(peer, TOO_MANY)
        else:
            self._due.append((time.monotonic() + self._delay, peer))

    @staticmethod
    def _send(peer: socket.socket, message: bytes) -> None:
        with contextlib.suppress(OSError):  # gone meanwhile
            peer.send(message)


def _length(head: bytes) -> int:
    _, _, after = head.lower().partition(b"content-length:")
    return int(after.partition(b"\r\n")[0] or 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--delay-ms", type=float, default=50.0)
    parser.add_argument("--most", type=int, default=256)
    options = parser.parse_args()
    stub = Stub(options.delay_ms / 1000, options.most)
    print("ready", stub.url, flush=True)
    stub.run()
