"""Checks in JavaScript and transforms, as promptfoo grades them."""

from __future__ import annotations

import pytest

from slipway.checks import Check, Subject, grade, prepare
from slipway.javascript import Script


@pytest.mark.parametrize(
    ("returns", "threshold", "passed", "score"),
    [
        ("true", None, True, 1),
        ("false", None, False, 0),
        ("0.5", None, True, 0.5),
        ("0", None, False, 0),
        ("-1", None, False, 0),
        ("3", None, True, 1),  # scores are in [0, 1]
        ("0.5", 0.5, True, 0.5),
        ("0.5", 0.51, False, 0.5),
        ("0", 0, False, 0),  # a threshold of 0 is none
        ("({pass: true, score: 0.2, reason: 'fine'})", None, True, 0.2),
        ("({pass: false, score: 0.9, reason: 'bad'})", None, False, 0.9),
        ("({pass: true, score: 0.2, reason: 'fine'})", 0.5, True, 0.2),  # an object says itself whether it passes
    ],
)
def test_boolean_number_and_object_are_grades(graded, returns, threshold, passed, score):
    result = graded("javascript", returns, "x", threshold=threshold)
    assert (result.passed, result.score) == (passed, score)
    opposite = graded("not-javascript", returns, "x", threshold=threshold)
    assert (opposite.passed, opposite.score) == (not passed, 1 - score)


@pytest.mark.parametrize(
    ("returns", "says"),
    [
        ("'true'", "it returned the text 'true'"),
        ("undefined", "it returned undefined"),
        ("null", "it returned null"),
        ("NaN", "it returned the text 'NaN'"),
        ("({pass: true})", "it returned object"),
        ("({pass: 1, score: 1, reason: ''})", "it returned object"),
        ("({pass: true, score: NaN, reason: ''})", "it returned object"),
        ("[true]", "it returned object"),
        ("() => true", "it returned function"),
        ("nothing.here", "Custom function threw error: nothing is not defined"),
        ("JSON.parse(output).a === 1", "Custom function threw error:"),
    ],
)
def test_anything_else_fails_both_forms(graded, returns, says):
    """As in promptfoo 0.121.9."""
    for kind in ("javascript", "not-javascript"):
        result = graded(kind, returns, "no json")
        assert (result.passed, result.score) == (False, 0)
        assert says in result.checks[0].reason


def test_reason_of_an_object_is_kept(graded):
    assert graded("javascript", "({pass: false, score: 0, reason: 'too ' + output})", "long").checks[0].reason == (
        "too long"
    )


def test_scores_of_an_object_join_those_of_the_metric(graded):
    source = "({pass: true, score: 0.5, reason: '', namedScores: {tone: 0.25, bad: 'x'}})"
    assert graded("javascript", source, "", metric="all").metrics == {"tone": 0.25, "all": 0.5}


def test_script_sees_what_promptfoo_shows_it(graded):
    keys = {
        "prompt": [{"role": "user", "content": "hi"}],
        "vars": {"name": "Ann"},
        "latency_ms": 12.5,
        "cost_usd": 0.01,
        "finish_reason": "stop",
        "logprobs": (-0.5,),
        "prompt_tokens": 3,
        "generated_tokens": 4,
        "config": {"least": 2},
    }
    for expression in (
        "output === 'hello'",
        "JSON.parse(context.prompt)[0].content === 'hi'",
        "context.vars.name === 'Ann' && context.test.vars.name === 'Ann'",
        "context.config.least === 2",
        "context.logProbs[0] === -0.5",
        "context.providerResponse.output === output && context.providerResponse.latencyMs === 12.5",
        "context.providerResponse.cost === 0.01 && context.providerResponse.finishReason === 'stop'",
        "context.providerResponse.tokenUsage.total === 7",
    ):
        assert graded("javascript", expression, "hello", **keys).passed is True, expression


def test_script_of_a_file_is_called(graded):
    script = Script(source="export const long = (output) => output.length > 3", is_module=True, function="long")
    assert graded("javascript", script, "hello").passed is True
    assert graded("javascript", script, "hi").passed is False


