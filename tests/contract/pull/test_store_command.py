"""`slipway store`, as a process would run it."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest

from slipway.adapter import AdapterUri, Source
from slipway.cli import app
from slipway.ledger import PromotionKind
from slipway.services.local import LocalSource
from slipway.services.workspace import open_workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIPWAY_LEDGER_URL", raising=False)
    workspace = open_workspace()
    yield workspace
    workspace.ledger.close()


@pytest.fixture
def bundle(workspace, tmp_path):
    """Bring an adapter in that was last pulled so many days ago."""

    def make(name, *, days=100):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "adapter_config.json").write_text(json.dumps({"name": name}))
        (directory / "adapter_model.safetensors").write_bytes(b"weights")
        uri = AdapterUri(source=Source.LOCAL, location=str(directory))
        pulled = asyncio.run(LocalSource().pull(uri, workspace.store))
        moment = time.time() - days * 86400
        os.utime(pulled.directory / "manifest.json", (moment, moment))
        return pulled

    return make


@pytest.fixture
def slipway(capsys):
    def run(*arguments):
        code = app(list(arguments), exit_on_error=False)
        return code, capsys.readouterr().out

    return run


def promote(workspace, bundle, expected):
    workspace.ledger.promote(
        name="support",
        target="prod",
        expected_champion=expected,
        release_id=f"support-{(expected or 0) + 1}",
        adapter_id="support/1",
        adapter_source="pbase",
        digest=bundle.digest,
        kind=PromotionKind.PROMOTE,
    )


def test_empty_store_says_so(workspace, slipway):
    assert slipway("store", "ls") == (0, "The store is empty.\n")
    assert slipway("store", "verify") == (0, "")
    assert slipway("store", "gc")[0] == 0


def test_ls_lists_what_was_pulled_last_first(bundle, slipway):
    old, new = bundle("old", days=2), bundle("new", days=1)
    code, out = slipway("store", "ls", "--json")
    assert code == 0
    assert [item["digest"] for item in json.loads(out)] == [new.digest, old.digest]
    assert "2 d ago" in slipway("store", "ls")[1]


def test_verify_finds_a_changed_byte(bundle, slipway):
    good, bad = bundle("good"), bundle("bad")
    assert slipway("store", "verify")[0] == 0
    path = bad.directory / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"WEIGHTS")
    code, out = slipway("store", "verify", "--json")
    assert code == 1
    assert json.loads(out) == {"damaged": {bad.digest: "changed: adapter_model.safetensors"}, "verified": 2}
    assert slipway("store", "verify", good.digest)[0] == 0
    assert slipway("store", "verify", bad.digest[7:20])[0] == 1
    path.unlink()
    assert "No such file" in slipway("store", "verify", bad.digest)[1]


def test_gc_deletes_what_nothing_needs_and_no_champion(workspace, bundle, slipway):
    first, second, third, young, loose = (
        bundle("first"), bundle("second"), bundle("third"), bundle("young", days=29), bundle("loose")
    )  # fmt: skip
    promote(workspace, first, None)
    promote(workspace, second, 1)
    promote(workspace, third, 2)
    fitted = bundle("fitted")
    workspace.ledger.record_bundle(
        digest=fitted.digest, uri="", resolved_revision="", size_bytes=1, base_model="", derived_from=third.digest
    )
    code, out = slipway("store", "gc", "--dry-run", "--json")
    assert code == 0
    assert set(json.loads(out)["deleted"]) == {first.digest, loose.digest}
    assert len(workspace.store.contents()) == 6, "a dry run deletes nothing"
    slipway("store", "gc")
    assert {item.digest for item in workspace.store.contents()} == {
        second.digest,
        third.digest,
        young.digest,
        fitted.digest,
    }
    assert "the champion of support on prod" in slipway("store", "gc", "--older-than", "1h")[1]
    assert {item.digest for item in workspace.store.contents()} == {second.digest, third.digest, fitted.digest}


def test_gc_keeps_the_bundle_of_an_open_release(workspace, bundle, slipway):
    candidate = bundle("candidate")
    workspace.ledger.open_release(
        name="support", target="prod", digest=candidate.digest, suite_digest="s", gate_digest="g", uri="u"
    )
    assert "the open release support-1" in slipway("store", "gc", "--older-than", "0d")[1]
    assert workspace.store.find(candidate.digest) is not None


def test_gc_gives_up_downloads_that_were_cut_long_ago(workspace, slipway):
    class CutError(Exception):
        pass

    def cut():
        with workspace.store.stage("key") as stage:
            (stage.directory / "part").write_bytes(b"x")
            raise CutError

    with pytest.raises(CutError):
        cut()
    incoming = workspace.store.root / ".incoming"
    slipway("store", "gc")
    assert len(list(incoming.iterdir())) == 2, "it can still be continued"
    slipway("store", "gc", "--older-than", "0h")
    assert list(incoming.iterdir()) == []


def test_gc_damaged_bundle_goes_like_any_other(workspace, bundle, slipway):
    broken = bundle("broken")
    (broken.directory / "adapter_config.json").unlink()
    slipway("store", "gc")
    assert workspace.store.contents() == ()


def test_span_that_is_none_is_refused(workspace, slipway):
    from slipway.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="no span of time"):
        slipway("store", "gc", "--older-than", "soon")
    with pytest.raises(ConfigurationError, match="names no bundles"):
        slipway("store", "verify", "sha256:abcdef01")


def test_bar_counts_bytes_for_people():
    from slipway.cli.progress_bar import describe_count
    from slipway.progress import Kind, ProgressEvent, Unit

    def event(done, total, unit):
        return ProgressEvent(step="pull", kind=Kind.ADVANCED, done=done, total=total, unit=unit)

    assert describe_count(event(45_200_000, 80_100_000, Unit.BYTES)) == "45.2/80.1 MB"
    assert describe_count(event(450_000_000, 2_100_000_000, Unit.BYTES)) == "0.5/2.1 GB"
    assert describe_count(event(45_200_000, 0, Unit.BYTES)) == "45.2 MB"
    assert describe_count(event(3, 30, Unit.PARTS)) == "3/30"
