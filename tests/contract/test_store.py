"""The store on a real file system: two processes, killed processes, full and read-only disks, odd directories."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slipway.adapter import AdapterUri, Digest, Source
from slipway.errors import AdapterNotFoundError, ConfigurationError, SourceError, StoreError
from slipway.services.local import LocalSource
from slipway.services.sources import SOURCES, source_for
from slipway.services.stage import MANIFEST
from slipway.services.store import BundleStore

PULL = """
import asyncio, sys
from pathlib import Path
from slipway.services.local import LocalSource
from slipway.services.store import BundleStore
from slipway.uri import parse_adapter_uri
store = BundleStore(root=Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
print(asyncio.run(LocalSource().pull(parse_adapter_uri(sys.argv[1]), store)).digest, flush=True)
"""


@pytest.fixture
def store(tmp_path):
    return BundleStore(root=tmp_path / "home" / "bundles")


@pytest.fixture
def adapter(tmp_path):
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (directory / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    return directory


@pytest.fixture
def puller(store):
    """Start processes that pull when told to; none outlives the test."""
    started = []

    def start(directory):
        process = subprocess.Popen(
            [sys.executable, "-c", PULL, str(directory), str(store.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pull(directory, store):
    return asyncio.run(LocalSource().pull(AdapterUri(source=Source.LOCAL, location=str(directory)), store))


def leftovers(store):
    return sorted(path.name for path in (store.root / ".incoming").iterdir())


def test_pulled_bundle_is_complete_and_named_by_content(adapter, store):
    bundle = pull(adapter, store)
    assert [file.name for file in bundle.files] == ["adapter_config.json", "adapter_model.safetensors"]
    for file in bundle.files:
        content = (bundle.directory / file.name).read_bytes()
        assert content == (adapter / file.name).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert bundle.directory == store.root / bundle.digest.removeprefix("sha256:")
    assert (bundle.uri, bundle.resolved_revision) == (f"file://{adapter}", bundle.digest)
    assert store.find(bundle.digest) == bundle
    assert store.verify(bundle.digest) == ()
    assert leftovers(store) == []


def test_second_pull_gives_the_same_bundle_with_its_own_origin(adapter, store, tmp_path):
    first = pull(adapter, store)
    inode = first.directory.stat().st_ino
    copy = tmp_path / "copy"
    adapter.rename(copy)
    second = pull(copy, store)
    assert (second.digest, second.files, second.directory) == (first.digest, first.files, first.directory)
    assert second.uri == f"file://{copy}"
    assert second.directory.stat().st_ino == inode, "nothing was written a second time"


def test_bundle_does_not_change_when_its_origin_does(adapter, store):
    bundle = pull(adapter, store)
    with (adapter / "adapter_model.safetensors").open("r+b") as file:
        file.write(b"CHANGED")
    assert store.verify(bundle.digest) == ()
    assert pull(adapter, store).digest != bundle.digest


def test_only_adapter_files_are_taken(adapter, store):
    for name in (
        "README.md",
        "optimizer.pt",
        "training_args.bin",
        "pytorch_model.bin",
        ".hidden.safetensors",
        MANIFEST,
    ):
        (adapter / name).write_bytes(b"x")
    (adapter / "checkpoint-1").mkdir()
    (adapter / "checkpoint-1" / "adapter_model.safetensors").write_bytes(b"x")
    (adapter / "adapter_model.bin").write_bytes(b"pickle")
    (adapter / "extra.safetensors").write_bytes(b"x")
    assert [file.name for file in pull(adapter, store).files] == [
        "adapter_config.json",
        "adapter_model.bin",
        "adapter_model.safetensors",
        "extra.safetensors",
    ]


def test_missing_path_is_no_adapter_and_hints_at_the_hub(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AdapterNotFoundError, match="There is no") as caught:
        pull(tmp_path / "org" / "name", store)
    assert "hf://org/name" in caught.value.fix
    with pytest.raises(AdapterNotFoundError) as caught:
        pull("/nowhere/at/all", store)
    assert "hf://" not in caught.value.fix


def test_file_is_no_adapter(adapter, store):
    with pytest.raises(AdapterNotFoundError, match="is a file"):
        pull(adapter / "adapter_config.json", store)


def test_directory_without_an_adapter_says_what_was_looked_for(store, tmp_path):
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(AdapterNotFoundError, match=r"adapter_config\.json, \*\.safetensors"):
        pull(tmp_path, store)
    assert not store.root.exists(), "nothing was made for it"


def test_adapter_one_directory_below_is_pointed_at(adapter, store):
    with pytest.raises(AdapterNotFoundError) as caught:
        pull(adapter.parent, store)
    assert str(adapter) in caught.value.fix


def test_link_inside_the_directory_is_followed(adapter, store):
    (adapter / "blobs").mkdir()
    (adapter / "adapter_model.safetensors").rename(adapter / "blobs" / "1")
    (adapter / "adapter_model.safetensors").symlink_to("blobs/1")
    assert pull(adapter, store).files[1].size_bytes == 7000


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret"])
def test_link_out_of_the_directory_is_refused(adapter, store, target):
    (adapter.parent / "secret").write_text("secret")
    (adapter / "adapter_config.json").unlink()
    (adapter / "adapter_config.json").symlink_to(target)
    with pytest.raises(ConfigurationError, match="leaves its directory"):
        pull(adapter, store)
    assert leftovers(store) == []


def test_link_to_nothing_is_a_source_error(adapter, store):
    (adapter / "x.safetensors").symlink_to("missing")
    with pytest.raises(SourceError, match="cannot be read"):
        pull(adapter, store)


def test_pipe_in_the_directory_does_not_block(adapter, store):
    os.mkfifo(adapter / "x.safetensors")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        pull(adapter, store)


def test_every_kind_of_address_has_its_source():
    assert set(SOURCES) == set(Source)
    for source in Source:
        assert hasattr(source_for(AdapterUri(source=source, location="a/1")), "pull")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".hidden", "a\0b", "a\nb", MANIFEST, "x" * 256])
def test_name_that_could_leave_the_bundle_is_refused(adapter, store, name):
    with (
        store.stage() as stage,
        (adapter / "adapter_config.json").open("rb", buffering=0) as file,
        pytest.raises(StoreError, match="cannot be the name"),
    ):
        stage.add(name, file)


@pytest.mark.parametrize("digest", ["sha256:../../etc", "sha256:" + "A" * 64, "0" * 64, ""])
def test_digest_that_is_none_is_refused(store, digest):
    with pytest.raises(ConfigurationError, match="not a bundle's digest"):
        store.find(Digest(digest))


def test_unknown_digest_is_not_found(store):
    digest = Digest("sha256:" + "0" * 64)
    assert store.find(digest) is None
    with pytest.raises(ConfigurationError, match="has no bundle"):
        store.verify(digest)


def damage(path, content):
    path.chmod(0o644)
    path.write_bytes(content)


def test_changed_byte_is_found_by_verify(adapter, store):
    bundle = pull(adapter, store)
    damage(bundle.directory / "adapter_model.safetensors", b"WEIGHTS" * 1000)
    assert store.verify(bundle.digest) == ("adapter_model.safetensors",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_model.safetensors", b"short"),
        (MANIFEST, b"{"),
        (MANIFEST, b"[]"),
        (MANIFEST, b"{}"),
        (MANIFEST, json.dumps({"files": [], "uri": "", "resolved_revision": ""}).encode()),
    ],
)
def test_damaged_bundle_is_an_error_and_the_next_pull_mends_it(adapter, store, name, content):
    bundle = pull(adapter, store)
    damage(bundle.directory / name, content)
    with pytest.raises(StoreError, match="damaged"):
        store.find(bundle.digest)
    assert pull(adapter, store) == bundle
    assert store.find(bundle.digest) == bundle
    assert leftovers(store) == []


def test_bundle_with_a_file_missing_is_mended(adapter, store):
    bundle = pull(adapter, store)
    (bundle.directory / "adapter_config.json").unlink()
    assert pull(adapter, store) == bundle
    assert store.verify(bundle.digest) == ()


def test_two_processes_pull_the_same_adapter_at_once(adapter, store, puller):
    (adapter / "adapter_model.safetensors").write_bytes(os.urandom(8 << 20))
    processes = [puller(adapter) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    digests = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(digests) == 1
    assert store.verify(Digest(digests.pop())) == ()
    assert leftovers(store) == []


def test_killed_at_any_moment_a_bundle_is_there_as_a_whole_or_not_at_all(adapter, store, puller):
    """Kill pulls at moments spread over their duration; then the next one must find nothing in its way."""
    (adapter / "adapter_model.safetensors").write_bytes(os.urandom(24 << 20))
    reference = pull(adapter, BundleStore(root=store.root.parent / "elsewhere"))
    seen_partial = False
    for step in range(14):
        process = puller(adapter)
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(0.002 * 1.4**step)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        seen_partial |= bool(leftovers(store)) if (store.root / ".incoming").exists() else False
        found = store.find(reference.digest)
        if found is not None:
            assert store.verify(reference.digest) == ()
            for path in found.directory.iterdir():
                path.unlink()
            found.directory.rmdir()
    assert seen_partial, "no kill came while the bundle was being written"
    assert pull(adapter, store).files == reference.files
    assert leftovers(store) == []


def test_what_a_living_process_writes_is_not_swept_away(adapter, store):
    with store.stage() as stage, (adapter / "adapter_config.json").open("rb", buffering=0) as file:
        stage.add("adapter_config.json", file)
        pull(adapter, store)
        assert (stage.directory / "adapter_config.json").is_file()
        assert store.commit(stage, uri="x").resolved_revision.startswith("sha256:")


def test_uncommitted_stage_leaves_nothing(adapter, store):
    with store.stage() as stage, (adapter / "adapter_config.json").open("rb", buffering=0) as file:
        stage.add("adapter_config.json", file)
        assert leftovers(store) != []
    assert leftovers(store) == []
    with store.stage() as stage, pytest.raises(StoreError, match="without files"):
        store.commit(stage, uri="x")


def test_full_disk_is_one_clear_error_and_leaves_nothing(adapter, store):
    """A limit on file sizes fails in the middle of a write, as a full disk does."""
    (adapter / "adapter_model.safetensors").write_bytes(b"x" * (4 << 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((1 << 20) + 100, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written") as caught:
            pull(adapter, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Free some space" in caught.value.fix
    assert leftovers(store) == []
    assert store.verify(pull(adapter, store).digest) == ()


def test_store_that_cannot_be_made_is_one_clear_error(adapter, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        pull(adapter, BundleStore(root=tmp_path / "file" / "bundles"))
    assert "SLIPWAY_HOME" in caught.value.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_store_is_one_clear_error(adapter, store):
    bundle = pull(adapter, store)
    (store.root / ".incoming").chmod(0o555)
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            pull(adapter, store)
        assert store.find(bundle.digest) == bundle, "reading goes on"
    finally:
        (store.root / ".incoming").chmod(0o755)


def test_read_only_file_system_is_one_clear_error(adapter):
    """Root may write to read-only directories, but not where the kernel refuses: /proc."""
    with pytest.raises(StoreError, match="cannot be written"):
        pull(adapter, BundleStore(root=Path("/proc/slipway/bundles")))
