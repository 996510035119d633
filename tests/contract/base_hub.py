"""A stand-in for the Hugging Face Hub with base models whose weights are all zeros, made up as they are sent.

It counts the bytes of every body, redirects weights as the Hub does to its storage, and can ignore ranges.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

COMMIT = "c" * 40
_PATH = re.compile(r"/(?:storage/)?([\w-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)")
_CHUNK = 1 << 16


@dataclass
class ModelFile:
    """A start that is really there, and zeros up to ``size``."""

    start: bytes
    size: int


@dataclass
class BaseHub:
    """The server's state: files by repository, and what it has sent."""

    files: Mapping[str, Mapping[str, ModelFile]]
    ignores_ranges: bool = False
    broken: frozenset[str] = frozenset()
    sent_bytes: int = 0
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""


def weights_file(shapes: Mapping[str, tuple[int, int]], dtype: str = "BF16") -> ModelFile:
    """A safetensors file with these tensors."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * shape[0] * shape[1]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    start = len(text).to_bytes(8, "little") + text
    return ModelFile(start=start, size=len(start) + offset)


def text_file(document: object) -> ModelFile:
    text = json.dumps(document).encode()
    return ModelFile(start=text, size=len(text))


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers for the hub that its server carries."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, *, with_body):
        hub = self.server.hub
        with hub.lock:
            hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
        match = _PATH.fullmatch(self.path)
        file = hub.files.get(match[1], {}).get(match[3]) if match else None
        if match is None or match[1] not in hub.files:
            return self._empty(404, {"X-Error-Code": "RepoNotFound"})
        if file is None:
            return self._empty(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        if match[3] in hub.broken and with_body:
            return self._empty(500, {})
        facts = {"X-Repo-Commit": COMMIT, "ETag": f'"{match[3]}"', "X-Linked-Size": str(file.size)}
        if match[3].endswith(".safetensors") and not self.path.startswith("/storage/"):
            return self._empty(302, {**facts, "Location": f"{hub.url}/storage{self.path}"})
        return self._content(file, facts, with_body=with_body)

    def _content(self, file, facts, *, with_body):
        start, end, status = 0, file.size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not self.server.hub.ignores_ranges:
            start, end, status = int(asked[1]), min(int(asked[2] or file.size) + 1, file.size), 206
            facts["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        self._head(status, {**facts, "Content-Length": str(end - start)})
        if with_body:
            self._send(file, start, end)

    def _send(self, file, start, end):
        hub = self.server.hub
        try:
            while start < end:
                size = min(_CHUNK, end - start)
                part = file.start[start : start + size]
                self.wfile.write(part + bytes(size - len(part)))
                with hub.lock:
                    hub.sent_bytes += size
                start += size
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _empty(self, status, headers):
        self._head(status, {**headers, "Content-Length": "0"})

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serve(hub: BaseHub) -> Iterator[BaseHub]:
    """Run it on a free port of loopback for as long as the context lasts."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
