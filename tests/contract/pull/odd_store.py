"""An object store that behaves as some do and the usual stand-ins do not."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass(kw_only=True)
class OddStore:
    """One bucket called ``adapters``; use as a context manager.

    Attributes:
        objects: Bytes by key.
        refuses: Status, the error's XML and headers with which every request is answered.
        knows_if_match: Else If-Match is ignored, as some gateways do.
        knows_ranges: Else a range is answered with the whole object.
        checksums: By key: further headers of HEAD's answer, such as ``x-amz-checksum-crc32``.
        part_bytes: Of objects that came in parts; 0 for none.
        replaced: Bytes by key that are served although the listing shows the ETag of ``objects``.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    refuses: tuple[int, str, dict[str, str]] | None = None
    knows_if_match: bool = True
    knows_ranges: bool = True
    checksums: dict[str, dict[str, str]] = field(default_factory=dict)
    part_bytes: int = 0
    replaced: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        store = self

        class Bound(_Handler):
            odd = store

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"


def etag(content: bytes, part_bytes: int = 0) -> str:
    """As S3 makes it: MD5, or that of the parts' and their number."""
    if not part_bytes:
        return hashlib.md5(content).hexdigest()
    parts = [hashlib.md5(content[at : at + part_bytes]).digest() for at in range(0, len(content), part_bytes)]
    return f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def crc32(content: bytes, part_bytes: int = 0) -> str:
    """Of the full object, or composite."""
    if not part_bytes:
        return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    parts = [zlib.crc32(content[at : at + part_bytes]).to_bytes(4, "big") for at in range(0, len(content), part_bytes)]
    return f"{base64.b64encode(zlib.crc32(b''.join(parts)).to_bytes(4, 'big')).decode()}-{len(parts)}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    odd: OddStore

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.odd.requests.append((self.command, self.path, dict(self.headers.items())))
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        if self.odd.refuses is not None:
            status, error, headers = self.odd.refuses
            self._send(status, headers, f"<Error>{error}</Error>".encode())
        elif "list-type" in query:
            self._list(query["prefix"])
        else:
            self._object(key, query)

    def _list(self, prefix: str) -> None:
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
            f"<ETag>&quot;{etag(content, self.odd.part_bytes)}&quot;</ETag></Contents>"
            for key, content in sorted(self.odd.objects.items())
            if key.startswith(prefix) and "/" not in key.removeprefix(prefix)
        )
        self._send(200, {}, f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode())

    def _object(self, key: str, query: dict[str, str]) -> None:
        content = self.odd.replaced.get(key, self.odd.objects.get(key))
        if content is None:
            self._send(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        name = f'"{etag(content, self.odd.part_bytes)}"'
        if self.odd.knows_if_match and self.headers.get("If-Match", name) != name:
            self._send(412, {}, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        headers = {"ETag": name, **self.odd.checksums.get(key, {})}
        status = 200
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if "partNumber" in query:
            headers["x-amz-mp-parts-count"] = str(-(-len(content) // self.odd.part_bytes))
            content, status = content[: self.odd.part_bytes], 206
        elif span and self.odd.knows_ranges:
            headers["Content-Range"] = f"bytes {span[1]}-{span[2]}/{len(content)}"
            content, status = content[int(span[1]) : int(span[2]) + 1], 206
        self._send(status, headers, content)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
