"""The report of a release as an HTML file: what it shows, and that no text in it comes to life."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.gate import Gate, decide
from slipway.report import CheckGap, FindingLine, FitLine, Note, ProofLine, ReportData, cases, masked, render_html
from slipway.report.figures import Figures
from slipway.results import Arm, CaseResult, CheckResult

SVG = "{http://www.w3.org/2000/svg}"

HOSTILE = (
    "</script><script>alert(1)</script></pre></style><img src=x onerror=alert(2)><!-- ]]> &lt;b&gt; {{7*7}} {% x %} "
    "javascript:alert(3) \u202etxet\u202c \u200bzero\u2060 \ud83d \x1b[31m \x00 \ufeff \U000e0041"
)


def result(case, arm, passed, *, output="", tags=(), latency_ms=10.0, score=None, **more):
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
        **more,
    )


def release_results():
    """100 cases: the candidate loses 2 to the champion, gains 5, and the base passes 10."""
    lines = []
    for index in range(100):
        case, tags = f"case-{index:03d}", ("refund",) if index < 40 else ()
        lines.append(result(case, "candidate", index >= 2, tags=tags, latency_ms=10.0 + index, cost_usd=2e-4))
        lines.append(result(case, "champion", index < 95, tags=tags, latency_ms=12.0 + index))
        lines.append(result(case, "base", index >= 90, tags=tags, latency_ms=9.0 + index))
    return lines


def full_data(**changes):
    results = release_results()
    gate = Gate.model_validate(
        {
            "require": [{"metric": "pass_rate", "at_least": 0.9}],
            "against": {"champion": {"metric": "pass_rate", "margin": 0.3}},
        },
        strict=False,
    )
    verdict = decide(results, gate)
    known = {
        "name": "support",
        "release_id": "support-4",
        "outcome": "promoted",
        "reasons": verdict.reasons,
        "actor": "ana",
        "started_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "target": "sandbox",
        "adapter_uri": "file:///adapters/good",
        "digest": "sha256:ab",
        "size_bytes": 123456,
        "base_model": "tiny",
        "adapter_id": "support/4",
        "champion_before": "support/3",
        "champion_after": "support/4",
        "fit": FitLine(digest="sha256:new", derived_from="sha256:old", changes=("ranks padded",), proof="3 agree"),
        "findings": (FindingLine(severity="error", code="scale.rslora", message="scaled", mended=True),),
        "proof": ProofLine(is_live=True, difference=1.2345, noise=1e-6, cold_ms=50.4, warm_ms=5.2),
        "verdict": verdict,
        "gate": gate,
        "results": results,
        "prompts": {f"case-{index:03d}": f"What is {index}?" for index in range(100)},
        "notes": ("'providers' is ignored.",),
        "remarks": (Note(title="Judge", text="agrees in 9 of 10"),),
        "server": {"profile": "lorax-0.12"},
        "generation": {"seed": "7"},
        "seconds": {"pull": 0.5, "evaluate": 2.25},
        "references": {"suite": "translate sha256:cd"},
        "reproduce": ("slipway release ./good --name support",),
        "run_url": "http://127.0.0.1:4200/runs/1",
    }
    return ReportData(**{**known, **changes})


def parsed(data):
    """The page as a tree; the parser refuses what the HTML standard calls an error."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(render_html(data))


def text_of(node):
    return " ".join(" ".join(node.itertext()).split())


def cases_of(tree):
    return json.loads(tree.find(".//script[@id='cases-data']").text)


def section(tree, name):
    return tree.find(f".//section[@id='{name}']")


@pytest.fixture(scope="module")
def page():
    return parsed(full_data())


