"""Pulls from a Hub that counts what it sends, breaks off, lies and refuses."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time

import pytest

from slipway.adapter import Digest
from slipway.errors import AdapterNotFoundError, SourceError, SourceUnavailableError, StoreError, TransientError
from slipway.progress import Unit, listening
from slipway.services import inflow as inflow_module
from slipway.services import ranged
from slipway.services.hub import HubSource
from slipway.uri import parse_adapter_uri

CONFIG = b'{"peft_type": "LORA", "r": 8}'


@pytest.fixture
def adapter(hub, weights):
    return hub.add(
        "org/adapter",
        {
            "adapter_config.json": CONFIG,
            "adapter_model.safetensors": weights,
            "README.md": b"# hello",
            "training_args.bin": b"pickle",
            "optimizer.pt": b"x" * 5000,
            "checkpoint-5/adapter_model.safetensors": b"older",
        },
    )


@pytest.fixture
def impatient(monkeypatch):
    """No waiting between attempts."""
    monkeypatch.setattr(ranged, "pause", lambda _failures, transfer: transfer.check())


def test_only_adapter_files_at_one_commit_are_taken(hub, adapter, pull, weights):
    bundle = pull("hf://org/adapter")
    assert {file.name: file.sha256 for file in bundle.files} == {
        "adapter_config.json": hashlib.sha256(CONFIG).hexdigest(),
        "adapter_model.safetensors": hashlib.sha256(weights).hexdigest(),
    }
    assert (bundle.uri, bundle.resolved_revision) == ("hf://org/adapter", adapter.commit)
    assert (bundle.directory / "adapter_model.safetensors").read_bytes() == weights
    resolved = sorted(path for path in hub.paths("GET") if "/resolve/" in path)  # asked for side by side
    assert resolved == [f"/org/adapter/resolve/{adapter.commit}/{name}" for name in bundle_names(bundle)]
    assert hub.file_bytes == bundle.size_bytes


def bundle_names(bundle):
    return [file.name for file in bundle.files]


def test_branch_is_resolved_before_any_file_is_asked_for(hub, adapter, pull):
    adapter.branches["exp/a"] = adapter.commit
    assert pull("hf://org/adapter@exp/a").resolved_revision == adapter.commit
    assert hub.paths("GET")[0].lower() == "/api/models/org/adapter/revision/exp%2fa?blobs=true"


def test_unchanged_revision_is_taken_from_the_store_without_a_byte(hub, adapter, pull):
    first = pull("hf://org/adapter")
    before, requests = hub.file_bytes, len(hub.requests)
    assert pull("hf://org/adapter@main").digest == first.digest
    assert hub.file_bytes == before
    assert len(hub.requests) == requests + 1, "only the revision was asked for"


def test_full_commit_that_is_here_is_taken_without_a_request(hub, adapter, pull):
    first = pull("hf://org/adapter")
    hub.faults.fails_with = 503
    again = pull(f"hf://org/adapter@{adapter.commit}")
    assert (again.digest, again.resolved_revision) == (first.digest, adapter.commit)
    assert again.uri == f"hf://org/adapter@{adapter.commit}"


def test_new_commit_is_fetched(hub, adapter, pull, weights):
    first = pull("hf://org/adapter")
    adapter.commit = adapter.branches["main"] = "b" * 40
    adapter.files["adapter_model.safetensors"] = weights[::-1]
    second = pull("hf://org/adapter")
    assert second.digest != first.digest
    assert second.resolved_revision == "b" * 40


def test_damaged_bundle_is_not_recalled(hub, adapter, pull, store):
    bundle = pull("hf://org/adapter")
    (bundle.directory / "adapter_config.json").unlink()
    assert pull("hf://org/adapter") == bundle
    assert store.verify(bundle.digest) == ()


def test_repository_on_another_endpoint_is_another_one(hub, adapter, pull, monkeypatch):
    pull("hf://org/adapter")
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("127.0.0.1", "localhost"))
    before = hub.file_bytes
    pull("hf://org/adapter")
    assert hub.file_bytes > before


def test_hub_that_lists_names_only_is_enough(hub, adapter, pull, store):
    adapter.says_sizes = False
    assert store.verify(pull("hf://org/adapter").digest) == ()


def test_hub_that_lists_no_files_is_asked_for_its_tree(hub, adapter, pull, store):
    hub.faults.no_files = True
    assert store.verify(pull("hf://org/adapter").digest) == ()
    assert any("/tree/" in path for path in hub.paths("GET"))


def test_token_goes_to_the_hub_and_not_to_where_it_redirects(hub, adapter, pull, monkeypatch):
    adapter.token = "hf_canary"
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    pull("hf://org/adapter")
    told = {path.startswith("/-/cdn/"): headers.get("Authorization") for _, path, headers in hub.requests}
    assert told == {False: "Bearer hf_canary", True: None}


REFUSALS = {
    "not there": ("hf://org/nothing", "hf_good", AdapterNotFoundError, "There is no repository", "spelling"),
    "no access": ("hf://org/private", "", SourceError, "is private or does not exist", "set HF_TOKEN"),
    "bad token": ("hf://org/private", "hf_expired", SourceError, "does not let HF_TOKEN read", "settings/tokens"),
    "gated": ("hf://org/gated", "hf_other", SourceError, "is gated", "Accept its terms"),
    "revision": ("hf://org/adapter@v9", "", AdapterNotFoundError, "has no revision v9", "branch, a tag"),
    "no adapter": ("hf://org/base", "", AdapterNotFoundError, "a whole model and no adapter", "save_pretrained"),
    "below": ("hf://org/nested", "", AdapterNotFoundError, "holds no adapter", "in its folder checkpoint-5"),
    "name": ("hf://org/a--b", "", AdapterNotFoundError, "is not named as the Hub names", "spelling"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_each_refusal_has_its_own_message_and_fix(hub, adapter, pull, monkeypatch, case, leftovers):
    hub.add("org/private", {"adapter_config.json": CONFIG}, token="hf_good")
    hub.add("org/gated", {"adapter_config.json": CONFIG}, token="hf_good", is_gated=True)
    hub.add("org/base", {"config.json": b"{}", "model-00001-of-00002.safetensors": b"x", "model.safetensors": b"x"})
    hub.add("org/nested", {"checkpoint-5/adapter_config.json": CONFIG})
    address, token, kind, message, fix = REFUSALS[case]
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(kind) as caught:
        pull(address)
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert fix in caught.value.fix
    assert "hf_" not in str(caught.value).replace("HF_", "")


def test_network_that_is_down_is_said_to_be_and_may_be_tried_again(hub, adapter, pull, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailableError, match="the Hub is not reached") as caught:
        pull("hf://org/adapter")
    assert isinstance(caught.value, TransientError)
    assert "HF_ENDPOINT" in caught.value.fix


@pytest.mark.parametrize(("status", "kind"), [(503, SourceUnavailableError), (418, SourceError)])
def test_hub_that_fails_is_told_from_one_that_refuses(hub, adapter, pull, status, kind):
    hub.faults.fails_with = status
    with pytest.raises(kind, match=f"status {status}") as caught:
        pull("hf://org/adapter")
    assert type(caught.value) is kind


def test_connection_that_breaks_is_gone_on_from_where_it_broke(hub, pull, impatient, store):
    """Not more than the piece that was being read is fetched twice."""
    content = bytes(range(256)) * (100 << 10)
    hub.add("org/large", {"adapter_config.json": CONFIG, "adapter_model.safetensors": content})
    hub.faults.cut_after = [12 << 20, 12 << 20]
    bundle = pull("hf://org/large")
    assert store.verify(bundle.digest) == ()
    ranges = [headers.get("Range") for _, path, headers in hub.requests if "/-/cdn/" in path]
    assert ranges[0] is None
    assert ranges[1:] == [f"bytes={12 << 20}-", f"bytes={24 << 20}-"]


def test_pull_that_was_cut_is_gone_on_from_where_it_stopped(hub, pull, impatient, leftovers, monkeypatch, store):
    content = bytes(range(256)) * (100 << 10)
    hub.add("org/large", {"adapter_config.json": CONFIG, "adapter_model.safetensors": content})
    monkeypatch.setattr(ranged, "ATTEMPTS", 1)
    hub.faults.cut_after = [12 << 20]
    with pytest.raises(SourceUnavailableError):
        pull("hf://org/large")
    assert len(leftovers()) == 2, "the download and its lock"
    hub.requests.clear()
    hub.file_bytes = 0
    bundle = pull("hf://org/large")
    assert store.verify(bundle.digest) == ()
    assert hub.file_bytes == len(content) - (12 << 20)
    assert not any("adapter_config.json" in path for path in hub.paths("GET")), "it was here as a whole"
    assert leftovers() == []


def test_server_that_knows_no_ranges_is_asked_for_all(hub, pull, impatient, store):
    content = bytes(range(256)) * (100 << 10)
    hub.add("org/large", {"adapter_config.json": CONFIG, "adapter_model.safetensors": content})
    hub.faults.ignores_ranges = True
    hub.faults.cut_after = [12 << 20]
    assert store.verify(pull("hf://org/large").digest) == ()


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_bytes_that_are_not_those_of_the_commit_are_refused(hub, adapter, pull, name, leftovers):
    """Small files are known by git's id, large ones by SHA-256."""
    if name == "adapter_config.json":
        del adapter.files["adapter_model.safetensors"]
    hub.faults.flips_a_byte = True
    with pytest.raises(SourceError, match="arrived with other bytes") as caught:
        pull("hf://org/adapter")
    assert not isinstance(caught.value, TransientError)
    hub.faults.flips_a_byte = False
    assert pull("hf://org/adapter").files
    assert leftovers() == []


