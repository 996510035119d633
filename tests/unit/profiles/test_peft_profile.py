"""The second profile: what is LoRAX's doing is no finding for PEFT, and what PEFT cannot load is one."""

from __future__ import annotations

import numpy as np
import pytest

from slipway.profiles import PROFILES, find_profile

PREFIX = "base_model.model."
Q0 = PREFIX + "model.layers.0.self_attn.q_proj"
WEIGHTS = "adapter_model.safetensors"


def ones(*shape, dtype="<f4", value=0.05):
    return np.full(shape, value, dtype)


@pytest.fixture
def codes(findings_of):
    def run(**changes):
        return {code for code, finding in findings_of(profile="peft", **changes).items() if finding.severity == "error"}

    return run


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"config": {"use_rslora": True}},
        {"config": {"use_dora": True}, "tensors": {f"{Q0}.lora_magnitude_vector": ones(32)}},
        {"config": {"alpha_pattern": {"q_proj": 4}}},
        {"rank": 7},
        {"rank": 33},
        {"layers": 1},
        {"config": {"modules_to_save": ["lm_head"]}, "tensors": {f"{PREFIX}lm_head.weight": ones(64, 32)}},
        {"config": {"bias": "all"}, "tensors": {f"{Q0}.bias": ones(32)}},
        {"config": {"peft_type": "IA3"}},
        {"files": {WEIGHTS: None, "adapter_model.bin": b"x"}},
        {"config": {"base_model_name_or_path": None}},
        {"config": {"init_lora_weights": "pissa"}},
    ],
)
def test_what_only_a_server_gets_wrong_is_fine(codes, changes):
    assert codes(**changes) == set()


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("config.missing", {"files": {"adapter_config.json": None}}),
        ("config.unreadable", {"files": {"adapter_config.json": b"["}}),
        ("config.value", {"config": {"lora_alpha": []}}),
        ("config.peft-type-unnamed", {"config": {"peft_type": ...}}),
        ("format.foreign", {"tensors": {"model.layers.0.self_attn.q_proj.lora_a": ones(32, 8)}}),
        ("weights.missing", {"files": {WEIGHTS: None}}),
        ("weights.unreadable", {"files": {WEIGHTS: b""}}),
        ("weights.several", {"files": {"second.safetensors": b"\2\0\0\0\0\0\0\0{}"}}),
        ("tensors.none", {"files": {WEIGHTS: b"\2\0\0\0\0\0\0\0{}"}}),
        ("tensors.empty", {"tensors": {f"{Q0}.lora_A.weight": ones(0)}}),
        ("tensors.foreign", {"tensors": {f"{Q0}.lora_E.weight": ones(8, 1)}}),
        (
            "tensors.renamed",
            {"tensors": {f"{Q0}.lora_A.weight": None, f"{Q0}.lora_A.default.weight": ones(8, 32)}},
        ),
        ("tensors.unmatched", {"layers": 3}),
        ("tensors.unpaired", {"tensors": {f"{Q0}.lora_A.weight": None}}),
        ("tensors.dtype", {"tensors": {f"{Q0}.lora_A.weight": ones(8, 32, dtype="i1")}}),
        ("base.mismatch", {"config": {"base_model_name_or_path": "org/other"}}),
        ("base.shape", {"tensors": {f"{Q0}.lora_A.weight": ones(8, 33)}}),
        ("base.shape", {"tensors": {f"{Q0}.lora_B.weight": ones(32, 7)}}),
        ("rank.config", {"config": {"r": 9}}),
        ("weights.nonfinite", {"tensors": {f"{Q0}.lora_A.weight": ones(8, 32, value=np.nan)}}),
        (
            "weights.no-effect",
            {
                "tensors": {
                    f"{PREFIX}model.layers.{layer}.self_attn.{kind}.lora_B.weight": ones(rows, 8, value=0)
                    for layer in range(2)
                    for kind, rows in (("q_proj", 32), ("v_proj", 16))
                }
            },
        ),
    ],
)
def test_what_peft_cannot_load_or_computes_wrongly(codes, code, changes):
    assert code in codes(**changes)


def test_initialisation_that_peft_repeats_is_a_warning(findings_of):
    found = findings_of(profile="peft", config={"init_lora_weights": "olora"})
    assert found["init.residual"].severity == "warning"


def test_other_methods_are_said_to_be_unjudged(findings_of):
    assert findings_of(profile="peft", config={"peft_type": "IA3"})["config.peft-type"].severity == "note"


def test_profiles_are_found_by_name():
    assert list(PROFILES) == ["lorax-0.12", "peft"]
    assert find_profile().name == "lorax-0.12"
    peft = find_profile("peft")
    assert len({rule.code for rule in peft.rules}) == len(peft.rules)
