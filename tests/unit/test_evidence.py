"""Results sorted by arm and case: what counts as answered, and whose tags and groups count."""

from __future__ import annotations

import pytest

from slipway.evidence import Gap, align, instrument_fault
from slipway.gate_file import Metric
from slipway.results import Arm, CaseResult


def line(case, arm="candidate", **keys):
    return CaseResult(case=case, arm=Arm(arm), **{"passed": True, "score": 1.0, **keys})


def not_asked(case, arm="candidate", **keys):
    return line(case, arm, **{"passed": None, "score": None, "error": "not asked: settled", "not_asked": True, **keys})


def test_the_first_cases_end_where_any_arm_was_not_asked():
    whole = [line("b"), line("b", "base"), line("a"), line("a", "base"), line("c"), line("c", "base")]
    assert align(whole).asked_first() == ("b", "a", "c")
    for arm, other in (("candidate", "base"), ("base", "candidate")):
        evidence = align([line("b"), line("b", "base"), not_asked("a", arm), line("a", other), line("c")])
        assert evidence.asked_first() == ("b",)


def test_tags_of_all_arms_count():
    """An arm whose answers were recorded before a case got its tag must not take it away."""
    found = align([line("a", tags=("x", "y")), line("a", "base", tags=("x",)), line("a", "champion", tags=("z",))])
    assert found.tags["a"] == {"x", "y", "z"}
    assert found.tagged("y") == found.tagged("z") == ("a",)


@pytest.mark.parametrize(("groups", "is_clustered"), [("gh", False), ("gg", True), ((None, None), False)])
def test_groups_of_one_case_do_not_cluster(groups, is_clustered):
    evidence = align([line(case, group=group) for case, group in zip("ab", groups, strict=True)])
    assert evidence.is_clustered is is_clustered


def test_a_score_without_a_pass_is_missing_for_the_pass_rate_only():
    evidence = align([line("a", passed=None, score=0.5)])
    assert evidence.reading(Arm.CANDIDATE, "a", Metric.PASS_RATE) is Gap.MISSING
    assert evidence.reading(Arm.CANDIDATE, "a", Metric.SCORE) == 0.5
    assert evidence.missing(Arm.CANDIDATE) == ()


def test_what_was_not_asked_measures_nothing_whatever_else_the_line_says():
    bare = not_asked("a", error=None, passed=True, score=1.0)
    assert instrument_fault(bare) == "not asked"
    evidence = align([bare])
    assert evidence.reading(Arm.CANDIDATE, "a", Metric.PASS_RATE) is Gap.NOT_ASKED
    assert (evidence.missing(Arm.CANDIDATE), evidence.not_asked(Arm.CANDIDATE)) == ((), ("a",))


def test_a_metric_that_no_line_has_concerns_no_case():
    """Not even those that nobody answered, which might have had it."""
    evidence = align([line("a", metrics={"tone": 1.0}), line("b"), line("c", error="503", passed=None, score=None)])
    assert evidence.concerned("metrics.tone") == ("a", "c")
    assert evidence.concerned("metrics.length") == ()
