"""Findings as SARIF 2.1.0: what the standard demands, and places that a reader can jump to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.errors import ConfigurationError
from slipway.inspection import inspect_bundle
from slipway.profiles import find_profile
from slipway.sarif import to_sarif, write_sarif

PROFILE = find_profile("lorax-0.12")


@pytest.fixture
def document(make_adapter, pull, base):
    directory = make_adapter(rank=7)
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True}, indent=2))
    return to_sarif(inspect_bundle(pull(directory), base, PROFILE), PROFILE)


def test_document_has_the_members_that_the_standard_requires(document):
    (run,) = document["runs"]
    assert document["version"] == "2.1.0"
    assert run["tool"]["driver"]["name"] == "slipway inspect"
    assert [entry["id"] for entry in run["tool"]["driver"]["rules"]] == [rule.code for rule in PROFILE.rules]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
    for described in run["tool"]["driver"]["rules"]:
        assert described["help"]["text"]
        assert described["shortDescription"]["text"]


def test_finding_about_a_key_points_to_its_line(document):
    (result,) = [result for result in document["runs"][0]["results"] if result["ruleId"] == "scale.rslora"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "adapter_config.json", "uriBaseId": "ADAPTER"},
        "region": {"startLine": 11},
    }


def test_finding_about_tensors_points_to_the_weights(document):
    (result,) = [result for result in document["runs"][0]["results"] if result["ruleId"] == "rank.padding"]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "adapter_model.safetensors", "uriBaseId": "ADAPTER"}
    }


def test_document_is_json_with_the_verdict(document, make_adapter, pull, base, tmp_path):
    write_sarif(tmp_path / "x.sarif", inspect_bundle(pull(make_adapter(rank=7)), base, PROFILE), PROFILE)
    written = json.loads((tmp_path / "x.sarif").read_text())
    assert written["runs"][0]["properties"]["verdict"] == "fixable"
    assert written.keys() == document.keys()


def test_adapter_without_a_config_has_no_lines(make_adapter, pull, base):
    inspection = inspect_bundle(pull(make_adapter(files={"adapter_config.json": None})), base, PROFILE)
    assert to_sarif(inspection, PROFILE)["runs"][0]["results"]


def test_file_that_cannot_be_written_is_the_users_mistake(make_adapter, pull, base):
    inspection = inspect_bundle(pull(make_adapter()), base, PROFILE)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_sarif(Path("/nowhere/x.sarif"), inspection, PROFILE)
