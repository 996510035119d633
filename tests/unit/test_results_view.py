"""What `slipway grade` and `slipway evaluate` print of results, and how they exit."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from slipway.cli.results_view import print_results, results_document, results_exit_code
from slipway.results import Arm, CaseResult, CheckResult
from slipway.suite import UnsupportedAssertion

APPLIED = CheckResult(type="contains", passed=True, score=1)
FAILED = CheckResult(type="contains", passed=False, score=0, reason="Expected [bold]more[/].")
LACKING = CheckResult(type="llm-rubric", passed=None, score=0, reason="no judge")


def case(*checks, passed=True, arm=Arm.CANDIDATE, **keys):
    score = None if passed is None else float(passed)
    return CaseResult(case="a", arm=arm, passed=passed, score=score, checks=checks, **keys)


def printed(results, unsupported=()):
    console = Console(file=io.StringIO(), width=300, highlight=False)
    print_results(console, results, unsupported)
    return console.file.getvalue()


def test_coverage_is_told_with_what_was_not_applied_and_where():
    results = [case(APPLIED, LACKING), case(APPLIED, APPLIED)]
    places = [
        UnsupportedAssertion(where=f"suite.yaml:{line}", type="llm-rubric", reason="no judge", cases=1)
        for line in (12, 20, 30, 40)
    ]
    text = printed(results, places)
    assert "candidate  2/2 passed (100.0%)" in text
    shown = "llm-rubric 1 (suite.yaml:12, suite.yaml:20, suite.yaml:30, ...)"
    assert f"coverage 75.0% of 4 checks; not applied: {shown}" in text
    assert text.count("no judge") == 1


def test_full_coverage_is_not_worth_a_line():
    assert "coverage" not in printed([case(APPLIED)])


def test_what_nobody_asked_for_is_not_missing():
    results = [case(APPLIED), case(passed=None, error="not asked: it is certain", not_asked=True)]
    assert "candidate  1/1 passed (100.0%, 1 not asked)" in printed(results)
    assert "missing" not in printed(results)
    assert results_exit_code(results) == 0
    both = printed([*results, case(passed=None, error="gone")])
    assert "(100.0%, 1 missing, 1 not asked)" in both
    assert "missing of candidate: a: gone" in both


def test_failure_shows_the_reason_of_what_failed_and_not_of_what_was_not_applied():
    text = printed([case(LACKING, FAILED, passed=False)])
    assert "a: Expected [bold]more[/]." in text


def test_document_counts_by_arm():
    results = [case(APPLIED, LACKING), case(passed=None, error="gone"), case(FAILED, passed=False, arm=Arm.BASE)]
    document = results_document(results, [UnsupportedAssertion(where="s:1", type="t", reason="r", cases=2)], ["so"])
    assert document["notes"] == ["so"]
    assert document["arms"] == {
        "candidate": {"cases": 2, "answered": 1, "not_asked": 0, "passed": 1, "pass_rate": 1.0},
        "base": {"cases": 1, "answered": 1, "not_asked": 0, "passed": 0, "pass_rate": 0.0},
    }
    assert (document["coverage"], document["checks"]) == (pytest.approx(2 / 3), 3)
    assert document["unsupported"] == [{"type": "t", "where": "s:1", "reason": "r", "cases": 2}]
    assert len(document["results"]) == 3


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([case(APPLIED)], 0),
        ([case(APPLIED), case(FAILED, passed=False)], 1),
        ([case(APPLIED, LACKING)], 3),
        ([case(APPLIED, LACKING), case(FAILED, passed=False)], 1),
        ([case(APPLIED), case(passed=None, error="gone")], 3),
        ([case(APPLIED), case(FAILED, passed=False, arm=Arm.BASE)], 0),
        ([], 3),
    ],
)
def test_unsupported_checks_never_count_as_passed(results, code):
    assert results_exit_code(results) == code
