"""Recorded results as JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from slipway.junit import junit_xml
from slipway.results import Arm, CaseResult, CheckResult


def passed(case="a", arm=Arm.CANDIDATE, **more):
    return CaseResult(case=case, arm=arm, passed=True, score=1.0, latency_ms=1500.0, **more)


def failed(*reasons, case="b", output="what it said"):
    checks = tuple(CheckResult(type="equals", passed=False, score=0.0, reason=reason) for reason in reasons)
    checks += (CheckResult(type="contains", passed=True, score=1.0, reason="fine"),)
    return CaseResult(
        case=case, arm=Arm.CANDIDATE, passed=False, score=0.5, checks=checks, output=output, latency_ms=250.0
    )


def missing(case="c"):
    return CaseResult(case=case, arm=Arm.CANDIDATE, error="429: too fast")


def parsed(*results, title="suite"):
    return ET.fromstring(junit_xml(title, results).encode())


def test_counts_and_times_are_those_of_the_arm():
    root = parsed(passed(), failed("no"), missing(), passed(arm=Arm.BASE))
    suites = root.findall("testsuite")
    assert [suite.attrib["name"] for suite in suites] == ["suite (candidate)", "suite (base)"]
    counts = {name: suites[0].attrib[name] for name in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1", "time": "1.750"}
    assert [case.attrib["time"] for case in suites[0]] == ["1.500", "0.250", "0.000"]


def test_a_failure_names_the_reasons_of_failed_checks_and_shows_the_output():
    failure = parsed(failed("expected x", "expected y")).find(".//failure")
    assert failure.attrib["message"] == "expected x; expected y"
    assert failure.text == "what it said"


def test_a_case_below_its_threshold_says_so():
    """Each check may pass its own bar while the weighted score does not reach the case's."""
    assert parsed(failed()).find(".//failure").attrib["message"] == "below the case's threshold"


def test_a_missing_answer_is_skipped_and_not_failed():
    case = parsed(missing()).find(".//testcase")
    assert [child.tag for child in case] == ["skipped"]
    assert case.find("skipped").attrib["message"] == "429: too fast"


def test_no_results_are_an_empty_document():
    assert list(parsed()) == []


@given(st.text(alphabet=st.characters(), max_size=30))
def test_any_text_gives_a_document_that_parsers_accept(text):
    """Models also say control characters, and halves of characters that were cut in two."""
    root = parsed(failed(text, case=text, output=text), title=text)
    kept = "".join(letter for letter in text if letter.isprintable() and ord(letter) < 0xFFFE)
    assert set(kept) <= set(root.find(".//failure").text or "")


def test_halves_of_a_character_are_left_out():
    assert parsed(failed(output="a\ud83db\x00c\x1b[1m")).find(".//failure").text == "abc[1m"


def test_checks_that_were_not_applied_are_named_and_are_no_failure():
    gap = CheckResult(type="python", passed=None, score=0.0, reason="programs are not run")
    whole = passed().but(checks=(gap,))
    partial = failed("no").but(checks=(*failed("no").checks, gap))
    fine, broken = parsed(whole, partial).findall(".//testcase")
    assert [child.tag for child in fine] == ["system-out"]
    assert fine.find("system-out").text == "not applied: python: programs are not run"
    assert broken.find("failure").attrib["message"] == "no"


def test_cases_that_were_not_asked_are_skipped():
    line = CaseResult(case="d", arm=Arm.CANDIDATE, error="not asked: the verdict is certain", not_asked=True)
    assert parsed(line).find(".//skipped").attrib["message"].startswith("not asked")
