"""What inspection makes of sound and broken adapters, through the whole of it: pull, read, rules, verdict."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from slipway.errors import ConfigurationError, StoreError
from slipway.findings import Finding, Fix, InspectionVerdict, Prediction, Severity, judge, predict
from slipway.inspection import inspect_bundle
from slipway.inspection_view import print_inspection
from slipway.profiles import find_profile

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
LORAX = find_profile("lorax-0.12")
PROFILE = replace(LORAX, rules=[rule for rule in LORAX.rules if rule.code != "modules.width"])
"""The base of these tests is narrower than any kernel."""


@pytest.fixture
def inspect(make_adapter, pull, base):
    def run(*, on=base, **changes):
        return inspect_bundle(pull(make_adapter(**changes)), on, PROFILE)

    return run


def codes(inspection, severity=None):
    return [finding.code for finding in inspection.findings if severity in {None, finding.severity}]


def test_sound_adapter_is_servable_without_a_word(inspect):
    inspection = inspect()
    assert inspection.findings == ()
    assert inspection.verdict is InspectionVerdict.SERVABLE
    assert inspection.prediction is Prediction.OK
    assert inspection.reasons == ()


def test_facts_come_from_config_and_tensors(inspect):
    facts = inspect(rank=4).facts
    assert (facts.peft_type, facts.rank, facts.alpha, facts.dtype) == ("LORA", 4, 16, "float32")
    assert (facts.target_modules, facts.layers, facts.base_model) == (("q_proj", "v_proj"), 2, "org/base")
    assert facts.parameters == 2 * 4 * (32 + 32 + 32 + 16)


def test_json_is_the_document_of_the_command_line(inspect):
    document = json.loads(inspect(config={"peft_type": "IA3"}).to_json())
    assert list(document) == ["adapter", "facts", "profile", "prediction", "verdict", "findings"]
    assert list(document["adapter"]) == ["uri", "resolved_revision", "digest", "size_bytes", "files"]
    assert list(document["adapter"]["files"][0]) == ["name", "size_bytes", "sha256"]
    assert list(document["facts"]) == [
        "peft_type", "rank", "alpha", "target_modules", "parameters", "dtype", "layers", "base_model",
    ]  # fmt: skip
    assert list(document["findings"][0]) == ["code", "severity", "prediction", "where", "message", "fix"]
    assert (document["profile"], document["verdict"], document["prediction"]) == ("lorax-0.12", "refused", "drop")


@pytest.mark.parametrize(
    ("changes", "code", "prediction"),
    [
        ({"files": {"adapter_config.json": None}}, "config.missing", "reject"),
        ({"files": {"adapter_config.json": b"{"}}, "config.unreadable", "reject"),
        ({"files": {"adapter_config.json": b"[]"}}, "config.unreadable", "reject"),
        ({"config": {"lora_alpha": "sixteen"}}, "config.value", "reject"),
        ({"config": {"use_dora": "yes"}}, "config.value", "ok"),
        ({"config": {"peft_type": "IA3"}}, "config.peft-type", "drop"),
        ({"files": {"adapter_model.safetensors": None}}, "weights.missing", "reject"),
        (
            {"files": {"adapter_model.safetensors": None, "adapter_model.bin": b"\x80\x02."}},
            "weights.pickle",
            "reject",
        ),
        ({"files": {"adapter_model.safetensors": b""}}, "weights.empty-file", "reject"),
        ({"files": {"adapter_model.safetensors": b"<!DOCTYPE html><html>"}}, "weights.html", "reject"),
        ({"files": {"adapter_model.safetensors": b"PK\x03\x04" + b"x" * 40}}, "weights.pickle-inside", "reject"),
        (
            {"files": {"adapter_model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}},
            "weights.git-lfs-pointer",
            "reject",
        ),
        ({"files": {"adapter_model.safetensors": b"\2\0\0\0\0\0\0\0{}"}}, "tensors.none", "drop"),
        ({"config": {"base_model_name_or_path": "org/other"}}, "base.mismatch", "wrong"),
        ({"tensors": {f"{Q0}.lora_A.weight": np.ones((8, 40), "<f4")}}, "base.shape", "wrong"),
        ({"tensors": {f"{Q0}.lora_B.weight": np.ones((40, 8), "<f4")}}, "base.shape", "wrong"),
        ({"tensors": {f"{Q0}.lora_A.weight": None}}, "tensors.unpaired", "drop"),
        ({"tensors": {f"{Q0}.lora_B.weight": None}}, "tensors.unpaired", "drop"),
        ({"tensors": {"base_model.model.lm_head.weight": np.ones((64, 32), "<f4")}}, "embedding.saved", "drop"),
        ({"tensors": {f"{Q0}.lora_C.weight": np.ones((8, 32), "<f4")}}, "tensors.foreign", "drop"),
        ({"layers": 3}, "base.layers", "drop"),
        ({"tensors": {f"{Q0}.lora_B.weight": np.ones((32, 4), "<f4")}}, "tensors.shape", "wrong"),
        ({"tensors": {f"{Q0}.lora_A.weight": np.ones(32, "<f4")}}, "tensors.shape", "wrong"),
        ({"tensors": {f"{Q0}.lora_A.weight": np.ones((8, 32), "i1")}}, "tensors.dtype", "wrong"),
        ({"config": {"r": 16}}, "rank.config", "wrong"),
        ({"config": {"r": ...}, "rank": 16}, "rank.config", "wrong"),
        ({"tensors": {f"{Q0}.lora_A.weight": np.full((8, 32), np.nan, "<f4")}}, "weights.nonfinite", "wrong"),
        ({"tensors": {f"{Q0}.lora_B.weight": np.full((32, 8), -np.inf, "<f2")}}, "weights.nonfinite", "wrong"),
    ],
)
def test_each_rule_refuses_alone(inspect, changes, code, prediction):
    inspection = inspect(**changes)
    assert codes(inspection, Severity.ERROR) == [code]
    assert inspection.findings[0].prediction == prediction
    fixable = inspection.findings[0].fix is Fix.FIT
    assert inspection.verdict is (InspectionVerdict.FIXABLE if fixable else InspectionVerdict.REFUSED)
    assert inspection.findings[0].message in inspection.reasons[0]


def test_several_weights_files_can_be_joined(inspect, make_adapter):
    other = (make_adapter(types=("mlp.up_proj",)) / "adapter_model.safetensors").read_bytes()
    inspection = inspect(files={"second.safetensors": other})
    assert codes(inspection) == ["weights.several"]
    assert inspection.verdict is InspectionVerdict.FIXABLE


def test_pickle_beside_safetensors_is_only_a_warning(inspect):
    inspection = inspect(files={"adapter_model.bin": b"\x80\x02."})
    assert codes(inspection, Severity.WARNING) == ["weights.pickle-beside"]
    assert inspection.verdict is InspectionVerdict.SERVABLE


def test_untrained_adapter_has_no_effect_and_is_refused(inspect):
    zero = {
        f"base_model.model.model.layers.{layer}.self_attn.{kind}.lora_B.weight": np.zeros((rows, 8), "<f4")
        for layer in range(2)
        for kind, rows in (("q_proj", 32), ("v_proj", 16))
    }
    assert codes(inspect(tensors=zero)) == ["weights.no-effect"]
    assert codes(inspect(tensors=dict(list(zero.items())[1:]))) == [], "one trained module is an effect"


def test_alias_of_the_base_is_no_mismatch(inspect):
    inspection = inspect(config={"base_model_name_or_path": "mirror/base"})
    assert codes(inspection) == codes(inspection, Severity.NOTE) == ["base.alias"]
    assert inspection.verdict is InspectionVerdict.SERVABLE


@pytest.mark.parametrize("name", ["/data/models/base", "./base", "C:\\models\\base", "a/b/c"])
def test_base_given_as_a_path_is_a_warning_where_shapes_fit(inspect, name):
    inspection = inspect(config={"base_model_name_or_path": name})
    assert codes(inspection) == ["base.path"]
    assert inspection.verdict is InspectionVerdict.SERVABLE


@pytest.mark.parametrize("name", [None, "", ...])
def test_unnamed_base_is_a_warning(inspect, name):
    assert codes(inspect(config={"base_model_name_or_path": name})) == ["base.unnamed"]


def test_without_a_base_shapes_are_said_to_be_unverified(inspect):
    inspection = inspect(on=None, layers=3)
    assert codes(inspection) == ["base.unverified"]
    assert inspection.verdict is InspectionVerdict.SERVABLE


def test_base_without_known_modules_is_compared_by_name_only(inspect, base):
    inspection = inspect(on=replace(base, modules=None), config={"base_model_name_or_path": "org/other"})
    assert codes(inspection) == ["base.mismatch", "base.unverified"]


def test_base_without_a_name_is_compared_by_shape_only(inspect, base):
    unnamed = replace(base, id="", aliases=())
    assert codes(inspect(on=unnamed, config={"base_model_name_or_path": "org/other"})) == []
    assert codes(inspect(on=unnamed, layers=3)) == ["base.layers"]


def test_other_methods_get_one_finding_and_not_one_for_each_tensor(inspect):
    assert codes(inspect(config={"peft_type": "LOHA"})) == ["config.peft-type"]


def test_method_without_a_name_is_a_warning(inspect):
    assert codes(inspect(config={"peft_type": ...})) == ["config.peft-type-unnamed"]


def test_findings_are_sorted_most_severe_first(inspect):
    inspection = inspect(config={"base_model_name_or_path": None, "r": 4}, files={"adapter_model.bin": b""})
    assert [finding.severity for finding in inspection.findings] == ["error", "warning", "warning"]


def test_bundle_that_changed_in_the_store_is_an_error_and_not_a_finding(make_adapter, pull, base):
    bundle = pull(make_adapter())
    weights = bundle.directory / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    with pytest.raises(StoreError, match="changed since it was pulled"):
        inspect_bundle(bundle, base, PROFILE)


def test_unknown_profile_names_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"lorax-0\.12"):
        find_profile("vllm")


def finding(severity=Severity.ERROR, prediction=Prediction.OK, fix=Fix.NONE):
    return Finding(code="x", severity=severity, prediction=prediction, where="", message="", fix=fix)


def test_prediction_is_what_hides_all_others():
    assert predict([]) is Prediction.OK
    assert predict([finding(Severity.WARNING, Prediction.REJECT)]) is Prediction.OK, "a warning says what may happen"
    order = [Prediction.REJECT, Prediction.WRONG, Prediction.DROP, Prediction.OK]
    for index, worst in enumerate(order):
        assert predict(finding(prediction=prediction) for prediction in reversed(order[index:])) is worst


def test_fixable_only_if_fit_mends_every_error():
    assert judge([finding(Severity.WARNING, fix=Fix.MANUAL)]) is InspectionVerdict.SERVABLE
    assert judge([finding(fix=Fix.FIT)]) is InspectionVerdict.FIXABLE
    assert judge([finding(fix=Fix.FIT), finding(fix=Fix.MANUAL)]) is InspectionVerdict.REFUSED


def shown(inspection, **options):
    console = Console(file=io.StringIO(), width=100, **options)
    print_inspection(inspection, console)
    return console.file.getvalue()


def test_piped_output_has_one_line_per_finding_and_no_colours(inspect):
    text = shown(inspect(config={"r": 4, "base_model_name_or_path": None}))
    lines = [line for line in text.splitlines() if line.startswith(("error ", "warning "))]
    assert [line.split(":")[0] for line in lines] == ["error rank.config", "warning base.unnamed"]
    assert "\x1b" not in text
    assert text.endswith("refused\n")


def test_terminal_output_is_a_table(inspect):
    text = shown(inspect(config={"r": 4}), force_terminal=True)
    assert "rank.config" in text
    assert "┃" in text


def test_names_from_the_adapter_cannot_steer_the_terminal(inspect):
    name = "evil[bold]\x1b]0;owned\x07"
    for options in ({}, {"force_terminal": True, "no_color": True}):
        inspection = inspect(tensors={name: np.ones((1, 1), "<f4")}, config={"base_model_name_or_path": name})
        text = shown(inspection, **options)
        assert "\x1b]" not in text
        assert "\x07" not in text
        assert "evil[bold]" in text
