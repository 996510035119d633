"""What fit refuses, and what stands just outside each refusal."""

from dataclasses import replace

import numpy as np
import pytest

from slipway.fit.matrices import Matrix
from slipway.fit.modules import Refused
from slipway.fit.rewrite import Rewritten

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
Q1 = "base_model.model.model.layers.1.self_attn.q_proj"


def sound():
    rng = np.random.default_rng(0)
    shapes = {"lora_A": (8, 32), "lora_B": (32, 8)}
    return {f"{q}.{side}.weight": rng.standard_normal(shape) for q in (Q0, Q1) for side, shape in shapes.items()}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"use_dora": True}, "DoRA"),
        ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "PiSSA_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "lora_ga"}, "lora_ga"),
        ({"init_lora_weights": "mica"}, "MiCA"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": [1]}, "embedding"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"arrow_config": {"top_k": 1}}, "Arrow"),
        ({"kasa_config": {}, "use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"base_model_name_or_path": "org/other"}, "org/other"),
        ({"r": 16}, "rank 16"),
        ({"rank_pattern": {"q_proj": 4}}, "rank 4"),
        ({"alpha_pattern": {"(a+)+": 4}}, "pattern"),
        ({"alpha_pattern": {"(": 4}}, "pattern"),
    ],
)
def test_configs_that_are_refused(rewrite, config, words):
    refused = rewrite(sound(), **config)
    assert isinstance(refused, Refused)
    assert len(refused.reasons) == 1
    assert words in refused.reasons[0]


@pytest.mark.parametrize(
    "config",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False},
        {"use_dora": False, "modules_to_save": [], "alora_invocation_tokens": None, "use_qalora": False},
        {"bias": "all"},
        {"target_modules": "all-linear", "exclude_modules": ["v_proj"]},
        {"layers_to_transform": [0, 1], "layers_pattern": "layers"},
        {"fan_in_fan_out": True},
        {"rank_pattern": {"q_proj": 8}, "r": 4},
        {"rank_pattern": {"v_proj": 4}},
        {"peft_type": ...},
    ],
)
def test_configs_that_are_not(rewrite, config):
    assert isinstance(rewrite(sound(), **config), Rewritten)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({f"{Q0}.lora_magnitude_vector": np.ones(32)}, "magnitudes"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": np.ones((8, 64))}, "embedding"),
        ({"base_model.model.model.embed_tokens.weight": np.ones((64, 32))}, "embedding"),
        ({"base_model.model.lm_head.weight": np.ones((64, 32))}, "output layer"),
        ({"base_model.model.lm_head.modules_to_save.weight": np.ones((64, 32))}, "output layer"),
        ({"base_model.model.model.norm.weight": np.ones(32)}, "full copies"),
        ({f"{Q0}.bias": np.zeros(32)}, "bias"),
        ({f"{Q0}.lora_B.bias": np.ones(32)}, "bias"),
        ({f"{Q0}.lora_B.weight": None}, "only one of"),
        ({f"{Q0}.lora_A.weight": None}, "only one of"),
        ({f"{Q0}.lora_A.weight": np.ones((8, 30))}, "size"),
        ({f"{Q0}.lora_B.weight": np.ones((31, 8))}, "size"),
        ({f"{Q0}.lora_B.weight": np.ones((32, 4))}, "size"),
        ({f"{Q0}.lora_A.weight": np.ones(256)}, "no matrices"),
        ({f"{Q0}.lora_A.weight": Matrix(dtype="I8", data=np.ones(256, "u1"))}, "no matrices"),
        ({"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight": np.ones((8, 32))}, "no module of the base"),
        ({"something.else": np.ones(3)}, "nothing of LoRA's"),
        (dict.fromkeys(sound()), "no LoRA matrix"),
    ],
)
def test_tensors_that_are_refused(rewrite, tensors, words):
    changed = {name: value for name, value in {**sound(), **tensors}.items() if value is not None}
    refused = rewrite(changed)
    assert isinstance(refused, Refused)
    assert words in refused.reasons[0]


def test_every_refusal_of_a_kind_is_told_at_once(rewrite):
    refused = rewrite(sound(), use_dora=True, modules_to_save=["lm_head"])
    assert len(refused.reasons) == 2


def test_a_base_of_unknown_layers_is_refused(rewrite, base):
    refused = rewrite(sound(), on=replace(base, modules=None))
    assert isinstance(refused, Refused)
    assert "not known" in refused.reasons[0]


def test_a_base_without_a_name_leaves_the_adapters(rewrite, base):
    rewritten = rewrite(sound(), on=replace(base, id="", aliases=()))
    assert rewritten.config["base_model_name_or_path"] == "org/base"
