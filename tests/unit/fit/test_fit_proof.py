"""The proof must hold for every sound rewrite and fail for every unsound one."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.fit.layers import fill_layers
from slipway.fit.matrices import FLOATS, Matrix, round_to, zeros
from slipway.fit.modules import LoraModule
from slipway.fit.proof import prove
from slipway.fit.ranks import pad_ranks
from slipway.fit.scaling import common_scale, fold_scales


def changed(matrix, factor):
    """Multiply one number, not a small one, and leave the rest."""
    values = matrix.values()
    place = np.unravel_index(np.argmax(np.abs(values)), values.shape)
    values[place] *= factor
    return Matrix(dtype=matrix.dtype, data=round_to(values, matrix.dtype).data)


def test_the_same_adapter_is_the_same(make_module):
    proof = prove({"q": make_module()}, {"q": make_module()}, seed=1)
    assert proof.holds
    assert (proof.modules, proof.exact_modules, proof.largest_error) == (1, 1, 0.0)


def test_nothing_is_not_proven():
    assert not prove({}, {}, seed=1).holds


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_other_number_is_noticed(make_module, dtype, side):
    """The smallest change that the format can hold, in one element; doubles hold more than sums of doubles can show."""
    module = make_module(dtype=dtype, rank=8, rows=40, columns=50)
    step = 1 + (2.0 ** (1 - FLOATS[dtype].bits) if dtype != "F64" else 1e-9)
    other = replace(module, **{side: changed(getattr(module, side), step)})
    proof = prove({"q": module}, {"q": other}, seed=1)
    assert not proof.holds
    assert "q" in proof.failures[0]


@pytest.mark.parametrize("factor", [2.0, -1.0, 1 + 1e-6, 0.0])
def test_another_scale_is_noticed(make_module, factor):
    module = make_module(scale=2.0)
    assert not prove({"q": module}, {"q": replace(module, scale=2.0 * factor)}, seed=1).holds


def test_exchanged_modules_are_noticed(make_module):
    first, second = make_module(seed=1), make_module(seed=2)
    assert not prove({"q": first, "v": second}, {"q": second, "v": first}, seed=1).holds


def test_a_missing_module_is_noticed(make_module):
    proof = prove({"q": make_module()}, {}, seed=1)
    assert proof.failures == ("q is missing",)


def test_a_module_of_another_size_is_noticed(make_module):
    assert not prove({"q": make_module()}, {"q": make_module(rows=7)}, seed=1).holds


def test_added_modules_must_be_zero(make_module):
    module = make_module()
    zero = LoraModule(a=zeros(4, 5, "F32"), b=zeros(6, 4, "F32"), scale=2.0)
    assert prove({"q": module}, {"q": module, "k": zero}, seed=1).zero_modules == 1
    for side in ("a", "b"):
        almost = replace(zero, **{side: round_to(np.full(getattr(zero, side).shape, 1e-40), "F32")})
        assert not prove({"q": module}, {"q": module, "k": almost}, seed=1).holds


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_prove_nothing(make_module, bad):
    module = make_module()
    values = module.a.values()
    values[0, 0] = bad
    broken = replace(module, a=round_to(values, "F32"))
    assert not prove({"q": broken}, {"q": broken}, seed=1).holds


def test_rounding_is_allowed_only_where_it_was_needed(make_module):
    """Half a unit of bfloat16 passes where an odd scale was folded in, and not where the scale stayed."""
    module = make_module(dtype="BF16", scale=math.sqrt(2), rank=8, rows=30, columns=30)
    folded = fold_scales({"q": module}, 1.0)["q"]
    assert prove({"q": module}, {"q": folded}, seed=1).holds
    kept = replace(module, scale=1.0)
    nudged = replace(kept, b=changed(kept.b, 1 + 2.0**-7))
    assert not prove({"q": kept}, {"q": nudged}, seed=1).holds


def test_twice_the_allowed_rounding_is_too_much(make_module):
    module = make_module(dtype="BF16", scale=math.sqrt(2), rank=1, rows=30, columns=30)
    folded = fold_scales({"q": module}, 1.0)["q"]
    double = replace(folded, b=round_to(folded.b.values() * (1 + 2.0**-6), "BF16"))
    assert not prove({"q": module}, {"q": double}, seed=1).holds


def test_underflow_is_within_the_bound(make_module):
    """Numbers near the end of float16 lose everything relative, and no more than half a step each."""
    tiny = make_module(dtype="F16", scale=0.3)
    tiny = replace(tiny, b=round_to(tiny.b.values() * 2.0**-22, "F16"))
    folded = fold_scales({"q": tiny}, 1.0)["q"]
    assert prove({"q": tiny}, {"q": folded}, seed=1).holds


def test_a_number_that_no_longer_fits_proves_nothing(make_module):
    """Float16 ends at 65,504."""
    module = make_module(dtype="F16", scale=1e5)
    assert not prove({"q": module}, fold_scales({"q": module}, 1.0), seed=1).holds


def test_asked_for_precision_is_within_the_bound(make_module):
    module = make_module(rank=8, rows=30, columns=30)
    half = replace(module, a=round_to(module.a.values(), "BF16"), b=round_to(module.b.values(), "BF16"))
    proof = prove({"q": module}, {"q": half}, seed=1)
    assert proof.holds
    assert proof.exact_modules == 0
    assert 0 < proof.largest_share < 1


def test_seed_makes_it_repeatable(make_module):
    module = make_module(scale=0.3, dtype="BF16")
    folded = fold_scales({"q": module}, 1.0)
    assert prove({"q": module}, folded, seed=7) == prove({"q": module}, folded, seed=7)
    assert prove({"q": module}, folded, seed=7) != prove({"q": module}, folded, seed=8)


def test_text_says_what_was_compared(make_module):
    text = str(prove({"q": make_module()}, {"q": make_module()}, seed=5))
    assert "no difference at all" in text
    assert "seed 5" in text


@settings(max_examples=40, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    alphas=st.lists(st.floats(0.5, 32), min_size=4, max_size=4),
    rslora=st.booleans(),
    dtype=st.sampled_from(sorted(FLOATS)),
)
def test_all_rewrites_together_are_always_proven(ranks, alphas, rslora, dtype):
    rng = np.random.default_rng(len(ranks))
    base = {f"layers.{number}.q": (9, 7) for number in range(6)}
    modules = {
        f"layers.{number}.q": LoraModule(
            a=round_to(rng.standard_normal((rank, 7)), dtype),
            b=round_to(rng.standard_normal((9, rank)), dtype),
            scale=alphas[number] / (math.sqrt(rank) if rslora else rank),
        )
        for number, rank in enumerate(ranks)
    }
    fitted = fill_layers(pad_ranks(fold_scales(modules, common_scale(modules)), 32), base)
    proof = prove(modules, fitted, seed=3)
    assert proof.failures == ()
    assert len(fitted) == 6
