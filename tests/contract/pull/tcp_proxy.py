"""Stand between a client and a server on this machine: count what comes back, and break connections on demand."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class TcpProxy:
    """A proxy to 127.0.0.1; use as a context manager.

    Attributes:
        returned_bytes: From the server to clients, headers too.
        cut_after: For each coming connection: how many bytes to hand back before it is closed.
        on_bytes: Called with the sum so far, from the connection's thread.
        seconds_per_megabyte: How slow it is.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.returned_bytes = 0
        self.cut_after: list[int] = []
        self.on_bytes: Callable[[int], object] = lambda _count: None
        self.seconds_per_megabyte = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
                threading.Thread(target=self._pass_back, args=(server, client), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        left = None
        with contextlib.suppress(OSError), server, client:
            while data := server.recv(1 << 16):
                if left is None and len(data) > 1 << 13:  # a connection that carries an object
                    with self._lock:
                        left = self.cut_after.pop(0) if self.cut_after else None
                part = data if left is None else data[:left]
                client.sendall(part)
                with self._lock:
                    self.returned_bytes += len(part)
                    count = self.returned_bytes
                self.on_bytes(count)
                if self.seconds_per_megabyte:
                    self._closing.wait(self.seconds_per_megabyte * len(part) / 1e6)
                if left is not None:
                    left -= len(part)
                    if not left:
                        client.shutdown(socket.SHUT_RDWR)
                        return
