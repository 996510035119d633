"""Types that look at structure: JSON, markup, SQL, tool calls."""

from __future__ import annotations

import json
import time

import pytest

from slipway import javascript
from slipway.checks import Check, prepare
from slipway.checks.embedded_json import embedded_objects
from slipway.checks.markup import xml_parts

SCHEMA = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    ("value", "output", "expected"),
    [
        (None, 'Here: {"a": 1}.', True),
        (None, "{a:1}", True),  # read as YAML, as promptfoo does
        (None, "{'a': 1}", True),
        (None, '{"a": 1,}', True),
        (None, '{"a": "}"} {', True),
        (None, '{ // what is\n "a": 1, /// it\n}', True),
        (SCHEMA, '{"b": "https://a.b//c" // "a": 1\n}', False),
        (SCHEMA, '{b: http://x.y, // c\n"a": "// no comment"}', True),
        (None, 'cut off: {"a": {"b": 1', False),
        (None, 'cut off: {"a": {"b": 1}', True),  # the inner one
        (None, "[1, 2]", False),  # arrays and scalars are no objects
        (None, "42", False),
        (None, "no braces", False),
        (None, "{", False),
        (None, "", False),
        (SCHEMA, '{"b": 1} then {"a": 1}', True),
        (SCHEMA, '{"b": 1}', False),
        (SCHEMA, "nothing", False),
    ],
)
def test_json_inside_text_is_found_forgivingly(passes, value, output, expected):
    """Measured on promptfoo 0.121.9: near JSON passes, arrays and scalars do not."""
    assert passes("contains-json", value, output) is expected
    assert passes("not-contains-json", value, output) is not expected


@pytest.mark.parametrize(
    "text",
    [
        "{" * 40_000,
        "{" * 20_000 + "}" * 20_000,
        '{"a":' * 10_000,
        '{"a":1,' * 5_000,
        "{a: &x [1,1], b: [*x,*x]}" * 1000,
        '<a "' * 5_000,
        "<a " * 8_000,
        "<!--" * 12_000,
        "<![CDATA[" * 6_000,
        "{//\"'a//" * 4_000,
        "&" + " a=" * 10_000,
    ],
    ids=lambda text: text[:8],
)
@pytest.mark.parametrize("kind", ["contains-json", "contains-xml", "contains-html", "is-html", "is-xml"])
def test_hostile_output_is_looked_through_in_seconds(graded, kind, text):
    """An adapter may say anything; grading it must end."""
    start = time.monotonic()
    graded(kind, None, text)
    assert time.monotonic() - start < 10


def test_aliases_of_yaml_are_not_followed():
    """A dozen of them make gigabytes of a line."""
    assert list(embedded_objects("{a: &x [1], b: *x}")) == []
    assert list(embedded_objects("{a: [1]}")) == [{"a": [1]}]


