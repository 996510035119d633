"""Each rewrite alone, over arrays."""

import math

import numpy as np
import pytest

from slipway.fit.layers import choose_targets, fill_layers, place_of
from slipway.fit.matrices import Matrix
from slipway.fit.modules import Refused
from slipway.fit.naming import name_tensors
from slipway.fit.ranks import is_safe_rank, pad_ranks, safe_rank
from slipway.fit.scaling import common_scale, fold_scales, is_power_of_two


def product(module):
    return module.scale * module.b.values() @ module.a.values()


# Scales


def test_one_scale_keeps_every_bit(make_module):
    modules = {"q": make_module(scale=math.sqrt(2)), "v": make_module(scale=math.sqrt(2), seed=1)}
    folded = fold_scales(modules, common_scale(modules))
    assert folded == modules


def test_scales_that_differ_by_powers_of_two_are_folded_exactly(make_module):
    modules = {"q": make_module(scale=0.75, dtype="BF16"), "v": make_module(scale=-6.0, dtype="BF16", seed=1)}
    scale = common_scale(modules)
    folded = fold_scales(modules, scale)
    assert scale == 0.75
    assert {module.scale for module in folded.values()} == {0.75}
    assert all(np.array_equal(product(folded[path]), product(modules[path])) for path in modules)


def test_most_modules_keep_exact_numbers(make_module):
    modules = {"a": make_module(scale=3.0), "b": make_module(scale=2.0), "c": make_module(scale=4.0)}
    assert common_scale(modules) == 2.0


def test_other_scales_are_rounded_once(make_module):
    modules = {"a": make_module(scale=1.0, dtype="BF16"), "b": make_module(scale=math.sqrt(2), dtype="BF16", seed=3)}
    folded = fold_scales(modules, 1.0)["b"]
    exact = modules["b"].b.values() * math.sqrt(2)
    assert np.all(np.abs(folded.b.values() - exact) <= 2.0**-8 * np.abs(exact))
    assert folded.a is modules["b"].a


def test_a_scale_of_zero_is_kept_as_zeros(make_module):
    modules = {"a": make_module(scale=0.0), "b": make_module(scale=2.0)}
    assert common_scale(modules) == 2.0
    assert fold_scales(modules, 2.0)["a"].b.is_zero
    assert common_scale({"a": modules["a"]}) == 0.0


@pytest.mark.parametrize(("number", "answer"), [(4.0, True), (-0.25, True), (3.0, False), (0.0, False)])
def test_power_of_two(number, answer):
    assert is_power_of_two(number) is answer


# Ranks


@pytest.mark.parametrize("rank", [8, 16, 32, 64, 128, 144, 256])
def test_ranks_that_lorax_serves_rightly_on_one_gpu(rank):
    assert is_safe_rank(rank)
    assert safe_rank(rank) >= rank


@pytest.mark.parametrize(
    ("rank", "safe"), [(1, 8), (7, 8), (9, 16), (24, 32), (33, 64), (48, 64), (96, 128), (112, 128), (130, 256)]
)
def test_other_ranks_are_padded_to_the_next_power_of_two(rank, safe):
    assert not is_safe_rank(rank)
    assert safe_rank(rank) == safe


@pytest.mark.parametrize(
    ("rank", "tensor_parallel", "answer"),
    [(8, 2, False), (16, 2, True), (16, 4, False), (32, 4, True), (24, 3, False), (32, 3, True), (144, 2, False),
     (256, 2, True), (272, 2, True)],
)  # fmt: skip
def test_ranks_on_several_gpus(rank, tensor_parallel, answer):
    assert is_safe_rank(rank, tensor_parallel) is answer


@pytest.mark.parametrize("tensor_parallel", [1, 2, 3, 4, 5, 8, 16, 32])
def test_there_is_always_a_safe_rank(tensor_parallel):
    for rank in range(1, 400, 7):
        assert is_safe_rank(safe_rank(rank, tensor_parallel), tensor_parallel)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_padding_changes_no_product(make_module, dtype):
    module = make_module(rank=3, dtype=dtype)
    padded = pad_ranks({"q": module}, 8)["q"]
    assert (padded.a.shape, padded.b.shape) == ((8, 5), (6, 8))
    assert np.array_equal(product(padded), product(module))
    assert np.array_equal(padded.a.data[:3], module.a.data)


