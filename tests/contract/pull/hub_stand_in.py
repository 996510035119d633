"""A Hugging Face Hub of one process: what unmodified clients ask of it for models, with the Hub's own refusals.

Answers the revision call, the tree call, and HEAD and GET of files with ranges. It counts what it sends, and breaks on
demand. As a script it serves directories: ``python hub_stand_in.py ORG/NAME=DIRECTORY ...`` prints its address.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 1 << 20
"""From this size on a file is kept as the Hub keeps large files: named by SHA-256, reached by a redirect."""


@dataclass(kw_only=True)
class Repository:
    """One model repository with one commit per set of files."""

    files: dict[str, bytes | Path]
    commit: str = ""
    branches: dict[str, str] = field(default_factory=dict)
    token: str = ""
    is_gated: bool = False
    says_sizes: bool = True

    def __post_init__(self) -> None:
        self.commit = self.commit or hashlib.sha1(repr(sorted(self.files)).encode()).hexdigest()
        self.branches.setdefault("main", self.commit)


@dataclass(kw_only=True)
class Faults:
    """What goes wrong from now on."""

    cut_after: list[int] = field(default_factory=list)
    """For each coming GET of a large file: send so many bytes and hang up."""

    ignores_ranges: bool = False
    flips_a_byte: bool = False
    fails_with: int = 0
    seconds_per_megabyte: float = 0.0
    no_files: bool = False


class HubStandIn:
    """The server; use as a context manager."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.file_bytes = 0
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.lock = threading.Lock()
        stand_in = self

        class Bound(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that are killed hang up
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, files: Mapping[str, bytes | Path], **options: object) -> Repository:
        self.repositories[name] = Repository(files=dict(files), **options)  # type: ignore[arg-type]
        return self.repositories[name]

    def paths(self, method: str) -> list[str]:
        return [path for done, path, _ in self.requests if done == method]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    hub: HubStandIn

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        with self.hub.lock:
            self.hub.requests.append((self.command, self.path, {k.title(): v for k, v in self.headers.items()}))
        if self.hub.faults.fails_with:
            self._send(self.hub.faults.fails_with)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._model(unquote(match[1]), match[2], unquote(match[3] or "main"))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(unquote(match[1]), unquote(match[2]), unquote(match[3]))
        elif match := re.fullmatch(r"/-/cdn/([^/]+/[^/]+)/(.+)", path):
            self._bytes(self.hub.repositories[unquote(match[1])], unquote(match[2]), {})
        else:
            self._send(404)

    def _repository(self, name: str) -> Repository | None:
        """The Hub hides private repositories from those who may not read them, and says 401 only to the anonymous."""
        repository = self.hub.repositories.get(name)
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if sent == "hf_expired":
            self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        if repository is None or (repository.token and not repository.is_gated and sent != repository.token):
            self._send(404 if sent else 401, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.branches.get(revision, revision if revision == repository.commit else "")
        if not commit:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _model(self, name: str, kind: str | None, revision: str) -> None:
        repository = self._repository(name)
        if repository is None or not (commit := self._commit(repository, revision)):
            return
        listed = [_described(path, content, repository) for path, content in sorted(repository.files.items())]
        if kind == "tree":
            entries = [
                {"type": "file", "path": item.pop("rfilename"), "oid": item.pop("blobId", "0" * 40), **item}
                for item in listed
            ]
            self._send_json(entries)
            return
        document: dict[str, object] = {"id": name, "sha": commit, "private": bool(repository.token)}
        if not self.hub.faults.no_files:
            document["siblings"] = listed
        self._send_json(document)

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None or not (commit := self._commit(repository, revision)):
            return
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository.is_gated and sent != repository.token:
            self._send(403 if sent else 401, {"X-Error-Code": "GatedRepo"})
            return
        if path not in repository.files:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit}
        content = repository.files[path]
        if _size(content) >= LARGE_BYTES:
            headers |= {"X-Linked-Etag": f'"{_sha256(content)}"', "X-Linked-Size": str(_size(content))}
            headers["Location"] = f"http://localhost:{self.hub.port}/-/cdn/{name}/{path}"
            self._send(302, headers)
            return
        self._bytes(repository, path, headers)

    def _bytes(self, repository: Repository, path: str, headers: Mapping[str, str]) -> None:
        content, faults = repository.files[path], self.hub.faults
        size = _size(content)
        start, end, status = 0, size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not faults.ignores_ranges:
            start, end, status = int(asked[1]), min(int(asked[2] or size - 1) + 1, size), 206
        sent = {
            "ETag": f'"{_sha256(content)}"',
            "Accept-Ranges": "bytes",
            **headers,
            "Content-Length": str(end - start),
        }
        if status == 206:
            sent["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self.send_response(status)
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = faults.cut_after.pop(0) if faults.cut_after and size >= LARGE_BYTES else None
        stop = end if cut is None else min(end, start + cut)
        self._send_bytes(content, start, stop)
        if stop < end:
            self.close_connection = True

    def _send_bytes(self, content: bytes | Path, start: int, stop: int) -> None:
        faults = self.hub.faults
        if isinstance(content, Path):
            began, first = time.perf_counter(), start
            with content.open("rb") as file:
                file.seek(start)
                while start < stop:
                    start += self._count(file.read(min(1 << 18, stop - start)))
                    if faults.seconds_per_megabyte:
                        due = began + faults.seconds_per_megabyte * (start - first) / 1e6
                        time.sleep(max(0.0, due - time.perf_counter()))
            return
        for at in range(start, stop, 1 << 18):
            data = bytearray(content[at : min(at + (1 << 18), stop)])
            if faults.flips_a_byte:
                data[0] ^= 1
            self._count(data)
            if faults.seconds_per_megabyte:
                threading.Event().wait(faults.seconds_per_megabyte * len(data) / 1e6)

    def _count(self, data: bytes | bytearray) -> int:
        self.wfile.write(data)
        with self.hub.lock:
            self.hub.file_bytes += len(data)
        return len(data)

    def _send_json(self, document: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _send(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _described(path: str, content: bytes | Path, repository: Repository) -> dict[str, object]:
    if not repository.says_sizes:
        return {"rfilename": path}
    size = _size(content)
    if size >= LARGE_BYTES:
        sha256 = _sha256(content)
        lfs = {"sha256": sha256, "oid": sha256, "size": size, "pointerSize": 134}
        return {"rfilename": path, "size": size, "blobId": "0" * 40, "lfs": lfs}
    assert isinstance(content, bytes)
    blob = hashlib.sha1(b"blob %d\0" % size + content).hexdigest()
    return {"rfilename": path, "size": size, "blobId": blob}


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


_digests: dict[object, str] = {}


def _sha256(content: bytes | Path) -> str:
    key = content if isinstance(content, Path) else id(content)
    if isinstance(content, Path) and key in _digests:
        return _digests[key]
    if isinstance(content, Path):
        with content.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[key]
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Serve directories until stdin ends; ``--pace=N`` sends each file at N MB/s at most."""
    with HubStandIn() as hub:
        for argument in sys.argv[1:]:
            name, _, directory = argument.partition("=")
            if name == "--pace":
                hub.faults.seconds_per_megabyte = 1 / float(directory)
                continue
            hub.add(
                name,
                {
                    path.name: path if path.stat().st_size >= LARGE_BYTES else path.read_bytes()
                    for path in Path(directory).iterdir()
                },
            )
            for content in hub.repositories[name].files.values():
                _sha256(content)
        sys.stdout.write(f"{hub.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