def test_top_says_verdict_consequence_and_three_reasons():
    tree = parsed(full_data(reasons=("one thing.", "pass_rate 0.9 is low.", "Three.", "four.", "five.")))
    assert text_of(tree.find(".//h1")).endswith("Promoted")
    top = text_of(tree.find(".//header"))
    assert "Applications now get support/4 on sandbox (before: support/3)." in top
    assert [text_of(item) for item in tree.findall(".//ol/li")] == ["One thing.", "pass_rate 0.9 is low.", "Three."]
    assert "2 more reasons" in top
    assert "by ana" in top
    assert "2026-01-02 03:04 UTC" in top
    assert "100 cases \N{MULTIPLICATION SIGN} 3 arms" in top


@pytest.mark.parametrize(
    ("outcome", "before", "after", "words"),
    [
        ("held", "a/1", "a/1", "Applications still get a/1 on t."),
        ("held", "", "", "There is no champion of a on t"),
        ("promoted", "", "a/1", "Applications now get a/1 on t (the first champion there)."),
        ("unchanged", "a/1", "a/1", "Applications still get a/1 on t."),
        ("refused", "a/1", "a/1", "The adapter was not uploaded"),
        ("inconclusive", "a/1", "a/1", "neither a yes nor a no"),
    ],
)
def test_what_applications_get_is_said_for_every_outcome(outcome, before, after, words):
    data = ReportData(
        name="a", release_id="r", outcome=outcome, target="t", champion_before=before, champion_after=after
    )
    assert words in text_of(parsed(data).find(".//header"))


def test_sections_show_what_the_release_found_out(page):
    gate, rates, pairs = (text_of(section(page, name)) for name in ("gate", "rates", "pairs"))
    assert "✓ pass pass_rate at_least 0.9" in gate
    assert "at least 90.0 %" in gate
    assert "98.0 %" in rates
    assert "refund" in rates
    assert "pass_rate, 100 pairs" in pairs
    assert "+0.030" in pairs
    assert "p50" in text_of(section(page, "latency"))
    assert "200 µ$" in text_of(section(page, "cost"))
    evidence = text_of(section(page, "evidence"))
    assert "'providers' is ignored." in evidence
    assert "agrees in 9 of 10" in evidence
    assert "What a suite of this size can show" in evidence
    assert "pass_rate at_least 0.9: " in evidence
    release = text_of(section(page, "release"))
    for shown in ("sha256:ab", "123 456 bytes", "ranks padded", "scale.rslora", "mended by fit", "lorax-0.12", "2.75"):
        assert shown in release.replace("\u202f", " ")
    assert "slipway release ./good --name support" in text_of(section(page, "reproduce"))


def test_limits_and_intervals_are_drawn_where_the_numbers_say(page):
    """The margin of 0.3 lies at -0.3 on the axis of the differences, left of the whole interval."""
    row = section(page, "pairs").find(".//table/tbody/tr")

    def at(kind):
        return [float(line.attrib["x1"].rstrip("%")) for line in row.iter(f"{SVG}line") if line.attrib["class"] == kind]

    (limit,), (zero,) = at("limit"), at("zero")
    left, *_ = at("whisker candidate")
    assert 0 < limit < left < zero < 100


def test_a_release_that_got_nowhere_has_no_empty_sections():
    tree = parsed(ReportData(name="a", release_id="r", outcome="refused", reasons=("It has a NaN.",), target="t"))
    assert "It has a NaN." in text_of(tree)
    for absent in ("gate", "rates", "pairs", "latency", "cost", "evidence", "cases", "reproduce"):
        assert section(tree, absent) is None
    linked = {link.attrib["href"] for link in tree.findall(".//nav//a")}
    assert linked == {"#release"}


def test_recorded_results_without_gate_or_release_are_reported():
    tree = parsed(ReportData(name="results.jsonl", release_id="", outcome="", results=release_results()))
    assert text_of(tree.find(".//h1")).endswith("Results")
    assert "no gate has judged them" in text_of(tree)
    assert section(tree, "gate") is None
    assert len(cases_of(tree)["cases"]) == 100