def test_a_module_of_the_right_rank_is_left_alone(make_module):
    module = make_module(rank=8)
    assert pad_ranks({"q": module}, 8)["q"] is module


# Layers


def test_missing_layers_get_zeros_of_the_bases_size(make_module):
    base = {f"model.layers.{n}.self_attn.q_proj": (6, 5) for n in range(3)} | {"model.layers.0.mlp.up_proj": (9, 5)}
    filled = fill_layers({"model.layers.1.self_attn.q_proj": make_module(rank=8)}, base)
    assert list(filled) == [path for path in base if "q_proj" in path]
    added = filled["model.layers.2.self_attn.q_proj"]
    assert (added.a.shape, added.b.shape) == ((8, 5), (6, 8))
    assert added.a.is_zero
    assert added.b.is_zero


def test_types_are_told_apart_by_their_whole_path(make_module):
    base = {"h.0.attn.c_proj": (6, 5), "h.1.attn.c_proj": (6, 5), "h.0.mlp.c_proj": (6, 5)}
    assert set(fill_layers({"h.0.attn.c_proj": make_module()}, base)) == {"h.0.attn.c_proj", "h.1.attn.c_proj"}
    assert place_of("model.layers.12.mlp.experts.3.up_proj") == "model.layers.*.mlp.experts.*.up_proj"


def test_targets_are_the_shortest_endings_that_mean_no_other_module():
    base = ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.0.attn.q", "lm_head"]
    assert choose_targets(["h.0.attn.c_proj", "h.0.attn.q"], base) == ("attn.c_proj", "q")
    assert choose_targets(["h.0.attn.c_proj", "h.0.mlp.c_proj"], base) == ("c_proj",)
    assert choose_targets(["lm_head"], base) == ("lm_head",)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.q_proj.lora_A.default.weight",
        "base_model.model.model.language_model.layers.0.q_proj.lora_A.weight",
        "base_model.model.language_model.model.layers.0.q_proj.lora_A.weight",
        "model.layers.0.q_proj.lora_A.weight",
        "base_model.model.model._orig_mod.layers.0.q_proj.lora_A.weight",
        "module.base_model.model.model.layers.0.q_proj.lora_A.weight",
    ],
)
def test_known_names_lead_to_the_module(name):
    named = name_tensors([name], {"model.layers.0.q_proj": (4, 4)})
    assert named.a == {"model.layers.0.q_proj": name}
    assert not named.others


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.vision_tower.model.layers.0.q_proj.lora_A.weight",
        "base_model.model.model.layers.1.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.q_proj.lora_embedding_A",
        "model.layers.0.q_proj.weight",
    ],
)
def test_other_names_are_not_guessed(name):
    named = name_tensors([name], {"model.layers.0.q_proj": (4, 4)})
    assert named.others == (name,)


# All together


def pair(path, *, rank=8, rows=32, columns=32, seed=0):
    rng = np.random.default_rng(seed)
    prefix = f"base_model.model.{path}"
    return {
        f"{prefix}.lora_A.weight": rng.standard_normal((rank, columns)),
        f"{prefix}.lora_B.weight": rng.standard_normal((rows, rank)),
    }


def all_q(**shape):
    return {
        name: value
        for layer in (0, 1)
        for name, value in pair(f"model.layers.{layer}.self_attn.q_proj", **shape).items()
    }


def test_a_servable_adapter_has_nothing_changed(rewrite):
    rewritten = rewrite(all_q())
    assert rewritten.changes == ()
    assert (rewritten.config["r"], rewritten.config["lora_alpha"]) == (8, 16)
    assert rewritten.config["target_modules"] == ["q_proj"]