@pytest.mark.parametrize(
    ("kind", "value", "output", "expected"),
    [
        ("is-xml", None, "<a><b/></a>", True),
        ("is-xml", None, ' <?xml version="1.0" encoding="UTF-8"?>\n<a>é</a>\n', True),
        ("is-xml", None, "<a><b></a>", False),
        ("is-xml", None, "text <a/>", False),
        ("is-xml", None, "", False),
        ("is-xml", None, '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', False),
        ("is-xml", {"requiredElements": ["a.b", "a.c.d"]}, "<a><b/><c/><c><d/></c></a>", True),
        ("is-xml", {"requiredElements": ["a.b.d"]}, "<a><b/><d/></a>", False),
        ("is-xml", {"requiredElements": ["a.b"]}, "<a>b<c/></a>", False),
        ("is-xml", {"requiredElements": ["b"]}, "<a><b/></a>", False),
        ("is-xml", "a.b, a", '<a xmlns="urn:x"><b/></a>', True),
        ("contains-xml", None, "Here: <a><b>1</b></a> done", True),
        ("contains-xml", None, "a < b and b > c", False),
        ("contains-xml", None, "<br> and <p>", False),
        ("contains-xml", {"requiredElements": ["a.b"]}, "<x/> or <a><b/></a>", True),
        ("contains-xml", {"requiredElements": ["b"]}, "<a><b/></a>", False),
        ("is-html", None, "<p>Hello <b>you</b></p>", True),
        ("is-html", None, "<!DOCTYPE html><html><body>text</body></html>", True),
        ("is-html", None, "<my-widget></my-widget>", True),
        ("is-html", None, "Hello <b>you</b>", False),
        ("is-html", None, "just text", False),
        ("is-html", None, "<invented>x</invented>", False),
        ("is-html", None, "", False),
        ("contains-html", None, "See <b>this</b>", True),
        ("contains-html", None, "a <br> line", True),
        ("contains-html", None, "1 < 2 &amp; 3", False),
        ("contains-html", None, "<example>", False),
        ("is-xml", "n:a.n:b", "<n:a xmlns:n='u'><n:b/></n:a>", True),  # a prefix is part of the name
        ("is-xml", "a", "<n:a xmlns:n='u'/>", False),
        ("is-xml", "n:a", "<n:a/>", True),
        ("contains-xml", "a", "See <a><![CDATA[1 < 2 </b>]]></a>.", True),
        ("contains-xml", "a", "See <!-- <b> --><a>1</a>.", True),
        ("is-html", None, "<svg><path d=''/></svg>", True),
        ("is-html", None, "<search>x</search>", False),  # not in promptfoo's list
        ("is-html", None, "<bodyx>text</bodyx>", False),
        ("is-html", None, "text <body>x</body>", False),  # that body was begun by the text
        ("is-html", None, "<!-- c --><html>text</html>", False),
        ("is-html", None, "<html><body>text</body></html>", True),
        ("is-html", None, "<html", False),
        ("is-html", None, "<?XML?><p>x</p>", False),
        ("is-html", None, "\ufeff<p>x</p>", True),
        ("contains-html", None, ' class = "y" &amp;', False),
        ("contains-html", None, ' class="y" &amp;', True),
        ("is-sql", None, "SELECT a, b FROM t WHERE c = 1;", True),
        ("is-sql", None, "INSERT INTO t (a) VALUES (1)", True),
        ("is-sql", None, "CREATE TABLE t (a INT)", True),
        ("is-sql", None, "SELEC a FROM t", False),
        ("is-sql", None, "SELECT FROM WHERE", False),
        ("is-sql", None, "hello world", False),
        ("is-sql", None, "Show me the money", False),
        ("is-sql", None, "", False),
        ("is-sql", None, "SELECT", False),
        ("is-sql", None, "SELECT a, FROM t", False),
        ("is-sql", {"databaseType": "BigQuery"}, "SELECT a, FROM t", True),
        ("is-sql", {"databaseType": "PostgreSQL"}, "SELECT a::text FROM t", True),
        ("is-sql", {"databaseType": "TransactSQL"}, "SELECT TOP 5 a FROM t", True),
        ("is-sql", {"allowedTables": ["select::null::t"]}, "SELECT a FROM t", True),
        ("is-sql", {"allowedTables": ["select::null::t"]}, "SELECT a FROM other", False),
        ("is-sql", {"allowedTables": ["select::null::t"]}, "DELETE FROM t", False),
        ("is-sql", {"allowedTables": [r"select::null::\d+"]}, "SELECT a FROM `12`", True),
        ("is-sql", {"allowedTables": [r"select::null::\d+"]}, "SELECT a FROM `١٢`", False),
        ("is-sql", {"allowedTables": ["(select|update)::(.*)::(T|u)"]}, "UPDATE s.t SET a = (SELECT b FROM u)", True),
        ("is-sql", {"allowedTables": ["select::null::t"]}, "WITH x AS (SELECT a FROM t) SELECT a FROM x", True),
        ("is-sql", {"allowedColumns": ["select::t::a"]}, "SELECT t.a FROM t", True),
        ("is-sql", {"allowedColumns": ["select::t::a"]}, "SELECT t.b FROM t", False),
        ("is-sql", {"allowedColumns": ["select::null::a"]}, "SELECT * FROM t", False),
        ("contains-sql", None, "Use this:\n```sql\nSELECT 1 FROM t\n```\nThere.", True),
        ("contains-sql", None, "Use this:\n```\nnothing\n```", False),
        ("is-sql", {"allowedColumns": ["select::t::a"]}, "SELECT a FROM t", True),  # t may be left out
        ("is-sql", {"allowedColumns": ["select::t::a"]}, "INSERT INTO t (a) VALUES (1)", False),
        ("is-sql", {"allowedColumns": ["insert::t::a"]}, "INSERT INTO t (a) VALUES (1)", True),
        ("is-sql", {"allowedColumns": ["insert::t::a"]}, "INSERT INTO t VALUES (1)", False),
        ("is-sql", {"allowedColumns": ["select::null::b"]}, "DELETE FROM t WHERE b = 1", False),
        ("is-sql", {"allowedColumns": ["delete::t::(.*)", "select::null::b"]}, "DELETE FROM t WHERE b = 1", True),
        ("is-sql", {"allowedColumns": ["update::null::a", "select::null::b"]}, "UPDATE t SET a = 1 WHERE b = 2", True),
        ("contains-sql", None, "SELECT 1", True),
        ("contains-sql", None, "```SQL\nSELECT 1\n```", False),  # promptfoo knows the word in lower case
        ("tool-call-f1", ["a"], '[{"function": {"name": "a"}}]', True),
        ("tool-call-f1", "a, b", '{"tool_calls": [{"name": "b"}, {"function": {"name": "a"}}]}', True),
        ("tool-call-f1", ["a"], '{"type": "tool_use", "name": "a"}', True),
        ("tool-call-f1", ["a"], '{"functionCall": {"name": "a"}}', True),
        ("tool-call-f1", ["a"], '{"toolCall": {"functionCalls": [{"name": "a"}]}}', True),
        ("tool-call-f1", ["a"], 'I call\n{"type": "tool_use", "name": "a"}\nnow', True),
        ("tool-call-f1", ["a", "b"], 'These:\n [{"name": "a"}, {"name": "b"}]', True),
        ("tool-call-f1", ["a"], 'I call {"type": "tool_use", "name": "a"}', False),  # a line must be JSON
        ("tool-call-f1", ["a"], '{"type": "function_call", "name": "a"}', False),
        ("tool-call-f1", ["a"], '{"function": {"name": "a"}}', False),
        ("tool-call-f1", ["a"], '{"name": "a"}', False),
        ("tool-call-f1", ["a"], "no call", False),
    ],
)
def test_structure_and_its_negation_are_opposites(passes, kind, value, output, expected):
    assert passes(kind, value, output) is expected
    assert passes(f"not-{kind}", value, output) is not expected


