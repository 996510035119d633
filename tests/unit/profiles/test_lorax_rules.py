"""Every rule of lorax-0.12 with a case just inside, where it speaks, and one just outside, where it must not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from slipway.base_model import BaseModel
from slipway.base_shapes import derive_modules
from slipway.findings import Severity
from slipway.fit import safe_rank
from slipway.profiles import find_profile
from slipway.profiles.lorax_0_12.kernels import has_rank_kernel, padded_rank
from slipway.server_facts import ServerFacts

LORAX = find_profile("lorax-0.12")
RULES = {rule.code: rule for rule in LORAX.rules}
PREFIX = "base_model.model."
Q0 = PREFIX + "model.layers.0.self_attn.q_proj"
Q1 = PREFIX + "model.layers.1.self_attn.q_proj"
WEIGHTS = "adapter_model.safetensors"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
}
BASE = BaseModel(
    id="org/base", aliases=("mirror/base",), model_type="llama", architectures=("LlamaForCausalLM",), hidden_size=32,
    layers=2, vocab_size=64, modules=derive_modules(CONFIG),
)  # fmt: skip
MEDUSA = {"medusa_num_heads": 1, "medusa_num_layers": 1, "version": "2", "base_model_name_or_path": "org/base"}


def ones(*shape, dtype="<f4", value=0.05):
    return np.full(shape, value, dtype)


def pair(stem, *, rank=8, rows=32, columns=32):
    return {f"{stem}.lora_A.weight": ones(rank, columns), f"{stem}.lora_B.weight": ones(rows, rank)}


def without(*stems):
    return {f"{stem}.lora_{side}.weight": None for stem in stems for side in "AB"}


def renamed(old, new):
    """The sound adapter's tensors of q_proj under other names."""
    changes = {}
    for layer in range(2):
        for side, shape in (("A", (8, 32)), ("B", (32, 8))):
            name = f"{PREFIX}model.layers.{layer}.self_attn.q_proj.lora_{side}.weight"
            changes[name] = None
            changes[name.replace(old, new)] = ones(*shape)
    return changes


