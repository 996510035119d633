"""The meaning of patterns against PEFT's own function."""

from __future__ import annotations

import itertools

import pytest
from peft.utils.other import get_pattern_key

from slipway.adapter_config import AdapterConfig
from slipway.lora_scale import module_scales

PATHS = [f"model.layers.{layer}.{kind}" for layer in (0, 1, 11) for kind in ("self_attn.q_proj", "mlp.up_proj")]
KEYS = [
    "q_proj", "proj", "layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "^q_proj", "up_proj",
    r"^model\.layers\.0\.self_attn\.q_proj$", r"model\.layers\.\d+\.self_attn\.q_proj", "model.layers.0.*q_proj",
    r"layers\.[01]\.self_attn\.q_proj", "self_attn.q_proj", "x.self_attn.q_proj", "model",
]  # fmt: skip


@pytest.mark.parametrize("keys", [*itertools.permutations(KEYS, 2)], ids="+".join)
def test_keys_name_the_modules_that_they_name_in_peft(keys):
    pattern = {key: number for number, key in enumerate(keys, start=1)}
    scales = module_scales(AdapterConfig(peft_type="LORA", r=8, rank_pattern=pattern), PATHS)
    for path in PATHS:
        assert scales[path].rank == pattern.get(get_pattern_key(pattern, path), 8)