def test_outermost_elements_are_the_parts_of_xml():
    assert list(xml_parts("x <a><a/>1</a> y <b/> <c></d><e>2</e>")) == ["<a><a/>1</a>", "<b/>", "<e>2</e>"]


@pytest.mark.parametrize(
    ("called", "threshold", "score", "expected"),
    [
        (["a", "b"], None, 1.0, True),
        (["a"], None, 2 / 3, False),
        (["a"], 0.66, 2 / 3, True),
        (["a"], 0.67, 2 / 3, False),
        (["a", "b", "c"], 0.8, 0.8, True),
        ([], 0.1, 0.0, False),
    ],
)
def test_f1_of_tools_called(graded, called, threshold, score, expected):
    output = json.dumps([{"name": name} for name in called])
    result = graded("tool-call-f1", ["a", "b"], output, threshold=threshold)
    assert (result.passed, result.score) == (expected, pytest.approx(score))


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "required": ["x"]}}}]


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ([{"function": {"name": "add", "arguments": '{"x": 1}'}}], ""),
        ({"tool_calls": [{"function": {"name": "add", "arguments": '{"x": 1}'}}]}, ""),
        ([{"function": {"name": "add", "arguments": "{}"}}], "'x' is a required property"),
        ([{"function": {"name": "add", "arguments": "{"}}], "no JSON"),
        ([{"function": {"name": "sub", "arguments": "{}"}}], "there is no tool 'sub'"),
        ([{"function": {"name": "add", "arguments": {}}}], "no text"),
        ([{}], "no function"),
        ([], "no list of tool calls"),
        ("text", "no list of tool calls"),
    ],
)
def test_tools_call_is_valid_when_its_arguments_fit_the_tool(graded, calls, problem):
    output = calls if calls == "text" else json.dumps(calls)
    result = graded("is-valid-openai-tools-call", None, output, config={"tools": TOOLS})
    assert result.passed is not bool(problem)
    assert problem in result.checks[0].reason
    opposite = graded("not-is-valid-openai-tools-call", None, output, config={"tools": TOOLS})
    assert opposite.passed is bool(problem)


