"""Everything that the rules leave to fit, fit mends: inspected again, the result is servable."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from slipway.findings import Fix, InspectionVerdict
from slipway.fit.wanted import wants_fit
from slipway.inspection import inspect_bundle
from slipway.profiles import PROFILES, find_profile
from slipway.server_facts import ServerFacts
from slipway.services.fitting import Fitted, fit_bundle

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
PROFILE = find_profile("lorax-0.12")


def pairs(kind, rows, rank, layers=(0, 1)):
    """Matrices of another rank."""
    rng = np.random.default_rng(rank)
    shapes = {"A": (rank, 32), "B": (rows, rank)}
    return {
        f"base_model.model.model.layers.{layer}.self_attn.{kind}.lora_{side}.weight": rng.standard_normal(shape).astype(
            "<f4"
        )
        / 8
        for layer in layers
        for side, shape in shapes.items()
    }


EXAMPLES = {
    "scale.rslora": {"config": {"use_rslora": True}},
    "scale.alpha-pattern": {"config": {"alpha_pattern": {"q_proj": 5}}},
    "rank.mixed-in-type": {
        "config": {"rank_pattern": {"layers.0.self_attn.q_proj": 16}},
        "tensors": pairs("q_proj", 32, 16, layers=(0,)),
    },
    "rank.mixed-across-types": {"config": {"rank_pattern": {"v_proj": 16}}, "tensors": pairs("v_proj", 16, 16)},
    "rank.padding": {"rank": 4},
    "rank.padding-reload": {"rank": 4, "types": ("self_attn.q_proj",), "config": {"target_modules": ["q_proj"]}},
    "rank.no-kernel": {"rank": 48},
    "tensors.some-layers": {
        "tensors": {f"{Q0}.lora_{side}.weight": None for side in "AB"},
        "config": {"layers_to_transform": [0, 1]},
    },
    "tensors.renamed": {
        "tensors": {
            f"{Q0}.lora_A.weight": None,
            f"{Q0}.lora_A.default.weight": np.random.default_rng(0).standard_normal((8, 32)).astype("<f4") / 8,
        }
    },
    "weights.several": {},
    "base.path": {"config": {"base_model_name_or_path": "/home/me/models/base"}},
    "base.unnamed": {"config": {"base_model_name_or_path": None}},
    "base.alias": {"config": {"base_model_name_or_path": "mirror/base"}},
    "bias.zero": {"config": {"lora_bias": True}, "tensors": {f"{Q0}.lora_B.bias": np.zeros(32, "<f4")}},
    "config.peft-type-unnamed": {"config": {"peft_type": ...}},
}


def split(directory):
    tensors = load_file(directory / "adapter_model.safetensors")
    half = dict(list(tensors.items())[:4])
    save_file(half, directory / "adapter_model.safetensors")
    save_file({name: tensors[name] for name in tensors if name not in half}, directory / "second.safetensors")


DAMAGES = {"weights.several": split}


def test_there_is_an_example_of_every_code_that_fit_mends():
    """Pickles need torch, and their example is among the contract tests."""
    assert {rule.code for rule in PROFILE.rules if rule.fix is Fix.FIT} == {*EXAMPLES, "weights.pickle"}


@pytest.mark.parametrize("code", EXAMPLES)
def test_fit_mends(code, make_adapter, pull, store, base):
    directory = make_adapter(**EXAMPLES[code])
    DAMAGES.get(code, lambda _: None)(directory)
    bundle = pull(directory)
    before = inspect_bundle(bundle, base, PROFILE)
    assert code in {finding.code for finding in before.findings}
    assert before.verdict is not InspectionVerdict.REFUSED
    assert wants_fit(before) or code == "base.alias"
    fitted = fit_bundle(bundle, base, store)
    assert isinstance(fitted, Fitted), fitted
    assert fitted.changes
    after = inspect_bundle(fitted.bundle, base, PROFILE)
    assert after.verdict is InspectionVerdict.SERVABLE
    assert not [finding.code for finding in after.findings if finding.fix is Fix.FIT]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("code", sorted(set(EXAMPLES) - set(DAMAGES)))
def test_fitted_adapters_are_what_every_profile_serves(profile, code, fit, base):
    fitted = fit(**EXAMPLES[code])
    assert inspect_bundle(fitted.bundle, base, find_profile(profile)).verdict is InspectionVerdict.SERVABLE


@pytest.mark.parametrize("tensor_parallel", [1, 2, 4, 8])
@pytest.mark.parametrize("rank", [1, 4, 8, 16, 24, 40, 96, 130])
def test_ranks_are_servable_on_any_number_of_gpus(rank, tensor_parallel, fit, base):
    fitted = fit(rank=rank, config={"use_rslora": True}, tensor_parallel=tensor_parallel)
    after = inspect_bundle(fitted.bundle, base, PROFILE, ServerFacts(tensor_parallel=tensor_parallel))
    assert after.verdict is InspectionVerdict.SERVABLE, after.reasons


def test_a_servable_adapter_wants_no_fit(make_adapter, pull, base):
    assert not wants_fit(inspect_bundle(pull(make_adapter()), base, PROFILE))


def test_a_refused_adapter_wants_no_fit_whatever_else_it_has(make_adapter, pull, base):
    inspection = inspect_bundle(pull(make_adapter(config={"use_rslora": True, "use_dora": True})), base, PROFILE)
    assert Fix.FIT in {finding.fix for finding in inspection.findings}
    assert not wants_fit(inspection)


def test_fitted_config_is_smaller_than_what_was_saved(fit):
    fitted = fit(config={"use_rslora": True})
    config = json.loads((fitted.bundle.directory / "adapter_config.json").read_text())
    assert "use_rslora" not in config