@pytest.mark.parametrize(
    ("transform", "source"),
    [("output.length", "output === 5"), ("output.length > 3", "output === true"), ("'5'", "output === '5'")],
)
def test_script_gets_what_the_transform_made_and_not_its_text(graded, transform, source):
    assert graded("javascript", source, "hello", transform=transform).passed is True
    assert graded("equals", "5", "hello", transform="output.length").passed is True


def test_script_that_wants_what_is_not_here_is_not_supported():
    prepared = prepare(Check(type="javascript", value="fetch(output)"))
    assert prepared.unsupported.startswith("it needs `fetch`")
    result = grade([prepared], Subject(output="x"))
    assert (result.passed, result.score, result.checks[0].passed) == (None, None, None)
    assert result.error.startswith("unsupported: javascript: it needs `fetch`")


def test_script_that_wants_it_only_at_run_time_makes_the_case_missing(graded):
    """The instrument lacks something; the adapter did not fail."""
    result = graded("javascript", "eval('fet' + 'ch')(output)", "x")
    assert (result.passed, result.error) == (None, "javascript: the script needs `fetch`")


@pytest.mark.parametrize(
    ("value", "threshold", "says"),
    [
        ("", None, "needs JavaScript"),
        (None, None, "needs JavaScript"),
        (5, None, "needs JavaScript"),
        ("output >", None, "cannot be used"),
        ("output", float("nan"), "threshold"),
    ],
)
def test_script_that_could_never_run_is_refused(value, threshold, says):
    with pytest.raises(ValueError, match=says):
        prepare(Check(type="javascript", value=value, threshold=threshold))


@pytest.mark.parametrize(
    ("transform", "kind", "value", "output", "expected"),
    [
        ("output.toUpperCase()", "equals", "YES", "yes", True),
        ("JSON.parse(output)", "equals", {"a": 1}, '{"a": 1}', True),
        ("JSON.parse(output)", "contains", '"a":1', '{"a": 1}', True),
        ("JSON.parse(output)", "javascript", "output.a === 1", '{"a": 1}', True),
        ("JSON.parse(output).a", "equals", 1, '{"a": 1}', True),
        ("output.length > 2", "equals", "true", "long", True),
        ("context.vars.suffix + output", "equals", "sx", "x", True),
        ("const n = output.length\nreturn n + 1", "equals", "2", "x", True),
        ("(async () => output + '!')()", "equals", "x!", "x", True),
        ("output", "equals", "X", "x", False),
    ],
)
def test_transform_makes_what_is_checked(graded, transform, kind, value, output, expected):
    assert graded(kind, value, output, transform=transform, vars={"suffix": "s"}).passed is expected
    whole = grade(
        [prepare(Check(type=kind, value=value))], Subject(output=output, vars={"suffix": "s"}), transform=transform
    )
    assert whole.passed is expected


@pytest.mark.parametrize("transform", ["JSON.parse(output).answer", "undefined", "null", "while (true) {}\nreturn 1"])
def test_transform_that_cannot_handle_the_output_fails_the_check(hasty_scripts, transform):
    """The output is not in the form that the suite expects: that is the adapter's doing, also under a not-."""
    for kind in ("contains", "not-contains"):
        one = prepare(Check(type=kind, value="x", transform=transform, weight=1.0))
        other = prepare(Check(type="contains", value="no", metric="m"))
        result = grade([one, other], Subject(output="no json"))
        assert [check.passed for check in result.checks] == [False, True]
        assert "the transform" in result.checks[0].reason
        assert (result.passed, result.score) == (False, 0.5)
        whole = grade([other], Subject(output="no json"), transform=transform)
        assert (whole.passed, whole.score, whole.checks[0].passed) == (False, 0, False)
    empty = grade([], Subject(output="no json"), transform=transform)
    assert (empty.passed, empty.score) == (False, 0)


def test_transform_that_wants_what_is_not_here_is_not_supported():
    assert "fetch" in prepare(Check(type="contains", value="x", transform="fetch(output)")).unsupported
    result = grade([], Subject(output=""), transform="eval('fet' + 'ch')(output)")
    assert result.error == "transform: the transform needs `fetch`"
    with pytest.raises(ValueError, match="cannot be used"):
        prepare(Check(type="contains", value="x", transform="output +"))
