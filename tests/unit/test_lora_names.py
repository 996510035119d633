"""Which keys are LoRA matrices under another name, and which right name they have."""

from __future__ import annotations

import pytest

from slipway.lora_names import find_renamings

MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "lm_head"]
RIGHT = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.my-adapter.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "module.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "_orig_mod.base_model.model.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj.lora_A.weight",
        "_fsdp_wrapped_module.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    ],
)
def test_known_departures_lead_back_to_the_base(name):
    assert find_renamings([name], MODULES) == {name: RIGHT}


@pytest.mark.parametrize(
    "name",
    [
        RIGHT,
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.bias",
        "base_model.model.vision_model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.weight",
        "lora_A.weight",
        "",
    ],
)
def test_right_and_unknown_names_are_left_alone(name):
    assert find_renamings([name], MODULES) == {}


def test_two_names_for_one_matrix_are_ambiguous():
    names = [RIGHT.replace(".weight", ".a.weight"), RIGHT.replace(".weight", ".b.weight")]
    assert find_renamings(names, MODULES) == {}


def test_right_name_that_is_taken_is_not_given_twice():
    assert find_renamings([RIGHT, RIGHT.replace(".weight", ".default.weight")], MODULES) == {}


def test_base_with_two_towers_tells_no_core_apart():
    modules = ["model.layers.0.q_proj", "language_model.layers.0.q_proj"]
    assert find_renamings(["layers.0.q_proj.lora_A.weight"], modules) == {}


def test_without_a_base_only_infixes_and_wrappers_are_known():
    infix = RIGHT.replace(".weight", ".default.weight")
    assert find_renamings([infix], None) == {infix: RIGHT}
    assert find_renamings([RIGHT.replace("model.layers", "language_model.layers")], None) == {}
