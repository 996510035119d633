"""Pulls from object stores: a complete one behind a proxy that counts and breaks, and an odd one."""

from __future__ import annotations

import hashlib
import os
import signal
import time

import pytest

from slipway.adapter import Digest
from slipway.errors import (
    AdapterNotFoundError,
    ConfigurationError,
    SourceError,
    SourceUnavailableError,
    StoreError,
    TransientError,
)
from slipway.progress import listening
from slipway.services import ranged
from slipway.services import s3 as s3_module

CONFIG = b'{"peft_type": "LORA", "r": 8}'
MIB = 1 << 20


@pytest.fixture
def put(s3):
    def run(prefix, files):
        for name, content in files.items():
            s3.client.put_object(Bucket="adapters", Key=f"{prefix}{name}", Body=content)

    return run


@pytest.fixture
def adapter(put, weights):
    files = {"adapter_config.json": CONFIG, "adapter_model.safetensors": weights}
    put("team/a1/", {**files, "README.md": b"#", "optimizer.pt": b"x", "checkpoint-1/adapter_config.json": b"{}"})
    put("team/a10/", {"adapter_config.json": b'{"other": 1}', "extra.safetensors": b"x"})
    return files


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(s3_module, "PART_BYTES", MIB)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(ranged, "pause", lambda _failures, transfer: transfer.check())


@pytest.mark.parametrize("address", ["s3://adapters/team/a1", "s3://adapters/team/a1/"])
def test_prefix_is_a_folder(adapter, pull, address, weights):
    """``a1`` takes neither ``a10`` nor the checkpoints inside."""
    bundle = pull(address)
    assert {file.name: file.sha256 for file in bundle.files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in adapter.items()
    }
    assert bundle.uri == "s3://adapters/team/a1/"
    assert bundle.resolved_revision.startswith("etags-")


def test_large_object_is_fetched_in_ranges_and_put_together(adapter, pull, store, small_parts):
    assert store.verify(pull("s3://adapters/team/a1").digest) == ()


def test_unchanged_folder_is_taken_from_the_store_without_a_byte_of_it(adapter, pull, s3):
    first = pull("s3://adapters/team/a1")
    before = s3.returned_bytes
    assert before > first.size_bytes
    assert pull("s3://adapters/team/a1") == first
    assert s3.returned_bytes - before < 4096, "only the listing"


def test_changed_object_is_another_revision(adapter, pull, put):
    first = pull("s3://adapters/team/a1")
    put("team/a1/", {"adapter_config.json": b'{"peft_type": "LORA", "r": 9}'})
    second = pull("s3://adapters/team/a1")
    assert second.digest != first.digest
    assert second.resolved_revision != first.resolved_revision


def test_object_replaced_while_it_is_fetched_is_an_error_and_no_mixture(
    adapter, pull, s3, put, store, small_parts, monkeypatch
):
    monkeypatch.setattr(s3_module, "CONNECTIONS", 1)  # so that something is left to fetch

    def replace(count):
        if count > 2 * MIB:
            s3.on_bytes = lambda _count: None
            put("team/a1/", {"adapter_model.safetensors": os.urandom(6 * MIB)})

    s3.seconds_per_megabyte = 0.02
    s3.on_bytes = replace
    with pytest.raises(SourceError, match="replaced or deleted while") as caught:
        pull("s3://adapters/team/a1")
    assert not isinstance(caught.value, TransientError)
    assert store.contents() == ()
    s3.seconds_per_megabyte = 0.0
    assert store.verify(pull("s3://adapters/team/a1").digest) == ()


def test_connection_that_breaks_is_gone_on_from_where_it_broke(adapter, pull, s3, store, impatient):
    s3.cut_after = [2 * MIB, MIB]
    bundle = pull("s3://adapters/team/a1")
    assert store.verify(bundle.digest) == ()
    assert s3.returned_bytes < bundle.size_bytes + 200_000


