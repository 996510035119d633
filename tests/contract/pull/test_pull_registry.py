"""Pulls from Predibase's registry: the sandbox's, and one that hands out archives no honest registry would."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import stat
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from pydantic import SecretStr

from sandbox.control_plane.app import create_app
from sandbox.control_plane.settings import BaseModels, ControlPlaneSettings
from sandbox.control_plane.store import Store
from slipway.adapter import Digest
from slipway.errors import AdapterNotFoundError, AuthenticationError, ServiceError, SourceError, StoreError
from slipway.progress import listening
from slipway.services import archives
from slipway.services.predibase import PredibaseClient

CONFIG = b'{"peft_type": "LORA", "base_model_name_or_path": "org/base"}'


class Registry:
    """Hands out one archive as version 3 of ``support`` and counts what it sends."""

    def __init__(self) -> None:
        self.archive = b""
        self.uuid, self.created_at = "11111111-1111-1111-1111-111111111111", "2026-01-01T00:00:00Z"
        self.sent_bytes = 0
        self.status = 200
        self.seconds_per_megabyte = 0.0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.headers.get("Authorization") != "Bearer pb_canary":
                    self.reply(401, b'{"error": "no"}')
                elif registry.status != 200:
                    self.reply(registry.status, b'{"error": "no"}')
                elif self.path == "/v2/repos/support":
                    version = {"tag": 3, "createdAt": registry.created_at, "createdBy": "x", "baseModel": "b"}
                    self.reply(
                        200,
                        json.dumps(
                            {"uuid": registry.uuid, "name": "support", "versions": [{**version, "archived": False}]}
                        ).encode(),
                    )
                elif self.path == "/v2/repos/support/version/3/download":
                    self.reply(200, registry.archive, counted=True)
                else:
                    self.reply(404, b'{"error": "no"}')

            def reply(self, status, body, *, counted=False):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for at in range(0, len(body), 1 << 18):
                    part = body[at : at + (1 << 18)]
                    self.wfile.write(part)
                    registry.sent_bytes += len(part) * counted
                    if registry.seconds_per_megabyte:
                        time.sleep(registry.seconds_per_megabyte * len(part) / 1e6)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None


@pytest.fixture
def registry(monkeypatch):
    it = Registry()
    thread = threading.Thread(target=it.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("PREDIBASE_GATEWAY", f"http://127.0.0.1:{it.server.server_address[1]}")
    monkeypatch.setenv("PREDIBASE_API_TOKEN", "pb_canary")
    yield it
    it.server.shutdown()
    thread.join()
    it.server.server_close()


def zipped(files, *, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def files(weights):
    return {"adapter_config.json": CONFIG, "adapter_model.safetensors": weights}


@pytest.mark.parametrize("folder", ["", "support/", "a/b/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_at_the_root_and_in_one_folder_are_both_unpacked(registry, pull, files, folder, compression, store):
    others = [(f"{folder}README.md", b"#"), ("__MACOSX/._adapter_config.json", b"x"), (f"{folder}logs/x.txt", b"")]
    registry.archive = zipped([(folder + name, content) for name, content in files.items()] + others)
    bundle = pull("pbase://support/3")
    assert {file.name: file.sha256 for file in bundle.files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    assert (bundle.uri, bundle.resolved_revision) == ("pbase://support/3", "3")
    assert store.verify(bundle.digest) == ()


def test_version_that_is_here_is_not_downloaded_again(registry, pull, files):
    registry.archive = zipped(files.items())
    first = pull("pbase://support/3")
    before = registry.sent_bytes
    assert pull("pbase://support/3") == first
    assert registry.sent_bytes == before


@pytest.mark.parametrize("change", ["uuid", "created_at"])
def test_same_tag_of_a_repository_made_anew_is_another_version(registry, pull, files, change):
    registry.archive = zipped(files.items())
    first = pull("pbase://support/3")
    setattr(registry, change, "2222")
    registry.archive = zipped([*files.items(), ("extra.safetensors", b"x")])
    assert pull("pbase://support/3").digest != first.digest


def test_missing_repository_and_version_are_told_apart(registry, pull):
    with pytest.raises(AdapterNotFoundError, match="no adapter repository other"):
        pull("pbase://other/1")
    with pytest.raises(AdapterNotFoundError, match="has no version 9") as caught:
        pull("pbase://support/9")
    assert "It has 3." in caught.value.fix


def test_token_is_needed_and_never_shown(registry, pull, monkeypatch):
    monkeypatch.setenv("PREDIBASE_API_TOKEN", "pb_wrong")
    with pytest.raises(AuthenticationError) as caught:
        pull("pbase://support/3")
    assert "pb_wrong" not in str(caught.value)
    monkeypatch.delenv("PREDIBASE_API_TOKEN")
    with pytest.raises(AuthenticationError, match="without a token") as caught:
        pull("pbase://support/3")
    assert "PREDIBASE_API_TOKEN" in caught.value.fix


def linked(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def patched(archive, old, new):
    """An archive whose entries say something else than when they were written."""
    assert old in archive
    return archive.replace(old, new)


GOOD = ("adapter_config.json", CONFIG)

HOSTILE = {
    "slip up": (lambda: zipped([GOOD, ("../evil.safetensors", b"x")]), "leads out of it"),
    "slip in the middle": (lambda: zipped([GOOD, ("a/../../evil.safetensors", b"x")]), "leads out of it"),
    "absolute": (lambda: zipped([GOOD, ("/etc/evil.safetensors", b"x")]), "leads out of it"),
    "backslashes": (
        lambda: patched(zipped([GOOD, ("..QevilQx.safetensors", b"x")]), b"..QevilQx", b"..\\evil\\x"),
        "leads out of it",
    ),
    "drive": (
        lambda: patched(zipped([GOOD, ("CQ/evil.safetensors", b"x")]), b"CQ/evil", b"C:/evil"),
        "leads out of it",
    ),
    "slip of a file that is not taken": (lambda: zipped([GOOD, ("../README.md", b"x")]), "leads out of it"),
    "link": (lambda: zipped([GOOD, (linked("x.safetensors"), b"/etc/passwd")]), "no regular file"),
    "unusual compression": (lambda: zipped([GOOD], compression=zipfile.ZIP_LZMA), "compressed in an unusual way"),
    "two folders": (
        lambda: zipped([("a/adapter_config.json", b"{}"), ("b/adapter_config.json", b"{}")]),
        "several adapters: a, b",
    ),
    "damaged": (lambda: patched(zipped([GOOD]), b'"LORA"', b'"lora"'), "Bad CRC-32"),
    "no archive": (lambda: b"<html>", "no readable zip archive"),
    "truncated": (lambda: zipped([GOOD])[:-30], "no readable zip archive"),
    "nothing of an adapter": (lambda: zipped([("README.md", b"#")]), "holds no adapter"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(registry, pull, store, leftovers, tmp_path, case):
    make, message = HOSTILE[case]
    registry.archive = make()
    with pytest.raises(SourceError, match=message):
        pull("pbase://support/3")
    assert store.contents() == ()
    assert not list(tmp_path.rglob("*evil*"))
    assert not list(tmp_path.rglob("archive.zip")), "it is not kept either"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(registry, pull):
    registry.archive = zipped([GOOD, GOOD])
    with pytest.raises(SourceError, match="two files adapter_config"):
        pull("pbase://support/3")


@pytest.mark.parametrize(("megabytes", "is_bomb"), [(64, False), (65, True)])
def test_bomb_is_known_by_its_ratio(registry, pull, store, megabytes, is_bomb):
    """Zeros compress a thousandfold; below 64 MiB they may be an honest, if useless, adapter."""
    registry.archive = zipped(
        [GOOD, ("adapter_model.safetensors", bytes(megabytes << 20))], compression=zipfile.ZIP_DEFLATED
    )
    if is_bomb:
        with pytest.raises(SourceError, match="would unpack from"):
            pull("pbase://support/3")
        assert store.contents() == ()
    else:
        assert pull("pbase://support/3").size_bytes > megabytes << 20


def test_bomb_that_understates_its_size_is_not_unpacked_further(registry, pull, store):
    content = bytes(8 << 20)
    honest = zipped([GOOD, ("adapter_model.safetensors", content)], compression=zipfile.ZIP_DEFLATED)
    size = (8 << 20).to_bytes(4, "little")
    registry.archive = patched(honest, size, (1000).to_bytes(4, "little"))
    with pytest.raises(SourceError, match="no readable zip archive"):
        pull("pbase://support/3")
    assert store.contents() == ()


def test_bomb_of_many_files_is_known_by_its_total(registry, pull, monkeypatch):
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 10_000)
    registry.archive = zipped([GOOD, *((f"{at}.safetensors", bytes(1000)) for at in range(10))])
    with pytest.raises(SourceError, match="would unpack to"):
        pull("pbase://support/3")


def test_archive_with_too_many_entries_is_refused(registry, pull, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    registry.archive = zipped([GOOD, *((f"{at}.txt", b"") for at in range(5))])
    with pytest.raises(SourceError, match="6 entries"):
        pull("pbase://support/3")


def test_full_disk_is_one_clear_error_and_frees_what_it_took(registry, pull, files, leftovers):
    import resource

    registry.archive = zipped(files.items())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreError):
            pull("pbase://support/3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers() == []


def test_progress_counts_the_archive(registry, pull, files):
    registry.archive = zipped(files.items())
    events = []
    with listening(events.append):
        pull("pbase://support/3")
    assert (events[-1].done, events[-1].total) == (len(registry.archive), len(registry.archive))


def test_two_processes_download_the_same_version_once(registry, puller, files, store, leftovers):
    registry.archive = zipped(files.items())
    registry.seconds_per_megabyte = 0.1
    processes = [puller("pbase://support/3") for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in told}) == 1, told
    assert store.verify(Digest(told[0][0].strip())) == ()
    assert registry.sent_bytes == len(registry.archive)
    assert leftovers() == []


def test_killed_at_any_moment_the_next_pull_succeeds(registry, puller, pull, files, store, leftovers):
    registry.archive = zipped([*files.items(), ("extra.safetensors", bytes(24 << 20))])
    for seconds in (0.05, 0.1, 0.15, 0.2, 0.3):
        process = puller("pbase://support/3")
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        for item in store.contents():
            assert store.verify(item.digest) == ()
    assert store.verify(pull("pbase://support/3").digest) == ()
    assert leftovers() == []


async def test_what_was_uploaded_to_the_sandbox_comes_back(serve, store, files, tmp_path, monkeypatch):
    """Upload and pull of one adapter end in the same digest."""
    import asyncio

    from slipway.services.local import LocalSource
    from slipway.services.registry import RegistrySource
    from slipway.uri import parse_adapter_uri

    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    settings = ControlPlaneSettings(home=tmp_path / "plane", token="pb_token", url=url, base_models=BaseModels(()))
    directory = tmp_path / "adapter"
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    with _serving(create_app(settings, Store(settings.home)), port):
        async with PredibaseClient(url, SecretStr("pb_token")) as client:
            await client.create_repo("support")
            slot = await client.start_upload("support")
            for name in files:
                await client.put_file(slot.presigned_urls[name], directory / name, slot.required_headers)
            version = await client.finish_upload(slot.upload_token)
        monkeypatch.setenv("PREDIBASE_GATEWAY", url)
        monkeypatch.setenv("PREDIBASE_API_TOKEN", "pb_token")
        pulled = await RegistrySource().pull(parse_adapter_uri(f"pbase://{version.adapter_id}"), store)
    local = await asyncio.create_task(LocalSource().pull(parse_adapter_uri(str(directory)), store))
    assert pulled.digest == local.digest


def _free_port():
    from slipway.services.processes import free_port

    return free_port()


def _serving(app, port):
    import contextlib

    import uvicorn

    @contextlib.contextmanager
    def run():
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(timeout=20)

    return run()


def test_registry_that_fails_is_a_service_error(registry, pull):
    registry.status = 400
    with pytest.raises(ServiceError):
        pull("pbase://support/3")


def test_error_type_is_httpx_free(registry, pull, monkeypatch):
    """No exception of the HTTP library leaves the services."""
    monkeypatch.setenv("PREDIBASE_GATEWAY", "http://127.0.0.1:9")
    with pytest.raises(ServiceError) as caught:
        pull("pbase://support/3")
    assert not isinstance(caught.value, httpx.HTTPError)
