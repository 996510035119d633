"""What each check says, and how checks make a grade."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.checks import Check, Subject, UnknownTypeError, example, grade, prepare, supported_types
from slipway.judge_settings import JudgeSettings
from slipway.yaml_files import parse_yaml


def check(kind, value=None, **keys):
    return prepare(Check(type=kind, value=value, **keys))


def graded(checks, output, latency_ms=None, *, threshold=None):
    return grade(checks, Subject(output=output, latency_ms=latency_ms), threshold=threshold)


def passes(kind, value, output, *, latency_ms=None, **keys):
    return graded([check(kind, value, **keys)], output, latency_ms).passed


SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("kind", "value", "output", "expected"),
    [
        ("equals", "yes", "yes", True),
        ("equals", "yes", "yes\n", False),
        ("equals", 42, "42", True),
        ("equals", 1.0, "1", True),
        ("equals", 0.5, "0.5", True),
        ("equals", True, "true", True),
        ("equals", {"a": 1, "b": [1, None]}, '{"b": [1.0, null], "a": 1}', True),
        ("equals", {"a": 1}, '{"a": true}', False),
        ("equals", {"a": 1}, '{"a": 1, "b": 2}', False),
        ("equals", {"a": 1, "b": 2}, '{"a": 1, "b": 3}', False),
        ("equals", {"a": 1}, '["a"]', False),
        ("equals", ["a"], '{"a": 1}', False),
        ("equals", [1, 2], "[1]", False),
        ("equals", [1, 2], "[1, 3]", False),
        ("equals", ["a"], '["b"]', False),
        ("contains", "b", "abc", True),
        ("contains", "B", "abc", False),
        ("contains", 7, "a7", True),
        ("icontains", "B", "abc", True),
        ("icontains", "x", "abc", False),
        ("regex", r"^\w+$", "abc", True),
        ("regex", "b", "abc", True),
        ("regex", "B", "abc", False),
        ("starts-with", "ab", "abc", True),
        ("starts-with", "b", "abc", False),
        ("is-json", None, " [1] ", True),
        ("is-json", None, "{a: 1}", False),
        ("is-json", None, "NaN", False),
        ("is-json", None, "", False),
        ("is-json", None, "[" * 100_000, False),
        ("is-json", SCHEMA, '{"a": 1}', True),
        ("is-json", SCHEMA, '{"a": "x"}', False),
        ("is-json", "type: array", "[]", True),
        ("is-json", '{"type": "array"}', "{}", False),
        ("is-json", {"format": "ipv4"}, '"1.2.3"', False),
        ("is-json", "false", "1", False),
        ("is-json", {"type": "integer", "nullable": True}, "null", True),  # ajv's word
        ("is-json", {"type": "integer", "nullable": True}, '"1"', False),
        ("is-json", {"type": "integer", "nullable": False}, "null", False),
    ],
)
def test_check_and_its_negation_are_opposites(kind, value, output, expected):
    assert passes(kind, value, output) is expected
    assert passes(f"not-{kind}", value, output) is not expected


def test_quirks_of_promptfoo_are_kept():
    """0.121.9: comparing text that is no JSON with an object fails both ways; not-latency is latency."""
    assert passes("equals", {"a": 1}, "no json") is False
    assert passes("not-equals", {"a": 1}, "no json") is False
    assert passes("not-latency", None, "", latency_ms=10.0, threshold=20) is True


@pytest.mark.parametrize(("latency_ms", "expected"), [(99.9, True), (100.0, True), (100.1, False)])
def test_latency_is_at_most_its_threshold(latency_ms, expected):
    assert passes("latency", None, "", latency_ms=latency_ms, threshold=100) is expected


def test_unknown_latency_is_an_error_and_no_failure():
    result = graded([check("contains", "x"), check("latency", threshold=5)], "x", None)
    assert (result.passed, result.score, result.checks) == (None, None, ())
    assert result.error == "latency: the latency of this answer is unknown"


def test_schema_that_cannot_be_applied_is_an_error_and_no_failure():
    result = graded([check("is-json", {"$ref": "#/definitions/nowhere"})], "1", None)
    assert result.passed is None
    assert "JSON Schema" in result.error


def test_failed_check_says_what_was_expected():
    result = graded(
        [check("contains", "x" * 500), check("not-icontains", "A"), check("is-json", SCHEMA)], '{"a": "b"}', 1
    )
    reasons = [line.reason for line in result.checks]
    assert reasons[0].startswith("Expected the output to contain 'xxx")
    assert len(reasons[0]) < 200
    assert reasons[1] == "Expected the output not to contain, in any case, 'A'."
    assert reasons[2] == "Expected the output to conform to the JSON Schema: 'b' is not of type 'integer'."
    assert "not to conform" in graded([check("not-is-json", SCHEMA)], '{"a": 1}', 1).checks[0].reason
    assert graded([check("latency", threshold=5)], "", 7.25).checks[0].reason == "Expected at most 5 ms, took 7.2 ms."


@pytest.mark.parametrize(
    ("kind", "value", "threshold", "says"),
    [
        ("contains", "", None, "needs a value"),
        ("contains", None, None, "needs a value"),
        ("contains", ["a"], None, "found a list"),
        ("icontains", True, None, "found true"),
        ("starts-with", "", None, "needs a value"),
        ("equals", None, None, "needs a value"),
        ("regex", "", None, "needs a pattern"),
        ("regex", 5, None, "the number 5"),
        ("regex", "(?i)x", None, "icontains"),
        ("latency", None, None, "threshold"),
        ("latency", None, -1.0, "threshold"),
        ("latency", None, math.inf, "threshold"),
        ("is-json", 5, None, "must be a JSON Schema"),
        ("is-json", "type: [", None, "cannot be read"),
        ("is-json", {"type": "nonsense"}, None, "is not valid"),
        ("is-json", {"items": [{"$ref": "https://example.com/x"}]}, None, "only references inside it"),
        ("contain", "a", None, "'contain' is not known"),
    ],
)
def test_check_that_could_never_be_applied_is_refused_beforehand(kind, value, threshold, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        check(kind, value, threshold=threshold)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("contain", "Did you mean 'contains'?"),
        ("not-startswith", "Did you mean 'starts-with'?"),
        ("wrd-count", "Supported, each also with not- in front: "),
    ],
)
def test_unknown_type_says_what_may_have_been_meant(kind, says):
    with pytest.raises(UnknownTypeError) as caught:
        check(kind, "a")
    assert says in caught.value.fix


def two(weights, *, threshold=None, metric=""):
    """One check that passes and one that fails."""
    good, bad = weights
    checks = [check("contains", "x", weight=good, metric=metric), check("contains", "y", weight=bad, metric=metric)]
    return graded(checks, "x", None, threshold=threshold)


def test_score_is_the_weighted_mean():
    assert two((3, 1)).score == pytest.approx(0.75)
    assert two((3, 1)).passed is False


@pytest.mark.parametrize(("threshold", "expected"), [(0.75, True), (0.76, False), (0, False), (None, False)])
def test_threshold_replaces_the_need_to_pass_every_check(threshold, expected):
    """A threshold of 0 is none, as in promptfoo 0.121.9."""
    assert two((3, 1), threshold=threshold).passed is expected


def test_weight_of_zero_only_measures():
    result = two((1, 0))
    assert (result.passed, result.score) == (True, 1.0)
    assert result.checks[1].passed is False


def test_no_checks_pass_and_nothing_but_weights_of_zero_passes_with_zero():
    assert (graded([], "anything", None).passed, graded([], "anything", None).score) == (True, 1.0)
    assert (two((0, 0)).passed, two((0, 0)).score) == (True, 0.0)


def test_scores_of_one_metric_are_gathered():
    assert two((3, 1), metric="tone").metrics == {"tone": pytest.approx(0.75)}
    assert two((3, 1)).metrics == {}


@given(st.lists(st.tuples(st.sampled_from("xy"), st.floats(0, 10)), max_size=6), st.none() | st.floats(0.01, 1))
def test_score_is_in_range_and_passing_agrees_with_it(parts, threshold):
    result = graded([check("contains", text, weight=weight) for text, weight in parts], "x", None, threshold=threshold)
    assert 0 <= result.score <= 1
    expected = all(text == "x" for text, weight in parts if weight) if threshold is None else result.score >= threshold
    assert result.passed is expected


@pytest.mark.parametrize("kind", supported_types())
def test_examples_shown_for_a_refused_check_are_right(kind):
    """Whoever writes what the message says to write must not be refused again."""
    written = parse_yaml(example(kind), path=Path("example.yaml")).value
    assert written.pop("type") == kind
    inner = tuple(Check(**entry) for entry in written.pop("assert", ()))
    settings = JudgeSettings(model="m", embeddings_model="e")
    check = Check(type=kind, checks=inner, **written)
    assert not prepare(check, judge=settings, synonyms=lambda _: ()).unsupported