def safetensors(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def file_of(name: str) -> bytes:
    """A weights file of one tensor."""
    return safetensors(json.dumps({name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode(), b"1")


def wide_q():
    """An adapter on q_proj of ``WIDE_BASE``."""
    usual = without(*(f"{PREFIX}model.layers.{n}.self_attn.{k}" for n in (0, 1) for k in ("q_proj", "v_proj")))
    return {**usual, **pair(Q0, rows=256, columns=256), **pair(Q1, rows=256, columns=256)}


def medusa(**changes):
    tensors = {"0.0.linear.weight": ones(32, 32), "0.0.linear.bias": ones(32), "0.1.weight": None}
    members = {**MEDUSA, **changes.pop("members", {})}
    kept = {key: value for key, value in members.items() if value is not ...}
    usual = without(*(f"{PREFIX}model.layers.{n}.self_attn.{k}" for n in (0, 1) for k in ("q_proj", "v_proj")))
    return {
        "files": {"config.json": json.dumps(kept).encode(), "adapter_config.json": None},
        "tensors": {**usual, **tensors, **changes.pop("tensors", {})},
        "server": ServerFacts(medusa_heads=changes.pop("server_heads", 1)),
    }


def family(name, **modules):
    """A base of some family with two layers and nothing but the given modules."""
    paths = {path.replace("N", str(layer)): shape for layer in range(2) for path, shape in modules.items()}
    return replace(BASE, model_type=name, modules=paths, architectures=())


def typed(path, *, layers=2):
    """An adapter on one module per layer, in place of the usual ones."""
    usual = without(*(f"{PREFIX}model.layers.{n}.self_attn.{k}" for n in (0, 1) for k in ("q_proj", "v_proj")))
    tensors: dict[str, Any] = dict(usual)
    for layer in range(layers if "N" in path else 1):
        tensors |= pair(PREFIX + path.replace("N", str(layer)))
    return tensors


def zeros_everywhere():
    return {
        f"{PREFIX}model.layers.{n}.self_attn.{k}.lora_B.weight": ones(rows, 8, value=0)
        for n in (0, 1)
        for k, rows in (("q_proj", 32), ("v_proj", 16))
    }


def scaled(factor):
    return {f"{Q0}.lora_B.weight": ones(32, 8, value=factor)}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Changes to a sound adapter that make the rule speak, and changes close by that do not."""

    code: str
    inside: dict[str, Any]
    outside: dict[str, Any] = field(default_factory=dict)


WIDE = {**CONFIG, "hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 4}
WIDE_BASE = replace(BASE, hidden_size=256, modules=derive_modules(WIDE))


def mlp_pair(rank=8):
    return {
        name: array
        for layer in range(2)
        for name, array in pair(f"{PREFIX}model.layers.{layer}.mlp.up_proj", rank=rank, rows=48).items()
    }


def layered(rank_of_q1, rank_of_q0=8):
    return {**pair(Q0, rank=rank_of_q0), **pair(Q1, rank=rank_of_q1)}


ONE_TYPE = without(*(f"{PREFIX}model.layers.{n}.self_attn.v_proj" for n in (0, 1)))
HEAD = f"{PREFIX}lm_head"
EMBEDDING = f"{PREFIX}model.embed_tokens.weight"

CASES = [
    # Files.
    Case(
        code="weights.missing",
        inside={"files": {WEIGHTS: None}},
        outside={"files": {WEIGHTS: None, "adapter_model.bin": b"x"}},
    ),
    Case(
        code="weights.pickle",
        inside={"files": {WEIGHTS: None, "adapter_model.bin": b"x"}},
        outside={"files": {"adapter_model.bin": b"x"}},
    ),
    Case(code="weights.pickle-beside", inside={"files": {"adapter_model.bin": b"x"}}),
    Case(
        code="weights.several",
        inside={"files": {"more.safetensors": safetensors(b"{}")}},
        outside={"files": {"more.safetensor": safetensors(b"{}")}},
    ),
    Case(
        code="weights.duplicate",
        inside={"files": {"more.safetensors": file_of(f"{Q0}.lora_A.weight")}},
        outside={"files": {"more.safetensors": file_of(f"{Q0}.lora_A.other")}},
    ),
    Case(
        code="weights.merged-model",
        inside={"files": {"model.safetensors": file_of("model.layers.0.self_attn.q_proj.weight")}},
        outside={"files": {"second.safetensors": file_of(f"{PREFIX}x.lora_A.weight")}},
    ),
    Case(
        code="weights.merged-model",
        inside={"files": {WEIGHTS: file_of("model.layers.0.self_attn.q_proj.weight")}},
        outside={"files": {WEIGHTS: file_of("something.else")}},
    ),
    Case(code="weights.empty-file", inside={"files": {WEIGHTS: b""}}, outside={"files": {WEIGHTS: b"\0"}}),
    Case(code="weights.git-lfs-pointer", inside={"files": {WEIGHTS: b"version https://git-lfs.github.com/spec/v1\n"}}),
    Case(code="weights.html", inside={"files": {WEIGHTS: b"  <!DOCTYPE html><html>"}}),
    Case(code="weights.pickle-inside", inside={"files": {WEIGHTS: b"PK\3\4" + b"x" * 40}}),
    Case(code="weights.gguf", inside={"files": {WEIGHTS: b"GGUF\3\0\0\0"}}),
    Case(
        code="weights.truncated",
        inside={"files": {WEIGHTS: b"\x03\0\0\0\0\0\0\0{}"}},
        outside={"files": {WEIGHTS: b"\x02\0\0\0\0\0\0\0{}"}},
    ),
    Case(
        code="weights.header",
        inside={"files": {WEIGHTS: safetensors(b"[]")}},
        outside={"files": {WEIGHTS: safetensors(b"{}")}},
    ),
    Case(
        code="weights.offsets",
        inside={"files": {WEIGHTS: safetensors(b"{}", b"1")}},
        outside={"files": {WEIGHTS: safetensors(b"{}")}},
    ),
    Case(
        code="format.mlx",
        inside={"tensors": {"model.layers.0.self_attn.q_proj.lora_a": ones(32, 8)}},
        outside={"config": {"lora_dropout": 0.0}},
    ),
    Case(
        code="format.adapterhub",
        inside={"config": {"peft_type": ..., "config": {"architecture": "lora"}, "model_class": "X"}},
    ),
    Case(code="format.diffusion", inside={"tensors": {"lora_unet_down.lora_down.weight": ones(8, 32)}}),
    # Config.
    Case(code="config.missing", inside={"files": {"adapter_config.json": None}}, outside=medusa()),
    Case(code="config.unreadable", inside={"files": {"adapter_config.json": b"{"}}, outside={"config": {"unknown": 1}}),
    Case(code="config.value", inside={"config": {"r": "8"}}, outside={"config": {"lora_dropout": "much"}}),
    Case(code="config.peft-type", inside={"config": {"peft_type": "LOHA"}}, outside={"config": {"peft_type": "lora"}}),
    Case(code="config.peft-type-unnamed", inside={"config": {"peft_type": ...}}),
    Case(code="config.alpha-missing", inside={"config": {"lora_alpha": ...}}, outside={"config": {"lora_alpha": 8}}),
    Case(code="config.dora", inside={"config": {"use_dora": True}}, outside={"config": {"use_dora": False}}),
    Case(
        code="config.dora",
        inside={"tensors": {f"{Q0}.lora_magnitude_vector": ones(32)}},
        outside={"config": {"use_dora": None}},
    ),
    Case(
        code="config.variant",
        inside={"config": {"alora_invocation_tokens": [1]}},
        outside={"config": {"velora_config": {"x": 1}, "arrow_config": None}},
    ),
    *(
        Case(
            code="init.residual",
            inside={"config": {"init_lora_weights": name}},
            outside={"config": {"init_lora_weights": other}},
        )
        for name, other in (
            ("pissa", True),
            ("pissa_niter_16", "gaussian"),
            ("olora", "orthogonal"),
            ("corda", "eva"),
            ("loftq", False),
            ("lora_ga", "mica"),
        )
    ),
    Case(
        code="config.layer-replication",
        inside={"config": {"layer_replication": [[0, 2], [1, 2]]}},
        outside={"config": {"layer_replication": None}},
    ),
    Case(
        code="config.target-parameters",
        inside={"config": {"target_parameters": ["mlp.experts.gate_up_proj"]}},
        outside={"config": {"target_parameters": []}},
    ),
    Case(
        code="config.target-modules",
        inside={"config": {"target_modules": ["q_proj", "k_proj", "v_proj"]}},
        outside={"config": {"target_modules": ["self_attn.q_proj", "v_proj"]}},
    ),
    # Medusa.
    Case(code="medusa.config", inside=medusa(members={"medusa_num_heads": 0}), outside=medusa()),
    Case(
        code="medusa.config",
        inside={"tensors": {"0.0.linear.weight": ones(32, 32)}, "files": {"adapter_config.json": None}},
        outside={"tensors": {"x.0.linear.weight": ones(32, 32)}, "files": {"adapter_config.json": None}},
    ),
    Case(code="medusa.version", inside=medusa(members={"version": ...}), outside=medusa(members={"version": 2})),
    Case(code="medusa.layers", inside=medusa(members={"medusa_num_layers": 2}), outside=medusa()),
    Case(code="medusa.weights", inside=medusa(tensors={"0.0.linear.bias": None}), outside=medusa()),
    Case(code="medusa.weights", inside=medusa(tensors={"0.1.weight": ones(64, 32)}), outside=medusa()),
    Case(code="medusa.default", inside=medusa(server_heads=None), outside=medusa(server_heads=1)),
    Case(code="medusa.default", inside=medusa(server_heads=2), outside=medusa(server_heads=1)),
    Case(
        code="medusa.base",
        inside=medusa(members={"base_model_name_or_path": "org/other"}),
        outside=medusa(members={"base_model_name_or_path": "mirror/base"}),
    ),
    Case(code="medusa.unchecked", inside=medusa(), outside={"files": {"config.json": b'{"model_type": "llama"}'}}),
    # Base.
    *(
        Case(
            code="base.family-not-served",
            inside={"on": replace(BASE, model_type=name)},
            outside={"on": replace(BASE, model_type=served)},
        )
        for name, served in (
            ("qwen3", "qwen2"),
            ("gemma3", "gemma2"),
            ("llama4", "llama"),
            ("phi4mm", "phi3"),
            ("olmo", ""),
        )
    ),
    *(
        Case(code="base.family-without-adapters", inside={"on": replace(BASE, model_type=name)}, outside={"on": BASE})
        for name in (
            "gpt_neox",
            "falcon",
            "gpt_bigcode",
            "santacoder",
            "mpt",
            "opt",
            "t5",
            "galactica",
            "bert",
            "distilbert",
            "llava",
        )
    ),
    Case(
        code="base.family-without-reservation",
        inside={"on": replace(BASE, model_type="bloom")},
        outside={"on": replace(BASE, model_type="gpt2")},
    ),
    Case(
        code="base.mismatch",
        inside={"config": {"base_model_name_or_path": "org/other"}},
        outside={"config": {"base_model_name_or_path": "mirror/base"}},
    ),
    Case(
        code="base.architecture",
        inside={"config": {"auto_mapping": {"base_model_class": "GPT2Model"}}},
        outside={"config": {"auto_mapping": {"base_model_class": "LlamaForCausalLM"}}},
    ),
    Case(
        code="base.architecture",
        inside={"tensors": typed("transformer.h.N.attn.c_attn")},
        outside={"tensors": pair(f"{PREFIX}transformer.h.0.attn.c_attn")},
    ),
    Case(code="base.layers", inside={"layers": 3}, outside={"layers": 2}),
    Case(
        code="base.fewer-layers",
        inside={"layers": 1, "config": {"base_model_name_or_path": None}},
        outside={"layers": 1, "config": {"base_model_name_or_path": None, "layers_to_transform": [0]}},
    ),
    Case(
        code="base.fewer-layers",
        inside={"layers": 1, "config": {"base_model_name_or_path": "/x"}},
        outside={"layers": 1},
    ),
    Case(
        code="base.hidden-size",
        inside={"on": replace(BASE, hidden_size=64, modules=None)},
        outside={"on": replace(BASE, modules=None)},
    ),
    Case(
        code="base.shape",
        inside={"tensors": {f"{Q0}.lora_A.weight": ones(8, 33)}},
        outside={"tensors": {f"{Q0}.lora_A.weight": ones(8, 32)}},
    ),
    Case(
        code="base.vocabulary",
        inside={"tensors": {EMBEDDING: ones(63, 32)}},
        outside={"tensors": {EMBEDDING: ones(64, 32)}},
    ),
    Case(
        code="base.path",
        inside={"config": {"base_model_name_or_path": "/data/base"}},
        outside={"config": {"base_model_name_or_path": "org/base"}},
    ),
    Case(code="base.unnamed", inside={"config": {"base_model_name_or_path": ""}}),
    Case(
        code="base.alias",
        inside={"config": {"base_model_name_or_path": "mirror/base"}},
        outside={"config": {"base_model_name_or_path": "org/base"}},
    ),
    Case(code="base.unverified", inside={"on": None}),
    Case(code="base.unverified", inside={"on": replace(BASE, modules=None)}),
    # Tensors.
    Case(code="tensors.none", inside={"files": {WEIGHTS: safetensors(b"{}")}}, outside={"files": {WEIGHTS: b""}}),
    Case(
        code="tensors.empty",
        inside={"tensors": {f"{Q0}.lora_A.weight": ones(0, dtype="<f4")}},
        outside={"tensors": {f"{Q0}.lora_A.weight": ones(8, 32)}},
    ),
    Case(
        code="tensors.foreign",
        inside={"tensors": {f"{Q0}.lora_E.weight": ones(8, 1)}},
        outside={"tensors": {f"{Q0}.lora_B.bias": ones(32)}},
    ),
    *(
        Case(code="tensors.renamed", inside={"tensors": renamed(old, new)}, outside={"tensors": renamed(old, old)})
        for old, new in (
            (".weight", ".default.weight"),
            ("base_model.model.", "base_model.model.language_model."),
            ("base_model.model.model.", "base_model.model.model.language_model."),
            ("base_model.model.", ""),
            ("base_model.model.model.", "base_model.model."),
            ("base_model.model.", "base_model.model.base_model.model."),
            ("base_model.model.", "_orig_mod.base_model.model."),
            ("base_model.model.", "module.base_model.model."),
            (".layers.", "._fsdp_wrapped_module.layers."),
            (".weight", ""),
        )
    ),
    Case(
        code="tensors.renamed",
        inside={"on": None, "tensors": renamed(".weight", ".default.weight")},
        outside={"on": None, "tensors": renamed("model.layers", "language_model.layers")},
    ),
    Case(
        code="tensors.unmatched",
        inside={"tensors": pair(f"{PREFIX}model.layers.0.self_attn.qkv_proj")},
        outside={"tensors": mlp_pair()},
    ),
    Case(code="tensors.unpaired", inside={"tensors": {f"{Q0}.lora_B.weight": None}}, outside={"tensors": without(Q0)}),
    Case(
        code="tensors.shape",
        inside={"tensors": {f"{Q0}.lora_B.weight": ones(32, 7)}},
        outside={"tensors": {f"{Q0}.lora_B.weight": ones(32, 8)}},
    ),
    Case(
        code="tensors.dtype",
        inside={"tensors": {f"{Q0}.lora_A.weight": ones(8, 32, dtype="i1")}},
        outside={"tensors": {f"{Q0}.lora_A.weight": ones(8, 32, dtype="<f2")}},
    ),
    Case(code="tensors.some-layers", inside={"tensors": without(Q0)}, outside={"tensors": without(Q0, Q1)}),
    Case(
        code="tensors.some-layers",
        inside={"layers": 1, "config": {"layers_to_transform": 0}},
        outside={"config": {"layers_to_transform": [0, 1]}},
    ),
    Case(code="tensors.some-layers", inside={"on": None, "tensors": without(Q0)}, outside={"on": None}),
    Case(
        code="tensors.some-layers",
        inside={"on": replace(BASE, modules=None), "layers": 1},
        outside={"on": replace(BASE, modules=None)},
    ),
    # Modules.
    *(
        Case(
            code="modules.outside-family",
            inside={"on": family(name, **{bad: (32, 32), good: (32, 32)}), "tensors": typed(bad)},
            outside={"on": family(name, **{bad: (32, 32), good: (32, 32)}), "tensors": typed(good)},
        )
        for name, bad, good in (
            ("llama", "model.layers.N.mlp.gate", "model.layers.N.mlp.gate_proj"),
            ("mistral", "model.layers.N.self_attn.qkv_proj", "lm_head"),
            ("qwen2", "model.embed", "model.layers.N.self_attn.o_proj"),
            ("granite", "model.layers.N.mlp.input_linear", "lm_head"),
            ("gemma", "lm_head", "model.layers.N.mlp.down_proj"),
            ("gemma2", "lm_head", "model.layers.N.mlp.up_proj"),
            ("solar", "lm_head", "model.layers.N.self_attn.k_proj"),
            ("mixtral", "model.layers.N.block_sparse_moe.experts.0.w1", "model.layers.N.self_attn.v_proj"),
            ("mixtral", "lm_head", "model.layers.N.self_attn.q_proj"),
            ("phi", "model.layers.N.self_attn.qkv_proj", "model.layers.N.self_attn.dense"),
            ("phi-msft", "model.layers.N.mlp.fc3", "model.layers.N.mlp.fc1"),
            ("phi3", "lm_head", "model.layers.N.self_attn.qkv_proj"),
            ("qwen", "transformer.h.N.mlp.w3", "transformer.h.N.attn.c_attn"),
            ("cohere", "model.layers.N.mlp.gate_proj", "model.layers.N.mlp.down_proj"),
            ("cohere", "model.layers.N.mlp.up_proj", "lm_head"),
            (
                "dbrx",
                "transformer.blocks.N.norm_attn_norm.attn.Wqkv",
                "transformer.blocks.N.norm_attn_norm.attn.out_proj",
            ),
            ("gpt2", "lm_head", "transformer.h.N.mlp.c_fc"),
            ("mllama", "language_model.lm_head", "language_model.model.layers.N.self_attn.q_proj"),
            ("mllama", "multi_modal_projector", "vision_model.transformer.layers.N.mlp.fc1"),
            ("xlm-roberta", "roberta.encoder.layer.N.output.dense", "roberta.encoder.layer.N.attention.self.query"),
        )
    ),
    Case(code="modules.lm-head", inside={"tensors": pair(HEAD, rows=64)}),
    Case(
        code="modules.width",
        inside={"on": WIDE_BASE, "tensors": wide_q(), "server": ServerFacts(tensor_parallel=2)},
        outside={"on": WIDE_BASE, "tensors": wide_q()},
    ),
    # What is beside LoRA.
    Case(
        code="modules.saved",
        inside={"config": {"modules_to_save": ["score"]}},
        outside={"config": {"modules_to_save": []}},
    ),
    Case(
        code="modules.saved",
        inside={
            "tensors": {f"{PREFIX}score.modules_to_save.weight": ones(2, 32), f"{PREFIX}model.norm.weight": ones(32)}
        },
    ),
    Case(
        code="embedding.saved",
        inside={"tensors": {EMBEDDING: ones(64, 32)}},
        outside={"tensors": {EMBEDDING: ones(65, 32)}},
    ),
    Case(
        code="embedding.saved",
        inside={"tensors": {f"{HEAD}.weight": ones(64, 32)}},
        outside={"tensors": pair(HEAD, rows=64)},
    ),
    Case(code="embedding.lora", inside={"tensors": {f"{PREFIX}model.embed_tokens.lora_embedding_A": ones(8, 64)}}),
    Case(
        code="tokens.trainable",
        inside={"config": {"trainable_token_indices": [1]}},
        outside={"config": {"trainable_token_indices": None}},
    ),
    Case(
        code="tokens.trainable",
        inside={"tensors": {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": ones(1, 32)}},
    ),
    Case(
        code="tokens.added",
        inside={"tensors": {EMBEDDING: ones(65, 32)}},
        outside={"tensors": {EMBEDDING: ones(64, 32)}},
    ),
    Case(
        code="tokens.added",
        inside={"files": {"added_tokens.json": b'{"<x>": 64}'}},
        outside={"files": {"added_tokens.json": b'{"<x>": 63}'}},
    ),
    Case(
        code="tokens.added",
        inside={"files": {"tokenizer_config.json": b'{"added_tokens_decoder": {"64": {}}}'}},
        outside={"files": {"tokenizer_config.json": b'{"added_tokens_decoder": {"63": {}}}'}},
    ),
    Case(
        code="tokens.chat-template",
        inside={"files": {"chat_template.jinja": b"x"}},
        outside={"files": {"tokenizer_config.json": b"{}"}},
    ),
    Case(
        code="bias.trained",
        inside={"tensors": {f"{Q0}.bias": ones(32)}, "config": {"bias": "all"}},
        outside={"config": {"bias": "all"}},
    ),
    Case(
        code="bias.trained",
        inside={"tensors": {f"{Q0}.lora_B.bias": ones(32)}},
        outside={"tensors": {f"{Q0}.lora_B.bias": ones(32, value=0)}},
    ),
    Case(
        code="bias.zero",
        inside={"tensors": {f"{Q0}.lora_B.bias": ones(32, value=0)}},
        outside={"tensors": {f"{Q0}.lora_B.bias": ones(32)}},
    ),
    # Ranks and scales.
    Case(
        code="rank.config",
        inside={"config": {"r": 16}},
        outside={"config": {"r": 16, "rank_pattern": {"q_proj": 8, "v_proj": 8}}},
    ),
    Case(
        code="rank.patterns",
        inside={"config": {"rank_pattern": {"(a*)*b": 8}}},
        outside={"config": {"rank_pattern": {r"^model\.layers\.\d+\.mlp": 8}}},
    ),
    Case(
        code="rank.mixed-in-type",
        inside={"tensors": layered(32), "config": {"rank_pattern": {"layers.1.self_attn.q_proj": 32}}},
        outside={"tensors": layered(32, 32), "config": {"rank_pattern": {"q_proj": 32}}},
    ),
    Case(
        code="rank.mixed-across-types",
        inside={"tensors": layered(32, 32), "config": {"rank_pattern": {"q_proj": 32}}},
        outside={"config": {"rank_pattern": {"q_proj": 8}}},
    ),
    Case(
        code="scale.rslora",
        inside={"config": {"use_rslora": True}},
        outside={"config": {"use_rslora": True, "lora_alpha": 1}, "rank": 1},
    ),
    Case(
        code="scale.alpha-pattern",
        inside={"config": {"alpha_pattern": {"q_proj": 8}}},
        outside={"config": {"alpha_pattern": {"q_proj": 16, "k_proj": 1}}},
    ),
    Case(code="scale.zero", inside={"config": {"lora_alpha": 0}}, outside={"config": {"lora_alpha": 0.5}}),
    Case(code="scale.negative", inside={"config": {"lora_alpha": -1}}, outside={"config": {"lora_alpha": 1}}),
    Case(code="rank.padding", inside={"rank": 7}, outside={"rank": 8}),
    Case(code="rank.padding", inside={"rank": 17}, outside={"rank": 16}),
    Case(
        code="rank.padding",
        inside={"rank": 8, "server": ServerFacts(tensor_parallel=2)},
        outside={"rank": 16, "server": ServerFacts(tensor_parallel=2)},
    ),
    Case(code="rank.padding", inside={"rank": 7}, outside={"rank": 7, "tensors": ONE_TYPE}),
    Case(code="rank.padding-reload", inside={"rank": 7, "tensors": ONE_TYPE}, outside={"rank": 8, "tensors": ONE_TYPE}),
    Case(code="rank.no-kernel", inside={"rank": 33}, outside={"rank": 32}),
    Case(code="rank.no-kernel", inside={"rank": 96}, outside={"rank": 96, "server": ServerFacts(tensor_parallel=3)}),
    Case(code="rank.no-kernel", inside={"rank": 112}, outside={"rank": 113}),
    Case(
        code="rank.no-kernel",
        inside={"rank": 80, "server": ServerFacts(tensor_parallel=2)},
        outside={"rank": 64, "server": ServerFacts(tensor_parallel=2)},
    ),
    Case(code="rank.slow", inside={"rank": 144}, outside={"rank": 128}),
    Case(
        code="rank.slow",
        inside={"rank": 272, "server": ServerFacts(tensor_parallel=2)},
        outside={"rank": 256, "server": ServerFacts(tensor_parallel=2)},
    ),
    Case(code="rank.no-graph", inside={"rank": 128}, outside={"rank": 64}),
    # Numbers.
    Case(code="weights.nonfinite", inside={"tensors": scaled(np.nan)}, outside={"tensors": scaled(3e38)}),
    Case(code="weights.nonfinite", inside={"tensors": scaled(np.inf)}, outside={"tensors": scaled(1)}),
    Case(
        code="weights.no-effect",
        inside={"tensors": zeros_everywhere()},
        outside={"tensors": dict(list(zeros_everywhere().items())[1:])},
    ),
    Case(code="weights.huge", inside={"tensors": scaled(0.6)}, outside={"tensors": scaled(0.4)}),
    # The deployment: the sound adapter has (8 * 32 + 32 * 8 + 8 * 32 + 16 * 8) * 4 bytes in each of two layers.
    Case(
        code="memory.reservation",
        inside={"server": ServerFacts(gpu_memory_bytes=71_670)},
        outside={"server": ServerFacts(gpu_memory_bytes=71_680)},
    ),
    Case(code="server.preloading", inside={"server": ServerFacts(preloads_adapters=True)}),
    Case(code="source.short-id", inside={"uri": "file:///abc"}, outside={"uri": "file:///abcd"}),
    Case(code="source.short-id", inside={"uri": "s3://b/p/"}, outside={"uri": "s3://bu/p/"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_rule_speaks_just_inside_and_is_silent_just_outside(case, findings_of):
    inside = findings_of(**case.inside)
    assert case.code in inside
    assert inside[case.code].message
    assert case.code not in findings_of(**case.outside)


def test_every_rule_has_a_case():
    assert {case.code for case in CASES} == set(RULES)
    assert len(RULES) == len(LORAX.rules), "codes are names"


def test_sound_adapter_makes_no_rule_speak_but_the_one_about_widths(findings_of):
    assert set(findings_of()) == {"modules.width"}


@pytest.mark.parametrize("rule", LORAX.rules, ids=lambda rule: rule.code)
def test_every_rule_says_what_and_from_where(rule):
    assert rule.summary.endswith(".")
    assert rule.source


PEFT_TYPES = (
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADALORA", "ADAMSS", "BOFT",
    "ADAPTION_PROMPT", "IA3", "BEFT", "LILY", "LOHA", "LOKR", "OFT", "POLY", "LN_TUNING", "VERA", "FROD", "PVERA",
    "FOURIERFT", "GLORA", "XLORA", "HRA", "VBLORA", "UNILORA", "CPT", "MISS", "BONE", "RANDLORA", "ROAD",
    "TRAINABLE_TOKENS", "HIRA", "SHIRA", "C3A", "WAVEFT", "OSF", "DELORA",
)  # fmt: skip


@pytest.mark.parametrize("name", PEFT_TYPES)
def test_every_other_method_is_one_finding(name, findings_of):
    """LoRAX takes all of them for LoRA; one sentence says more than one for each of their tensors."""
    found = findings_of(config={"peft_type": name})
    assert {code for code, finding in found.items() if finding.severity is Severity.ERROR} == {"config.peft-type"}


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": "(a*)*$"},
        {"exclude_modules": ["lm_head"]},
        {"fan_in_fan_out": True},
        {"lora_dropout": 0.5},
        {"init_lora_weights": "gaussian"},
        {"unknown_to_everyone": {"a": [1]}},
        {"bias": "lora_only"},
        {"layers_to_transform": [0, 1], "layers_pattern": "layers"},
    ],
)
def test_what_lorax_rightly_ignores_is_no_finding(config, findings_of):
    """Weights decide: LoRAX reads neither targets nor exclusions nor how the training began."""
    assert set(findings_of(config=config)) == {"modules.width"}


def test_medusa_beside_lora_is_judged_as_both(findings_of):
    changes = medusa()
    tensors = {name: array for name, array in changes["tensors"].items() if array is not None}
    found = findings_of(
        files={"config.json": changes["files"]["config.json"]}, tensors=tensors, server=changes["server"], rank=7
    )
    assert {"medusa.unchecked", "rank.padding"} <= set(found)
    assert not {"tensors.foreign", "tensors.none", "config.missing"} & set(found)


def test_mixed_ranks_that_pad_to_one_are_scaled_wrongly_and_not_rejected(findings_of):
    found = findings_of(tensors=layered(4), config={"rank_pattern": {"layers.1.self_attn.q_proj": 4}})
    assert found["rank.mixed-in-type"].prediction == "wrong"
    other = findings_of(tensors=layered(32), config={"rank_pattern": {"layers.1.self_attn.q_proj": 32}})
    assert other["rank.mixed-in-type"].prediction == "reject"


def test_renamed_matrices_are_judged_under_their_right_names(findings_of):
    """Else a fitted adapter could turn out to be refused."""
    names = renamed(".weight", ".default.weight")
    names[f"{Q0}.lora_A.default.weight"] = ones(8, 33)
    assert {"tensors.renamed", "base.shape"} <= set(findings_of(tensors=names))


@pytest.mark.parametrize(
    ("rank", "parallel", "padded"),
    [(1, 1, 8), (8, 1, 8), (9, 1, 16), (16, 1, 16), (17, 1, 32), (8, 2, 16), (16, 2, 16), (17, 2, 32), (65, 8, 80)],
)
def test_padding_follows_pad_rank(rank, parallel, padded):
    assert padded_rank(rank, parallel) == padded


@pytest.mark.parametrize("parallel", [1, 2, 3, 4, 6, 8, 16])
def test_every_rank_that_fit_writes_is_served(parallel):
    """Two modules state LoRAX's ranks; where they differ, a fitted adapter would be refused."""
    for rank in range(1, 600):
        safe = safe_rank(rank, parallel)
        assert padded_rank(safe, parallel) == safe
        assert has_rank_kernel(safe, parallel)