def test_two_processes_fetch_the_same_revision_once(hub, adapter, puller, store, leftovers):
    hub.faults.seconds_per_megabyte = 0.05
    processes = [puller("hf://org/adapter") for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in told}) == 1, told
    digests = {out.strip() for out, _ in told}
    digest = Digest(digests.pop())
    assert store.verify(digest) == ()
    assert hub.file_bytes == store.find(digest).size_bytes, "the others waited and took it from the store"
    assert leftovers() == []


def test_killed_at_any_moment_the_next_pull_goes_on(hub, puller, pull, store, leftovers, monkeypatch):
    """Kills spread over a slow download: the bundle is there as a whole or not at all."""
    monkeypatch.setattr(inflow_module, "FLUSH_BYTES", 1 << 20)
    content = bytes(range(256)) * (160 << 10)
    hub.add("org/large", {"adapter_config.json": CONFIG, "adapter_model.safetensors": content})
    hub.faults.seconds_per_megabyte = 0.01
    for seconds in (0.0, 0.05, 0.15, 0.3, 0.4):
        process = puller("hf://org/large")
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(0.15 + seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        for item in store.contents():
            assert store.verify(item.digest) == ()
    bundle = pull("hf://org/large")
    assert store.verify(bundle.digest) == ()
    assert hashlib.sha256((bundle.directory / "adapter_model.safetensors").read_bytes()).digest() == (
        hashlib.sha256(content).digest()
    )
    assert leftovers() == []


def test_full_disk_is_one_clear_error_and_frees_what_it_took(hub, adapter, pull, leftovers):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written") as caught:
            pull("hf://org/adapter")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Free some space" in caught.value.fix
    assert leftovers() == []


def test_progress_counts_bytes_up_to_all_of_them(hub, adapter, pull):
    events = []
    with listening(events.append):
        bundle = pull("hf://org/adapter")
    last = events[-1]
    assert (last.done, last.total, last.unit) == (bundle.size_bytes, bundle.size_bytes, Unit.BYTES)
    assert last.subject == "hf://org/adapter"
    assert [event.done for event in events] == sorted(event.done for event in events)


async def test_cancelled_pull_ends_at_once_and_is_gone_on_later(hub, store, leftovers):
    content = bytes(range(256)) * (160 << 10)
    hub.add("org/large", {"adapter_config.json": CONFIG, "adapter_model.safetensors": content})
    hub.faults.seconds_per_megabyte = 0.05
    pulling = asyncio.create_task(HubSource().pull(parse_adapter_uri("hf://org/large"), store))
    await asyncio.sleep(0.9)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    hub.faults.seconds_per_megabyte = 0.0
    bundle = await HubSource().pull(parse_adapter_uri("hf://org/large"), store)
    assert store.verify(bundle.digest) == ()
    assert leftovers() == []