def test_every_link_leads_to_a_section_of_the_page(page):
    ids = {node.attrib["id"] for node in page.iter() if "id" in node.attrib}
    assert {link.attrib["href"][1:] for link in page.iter("a")} <= ids


def test_tables_and_headings_are_accessible(page):
    assert all(cell.attrib.get("scope") for cell in page.iter("th"))
    assert len(page.findall(".//h1")) == 1
    levels = [int(node.tag[1]) for node in page.iter() if node.tag in {"h1", "h2", "h3", "h4"}]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    plots = [drawn for drawn in page.iter(f"{SVG}svg") if "class" in drawn.attrib]
    assert len(plots) > 10
    assert all("aria-label" in drawn.attrib or drawn.attrib.get("aria-hidden") == "true" for drawn in plots)


def test_cases_carry_outputs_marks_checks_and_prompt(page):
    packed = cases_of(page)
    assert packed["reference"] == "champion"
    name, tags, change, prompt, answers = packed["cases"][0]
    assert (name, [packed["tags"][tag] for tag in tags], change) == ("case-000", ["refund"], 1)
    assert [packed["texts"][at] for at in prompt] == ["", "What is 0?"]
    arm, state, output, marks, error, checks, numbers = answers[0]
    assert (packed["arms"][arm], state, packed["texts"][output]) == ("candidate", 0, "candidate on case-000")
    assert marks == [0, len("candidate")]
    assert packed["texts"][error] == ""
    kind, passed, score, reason, _, weight = packed["checks"][checks[0]]
    assert (packed["texts"][kind], passed, score, weight) == ("equals", 0, 0, 1)
    assert packed["texts"][reason] == "Expected more of case-000."
    assert numbers[:5] == [0, 10, None, None, 0.0002]


def test_first_regressions_are_there_without_script(page):
    articles = page.findall(".//article")
    assert [text_of(article.find("h3")) for article in articles] == ["case-000", "case-001"]
    assert "▼ regression" in text_of(articles[0])
    assert "Expected more of case-000." in text_of(articles[0])
    assert text_of(articles[0].find(".//mark")) == "candidate"


def test_missing_and_not_asked_answers_are_told_apart():
    lines = [result("a", "candidate", None), result("b", "candidate", True)]
    lines.append(CaseResult(case="c", arm=Arm.CANDIDATE, error="not asked: the verdict is certain.", not_asked=True))
    tree = parsed(ReportData(name="a", release_id="r", outcome="held", results=lines))
    evidence = text_of(section(tree, "evidence"))
    assert "1 of 3 cases were not asked: the verdict is certain." in evidence
    assert "1 of the candidate: 503" in evidence
    assert "1 missing" in text_of(section(tree, "rates"))
    assert [case[4][0][1] for case in cases_of(tree)["cases"]] == [2, 1, 3]


def test_unsupported_checks_lower_the_coverage_and_are_listed():
    unsupported = CheckResult(type="python", passed=None, score=0, reason="programs are not run")
    lines = [
        result(str(index), "candidate", True).but(
            checks=(CheckResult(type="equals", passed=True, score=1), unsupported)
        )
        for index in range(4)
    ]
    evidence = text_of(section(parsed(ReportData(name="a", release_id="r", outcome="held", results=lines)), "evidence"))
    assert "4 of 8 checks of the candidate's answers were applied (50.0 %)." in evidence.replace("\xa0", " ")
    assert "python \N{EN DASH} programs are not run 4" in evidence
    gap = CheckGap(where="suite.yaml:12", type="webhook", reason="no network", cases=3)
    data = ReportData(name="a", release_id="r", outcome="held", results=lines, gaps=(gap,))
    assert "webhook suite.yaml:12 no network 3" in text_of(section(parsed(data), "evidence"))


