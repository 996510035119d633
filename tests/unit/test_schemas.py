"""The schemas for editors are current, accept what we ship, and refuse what the readers refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from slipway.schemas import SCHEMA_KINDS, config_schema, schema_text
from slipway.yaml_files import read_document

CONFIGS = Path(__file__).parents[2] / "configs"
PROMPTFOO_SUITES = sorted((Path(__file__).parent / "suites").glob("*/promptfooconfig.yaml"))
GATE = {"confidence": 0.9, "require": [{"metric": "pass_rate", "at_least": 0.9}]}
TARGET = {"kind": "sandbox", "bases": {"tiny": {}}}
SUITE = {"prompts": ["{{x}}"], "tests": [{"vars": {"x": "1"}, "assert": [{"type": "not-contains", "value": "2"}]}]}


def problems(kind, value):
    return [error.message for error in Draft202012Validator(config_schema(kind)).iter_errors(value)]


@pytest.mark.parametrize("kind", SCHEMA_KINDS)
def test_the_file_is_what_the_models_say(kind):
    written = (CONFIGS / "schema" / f"{kind}.json").read_text(encoding="utf-8")
    assert written == schema_text(kind), "run `make schemas`"


@pytest.mark.parametrize("kind", SCHEMA_KINDS)
def test_a_schema_is_one(kind):
    Draft202012Validator.check_schema(json.loads(schema_text(kind)))


@pytest.mark.parametrize("kind", SCHEMA_KINDS)
def test_shipped_files_conform_and_name_their_schema(kind):
    files = sorted((CONFIGS / f"{kind}s").glob("*.yaml"))
    assert files
    for path in files:
        assert problems(kind, read_document(path).value) == [], path
        assert f"# yaml-language-server: $schema=../schema/{kind}.json\n" in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("kind", "good", "change"),
    [
        ("gate", GATE, {"confidence": 1.0}),
        ("gate", GATE, {"confidance": 0.9}),
        ("gate", GATE, {"require": [{"metric": "pass-rate", "at_least": 0.9}]}),
        ("target", TARGET, {"kind": "laptop"}),
        ("target", TARGET, {"bases": {}}),
        ("target", TARGET, {"judge": {"modell": "x"}}),
        ("suite", SUITE, {"test": []}),
        ("suite", SUITE, {"tests": [{"assert": [{"type": "contain", "value": "2"}]}]}),
        ("suite", SUITE, {"defaultTest": {"threshhold": 1}}),
    ],
)
def test_what_the_reader_refuses_is_marked(kind, good, change):
    assert problems(kind, good) == []
    assert problems(kind, {**good, **change})


@pytest.mark.parametrize("path", PROMPTFOO_SUITES, ids=lambda path: path.parent.name)
def test_promptfoo_files_that_load_conform(path):
    assert problems("suite", read_document(path).value) == []


def test_there_are_promptfoo_files_to_look_at():
    assert len(PROMPTFOO_SUITES) > 2


def test_a_suite_may_be_a_bare_list_of_tests():
    assert problems("suite", [{"vars": {"prompt": "hi"}}, "more.csv"]) == []
    assert problems("suite", [{"vras": {"prompt": "hi"}}])
