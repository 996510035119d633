"""Patterns of JSON Schemas, searched as JavaScript searches them and no longer than it may; drafts and references."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft7Validator

from slipway.checks import Check, json_schema, prepare

HOSTILE = "^(a+)+$"
ENDLESS = "a" * 60 + "b"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"


def pattern(text):
    return {"type": "string", "pattern": text}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (pattern(r"^[\d]{4}$"), "1234", True),
        (pattern(r"^[\d]{4}$"), "١٢٣٤", False),  # JavaScript's digits are ASCII
        (pattern(r"^\w+$"), "é", False),
        (pattern(r"^\d$"), "1\n", False),  # Python's $ would match before the last line end
        (pattern(r"^\p{Lu}"), "Élan", True),
        (pattern(r"^\p{Lu}"), "élan", False),
        (pattern(r"^\p{Script=Greek}+$"), "λόγος", True),
        (pattern(r"^(?<y>a)\k<y>$"), "aa", True),
        (pattern("^.$"), "\U0001f600", True),  # with the flag u an emoji is one character
        (pattern("^[\U0001f600-\U0001f60e]$"), "\U0001f601", True),
        (pattern("^.$"), "\ud83d", True),  # half of one, which a model cut off inside it can give
        (pattern(r"[\w\-]\/"), "-/", True),
        (pattern("^$"), "", True),
        (pattern("`${'\"/\u2028"), "`${'\"/\u2028", None),
        (pattern("[`$][{]'\"/\u2028"), "${'\"/\u2028", True),
        ({"pattern": "b"}, 5, True),  # of text only
        ({"patternProperties": {r"^x\d$": {"type": "integer"}}}, {"x1": 1, "y": "a"}, True),
        ({"patternProperties": {r"^x\d$": {"type": "integer"}}}, {"x1": "a"}, False),
        ({"patternProperties": {r"^x\d$": {"type": "integer"}}}, {"x\u0663": "a"}, True),
        ({"patternProperties": {"x": False}}, ["x"], True),
        ({"patternProperties": {"^x": True}, "additionalProperties": False}, {"x": 1}, True),
        ({"patternProperties": {"^x": True}, "additionalProperties": False}, {"ax": 1}, False),
        ({"patternProperties": {"^x": True}, "additionalProperties": False, "properties": {"a": {}}}, {"a": 1}, True),
        ({"patternProperties": {"^x": True}, "additionalProperties": {"type": "string"}}, {"x": 1, "a": "b"}, True),
        ({"patternProperties": {"^x": True}, "additionalProperties": {"type": "string"}}, {"x": 1, "a": 1}, False),
        ({"additionalProperties": False, "items": {"pattern": "a"}}, {"a": 1}, False),
        ({"propertyNames": {"pattern": r"^\p{Ll}+$"}}, {"é": 1}, True),
        ({"propertyNames": {"pattern": r"^\p{Ll}+$"}}, {"É": 1}, False),
        ({"format": "regex"}, r"a\-(?<y>b)", True),  # the format is without the flag u
        ({"format": "regex"}, "(?i)a", False),
        ({"format": "regex"}, r"a\Z", False),
        ({"format": "regex"}, 5, True),
        ({"const": {"pattern": "("}}, {"pattern": "("}, True),  # data, no pattern
        ({"properties": {"pattern": {"type": "integer"}}}, {"pattern": 5}, True),
        ({"$schema": DRAFT_2020, "prefixItems": [{"pattern": r"^\d$"}]}, ["\u0663"], False),
    ],
)
def test_pattern_of_a_schema_is_javascript_with_the_flag_u(passes, schema, value, expected):
    output = json.dumps(value)
    if expected is None:
        with pytest.raises(ValueError, match="JavaScript refuses"):
            passes("is-json", schema, output)
        return
    assert passes("is-json", schema, output) is expected
    assert passes("not-is-json", schema, output) is not expected


def test_the_reason_names_what_did_not_match(graded):
    schema = {"patternProperties": {"^x": {}}, "additionalProperties": False}
    assert "'b' does not match '^a'" in graded("is-json", pattern("^a"), '"b"').checks[0].reason
    assert "('b' was unexpected)" in graded("is-json", schema, '{"x": 1, "b": 1}').checks[0].reason


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (pattern("("), " at pattern: "),
        ({"properties": {"phone": pattern(r"^\d{3}\-\d{4}$")}}, " at properties.phone.pattern: "),
        ({"definitions": {"unused": {"pattern": "(?i)a"}}}, " at definitions.unused.pattern: "),
        ({"patternProperties": {"{": {}}}, " at patternProperties: "),
        ({"$schema": DRAFT_2020, "patternProperties": {"{": {}}}, " at patternProperties: "),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "pattern": "a++"}, " at pattern: "),
    ],
)
def test_pattern_that_javascript_refuses_is_refused_with_the_suite(schema, place):
    for check in (
        Check(type="is-json", value=schema),
        Check(type="not-contains-json", value=json.dumps(schema)),
        Check(
            type="is-valid-openai-tools-call",
            config={"tools": [{"function": {"name": "add", "parameters": schema}}]},
        ),
    ):
        with pytest.raises(ValueError, match="JavaScript refuses the pattern") as caught:
            prepare(check)
        assert place in str(caught.value)
        assert r"write - for \-" in str(caught.value)


TEXT = json.dumps(ENDLESS)


@pytest.mark.parametrize(
    ("schema", "output"),
    [
        (pattern(HOSTILE), TEXT),
        ({"properties": {"a": pattern(HOSTILE)}}, f'{{"a": {TEXT}}}'),
        ({"patternProperties": {HOSTILE: True}}, f"{{{TEXT}: 1}}"),
        ({"patternProperties": {HOSTILE: True}, "additionalProperties": False}, f"{{{TEXT}: 1}}"),
        ({"not": pattern(HOSTILE)}, TEXT),
        ({"anyOf": [pattern(HOSTILE), True]}, TEXT),
        ({"properties": {"a": {"$ref": "#/definitions/x"}}, "definitions": {"x": pattern(HOSTILE)}}, f'{{"a":{TEXT}}}'),
        # A reference to a schema that names its draft: jsonschema goes over to that draft's own keywords there.
        ({"$schema": DRAFT_7, "properties": {"a": {"$ref": "#"}}, "pattern": HOSTILE}, f'{{"a": {TEXT}}}'),
        ({"properties": {"a": {"$schema": DRAFT_2020, "pattern": HOSTILE}}}, f'{{"a": {TEXT}}}'),
    ],
)
def test_search_that_finds_no_end_fails_both_forms(graded, hasty_scripts, schema, output):
    """As ``regex`` does, and after the same second: whoever wrote the output must not hold up the gate."""
    for kind in ("is-json", "not-is-json"):
        result = graded(kind, schema, output)
        assert (result.passed, result.score, result.error) == (False, 0, None)
        assert "ended: it ran longer than 1 s" in result.checks[0].reason


def test_search_in_text_and_in_tool_calls_ends_too(graded, hasty_scripts):
    schema = {"properties": {"a": pattern(HOSTILE)}}
    output = f'Here: {{"a": {TEXT}}}, {{"a": "a"}}'
    calls = json.dumps([{"function": {"name": "add", "arguments": f'{{"a": {TEXT}}}'}}])
    tools = {"tools": [{"function": {"name": "add", "parameters": schema}}]}
    for kind in ("contains-json", "not-contains-json"):
        assert "was ended" in graded(kind, schema, output).checks[0].reason
    for kind in ("is-valid-openai-tools-call", "not-is-valid-openai-tools-call"):
        result = graded(kind, None, calls, config=tools)
        assert (result.passed, "was ended" in result.checks[0].reason) == (False, True)


def test_searches_of_one_check_have_a_second_together(graded, monkeypatch):
    """A list of texts that each take a little less than the limit would take hours."""
    schema, texts = {"items": pattern("^(a|aa)+$")}, ["a" * size for size in range(3, 9)]
    assert graded("is-json", schema, json.dumps(texts)).passed
    monkeypatch.setattr(json_schema, "TIME_LIMIT_SECONDS", 1e-9)
    for kind in ("is-json", "not-is-json"):
        result = graded(kind, schema, json.dumps([text * 2 for text in texts]))
        assert (result.passed, result.score) == (False, 0)
        assert "together they ran longer" in result.checks[0].reason
    assert graded("is-json", pattern("^a$"), '"a"').passed, "the next check has all of its time"


def test_schema_without_patterns_is_applied_by_jsonschema_itself():
    assert type(json_schema._validator('{"type": "integer"}')) is Draft7Validator
    assert type(json_schema._validator('{"pattern": "a"}')) is not Draft7Validator


@pytest.mark.parametrize(
    ("schema", "is_refused"),
    [
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, True),
        ({"allOf": [{"patternProperties": {"a": {}}}], "unevaluatedProperties": False}, True),
        ({"patternProperties": {"a": {}}, "additionalProperties": False}, False),
        ({"properties": {"a": {"pattern": "a"}}, "unevaluatedProperties": False}, False),
    ],
)
def test_unevaluated_properties_beside_patterns_are_refused(schema, is_refused):
    """The library would search for those patterns itself; in draft 7, as in promptfoo, the keyword means nothing."""
    check = Check(type="is-json", value={"$schema": DRAFT_2020, **schema})
    if is_refused:
        with pytest.raises(ValueError, match="use additionalProperties"):
            prepare(check)
    else:
        prepare(check)
    prepare(Check(type="is-json", value=schema))


def test_pattern_that_is_first_seen_when_it_is_used_fails_with_the_reason(graded):
    """Drafts 3 and 4 do not say that the names of ``patternProperties`` are patterns."""
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "patternProperties": {"(": {}}}
    for kind in ("is-json", "not-is-json"):
        result = graded(kind, schema, '{"a": 1}')
        assert (result.passed, "expecting ')'" in result.checks[0].reason) == (False, True)
