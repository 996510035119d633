"""How checks, sets of them and unsupported ones make a grade."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from slipway.checks import (
    Check,
    InapplicableCheckError,
    Subject,
    grade,
    grade_judged,
    is_judged,
    known_types,
    prepare,
    supported_types,
)
from slipway.checks.registry import assess
from slipway.coverage import measure_coverage
from slipway.errors import ServiceTimeoutError
from slipway.judge_settings import JudgeSettings
from slipway.results import Arm, CaseResult

GOOD = Check(type="contains", value="x")
BAD = Check(type="contains", value="y")
FOREIGN = Check(type="python", value="...", where="suite.yaml:7")
SUBJECT = Subject(output="x")


def weighed(check, weight, **keys):
    return replace(check, weight=weight, **keys)


def graded(*checks, **keys):
    return grade([prepare(check) for check in checks], SUBJECT, **keys)


def script(scores, **keys):
    source = f"({{pass: true, score: 0.5, reason: 'r', namedScores: {scores}}})"
    return Check(type="javascript", value=source, **keys)


def a_set(*checks, **keys):
    return Check(type="assert-set", checks=checks, **keys)


@pytest.mark.parametrize(
    ("checks", "keys", "passed", "score"),
    [
        ((a_set(GOOD, GOOD),), {}, True, 1),
        ((a_set(GOOD, BAD),), {}, False, 0.5),
        ((a_set(GOOD, BAD, threshold=0.5),), {}, True, 0.5),
        ((a_set(GOOD, BAD, threshold=0.51),), {}, False, 0.5),
        ((a_set(GOOD, BAD, threshold=0),), {}, False, 0.5),
        ((a_set(weighed(GOOD, 3), BAD, threshold=0.75),), {}, True, 0.75),
        ((a_set(GOOD, weighed(BAD, 0)),), {}, True, 1),
        ((a_set(weighed(GOOD, 0)),), {}, True, 0),
        ((a_set(GOOD, BAD, weight=3), GOOD), {"threshold": 0.625}, True, 0.625),
        ((a_set(GOOD, BAD, weight=0), GOOD), {}, True, 1),
    ],
)
def test_set_is_one_check_that_weighs_its_own(checks, keys, passed, score):
    result = graded(*checks, **keys)
    assert (result.passed, result.score) == (passed, pytest.approx(score))


def test_members_of_a_set_are_recorded_beside_it_without_weight():
    result = graded(a_set(weighed(GOOD, 2, metric="m"), weighed(BAD, 1, metric="m"), metric="s", weight=4.0))
    assert [(check.type, check.passed, check.weight) for check in result.checks] == [
        ("assert-set", False, 4),
        ("contains", True, 0),
        ("contains", False, 0),
    ]
    assert result.metrics == {"m": pytest.approx(2 / 3), "s": pytest.approx(2 / 3)}
    assert result.checks[0].reason == "Expected the output to contain 'y'."


@pytest.mark.parametrize(
    ("checks", "metrics"),
    [
        ((a_set(weighed(GOOD, 2, metric="m"), weight=3), weighed(BAD, 1, metric="m")), {"m": 6 / 7}),
        ((a_set(weighed(GOOD, 1, metric="m"), weight=0),), {"m": 0}),
        ((a_set(weighed(GOOD, 1, metric="m"), BAD, metric="m"),), {"m": 0.5}),
        ((a_set(script("{m: 0.25}", weight=2), weight=3), weighed(BAD, 1, metric="m")), {"m": 0.25 * 6 / 7}),
        ((script("{m: 0.25, n: 1}", metric="m"),), {"m": 0.5, "n": 1}),
        ((script("{m: 0.25}", weight=3), weighed(BAD, 1, metric="m")), {"m": 0.25 * 3 / 4}),
    ],
)
def test_metrics_inside_a_set_or_script_count_with_its_weight_and_give_way_to_its_own(checks, metrics):
    """Measured on promptfoo 0.121.9."""
    assert graded(*checks).metrics == pytest.approx(metrics)


def test_set_below_its_threshold_says_so():
    assert graded(a_set(GOOD, BAD, threshold=0.8)).checks[0].reason == "The set scores 0.5000; it needs 0.8."


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (a_set(), "at least one assertion"),
        (a_set(a_set(GOOD)), "cannot hold another"),
        (Check(type="not-assert-set", checks=(GOOD,)), "cannot be negated"),
        (a_set(Check(type="contains")), "needs a value"),
        (a_set(Check(type="contain", value="x")), "'contain' is not known"),
    ],
)
def test_set_that_cannot_be_meant_is_refused(check, says):
    with pytest.raises(ValueError, match=r"\w") as caught:
        prepare(check)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "python", "ruby", "webhook", "moderation", "classifier", "pi", "guardrails", "select-best",
        "max-score", "trajectory:tool-used", "trajectory:something-new", "promptfoo:redteam:pii", "human", "skill-used",
        "search-rubric", "is-valid-function-call",
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "not-"])
def test_type_that_is_never_applied_is_known_with_a_reason(name, prefix):
    prepared = prepare(Check(type=prefix + name, value="x"))
    assert len(prepared.unsupported) > 20
    assert not is_judged(prepared)


def test_every_unsupported_type_is_apart_from_the_supported_ones():
    assert set(supported_types()) < set(known_types())
    assert len(known_types()) == len(set(known_types()))


@pytest.mark.parametrize("kind", ["llm-rubric", "factuality", "g-eval"])
def test_judged_type_without_a_judge_is_not_supported(kind):
    lacking = prepare(Check(type=kind, value="is kind"))
    assert "judge" in lacking.unsupported
    assert not is_judged(lacking)
    ready = prepare(Check(type=kind, value="is kind"), judge=JudgeSettings(model="m"))
    assert (ready.unsupported, is_judged(ready)) == ("", True)
    with pytest.raises(InapplicableCheckError, match="none was given"):
        assess(ready, SUBJECT)


def test_reason_given_beforehand_is_kept_and_the_type_still_verified():
    assert prepare(Check(type="contains", unsupported="because")).unsupported == "because"
    with pytest.raises(ValueError, match="not known"):
        prepare(Check(type="contain", unsupported="because"))


def test_unsupported_check_neither_passes_nor_fails():
    result = graded(GOOD, FOREIGN)
    assert (result.passed, result.score, result.error) == (True, 1, None)
    assert (result.checks[1].passed, result.checks[1].score) == (None, 0)
    assert "Python" in result.checks[1].reason
    assert (graded(BAD, FOREIGN).passed, graded(BAD, FOREIGN).score) == (False, 0)


@pytest.mark.parametrize(
    "checks",
    [(FOREIGN,), (FOREIGN, weighed(GOOD, 0)), (a_set(FOREIGN),), (a_set(FOREIGN, weighed(GOOD, 0)),)],
)
def test_case_of_which_nothing_that_counts_could_be_applied_is_missing(checks):
    result = graded(*checks)
    assert (result.passed, result.score) == (None, None)
    assert result.error.startswith("unsupported: ")
    assert result.checks, "they are recorded, so that the coverage knows of them"


def test_set_is_graded_on_what_could_be_applied():
    result = graded(a_set(GOOD, FOREIGN), weighed(FOREIGN, 0))
    assert (result.passed, result.score) == (True, 1)


def test_coverage_counts_assertions_and_not_their_sets():
    verdict = graded(a_set(GOOD, FOREIGN), BAD, FOREIGN)
    result = CaseResult(case="a", arm=Arm.CANDIDATE, checks=verdict.checks)
    coverage = measure_coverage([result, CaseResult(case="b", arm=Arm.CANDIDATE, error="x")])
    assert (coverage.applied, coverage.total, coverage.not_applied) == (2, 4, {"python": 2})
    assert coverage.share == 0.5
    assert measure_coverage([]).share == 1


class FakeJudge(SimpleNamespace):
    """Says the same of everything, and counts."""

    settings = JudgeSettings(model="m")
    asked = 0

    async def complete(self, messages, *, json=False):
        self.asked += 1
        self.seen = messages[-1]["content"]
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def judged(judge, *checks, **keys):
    prepared = [prepare(check, judge=judge.settings) for check in checks]
    return asyncio.run(grade_judged(prepared, SUBJECT, judge, **keys))


RUBRIC = Check(type="llm-rubric", value="is kind")
YES = '{"pass": true, "score": 1, "reason": "kind"}'


def test_judge_is_asked_only_for_what_it_judges():
    judge = FakeJudge(reply=YES)
    result = judged(judge, GOOD, RUBRIC, a_set(RUBRIC, FOREIGN))
    assert (result.passed, judge.asked) == (True, 2)
    assert [check.passed for check in result.checks] == [True, True, True, True, None]


def test_judge_is_spared_what_is_missing_anyway():
    judge = FakeJudge(reply=YES)
    result = judged(judge, RUBRIC, Check(type="latency", threshold=1.0))
    assert (result.passed, judge.asked) == (None, 0)
    assert judged(judge, RUBRIC, transform="JSON.parse(output)").passed is False
    assert judge.asked == 0


def test_judge_that_does_not_answer_is_an_error():
    with pytest.raises(ServiceTimeoutError):
        judged(FakeJudge(reply=ServiceTimeoutError("slow", service="judge")), RUBRIC)


def test_judge_that_says_nothing_clear_makes_the_case_missing():
    result = judged(FakeJudge(reply="hm"), RUBRIC)
    assert result.passed is None
    assert result.error.startswith("llm-rubric: ")


def test_types_are_pinned():
    """A type that is lost by a forgotten import would be refused in every suite that uses it."""
    deterministic = set(supported_types()) - {name for name in supported_types() if _is_judged_type(name)}
    assert deterministic == {
        "assert-set", "bleu", "contains", "contains-all", "contains-any", "contains-html", "contains-json",
        "contains-sql", "contains-xml", "cost", "equals", "finish-reason", "gleu", "icontains", "icontains-all",
        "icontains-any", "is-html", "is-json", "is-refusal", "is-sql", "is-valid-openai-tools-call", "is-xml",
        "javascript", "latency", "levenshtein", "meteor", "perplexity", "perplexity-score", "regex", "rouge-n",
        "starts-with", "tool-call-f1", "word-count",
    }  # fmt: skip


def test_every_type_is_in_the_documentation(pytestconfig):
    text = (pytestconfig.rootpath / "docs" / "checks.md").read_text(encoding="utf-8")
    assert [name for name in supported_types() if not _is_judged_type(name) and f"`{name}`" not in text] == []


def _is_judged_type(name):
    try:
        return "judge" in prepare(Check(type=name, value="x", threshold=0.5)).unsupported
    except ValueError:
        return False


def test_a_metric_of_a_set_counts_only_the_members_that_were_applied():
    members = (weighed(GOOD, 1.0, metric="tone"), weighed(FOREIGN, 1.0, metric="tone"))
    assert graded(a_set(*members)).metrics == {"tone": 1.0}
    assert graded(a_set(*members, weighed(BAD, 1.0, metric="tone"))).metrics == {"tone": 0.5}


def test_a_set_is_judged_where_one_member_is():
    judge = JudgeSettings(model="m")
    assert is_judged(prepare(a_set(GOOD, RUBRIC), judge=judge))
    assert not is_judged(prepare(a_set(GOOD, BAD), judge=judge))


def test_the_judge_sees_what_the_checks_transform_made():
    judge = FakeJudge(reply=YES)
    result = judged(judge, replace(RUBRIC, transform="output + ' made'"))
    assert (result.passed, judge.asked) == (True, 1)
    assert "x made" in judge.seen
    failing = judged(judge, replace(RUBRIC, transform="JSON.parse(output)"))
    assert (failing.passed, failing.score, judge.asked) == (False, 0, 1)