def test_pull_that_was_cut_is_gone_on_from_where_it_stopped(pull, put, s3, leftovers, monkeypatch, store, impatient):
    put("team/a1/", {"adapter_config.json": CONFIG, "adapter_model.safetensors": os.urandom(20 * MIB)})
    monkeypatch.setattr(ranged, "ATTEMPTS", 1)
    monkeypatch.setattr(s3_module, "CONNECTIONS", 1)
    s3.cut_after = [100 * MIB, 4 * MIB]  # the second range breaks off
    with pytest.raises(SourceUnavailableError):
        pull("s3://adapters/team/a1")
    assert len(leftovers()) == 2, "the download and its lock"
    before = s3.returned_bytes
    bundle = pull("s3://adapters/team/a1")
    assert store.verify(bundle.digest) == ()
    assert s3.returned_bytes - before < 13 * MIB
    assert leftovers() == []


def test_missing_bucket_prefix_and_adapter_are_told_apart(adapter, pull, put):
    with pytest.raises(AdapterNotFoundError, match="There is no bucket nowhere"):
        pull("s3://nowhere/team/a1")
    with pytest.raises(AdapterNotFoundError, match="has nothing under team/a2/"):
        pull("s3://adapters/team/a2")
    with pytest.raises(AdapterNotFoundError, match="holds no adapter") as caught:
        pull("s3://adapters/team")
    assert "team/a1/, team/a10/" in caught.value.fix
    with pytest.raises(AdapterNotFoundError) as caught:
        pull("s3://adapters/team/a1/adapter_config.json")
    assert "Give the folder that the file is in: s3://adapters/team/a1/" in caught.value.fix


def test_store_that_is_not_reached_may_be_tried_again(pull, aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailableError, match="the store is not reached") as caught:
        pull("s3://adapters/team/a1")
    assert "AWS_ENDPOINT_URL_S3" in caught.value.fix


