"""Rank and scale of a module as PEFT gives them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from slipway.adapter_config import AdapterConfig
from slipway.lora_scale import PatternError, module_scales

Q0, Q11, V0 = "model.layers.0.self_attn.q_proj", "model.layers.11.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
CONFIG = AdapterConfig(peft_type="LORA", r=8, lora_alpha=16)


def factors(config, *paths):
    return [module_scales(config, paths)[path].factor for path in paths]


def test_scale_is_alpha_over_rank_or_over_its_root():
    assert factors(CONFIG, Q0) == [2.0]
    assert factors(replace(CONFIG, use_rslora=True), Q0) == [16 / math.sqrt(8)]


@pytest.mark.parametrize(
    ("pattern", "ranks"),
    [
        ({"q_proj": 4}, [4, 4, 8]),
        ({"proj": 4}, [8, 8, 8]),
        ({"layers.0.self_attn.q_proj": 4}, [4, 8, 8]),
        ({"layers.1.self_attn.q_proj": 4}, [8, 8, 8]),
        ({"^q_proj": 4}, [8, 8, 8]),
        ({r"^model\.layers\.0\.self_attn\.q_proj$": 4}, [4, 8, 8]),
        ({r"model\.layers\.\d+\.self_attn\.q_proj": 4}, [4, 4, 8]),
        ({"model.layers.0.*q_proj": 4}, [4, 8, 8]),
        ({r"layers\.[01]\.self_attn\.[qv]_proj": 4}, [4, 8, 4]),
        ({"q_proj": 4, "layers.0.self_attn.q_proj": 2}, [4, 4, 8]),
        ({"layers.0.self_attn.q_proj": 2, "q_proj": 4}, [2, 4, 8]),
    ],
)
def test_first_pattern_that_ends_the_path_counts(pattern, ranks):
    found = module_scales(replace(CONFIG, rank_pattern=pattern), [Q0, Q11, V0])
    assert [found[path].rank for path in (Q0, Q11, V0)] == ranks


def test_alpha_pattern_changes_alpha_and_not_rank():
    scale = module_scales(replace(CONFIG, alpha_pattern={"q_proj": 4}), [Q0])[Q0]
    assert (scale.rank, scale.alpha, scale.factor) == (8, 4, 0.5)


@pytest.mark.parametrize(
    "key", ["(a|b)_proj", "(a*)*", "a.*b.*c", "[a-z", "a{3}", r"(\1)", r"\1", "a" * 300 + "*", "a?b"]
)
def test_keys_that_could_take_for_ever_are_refused(key):
    with pytest.raises(PatternError, match="regular expression"):
        module_scales(replace(CONFIG, rank_pattern={key: 4}), [Q0])


def test_too_many_searches_are_refused():
    patterns = {f"x{number}.*": 4 for number in range(1000)}
    with pytest.raises(PatternError, match="too many"):
        module_scales(replace(CONFIG, rank_pattern=patterns), [f"m{number}" for number in range(1000)])