def test_regressions_of_the_verdict_are_shown_with_adjusted_p():
    lines = [
        result(f"{index:02d}", arm, arm == "champion" or index >= 20, tags=("low",) if index < 30 else ())
        for index in range(60)
        for arm in ("candidate", "champion")
    ]
    verdict = decide(lines, Gate.model_validate({"require": [{"metric": "pass_rate", "at_least": 0.5}]}, strict=False))
    shown = text_of(
        section(parsed(ReportData(name="a", release_id="r", outcome="held", results=lines, verdict=verdict)), "pairs")
    )
    assert "Where the candidate is worse" in shown
    assert "✗ beyond chance" in shown


def test_page_asks_for_nothing_and_allows_only_its_own_style_and_script():
    text = render_html(full_data())
    tree = html5lib.parse(text, namespaceHTMLElements=False)
    policy = tree.find(".//meta[@http-equiv='Content-Security-Policy']").attrib["content"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for node in tree.iter():
        assert not {"src", "srcset", "style", "action"} & set(node.attrib), node.tag
        assert not any(name.startswith("on") for name in node.attrib), node.tag
        assert node.tag not in {"link", "img", "iframe", "object", "embed", "base"}
        if node.tag == "a":
            assert node.attrib["href"].startswith("#")
    style = tree.find(".//style").text
    assert "url(" not in style
    assert "@import" not in style


WHERE = ["output", "case", "reason", "error", "tag", "prompt", "rule", "finding", "command", "note", "name"]


@pytest.mark.parametrize("where", WHERE)
def test_hostile_text_stays_text(where):
    """A model's output, or anything else that we did not write, adds no element and no attribute anywhere."""
    lines = release_results()[:30]
    first = lines[0]
    data = full_data(results=lines)
    changed = {
        "output": {"results": [first.but(output=HOSTILE), *lines[1:]]},
        "case": {"results": [line.but(case=HOSTILE) if line.case == first.case else line for line in lines]},
        "reason": {"reasons": (HOSTILE,)},
        "error": {"results": [first.but(error=HOSTILE), *lines[1:]]},
        "tag": {"results": [first.but(tags=(HOSTILE,)), *lines[1:]]},
        "prompt": {"prompts": {first.case: ({"role": HOSTILE, "content": HOSTILE},)}},
        "rule": {"remarks": (Note(title=HOSTILE, text=HOSTILE),)},
        "finding": {"findings": (FindingLine(severity="error", code=HOSTILE, message=HOSTILE),)},
        "command": {"reproduce": (HOSTILE,)},
        "note": {"notes": (HOSTILE,), "references": {HOSTILE: HOSTILE}},
        "name": {"release_id": HOSTILE, "adapter_id": HOSTILE, "champion_after": HOSTILE},
    }[where]
    shown = ReportData(**{**data.__dict__, **changed})
    text = render_html(shown)
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    assert [node.attrib.get("type") for node in tree.iter("script")] == ["application/json", None]
    assert not list(tree.iter("img"))
    assert "alert(1)" in json.dumps(cases_of(tree)) + text_of(tree)
    for deceiving in "\u202e\u200b\u2060\x1b\x00\ufeff\U000e0041":
        assert deceiving not in text
    assert "[U+202E]" in text
    text.encode("utf-8")  # halves of characters are written out too


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_any_output_is_carried_as_it_can_be_seen(ours, theirs):
    lines = [result("a", "candidate", True, output=ours), result("a", "champion", False, output=theirs)]
    figures = Figures.of(ReportData(name="a", release_id="r", outcome="held", results=lines))
    text = cases.pack(figures, cases.build(figures))
    assert not set("<>&") & set(text)
    packed = json.loads(text)
    for (_, _, output, marks, *_), said in zip(packed["cases"][0][4], (ours, theirs), strict=True):
        carried = packed["texts"][output]
        if said.isascii() and said.isprintable():
            assert carried == said
        assert all(0 <= start < end <= len(carried) for start, end in zip(marks[::2], marks[1::2], strict=True))


def test_what_is_said_of_one_case_is_in_the_singular():
    lines = [result("a", arm, True, tags=("refund",)) for arm in Arm]
    rules = [{"metric": "pass_rate", "at_least": 0.8}, {"metric": "latency_ms.p95", "at_most": 800}]
    verdict = decide(lines, Gate.model_validate({"require": rules}, strict=False))
    page = text_of(parsed(ReportData(name="x", release_id="", outcome="hold", results=lines, verdict=verdict)))
    for text in (
        "1 case \N{MULTIPLICATION SIGN} 3 arms",
        "2.5 % to 100 % · 1 value",
        "interval unknown · 1 value",
        "pass_rate, 1 pair",
    ):
        assert text in page
    assert not re.search(r"\b1 (case|value|pair|arm|reason)s\b", page)


def test_the_last_section_is_called_the_same_where_it_is_linked():
    for release, name in (("support-4", "Release"), ("", "Source")):
        tree = parsed(ReportData(name="x", release_id=release, outcome="held", reproduce=("slipway report x",)))
        (link,) = [node for node in tree.iter("a") if node.get("href") == "#release"]
        assert text_of(link) == name
        assert text_of(section(tree, "release")).startswith(name)
        assert "Run it where the files that it names are." in text_of(section(tree, "reproduce"))


def test_long_outputs_are_cut_and_say_so():
    lines = [result("a", "candidate", True, output="word " * 20_000)]
    text = render_html(ReportData(name="a", release_id="r", outcome="held", results=lines))
    assert len(text) < 120_000
    assert "more characters]" in text


def test_size_of_a_usual_report():
    """120 cases of three arms with outputs of 300 characters."""
    lines = [
        result(f"case-{index}", arm, (index + at) % 7 > 0, output=f"{index} {arm} " + "some words to say " * 16)
        for index in range(120)
        for at, arm in enumerate(("candidate", "champion", "base"))
    ]
    assert len(render_html(full_data(results=lines)).encode()) < 400_000


def test_masks_reach_every_text_and_keep_the_page_whole():
    """A mask may swallow an escaped quote; so it is applied to texts and not to the page."""
    secret = "hf_abcdefghijklmnop?token=s3cret"
    lines = [line.but(output=f'say "{secret}"') for line in release_results()[:9]]
    data = full_data(
        results=lines,
        prompts={"case-000": ({"role": "user", "content": f'"{secret}" of Jo Private'},)},
        reasons=(secret,),
        server={"address": secret},
        fit=FitLine(digest="d", derived_from="e", changes=(secret,), proof=secret),
    )
    hidden = masked(
        data,
        secrets=lambda text: text.replace(secret, "***"),
        private=lambda text: text.replace("Jo Private", "***"),
    )
    text = render_html(hidden)
    assert "s3cret" not in text
    assert "Jo Private" not in text
    assert hidden.started_at == data.started_at
    assert hidden.verdict.verdict is data.verdict.verdict
    assert cases_of(html5lib.parse(text, namespaceHTMLElements=False))["texts"][1] == '"***" of ***'


def test_private_patterns_leave_digests_alone():
    data = masked(full_data(), secrets=str, private=lambda text: re.sub(r"\d+", "***", text))
    assert data.release_id == "support-4"
    assert data.results[0].case == "case-***"


def test_bounds_that_do_not_exist_are_question_marks():
    lines = [result(str(index), "candidate", True) for index in range(5)]
    text = render_html(ReportData(name="a", release_id="r", outcome="held", results=lines))
    assert "10.0 ms to ?" in text or "? to ?" in text
    assert "inf" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL).replace(
        "information", ""
    )


def test_latencies_of_another_evaluation_are_said_to_be_so():
    now = [line.but(session="now") for line in release_results()]
    assert "met the same load" in render_html(full_data(results=now))
    earlier = [line.but(session="then") if line.arm is Arm.BASE else line for line in now]
    assert "Answers of the base were on record from an earlier evaluation" in render_html(full_data(results=earlier))
