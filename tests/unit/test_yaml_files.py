"""Reading YAML and JSON into strict models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from slipway.errors import ConfigFileError
from slipway.yaml_files import load_model, parse_yaml, read_document


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    at_least: float | None = None

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "nonsense":
            raise ValueError("there is no metric 'nonsense'")
        return value


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: float = Field(default=0.95, gt=0, lt=1)
    min_cases: int = 30
    strict: bool = False
    colour: Colour = Colour.RED
    approval: Literal["none", "human"] = "none"
    rules: tuple[Rule, ...] = ()
    named: dict[str, Rule] = {}
    api_token_name: str = ""


@pytest.fixture
def refused(tmp_path):
    """Load a text as ``Settings``, expecting a refusal."""

    def load(text, *, name="gate.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigFileError) as caught:
            load_model(path, Settings)
        assert caught.value.file == path
        assert caught.value.exit_code == 2
        return caught.value

    return load


def parsed(text, name="x.yaml"):
    return parse_yaml(text, path=Path(name)).value


def test_a_whole_file_becomes_the_model(tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("confidence: 0.9\ncolour: green\nrules:\n  - {metric: score, at_least: 1}\nstrict: true\n")
    settings = load_model(path, Settings)
    assert settings == Settings(confidence=0.9, colour="green", rules=(Rule(metric="score", at_least=1),), strict=True)


def test_json_is_read_too(tmp_path):
    path = tmp_path / "gate.json"
    path.write_text('{\n\t"min_cases": 3,\n\t"named": {"\\ud83d\\ude00": {"metric": "score"}}}')
    assert list(load_model(path, Settings).named) == ["😀"]


def test_unknown_key_names_its_line_and_the_nearest_key(refused):
    error = refused("# gate\nmin_cases: 3\nconfidance: 0.9\n")
    assert (error.line, error.key, error.fix) == (3, "confidance", "Did you mean 'confidence'?")


def test_unknown_nested_key_is_compared_with_the_nested_model(refused):
    error = refused("rules:\n  - metric: score\n  - metric: score\n    atleast: 1\n")
    assert (error.line, error.key, error.fix) == (4, "rules[1].atleast", "Did you mean 'at_least'?")


def test_unlike_unknown_key_lists_all_keys(refused):
    assert refused("named: {a: {metric: score, zzz: 1}}").fix == "Use one of: metric, at_least."


def test_missing_key_points_at_its_parent(refused):
    error = refused("strict: false\nrules:\n  - at_least: 1\n")
    assert (error.line, error.key) == (3, "rules[0].metric")
    assert "required" in error.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("min_cases: many", "expected a valid integer, found the text 'many'."),
        ("min_cases: '30'", "expected a valid integer, found the text '30'."),
        ("min_cases: 1.5", "found the number 1.5."),
        ("strict: 1", "expected a valid boolean, found the number 1."),
        ("strict: yes", "found the text 'yes'."),
        ("confidence: 1.0", "expected less than 1, found the number 1.0."),
        ("rules: {}", "found keys and values."),
        ("rules: [3]", "found the number 3."),
        ("min_cases: []", "found a list."),
        ("min_cases:", "found nothing."),
        ("named: {a: {metric: nonsense}}", "there is no metric 'nonsense'."),
    ],
)
def test_wrong_type_says_what_is_expected_and_what_was_found(refused, text, expected):
    error = refused(text)
    assert expected in error.message
    assert error.line == 1


@pytest.mark.parametrize(("text", "fix"), [("colour: gren", "'green'"), ("approval: humans", "'human'")])
def test_wrong_choice_suggests_the_nearest(refused, text, fix):
    assert refused(text).fix == f"Did you mean {fix}?"


def test_first_problem_in_file_order_is_shown_and_the_others_counted(refused):
    error = refused("zzz: 1\nmin_cases: a\nstrict: b\n")
    assert error.line == 1
    assert "2 further problems" in error.message


def test_value_under_a_secret_looking_key_is_not_shown(refused):
    assert "424242" not in str(refused("api_token_name: 424242"))


def test_long_values_are_cut(refused):
    assert len(str(refused(f"min_cases: {'x' * 5000}").message)) < 300


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 'x\n", 2),
        ("a: 1\n a: 2\n", 2),
        ("min_cases: 1\n---\nmin_cases: 2\n", 2),
        ("min_cases: 1\nmin_cases: 2\n", 2),
        ("rules: [*nowhere]", 1),
        ("min_cases: &a [*a]", 1),
        ("? [a]\n: 1\n", 1),
        ("min_cases: !!python/object:os.system 1", 1),
        ("rules: !!set {a}", 1),
        ("min_cases: !!int abc", 1),
        (f"min_cases: {'9' * 5000}", 1),
        ("a:\n  " + "[" * 300 + "]" * 300, 2),
        (b"a: 1\nb: \xff\n", 2),
        ("<<: 3", 1),
    ],
)
def test_malformed_yaml_names_the_line(refused, text, line):
    assert refused(text).line == line


def test_two_hundred_thousand_brackets_do_not_crash_the_process(refused):
    """Libyaml's own composer overflows the C stack here."""
    assert "nested" in refused("[" * 200_000).message


