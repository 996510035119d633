"""Fitting a bundle of the store into another one."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from slipway.services import fitting
from slipway.services.fitting import Fitted, Refused
from slipway.tensors import Header, read_header


def read(fitted):
    config = json.loads((fitted.bundle.directory / "adapter_config.json").read_text())
    return config, load_file(fitted.bundle.directory / "adapter_model.safetensors")


def test_result_is_a_bundle_that_names_what_it_was_made_from(fit, store):
    fitted = fit(config={"use_rslora": True})
    assert isinstance(fitted, Fitted)
    assert store.find(fitted.bundle.digest) is not None
    assert store.verify(fitted.bundle.digest) == ()
    with safe_open(fitted.bundle.directory / "adapter_model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt", "derived_from": fitted.derived_from, "fitted": "scale"}
    assert fitted.derived_from != fitted.bundle.digest
    assert fitted.changes
    assert fitted.proof.holds


def test_same_input_gives_the_same_bytes(fit, make_adapter):
    """An upload is recognised by its digest, so doing a release again must not make a second version."""
    directory = make_adapter(rank=4)
    first, second = fit(directory=directory), fit(directory=directory)
    assert first.bundle.digest == second.bundle.digest
    assert first.proof == second.proof


def test_numbers_that_are_not_computed_with_keep_their_bits(fit, make_adapter):
    directory = make_adapter(config={"use_rslora": True})
    _, tensors = read(fit(directory=directory))
    original = load_file(directory / "adapter_model.safetensors")
    assert tensors.keys() == original.keys()
    assert all(np.array_equal(tensors[name].view("u1"), original[name].view("u1")) for name in original)


def test_written_files_are_strictly_valid(fit):
    fitted = fit(rank=3, dtype="bfloat16")
    header = read_header(fitted.bundle.directory / "adapter_model.safetensors")
    assert isinstance(header, Header)
    assert header.data_start % 8 == 0
    assert {tensor.dtype for tensor in header.tensors} == {"BF16"}
    assert {file.name for file in fitted.bundle.files} == {"adapter_config.json", "adapter_model.safetensors"}


def test_mixed_formats_are_kept_and_aligned(fit):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    fitted = fit(rank=4, tensors={name: np.ones((4, 32), "<f2")})
    header = read_header(fitted.bundle.directory / "adapter_model.safetensors")
    assert [tensor.dtype for tensor in header.tensors if tensor.name == name] == ["F16"]
    assert all(tensor.start % (2 if tensor.dtype == "F16" else 4) == 0 for tensor in header.tensors)


def test_several_files_become_one(fit, make_adapter):
    directory = make_adapter()
    tensors = load_file(directory / "adapter_model.safetensors")
    half = dict(list(tensors.items())[:4])
    save_file(half, directory / "adapter_model.safetensors")
    save_file({name: tensors[name] for name in tensors if name not in half}, directory / "more.safetensors")
    fitted = fit(directory=directory)
    assert read(fitted)[1].keys() == tensors.keys()
    assert "2 safetensors files are joined to one" in fitted.changes


def test_equal_copies_in_several_files_are_one_and_others_refused(fit, make_adapter):
    directory = make_adapter()
    tensors = load_file(directory / "adapter_model.safetensors")
    save_file(tensors, directory / "copy.safetensors")
    assert isinstance(fit(directory=directory), Fitted)
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1}, directory / "copy.safetensors")
    refused = fit(directory=directory)
    assert isinstance(refused, Refused)
    assert "several files" in refused.reasons[0]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"adapter_config.json": None}, "no adapter_config.json"),
        ({"adapter_config.json": b"[]"}, "not an object"),
        ({"adapter_model.safetensors": None}, "no weights"),
        ({"adapter_model.safetensors": b"<html>"}, "web page"),
    ],
)
def test_unreadable_bundles_are_refused(fit, files, words):
    refused = fit(files=files)
    assert isinstance(refused, Refused)
    assert words in refused.reasons[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_by_the_proof(fit, bad):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    refused = fit(rank=4, tensors={name: np.full((32, 4), bad, "<f4")})
    assert isinstance(refused, Refused)
    assert "could not be proven" in refused.reasons[0]


def test_a_failed_proof_leaves_no_bundle(fit, pull, make_adapter, store, monkeypatch):
    """Whatever is wrong with a rewrite, what it wrote must not be kept."""
    monkeypatch.setattr(fitting, "safetensors_blocks", _with_a_wrong_byte)
    directory = make_adapter(rank=4)
    pulled = pull(directory)
    refused = fit(directory=directory)
    assert isinstance(refused, Refused)
    assert [path.name for path in store.root.iterdir() if not path.name.startswith(".")] == [pulled.digest[7:]]


def _with_a_wrong_byte(tensors, metadata):
    from slipway.fit.writing import safetensors_blocks

    *blocks, last = safetensors_blocks(tensors, metadata)
    yield from blocks
    wrong = bytearray(last)
    wrong[3] ^= 1
    yield bytes(wrong)


def test_original_is_not_touched(fit, pull, make_adapter, store):
    directory = make_adapter(rank=4)
    pulled = pull(directory)
    fit(directory=directory)
    assert store.verify(pulled.digest) == ()


def test_empty_tensors_are_refused(fit):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert isinstance(fit(tensors={name: np.zeros((0, 32), "<f4")}), Refused)