@pytest.mark.parametrize(("rank", "alpha"), [(16, 8), (16, 16), (64, 3)])
def test_rslora_becomes_an_alpha(rewrite, rank, alpha):
    rewritten = rewrite(all_q(rank=rank), r=rank, lora_alpha=alpha, use_rslora=True)
    assert rewritten.config["lora_alpha"] / rewritten.config["r"] == alpha / math.sqrt(rank)
    assert isinstance(rewritten.config["lora_alpha"], int)
    assert [change.kind for change in rewritten.changes] == ["scale"]


def test_rslora_of_an_odd_rank_keeps_its_scale_to_the_last_bit(rewrite):
    rewritten = rewrite(all_q(), lora_alpha=16, use_rslora=True)
    assert rewritten.config["lora_alpha"] / 8 == 16 / math.sqrt(8)


@pytest.mark.parametrize(("rank", "padded"), [(3, 8), (8, 8), (12, 16), (130, 256)])
def test_padding_keeps_the_scale(rewrite, rank, padded):
    rewritten = rewrite(all_q(rank=rank), r=rank, lora_alpha=7)
    assert rewritten.config["r"] == padded
    assert rewritten.config["lora_alpha"] / padded == 7 / rank


def test_a_safe_rank_that_is_no_power_of_two_keeps_its_alpha(rewrite):
    rewritten = rewrite(all_q(rank=144), r=144, lora_alpha=7)
    assert (rewritten.config["r"], rewritten.config["lora_alpha"]) == (144, 7)


def test_rank_is_chosen_for_the_number_of_gpus(rewrite):
    assert rewrite(all_q(), tensor_parallel=4).config["r"] == 32


def test_patterns_are_followed_as_peft_follows_them(rewrite):
    """The first key that matches counts, and it must match up to the end of the path."""
    rewritten = rewrite(
        all_q(),
        alpha_pattern={"q_pro": 99, "layers.0.self_attn.q_proj": 32, "q_proj": 8},
    )
    assert {path.split(".")[2]: module.scale for path, module in rewritten.original.items()} == {"0": 4.0, "1": 1.0}
    assert rewritten.config["lora_alpha"] == 8


def test_config_is_what_every_peft_reads(rewrite):
    config = rewrite(all_q(), use_rslora=True, task_type="CAUSAL_LM", lora_dropout=0.1, eva_config=None).config
    assert set(config) == {
        "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "lora_alpha",
        "lora_dropout", "modules_to_save", "peft_type", "r", "target_modules", "task_type",
    }  # fmt: skip
    assert config["task_type"] == "CAUSAL_LM"


def test_half_the_precision_only_when_asked_and_called_lossy(rewrite):
    rewritten = rewrite(all_q(), to="BF16")
    assert {matrix.dtype for matrix in rewritten.tensors.values()} == {"BF16"}
    assert "lossy" in rewritten.changes[0].message
    assert {matrix.dtype for matrix in rewrite(all_q(), dtype="F16").tensors.values()} == {"F16"}


def test_zero_lora_biases_are_left_out_and_others_refused(rewrite):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"
    kept = rewrite(all_q() | {name: np.zeros(32)}, lora_bias=True)
    assert name not in kept.tensors
    assert [change.kind for change in kept.changes] == ["bias", "config"]
    assert isinstance(rewrite(all_q() | {name: np.full(32, 1e-9)}, lora_bias=True), Refused)


@pytest.mark.parametrize("name", [None, "", "/home/me/base", "mirror/base"])
def test_base_gets_the_name_that_is_served(rewrite, name):
    rewritten = rewrite(all_q(), base_model_name_or_path=name)
    assert rewritten.config["base_model_name_or_path"] == "org/base"
    assert [change.kind for change in rewritten.changes] == ["base"]


def test_an_impossible_scale_is_refused(rewrite):
    assert isinstance(rewrite(all_q(rank=1), r=1, lora_alpha=1.7e308), Refused)


def test_matrix_of_bits_is_zero_only_if_all_bits_but_the_sign_are():
    assert Matrix(dtype="BF16", data=np.array([[0x8000]], "<u2")).is_zero
