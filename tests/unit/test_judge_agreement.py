"""Agreement of the judge with the rules, against values worked out by hand and the degenerate cases."""

from __future__ import annotations

import pytest

from slipway.checks import registry
from slipway.judge_agreement import JUDGED_TYPES, judge_agreement
from slipway.results import Arm, CaseResult, CheckResult


def answer(*checks, error=None):
    """One answer with checks given as ``(type, passed)``."""
    results = tuple(CheckResult(type=kind, passed=passed, score=float(passed or 0)) for kind, passed in checks)
    return CaseResult(case="c", arm=Arm.CANDIDATE, passed=True, score=1.0, checks=results, error=error)


def table(both_pass, only_judge, only_rules, both_fail):
    return [
        answer(("llm-rubric", judged), ("contains", ruled))
        for count, judged, ruled in (
            (both_pass, True, True),
            (only_judge, True, False),
            (only_rules, False, True),
            (both_fail, False, False),
        )
        for _ in range(count)
    ]


def test_kappa_of_a_known_table():
    """Cohen's own arithmetic: observed 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so (0.7 - 0.5) / 0.5 = 0.4."""
    found = judge_agreement(table(20, 5, 10, 15))
    assert (found.n, found.both_pass, found.both_fail) == (50, 20, 15)
    assert (found.only_judge_passes, found.only_rules_pass) == (5, 10)
    assert found.raw == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert found.is_sufficient
    assert not found.remark


def test_just_below_the_floor_is_not_enough():
    """One more disagreement of a thousand: observed 699/1000, by chance 0.501 * 0.6 + 0.499 * 0.4 = 0.5002."""
    found = judge_agreement(table(400, 101, 200, 299))
    assert found.kappa == pytest.approx((0.699 - 0.5002) / (1 - 0.5002))
    assert not found.is_sufficient
    assert found.remark.startswith("Judged checks should decide nothing alone: the judge agrees")


def test_agreement_by_chance_is_no_agreement():
    found = judge_agreement(table(10, 10, 10, 10))
    assert found.kappa == pytest.approx(0)
    assert not found.is_sufficient


def test_perfect_agreement_on_few_answers_proves_little():
    """An estimated variance of 0 would give an interval of one point, from five answers."""
    found = judge_agreement(table(3, 0, 0, 2))
    assert (found.kappa, found.high) == (1.0, 1.0)
    assert found.low < 0.2


@pytest.mark.parametrize("counts", [(40, 3, 0, 0), (40, 0, 3, 0), (5, 0, 0, 0), (0, 0, 0, 5)])
def test_where_one_always_says_the_same_kappa_is_not_defined(counts):
    found = judge_agreement(table(*counts))
    assert found.kappa is found.low is found.high is None
    assert not found.is_sufficient
    assert "not defined" in str(found)


@pytest.mark.parametrize(
    "result",
    [
        answer(("llm-rubric", True)),
        answer(("contains", True)),
        answer(("llm-rubric", None), ("contains", True)),
        answer(("llm-rubric", True), ("latency", True), ("cost", True), ("similar", True), ("assert-set", True)),
        answer(("llm-rubric", True), ("contains", True), error="timeout"),
    ],
)
def test_answers_without_both_do_not_count(result):
    assert judge_agreement([result]) is None


def test_all_checks_of_a_side_speak_together():
    found = judge_agreement(
        [answer(("llm-rubric", True), ("not-g-eval", False), ("not-regex", False), ("equals", True))]
    )
    assert found.both_fail == 1


def test_it_knows_every_type_that_a_model_judges():
    """A type added without it would count as a rule."""
    chat = {name for name, found in registry._KINDS.items() if found.needs in {"chat", "both"}}
    assert chat == JUDGED_TYPES


def test_in_words():
    assert str(judge_agreement(table(20, 5, 10, 15))).startswith(
        "the judge agrees with the rules on 70% of 50 answers, kappa 0.40 ("
    )
