"""Pickles are converted by a child that can do nothing else, and never opened here."""

import json
import os
import pickle
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file as load_torch

from slipway.adapter import AdapterUri, Source
from slipway.base_model import BaseModel
from slipway.errors import ConfigurationError
from slipway.findings import InspectionVerdict
from slipway.inspection import inspect_bundle
from slipway.profiles import find_profile
from slipway.services import pickle_child, pickles
from slipway.services.fitting import fit_bundle
from slipway.services.local import LocalSource
from slipway.services.pickles import convert_pickle
from slipway.services.store import BundleStore


class Hostile:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def convert(tmp_path):
    def run(content=None, *, raw=None, **settings):
        path = tmp_path / "adapter_model.bin"
        if raw is None:
            torch.save(content, path)
        else:
            path.write_bytes(raw)
        target = tmp_path / "out.safetensors"
        return convert_pickle(path, target, **settings), target

    return run


def test_tensors_come_out_as_they_were(convert):
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(4, 3).half().T,
        "c": torch.tensor(1.0, dtype=torch.float64),
        "d": torch.randn(5, 5).bfloat16(),
    }
    reason, target = convert(tensors)
    assert reason == ""
    bits = tensors["d"].view(torch.uint8).numpy().tobytes()
    assert target.read_bytes().endswith(bits)
    found = load_torch(target)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_pickle_that_calls_functions_does_nothing(convert, tmp_path):
    """The classic: os.system on load, in torch's own container and bare."""
    mark = tmp_path / "mark"
    hostile = Hostile(os.system, f"touch {mark}")
    for reason, _ in (convert({"a": hostile}), convert(raw=pickle.dumps({"a": hostile}, 2))):
        assert "its reader says" in reason
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        {},
        [torch.ones(2)],
        {"a": 1},
        {1: torch.ones(2)},
        {"a": {"b": torch.ones(1)}},
        {"a": torch.ones(2, dtype=torch.int8)},
        {"a": torch.ones(2).to_sparse()},
    ],
)
def test_anything_but_floats_by_name_is_refused(content, capsys):
    with pytest.raises(SystemExit) as exit_:
        pickle_child._tensors(content, torch)
    assert exit_.value.code == pickle_child.REFUSED
    assert "it holds" in capsys.readouterr().err


@pytest.mark.parametrize("raw", [b"", bytes(range(256))])
def test_damaged_files_are_refused(convert, raw):
    assert "its reader says" in convert(raw=raw)[0]


def test_a_bomb_runs_out_of_memory_and_nothing_else(convert):
    """A few bytes that say they are half a terabyte: one element, repeated by strides of zero."""
    reason, target = convert({"a": torch.ones(1).expand(1 << 37)})
    assert reason
    assert target.stat().st_size < 1 << 20


def test_time_is_limited(convert, monkeypatch):
    monkeypatch.setattr(pickles, "WALL_SECONDS", 0.01)
    assert "longer than" in convert({"a": torch.ones(2)})[0]


def test_large_files_are_refused_unread(convert, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", 10)
    assert "not converted" in convert({"a": torch.ones(2)})[0]


def test_without_torch_the_person_is_told_what_to_install(convert, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(pickle_child, "NO_TORCH", 1)
    with pytest.raises(ConfigurationError, match=r"slipway\[sandbox\]"):
        convert({"a": torch.ones(2)})


CONFINED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
import os, socket, subprocess
child._confine(1 << 30, 5, 1 << 20)
for attempt in (
    lambda: socket.socket(), lambda: os.system("true"), lambda: subprocess.run(["true"]), lambda: os.fork(),
    lambda: open(sys.argv[2], "w"), lambda: os.remove(sys.argv[1]), lambda: os.posix_spawn("/bin/true", ["true"], {}),
):
    try:
        attempt()
    except PermissionError as error:
        assert "reading tensors needs no" in str(error)
    else:
        raise SystemExit("was allowed")
try:
    bytearray(2 << 30)
except MemoryError:
    print("confined")
"""


def test_the_child_may_neither_connect_nor_start_nor_write(tmp_path):
    """What would be left if torch's reader had a hole."""
    code = [sys.executable, "-I", "-c", CONFINED, pickle_child.__file__, str(tmp_path / "written")]
    done = subprocess.run(code, capture_output=True, check=False, timeout=60)
    assert done.stdout == b"confined\n", done.stderr.decode()
    assert not (tmp_path / "written").exists()


def test_the_child_sees_no_secrets_and_its_limits_are_its_own(convert, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    shim = tmp_path / "python"
    shim.write_text(f'#!/bin/sh\n/usr/bin/env > {tmp_path}/environment\nexec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shim))
    before = resource.getrlimit(resource.RLIMIT_AS)
    assert convert({"a": torch.ones(2)})[0] == ""
    assert "hf_secret" not in (tmp_path / "environment").read_text()
    assert resource.getrlimit(resource.RLIMIT_AS) == before


async def test_a_pickle_is_found_by_inspect_and_mended_by_fit(tmp_path):
    shapes = {"lora_A": (8, 32), "lora_B": (32, 8)}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    torch.save(
        {
            f"base_model.model.layers.{layer}.q_proj.{side}.weight": torch.randn(shape) / 8
            for layer in (0, 1)
            for side, shape in shapes.items()
        },
        adapter / "adapter_model.bin",
    )
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8, "lora_alpha": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    store = BundleStore(root=tmp_path / "store")
    base = BaseModel(
        id="org/base", model_type="llama", modules={f"layers.{n}.q_proj": (32, 32) for n in (0, 1)}, layers=2
    )
    bundle = await LocalSource().pull(AdapterUri(source=Source.LOCAL, location=str(adapter)), store)
    before = inspect_bundle(bundle, base, find_profile())
    assert before.verdict is InspectionVerdict.FIXABLE
    fitted = fit_bundle(bundle, base, store)
    assert inspect_bundle(fitted.bundle, base, find_profile()).verdict is InspectionVerdict.SERVABLE
    assert "the pickle's tensors are written as safetensors" in fitted.changes
