"""The release report."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.gate import Gate, decide
from slipway.markdown import cell, code, plain
from slipway.report import FindingLine, ProofLine, ReportData, render_report
from slipway.results import Arm, CaseResult, CheckResult


def result(case, arm, passed, *, output="", tags=(), latency_ms=10.0, score=None):
    return CaseResult(
        case=case,
        arm=Arm(arm),
        output=output or f"{arm} on {case}",
        passed=passed,
        score=float(passed) if score is None and passed is not None else score,
        tags=tags,
        latency_ms=latency_ms,
        error="503" if passed is None else None,
        checks=()
        if passed
        else (CheckResult(type="equals", passed=False, score=0, reason=f"Expected more of {case}."),),
    )


def release_results():
    """100 cases: the candidate loses 2 to the champion, gains 5, and the base passes 10."""
    lines = []
    for index in range(100):
        case, tags = f"case-{index:03d}", ("refund",) if index < 40 else ()
        lines.append(result(case, "candidate", index >= 2, tags=tags, latency_ms=10.0 + index))
        lines.append(result(case, "champion", index < 95, tags=tags, latency_ms=12.0 + index))
        lines.append(result(case, "base", index >= 90, tags=tags, latency_ms=9.0 + index))
    return lines


def full_report():
    results = release_results()
    gate = Gate.model_validate({"require": [{"metric": "pass_rate", "at_least": 0.9}]}, strict=False)
    verdict = decide(results, gate)
    return ReportData(
        name="support",
        release_id="r-1",
        outcome="promoted",
        reasons=verdict.reasons,
        target="sandbox",
        adapter_uri="file:///adapters/good",
        resolved_revision="sha256:ab",
        digest="sha256:ab",
        size_bytes=123456,
        base_model="tiny",
        adapter_id="support/4",
        champion_before="support/3",
        champion_after="support/4",
        deployment="tiny (attached)",
        findings=(FindingLine(severity="note", code="rank.padding", message="padded"),),
        proof=ProofLine(
            is_live=True, difference=1.2345, noise=1e-6, cold_ms=50.4, warm_ms=5.2, reference_difference=1e-5
        ),
        verdict=verdict,
        results=results,
        notes=("'providers' is ignored.",),
        seconds={"pull": 0.5, "evaluate": 2.25},
        references={"suite": "translate sha256:cd"},
        reproduce=("slipway release ./good --name support",),
        run_url="http://127.0.0.1:4200/runs/1",
    )


def test_report_shows_everything_a_release_has_found_out():
    text = render_report(full_report())
    lines = text.splitlines()
    assert lines[0] == "# r-1: promoted"
    assert "- pass_rate 0.98 (95 % interval 0.93 to 1.00, 100 cases) is at least 0.90." in lines
    assert "Applications get `support/4` on `sandbox`." in lines
    assert "| ✓ pass | pass_rate at_least 0.9 | 0.98 | 0.9296 to 0.9976 | 100 |" in lines
    rates = next(line for line in lines if line.startswith("| **all cases**"))
    assert "98.0% (93.0% to 99.8%) of 100" in rates
    assert "10.0% (4.9% to 17.6%) of 100" in rates
    assert any(line.startswith("| refund | 95.0%") for line in lines)
    assert "| champion | 93 | 5 | 2 | 0 | +0.030 (-0.065 to +0.121) |" in lines
    assert "## Regressions: 2" in lines
    assert "| case-000 | ✗ candidate on case-000 | ✓ champion on case-000 | ✗ base on case-000 |" in text
    assert "Expected more of case-000." in text
    assert "## Gains: 5, the first 3" in lines
    assert "| rank" not in text
    assert "`rank.padding`" in text
    assert "First request 50 ms" in text
    assert "| **total** | 2.75 |" in lines
    assert "    slipway release ./good --name support" in lines
    assert "123 456 bytes" in text
    assert "'providers' is ignored." in text


def test_report_of_a_release_that_got_nowhere_is_short():
    text = render_report(
        ReportData(name="support", release_id="r", outcome="refused", reasons=("It has a NaN.",), target="t")
    )
    assert "It has a NaN." in text
    assert "There is no champion of support on `t`." in text
    assert "## Gate" not in text
    assert "## Results" not in text
    assert "## Latency" not in text


def test_first_release_compares_with_the_base():
    lines = [line for line in release_results() if line.arm is not Arm.CHAMPION]
    text = render_report(ReportData(name="a", release_id="r", outcome="held", results=lines))
    assert "## Gains: 88" in text
    assert "| champion" not in text


def test_unchanged_champion_is_called_that():
    data = ReportData(name="a", release_id="r", outcome="held", target="t", champion_before="a/1", champion_after="a/1")
    assert "Applications get `a/1` (unchanged)" in render_report(data)


def test_missing_answers_and_few_graded_pairs_are_shown_as_such():
    lines = [result("a", "candidate", None), result("b", "candidate", True, score=0.5, latency_ms=None)]
    lines += [result("a", "champion", True), result("b", "champion", False, score=0.4), result("a", "base", None)]
    text = render_report(ReportData(name="a", release_id="r", outcome="inconclusive", results=lines))
    assert "of 1, 1 missing" in text
    assert "no answers, 2 missing" in text
    assert "too few pairs" in text
    assert "*(missing)*" not in text.split("## Gains")[0]


def test_graded_scores_are_compared_by_the_bootstrap():
    lines = []
    for index in range(20):
        lines.append(result(str(index), "candidate", True, score=0.5 + index / 100))
        lines.append(result(str(index), "base", True, score=0.4))
    assert "+0.195 (+0." in render_report(ReportData(name="a", release_id="r", outcome="held", results=lines))


def test_many_regressions_are_cut():
    lines = [result(f"{index:02d}", arm, arm == "champion") for index in range(15) for arm in ("candidate", "champion")]
    text = render_report(ReportData(name="a", release_id="r", outcome="held", results=lines))
    assert "... and 5 more." in text


def test_unproven_adapter_is_told():
    proof = ProofLine(is_live=False, difference=0, noise=0, cold_ms=1, warm_ms=1, reasons=("Same as the base.",))
    text = render_report(ReportData(name="a", release_id="r", outcome="held", proof=proof))
    assert "**Not proven**" in text
    assert "Same as the base." in text


def test_bounds_that_do_not_exist_are_question_marks():
    gate = Gate.model_validate({"min_cases": 1, "require": [{"metric": "latency_ms.p95", "at_most": 50}]}, strict=False)
    lines = [result(str(index), "candidate", True) for index in range(5)]
    text = render_report(
        ReportData(name="a", release_id="r", outcome="held", results=lines, verdict=decide(lines, gate))
    )
    assert "? to ?" in text
    assert "10.0 (? to ?)" in text
    assert str(math.inf) not in text


HOSTILE = (
    "</td><script>alert(1)</script>|\n# Promoted\n[x](http://evil) ![](http://evil/p.png) `a` **b** &lt; \u202e _c_"
)


@pytest.mark.parametrize("where", ["output", "case", "reason"])
def test_hostile_text_cannot_write_the_report(where):
    """A model's output must not be able to add a heading, a column, a picture or a script."""
    lines = release_results()
    lines[0] = lines[0].model_copy(
        update={
            "output": {"output": HOSTILE},
            "case": {"case": HOSTILE},
            "reason": {"checks": (CheckResult(type="equals", passed=False, score=0, reason=HOSTILE),)},
        }[where]
    )
    if where == "case":
        lines[1:3] = [line.model_copy(update={"case": HOSTILE}) for line in lines[1:3]]
    text = render_report(ReportData(name="a", release_id="r", outcome="held", results=lines))
    assert "<script" not in text.replace("\\<", "")
    assert "\n# Promoted" not in text
    assert "](http" not in text.replace("\\](", "")
    assert "\u202e" not in text


@given(st.text(max_size=60))
def test_escaped_text_stays_on_its_line_and_in_its_cell(text):
    for escaped in (plain(text), cell(text), code(text)):
        assert "\n" not in escaped
        assert "|" not in escaped.replace("\\|", "")
    assert "<" not in plain(text).replace("\\<", "")


def test_code_survives_backticks():
    assert code("a`b``c") == "```a`b``c```"
    assert code("`a`") == "`` `a` ``"
    assert code(" ") == ""
    assert cell(" ") == "*(empty)*"
    assert cell("x" * 300).endswith("x…")