def test_control_character_is_refused(refused):
    assert "control character" in refused("a: \x00").message


@pytest.mark.parametrize(
    ("text", "line"),
    [('{"min_cases": 1,\n}', 2), ('{"a": 1, "a": 2}', None), ('{"a": NaN}', None), ("[" * 100_000, 1), ("", 1)],
)
def test_malformed_json_is_refused(refused, text, line):
    assert refused(text, name="gate.json").line == line


def test_wrong_value_in_json_names_the_line(refused):
    error = refused('{\n\t"strict": true,\n\t"min_cases": "\\ud83d\\ude00"\n}', name="gate.json")
    assert (error.line, error.key) == (3, "min_cases")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text"])
def test_document_that_is_no_mapping_is_refused(refused, text):
    assert "expected keys and values" in refused(text).message


def test_billion_laughs_are_refused(refused):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases" in refused("\n".join(lines)).message


def test_missing_file_and_directory_are_refused(tmp_path):
    with pytest.raises(ConfigFileError, match="no such file"):
        read_document(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigFileError, match="is a directory"):
        read_document(tmp_path)


def test_file_larger_than_the_limit_is_refused(refused, monkeypatch):
    monkeypatch.setattr("slipway.yaml_files.MAX_FILE_BYTES", 10)
    assert "larger than" in refused("confidence: 0.95").message


def test_path_that_cannot_be_read_is_refused(tmp_path):
    """The operating system's own reason is told."""
    with pytest.raises(ConfigFileError, match="cannot be read: Not a directory"):
        read_document(_file_as_directory(tmp_path))


def _file_as_directory(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "gate.yaml"


def test_json_nested_deeper_than_positions_are_kept_still_gets_an_error(refused):
    assert refused('{"min_cases": ' + "[" * 150 + "]" * 150 + "}", name="gate.json").line == 1


def test_number_of_thousands_of_digits_in_json_is_refused(refused):
    assert "thousands of digits" in refused('{"min_cases": ' + "9" * 5000 + "}", name="gate.json").message


def test_scalars_follow_yaml_1_2():
    """``no`` is Norway and ``1:30`` is no number, as for tools that read the same suites in JavaScript."""
    text = "[no, on, 1:30, 2026-01-01, 012, 0o17, 0xff, 1_000, 1e3, .5, -.inf, true, ~, '1', !!str 1, !!float 1]"
    assert parsed(text) == [
        "no", "on", "1:30", "2026-01-01", 12, 15, 255, "1_000", 1000.0, 0.5, float("-inf"), True, None, "1", "1", 1
    ]  # fmt: skip


def test_anchors_and_merge_keys_work():
    text = "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nboth: {<<: [{x: 9}, *b]}\nlist: [&s one, *s]\n"
    value = parsed(text)
    assert value["use"] == {"x": 1, "y": 3}
    assert value["both"] == {"x": 9, "y": 2}
    assert value["list"] == ["one", "one"]


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text):
    """Nothing but ``ConfigFileError`` leaves the reader."""
    for name in ("x.yaml", "x.json"):
        try:
            parsed(text, name)
        except ConfigFileError:
            continue
