"""The report on half a page of Markdown, and where it goes besides the release directory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.gate import Gate, decide
from slipway.markdown import cell, code, plain
from slipway.report import FitLine, ReportData, render_summary
from slipway.results import Arm, CaseResult, CheckResult
from slipway.services.step_summary import MAX_BYTES, append_step_summary


def result(case, arm, passed, *, output="", tags=(), score=None):
    return CaseResult(
        case=case,
        arm=Arm(arm),
        output=output or f"{arm} on {case}",
        passed=passed,
        score=float(passed) if score is None and passed is not None else score,
        tags=tags,
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
        lines.append(result(case, "candidate", index >= 2, tags=tags))
        lines.append(result(case, "champion", index < 95, tags=tags))
        lines.append(result(case, "base", index >= 90, tags=tags))
    return lines


def plain_text(data, **more):
    """Without the spaces that do not break."""
    return render_summary(data, **more).replace("\xa0", " ").replace("\u202f", " ")


def test_summary_has_verdict_reasons_rates_regressions_and_links():
    results = release_results()
    verdict = decide(
        results, Gate.model_validate({"require": [{"metric": "pass_rate", "at_least": 0.9}]}, strict=False)
    )
    data = ReportData(
        name="support",
        release_id="support-4",
        outcome="promoted",
        reasons=verdict.reasons,
        target="sandbox",
        adapter_uri="file:///adapters/good",
        digest="sha256:0123456789abcdef",
        adapter_id="support/4",
        champion_before="support/3",
        champion_after="support/4",
        fit=FitLine(digest="n", derived_from="o", changes=("a", "b"), proof="p"),
        verdict=verdict,
        results=results,
        run_url="http://127.0.0.1:4200/runs/1",
    )
    lines = plain_text(data, report="file:///home/ana/report.html").splitlines()
    assert lines[0] == "# ✓ support-4: promoted"
    assert "- pass_rate 0.98 (95 % interval 0.93 to 1.00, 100 cases) is at least 0.90." in lines
    assert "Applications now get support/4 on sandbox (before: support/3)." in lines
    rates = next(line for line in lines if line.startswith("| **all cases**"))
    assert "98.0 % (93.0 % to 99.8 %) of 100" in rates
    assert any(line.startswith("| refund | 95.0 %") for line in lines)
    assert any(line.startswith("Against the champion: 5 gained, 2 lost; pass_rate +0.030 (") for line in lines)
    assert "## Regressions: 2" in lines
    assert any("✗ candidate on case-000 | ✓ champion on case-000" in line for line in lines)
    assert "`0123456789ab`, served as `support/4`, rewritten for the server (2 changes, same function)." in lines[-4]
    assert lines[-2] == "- Every case, plot and digest: `file:///home/ana/report.html` (open it in a browser)."
    assert lines[-1] == "- Flow run: <http://127.0.0.1:4200/runs/1>"


def test_summary_is_short_whatever_happened():
    lines = [
        result(f"{index:03d}", arm, arm == "champion", tags=(f"tag-{index}",), output="x" * 10_000)
        for index in range(200)
        for arm in ("candidate", "champion")
    ]
    data = ReportData(name="a", release_id="r", outcome="held", reasons=tuple("abcdefgh"), results=lines)
    text = render_summary(data)
    assert len(text.splitlines()) < 50
    assert len(text) < 6_000
    assert "and 5 more in the report" in text
    assert "## Regressions: 200, the first 5" in text
    assert "188 more tags are in the report." in text


def test_summary_of_a_release_that_got_nowhere_has_no_table():
    data = ReportData(name="support", release_id="r", outcome="refused", reasons=("It has a NaN.",), target="t")
    text = render_summary(data)
    assert "It has a NaN." in text
    assert "There is no champion of support on t" in text
    assert "|" not in text


def test_missing_and_not_asked_are_said():
    lines = [result("a", "candidate", None), result("b", "candidate", True), result("a", "base", None)]
    lines.append(CaseResult(case="c", arm=Arm.CANDIDATE, error="not asked: settled.", not_asked=True))
    text = plain_text(ReportData(name="a", release_id="r", outcome="inconclusive", results=lines))
    assert "of 1, 1 missing" in text
    assert "1 of 3 cases were not asked: settled." in text


def test_an_address_that_is_none_is_not_linked():
    data = ReportData(name="a", release_id="r", outcome="held", run_url="javascript:alert(1)")
    assert "javascript" not in render_summary(data)


HOSTILE = (
    "</td><script>alert(1)</script>|\n# Promoted\n[x](http://evil) ![](http://evil/p.png) `a` **b** &lt; \u202e _c_"
)


@pytest.mark.parametrize("where", ["output", "case", "reason"])
def test_hostile_text_cannot_write_the_summary(where):
    """A model's output must not be able to add a heading, a column, a picture or a script."""
    lines = release_results()
    lines[0] = lines[0].but(
        **{
            "output": {"output": HOSTILE},
            "case": {"case": HOSTILE},
            "reason": {"checks": (CheckResult(type="equals", passed=False, score=0, reason=HOSTILE),)},
        }[where]
    )
    if where == "case":
        lines[1:3] = [line.but(case=HOSTILE) for line in lines[1:3]]
    text = render_summary(ReportData(name="a", release_id="r", outcome="held", results=lines))
    assert "alert" in text
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


def test_summary_is_appended_to_the_steps_file(tmp_path):
    path = tmp_path / "summary"
    assert append_step_summary("# one\n", {"GITHUB_STEP_SUMMARY": str(path)})
    assert append_step_summary("# two", {"GITHUB_STEP_SUMMARY": str(path)})
    assert path.read_text() == "# one\n\n# two\n\n"


def test_without_a_step_nothing_is_written():
    assert not append_step_summary("# one", {})
    assert not append_step_summary("# one", {"GITHUB_STEP_SUMMARY": " "})


def test_a_summary_that_cannot_be_written_fails_nothing(tmp_path, caplog):
    assert not append_step_summary("# one", {"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "such" / "place")})
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(("room", "is_written"), [(7, True), (6, False)])
def test_a_summary_that_would_be_dropped_whole_is_left_out(tmp_path, room, is_written):
    """Five characters and two line ends have to fit."""
    path = tmp_path / "summary"
    path.write_bytes(b"x" * (MAX_BYTES - room))
    assert append_step_summary("# one", {"GITHUB_STEP_SUMMARY": str(path)}) is is_written
