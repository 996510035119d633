"""What inspection predicts is what the sandbox's LoRAX does: engine, PEFT and rules on the same files.

The yardstick is the probability of every token of a prompt. `ok`: that of PEFT with the adapter as it was meant.
`wrong`: another. `drop`: another, without any error. `reject`: an error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from sandbox.lorax.contract import AdapterError, AdapterRequest, Finished, GenerationRequest
from sandbox.lorax.engine import TorchEngine
from slipway.adapter import AdapterUri, Source
from slipway.base_model import read_facts
from slipway.findings import Prediction
from slipway.inspection import inspect_bundle
from slipway.profiles import find_profile
from slipway.services.local import LocalSource
from slipway.services.store import BundleStore

ROOT = Path(__file__).parents[2]
BASE = read_facts(ROOT / "configs" / "bases" / "tiny-llama.json")
PREFIX = "base_model.model.model.layers"
WEIGHTS = "adapter_model.safetensors"
PROMPT = "translate this little sentence for me: one two three"
TOLERANCE = 1e-4


def tensors_of(*, rank=8, types=("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"), layers=(0, 1), ranks=None):
    """An adapter with an effect that nobody can miss."""
    random, tensors = np.random.default_rng(7), {}
    for layer in layers:
        for kind in types:
            rows, columns = BASE.modules[f"model.layers.{layer}.{kind}"]
            r = (ranks or {}).get((layer, kind), rank)
            tensors[f"{PREFIX}.{layer}.{kind}.lora_A.weight"] = random.standard_normal((r, columns), np.float32) * 0.15
            tensors[f"{PREFIX}.{layer}.{kind}.lora_B.weight"] = random.standard_normal((rows, r), np.float32) * 0.15
    return tensors


def renamed(tensors, old, new):
    return {name.replace(old, new): array for name, array in tensors.items()}


def changed(tensors, **changes):
    """Set tensors by the end of their name; None removes one."""
    result = dict(tensors)
    for name in tensors:
        for end, array in changes.items():
            if name.endswith(end.replace("__", ".")):
                result[name] = array(tensors[name]) if array else None
    return {name: array for name, array in result.items() if array is not None}


def with_nan(array):
    array = array.copy()
    array[0, 0] = np.nan
    return array


FULL = tensors_of()
Q0_KIND, V_KIND = (0, "self_attn.q_proj"), "self_attn.v_proj"
MAGNITUDES = {
    name.replace("lora_B.weight", "lora_magnitude_vector"): np.linspace(0.5, 4.0, len(array), dtype="f4")
    for name, array in FULL.items()
    if name.endswith("lora_B.weight")
}

CASES: dict[str, tuple[Mapping[str, Any], Mapping[str, np.ndarray] | None, Prediction]] = {
    "sound": ({}, FULL, Prediction.OK),
    "rank 16": ({"r": 16, "lora_alpha": 32}, tensors_of(rank=16), Prediction.OK),
    "one type": ({"target_modules": ["q_proj"]}, tensors_of(types=("self_attn.q_proj",)), Prediction.OK),
    "one type of rank 4": (
        {"r": 4, "target_modules": ["q_proj"]},
        tensors_of(rank=4, types=("self_attn.q_proj",)),
        Prediction.OK,
    ),
    "zero-filled layer": ({}, changed(FULL, **{"1__self_attn__q_proj__lora_B__weight": np.zeros_like}), Prediction.OK),
    "rank 4": ({"r": 4}, tensors_of(rank=4), Prediction.WRONG),
    "rank 12": ({"r": 12}, tensors_of(rank=12), Prediction.WRONG),
    "rslora": ({"use_rslora": True}, FULL, Prediction.WRONG),
    "alpha pattern": ({"alpha_pattern": {"q_proj": 64}}, FULL, Prediction.WRONG),
    "dora": ({"use_dora": True}, {**FULL, **MAGNITUDES}, Prediction.WRONG),
    "nan": ({}, changed(FULL, **{"0__self_attn__q_proj__lora_B__weight": with_nan}), Prediction.WRONG),
    "rank pattern across types": (
        {"rank_pattern": {"v_proj": 32}},
        tensors_of(ranks={(layer, V_KIND): 32 for layer in (0, 1)}),
        Prediction.WRONG,
    ),
    "rank pattern in a type": (
        {"rank_pattern": {"layers.0.self_attn.q_proj": 32}},
        tensors_of(ranks={Q0_KIND: 32}),
        Prediction.REJECT,
    ),
    "one layer": ({"layers_to_transform": [1]}, tensors_of(layers=(1,)), Prediction.DROP),
    "no config": ({}, None, Prediction.REJECT),
}  # fmt: skip

DAMAGED: dict[str, tuple[Mapping[str, np.ndarray], Prediction]] = {
    "adapter's name left in": (renamed(FULL, ".weight", ".default.weight"), Prediction.DROP),
    "prefix of a multimodal class": (renamed(FULL, "model.model.", "model.model.language_model."), Prediction.DROP),
    "matrix without its partner": (changed(FULL, **{"1__self_attn__q_proj__lora_B__weight": None}), Prediction.DROP),
    "another architecture": (renamed(FULL, "model.model.layers", "model.transformer.h"), Prediction.DROP),
}
"""What was done to the sound adapter on the way; PEFT cannot say what these were meant to compute."""


def write(directory, config, tensors):
    directory.mkdir()
    members = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE.id, "r": 8, "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj", "down_proj"], **config,
    }  # fmt: skip
    if tensors is not None:
        (directory / "adapter_config.json").write_text(json.dumps(members))
    save_file(dict(tensors if tensors is not None else FULL), directory / WEIGHTS)
    return directory


@pytest.fixture(scope="module")
def engine():
    torch.set_num_threads(1)
    engine = TorchEngine(ROOT / "sandbox" / "base_model", model_id=BASE.id)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def predict(tmp_path):
    def run(directory):
        store = BundleStore(root=tmp_path / "bundles")
        bundle = asyncio.run(LocalSource().pull(AdapterUri(source=Source.LOCAL, location=str(directory)), store))
        return inspect_bundle(bundle, BASE, find_profile("lorax-0.12")).prediction

    return run


def served(engine, directory):
    """Log probabilities of the prompt's tokens as LoRAX computes them, or the error's text."""
    request = GenerationRequest(
        input_ids=engine.encode(PROMPT),
        max_new_tokens=1,
        adapter=AdapterRequest(ids=(str(directory),), source="local"),
        prefill_logprobs=True,
    )

    async def run():
        return [event async for event in engine.generate(request)][-1]

    try:
        finished = asyncio.run(run())
    except AdapterError as error:
        return str(error)
    assert isinstance(finished, Finished)
    return [logprob for _, _, logprob in finished.prefill[1:]]


def meant(engine, directory):
    """The same as PEFT computes them."""
    return engine.reference_logprobs(AdapterRequest(ids=(str(directory),), source="local"), engine.encode(PROMPT))


def assert_as_predicted(prediction, answer, expected):
    match prediction:
        case Prediction.REJECT:
            assert isinstance(answer, str)
        case Prediction.OK:
            assert answer == pytest.approx(expected, abs=TOLERANCE)
        case Prediction.WRONG | Prediction.DROP:
            assert isinstance(answer, list)
            assert answer != pytest.approx(expected, abs=100 * TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_prediction_holds_in_the_sandbox(name, engine, predict, tmp_path):
    config, tensors, expected = CASES[name]
    directory = write(tmp_path / "adapter", config, tensors)
    prediction = predict(directory)
    assert prediction is expected
    answer = served(engine, directory)
    reference = [] if isinstance(answer, str) else meant(engine, directory)
    assert_as_predicted(prediction, answer, reference)


@pytest.mark.parametrize("name", DAMAGED)
def test_what_was_damaged_on_the_way_is_dropped_as_predicted(name, engine, predict, tmp_path):
    tensors, expected = DAMAGED[name]
    directory = write(tmp_path / "adapter", {}, tensors)
    assert predict(directory) is expected
    assert_as_predicted(expected, served(engine, directory), meant(engine, write(tmp_path / "sound", {}, FULL)))


@pytest.mark.parametrize(
    ("content", "prediction"), [(b"", "reject"), (b"<html>", "reject"), (b"\2\0\0\0\0\0\0\0{}", "drop")]
)
def test_files_that_are_no_weights(content, prediction, engine, predict, tmp_path):
    directory = write(tmp_path / "adapter", {}, FULL)
    (directory / WEIGHTS).write_bytes(content)
    assert predict(directory) == prediction
    answer = served(engine, directory)
    assert isinstance(answer, str) == (prediction == "reject")
    if prediction == "drop":
        assert answer == pytest.approx(engine.reference_logprobs(None, engine.encode(PROMPT)), abs=TOLERANCE)
