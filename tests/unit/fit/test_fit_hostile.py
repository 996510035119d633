"""Whatever the files say, fit answers: a rewrite that is proven, or a refusal."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.fit import Refused, prove
from slipway.fit.modules import LoraModule
from slipway.fit.rewrite import Rewritten

Q = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"

odd_numbers = st.one_of(
    st.integers(-5, 300),
    st.sampled_from([10**400, -(10**400), 2**63, 1e308, -1e308, 1e-320, 0, -0.0]),
    st.floats(allow_nan=True, allow_infinity=True),
)
odd_values = st.one_of(
    st.none(), st.booleans(), odd_numbers, st.text(max_size=8), st.lists(st.text(max_size=3), max_size=2)
)
patterns = st.dictionaries(
    st.one_of(st.sampled_from(["q_proj", ".*", "layers.0.*", "(a+)+$", "[", "\\", "(?P<x>y)"]), st.text(max_size=6)),
    odd_numbers,
    max_size=3,
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "r": st.one_of(st.sampled_from([1, 3, 8, 10**400]), odd_numbers),
        "lora_alpha": odd_numbers,
        "rank_pattern": st.one_of(patterns, odd_values),
        "alpha_pattern": st.one_of(patterns, odd_values),
        "use_rslora": st.one_of(st.booleans(), odd_values),
        "init_lora_weights": odd_values,
        "bias": odd_values,
        "target_modules": odd_values,
        "base_model_name_or_path": odd_values,
        "kasa_config": odd_values,
    },
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=configs, ranks=st.tuples(st.integers(1, 9), st.integers(1, 9)), dtype=st.sampled_from(["BF16", "F16", "F32"])
)
def test_any_config_is_answered(rewrite, config, ranks, dtype):
    rng = np.random.default_rng(0)
    tensors = {}
    for layer, rank in enumerate(ranks):
        tensors[Q.format(layer, "A")] = rng.standard_normal((rank, 32))
        tensors[Q.format(layer, "B")] = rng.standard_normal((32, rank))
    answer = rewrite(tensors, dtype=dtype, **config)
    if isinstance(answer, Refused):
        assert answer.reasons
        assert all(reason.isprintable() for reason in answer.reasons)
        return
    assert isinstance(answer, Rewritten)
    scale = answer.config["lora_alpha"] / answer.config["r"]
    fitted = {
        f"model.layers.{layer}.self_attn.q_proj": LoraModule(
            a=answer.tensors[Q.format(layer, "A")], b=answer.tensors[Q.format(layer, "B")], scale=scale
        )
        for layer in (0, 1)
    }
    proof = prove(answer.original, fitted, seed=0)
    extreme = any(abs(module.scale) > 1e3 or 0 < abs(module.scale) < 1e-3 for module in answer.original.values())
    assert proof.holds or extreme


@pytest.mark.parametrize(
    "name", ["a" * 5000 + ".lora_A.weight", "\x1b[2J.lora_A.weight", "..lora_A.weight", "lora_A.weight", ""]
)
def test_odd_names_are_quoted(rewrite, name):
    answer = rewrite(
        {
            name: np.ones((8, 32)),
            **{
                Q.format(layer, side): np.ones(shape)
                for layer in (0, 1)
                for side, shape in (("A", (8, 32)), ("B", (32, 8)))
            },
        }
    )
    assert isinstance(answer, Refused)
    assert all(reason.isprintable() and len(reason) < 1000 for reason in answer.reasons)


@pytest.mark.parametrize(
    "config",
    [{"r": 10**400, "lora_alpha": 16.5}, {"r": 10**400, "use_rslora": True}, {"rank_pattern": {"q_proj": 10**400}}],
)
def test_ranks_beyond_all_numbers_are_refused(rewrite, config):
    tensors = {Q.format(0, side): np.ones(shape) for side, shape in (("A", (8, 32)), ("B", (32, 8)))}
    assert isinstance(rewrite(tensors, **config), Refused)