def test_tools_call_without_the_tools_is_not_supported():
    assert "config: {tools" in prepare(Check(type="is-valid-openai-tools-call")).unsupported


@pytest.mark.parametrize(
    ("kind", "value", "config", "says"),
    [
        ("is-xml", {"requiredElements": "a"}, {}, "requiredElements"),
        ("is-xml", {"requiredElement": ["a"]}, {}, "requiredElements"),
        ("is-xml", "", {}, "requiredElements"),
        ("contains-xml", "a, , b", {}, "requiredElements"),
        ("is-json", True, {}, "must be a JSON Schema, or left out"),
        ("not-contains-json", False, {}, "must be a JSON Schema, or left out"),
        ("tool-call-f1", "a,,b", {}, "nothing empty"),
        ("is-xml", {"requiredElements": [1]}, {}, "requiredElements"),
        ("is-sql", "MySQL", {}, "takes no value, or an object"),
        ("is-sql", {"database": "x"}, {}, "takes no value, or an object"),
        ("is-sql", {"databaseType": "postgres"}, {}, "Did you mean 'postgresql'?"),
        ("is-sql", {"allowedTables": "t"}, {}, "must be a list"),
        ("is-sql", {"allowedTables": ["("]}, {}, "cannot be used"),
        ("tool-call-f1", [], {}, "names of tools"),
        ("tool-call-f1", None, {}, "names of tools"),
        ("is-valid-openai-tools-call", None, {"tools": []}, "list of OpenAI's tools"),
        ("is-valid-openai-tools-call", None, {"tools": [{"name": "x"}]}, "must be {type: function"),
        (
            "is-valid-openai-tools-call",
            None,
            {"tools": [{"function": {"name": "x", "parameters": {"type": "nonsense"}}}]},
            "is not valid",
        ),
        ("contains-json", {"$ref": "https://example.com/x"}, {}, "only references inside it"),
    ],
)
def test_value_that_no_output_could_be_compared_with_is_refused(kind, value, config, says):
    check = Check(type=kind, value=value, config=config)
    with pytest.raises(ValueError, match=r"\w") as caught:
        prepare(check)
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", ["is-sql", "not-is-sql"])
def test_search_for_allowed_tables_that_finds_no_end_fails_both_forms(graded, monkeypatch, kind):
    monkeypatch.setattr(javascript, "TIME_LIMIT_SECONDS", 0.1)
    monkeypatch.setattr(javascript._per_thread, "match", None)  # the limit is set where a context is made
    found = graded(kind, {"allowedTables": ["select::null::(a+)+"]}, f"SELECT b FROM `{'a' * 40}!`")
    assert found.passed is False
    assert "was ended" in found.checks[0].reason