def test_missing_profile_is_named(pull, aws, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    with pytest.raises(ConfigurationError, match="no profile that exists: production"):
        pull("s3://adapters/team/a1")


def test_profile_gives_endpoint_and_credentials(adapter, pull, s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    (tmp_path / "aws-credentials").write_text("[lab]\naws_access_key_id = lab\naws_secret_access_key = x\n")
    (tmp_path / "aws-config").write_text(
        f"[profile lab]\nregion = us-east-1\nservices = lab\n[services lab]\ns3 =\n  endpoint_url = {s3.url}\n"
        "  addressing_style = path\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")
    before = s3.returned_bytes
    assert pull("s3://adapters/team/a1").files
    assert s3.returned_bytes > before


def test_two_processes_fetch_the_same_revision_once(adapter, puller, s3, store, leftovers):
    s3.seconds_per_megabyte = 0.1
    processes = [puller("s3://adapters/team/a1") for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in told}) == 1, told
    digest = Digest(told[0][0].strip())
    assert store.verify(digest) == ()
    assert s3.returned_bytes < store.find(digest).size_bytes + 100_000, "the others took it from the store"
    assert leftovers() == []


def test_killed_at_any_moment_the_next_pull_goes_on(put, puller, pull, s3, store, leftovers):
    put("team/a1/", {"adapter_config.json": CONFIG, "adapter_model.safetensors": os.urandom(40 * MIB)})
    s3.seconds_per_megabyte = 0.05
    for seconds in (0.3, 0.5, 0.7, 0.9, 1.1):
        process = puller("s3://adapters/team/a1")
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        for item in store.contents():
            assert store.verify(item.digest) == ()
    assert store.verify(pull("s3://adapters/team/a1").digest) == ()
    assert leftovers() == []


def test_full_disk_is_one_clear_error_and_frees_what_it_took(adapter, pull, leftovers):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            pull("s3://adapters/team/a1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers() == []


def test_progress_counts_bytes_up_to_all_of_them(adapter, pull, small_parts):
    events = []
    with listening(events.append):
        bundle = pull("s3://adapters/team/a1")
    assert max(event.done for event in events) == bundle.size_bytes
    assert {event.total for event in events} == {bundle.size_bytes}


# What the odd store does


def objects(weights):
    return {"team/a1/adapter_config.json": CONFIG, "team/a1/adapter_model.safetensors": weights}


REFUSALS = {
    "denied": ((403, "<Code>AccessDenied</Code>", {}), SourceError, r"may not read .*AccessDenied", "s3:ListBucket"),
    "wrong region": (
        (301, "<Code>PermanentRedirect</Code>", {"x-amz-bucket-region": "eu-west-3"}),
        SourceError,
        "in another region: eu-west-3",
        "AWS_REGION=eu-west-3",
    ),
    "region of the signature": (
        (400, "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region>", {}),
        SourceError,
        "in another region: eu-west-3",
        "AWS_REGION=eu-west-3",
    ),
    "failing": ((500, "<Code>InternalError</Code>", {}), SourceUnavailableError, "answers InternalError", "later"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_each_refusal_has_its_own_message_and_fix(odd_store, pull, case):
    odd_store.refuses, kind, message, fix = REFUSALS[case]
    with pytest.raises(kind, match=message) as caught:
        pull("s3://adapters/team/a1")
    assert type(caught.value) is kind
    assert fix in caught.value.fix
    assert "aws_canary" not in str(caught.value)


def test_without_credentials_requests_are_unsigned(odd_store, pull, monkeypatch, weights):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    odd_store.objects = objects(weights)
    assert pull("s3://adapters/team/a1").files
    assert not any("Authorization" in headers for _, _, headers in odd_store.requests)
    odd_store.refuses = (403, "<Code>AccessDenied</Code>", {})
    with pytest.raises(SourceError, match="is not public") as caught:
        pull("s3://adapters/team/a1")
    assert "AWS_PROFILE" in caught.value.fix


def test_every_get_names_the_etag_of_the_listing(odd_store, pull, small_parts, weights, odd):
    odd_store.objects = objects(weights)
    pull("s3://adapters/team/a1")
    gets = [headers for method, path, headers in odd_store.requests if method == "GET" and "list-type" not in path]
    assert len(gets) == 7
    assert {headers["If-Match"] for headers in gets} == {f'"{odd.etag(item)}"' for item in odd_store.objects.values()}


def test_store_that_ignores_if_match_is_caught_by_the_etag_it_answers(odd_store, pull, weights, store):
    odd_store.objects, odd_store.knows_if_match = objects(weights), False
    odd_store.replaced = {"team/a1/adapter_model.safetensors": weights[::-1]}
    with pytest.raises(SourceError, match="replaced or deleted while"):
        pull("s3://adapters/team/a1")
    assert store.contents() == ()


def test_store_that_knows_no_ranges_gives_whole_objects(odd_store, pull, small_parts, weights, store):
    odd_store.objects, odd_store.knows_ranges = objects(weights), False
    assert store.verify(pull("s3://adapters/team/a1").digest) == ()


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("kind", ["full", "composite", "sha256"])
def test_checksum_that_the_store_keeps_is_verified(
    odd_store, pull, small_parts, weights, odd, kind, is_right, leftovers
):
    import base64

    odd_store.objects = objects(weights)
    odd_store.part_bytes = 5 * MIB if kind == "composite" else 0
    kept = weights if is_right else weights[::-1]
    key = "team/a1/adapter_model.safetensors"
    if kind == "sha256":
        value = {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(kept).digest()).decode()}
    else:
        value = {"x-amz-checksum-crc32": odd.crc32(kept, odd_store.part_bytes)}
    odd_store.checksums = {key: {**value, "x-amz-checksum-type": "COMPOSITE" if kind == "composite" else "FULL_OBJECT"}}
    if is_right:
        assert pull("s3://adapters/team/a1").files
    else:
        with pytest.raises(SourceError, match="other bytes than the store has a checksum of"):
            pull("s3://adapters/team/a1")


def test_empty_objects_are_files_too(odd_store, pull):
    odd_store.objects = objects(b"")
    assert [file.size_bytes for file in pull("s3://adapters/team/a1").files] == [len(CONFIG), 0]
