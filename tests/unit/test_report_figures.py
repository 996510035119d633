"""The numbers of the report, counted by hand."""

from __future__ import annotations

import pytest

from slipway.gate import Gate, decide
from slipway.report.data import ReportData
from slipway.report.figures import Figures
from slipway.results import Arm, CaseResult, CheckResult

CHECKED = (CheckResult(type="equals", passed=True, score=1.0),)
OUTCOMES = {  # 1 passed, 0 failed, ? not asked, - the instrument's fault
    "candidate": "11101101?-",
    "champion": "100110111?",
    "base": "00000000--",
}
TAGS = ("x",) * 4 + ("y",) * 2 + ("",) * 4


def lines(*arms):
    return [
        CaseResult(
            case=f"c{index}",
            arm=Arm(arm),
            output=f"{arm} {index}",
            passed=outcome == "1" if outcome in "01" else None,
            score=float(outcome) if outcome in "01" else None,
            tags=(TAGS[index],) if TAGS[index] else (),
            checks=CHECKED if outcome in "01" else (),
            latency_ms=10.0 * (index + 1) if outcome in "01" else None,
            cost_usd=0.5 * index if outcome in "01" and arm == "candidate" else None,
            error={"?": "not asked: settled", "-": "503"}.get(outcome),
            not_asked=outcome == "?",
        )
        for arm in arms
        for index, outcome in enumerate(OUTCOMES[arm])
    ]


def figures(*arms, **keys):
    results = lines(*(arms or OUTCOMES))
    return Figures.of(ReportData(name="s", release_id="", outcome="", reasons=(), results=results, **keys))


def test_each_tag_is_compared_with_the_reference_case_by_case():
    found = {pair.tag: (pair.gained, pair.lost, pair.difference.estimate) for pair in figures().tag_pairs}
    assert found == {"x": (2, 1, 0.25), "y": (1, 0, 0.5)}
    against_base = {pair.tag: (pair.gained, pair.lost) for pair in figures("candidate", "base").tag_pairs}
    assert against_base == {"x": (3, 0), "y": (2, 0)}
    assert figures("candidate").tag_pairs == figures("champion", "base").tag_pairs == ()


def test_the_reference_is_the_champion_or_else_the_base_and_never_without_a_candidate():
    assert figures().reference is Arm.CHAMPION
    assert figures("candidate", "base").reference is Arm.BASE
    assert figures("champion", "base").reference is None
    assert figures("candidate").reference is None
    assert (figures().regressed, figures().gained) == (("c3", "c6"), ("c1", "c2", "c5"))
    assert (figures("candidate").regressed, figures("champion", "base").gained) == ((), ())


def test_cases_without_an_answer_are_missing_or_were_not_asked():
    whole, x, _ = figures().rates
    assert [(rate.arm, rate.missing, rate.not_asked) for rate in whole.rates] == [
        (Arm.CANDIDATE, 1, 1),
        (Arm.CHAMPION, 0, 1),
        (Arm.BASE, 2, 0),
    ]
    assert [(rate.interval.estimate, rate.interval.n) for rate in whole.rates] == [
        (0.75, 8),
        (pytest.approx(6 / 9), 9),
        (0, 8),
    ]
    assert (x.tag, x.cases, [rate.interval.estimate for rate in x.rates]) == ("x", 4, [0.75, 0.5, 0.0])
    assert figures().not_asked == (2, "settled")
    assert figures().faults == ((Arm.BASE, "503", 2), (Arm.CANDIDATE, "503", 1))


def test_latencies_and_costs_are_of_the_answers_there_are():
    candidate, champion, _ = figures().latencies
    assert candidate.values == tuple(10.0 * number for number in range(1, 9))
    assert (candidate.mean, candidate.p50.estimate, champion.mean) == (45.0, 40.0, 50.0)
    (cost,) = figures().costs
    assert (cost.arm, cost.values, cost.mean) == (Arm.CANDIDATE, tuple(0.5 * number for number in range(8)), 1.75)


def test_what_the_suite_can_show_is_told_of_the_gate_and_its_attempt():
    gate = Gate.model_validate(
        {"min_cases": 1, "against": {"champion": {"metric": "pass_rate", "margin": 0.05}}}, strict=False
    )
    verdict = decide(lines(*OUTCOMES), gate, attempt=3)
    told = figures(gate=gate, verdict=verdict)
    assert (told.attempt, told.confidence) == (3, 1 - 0.05 / 4)
    assert any("champion" in note.sentence for note in told.design)
    assert told.design != figures(gate=gate).design, "a third attempt shows less"
    assert figures().design == ()
    assert figures().attempt == 1
