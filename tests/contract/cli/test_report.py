"""`slipway report`, and the summary that commands leave in CI."""

from __future__ import annotations

import json

import pytest

SUITE = """
prompts: ['Say {{text}}, card 4111-1111']
tests:
- {description: c0, vars: {text: a}, assert: [{type: equals, value: A}], tags: [easy]}
- {description: c1, vars: {text: b}, assert: [{type: python, value: 'print(1)'}]}
"""
GATE = "min_cases: 2\nrequire: [{metric: pass_rate, at_least: 0.9}]\n"
TARGET = "kind: lorax\nbases: {org/base: {}}\nredact: ['\\d{4}-\\d{4}']\n"


@pytest.fixture
def recorded(desk):
    """A desk with results of two cases, the suite, a gate that they fail, and a target that masks card numbers."""
    lines = [
        {
            "case": f"c{at}",
            "arm": arm,
            "passed": arm == "champion",
            "score": float(arm == "champion"),
            "output": arm,
            "checks": [{"type": "equals", "passed": arm == "champion", "score": float(arm == "champion")}],
        }
        for at in range(2)
        for arm in ("candidate", "champion")
    ]
    desk.write("results.jsonl", "\n".join(map(json.dumps, lines)))
    desk.write("suite.yaml", SUITE)
    desk.write("gate.yaml", GATE)
    desk.write("target.yaml", TARGET)
    return desk


def page(desk, *options):
    ran = desk.call("report", "results.jsonl", "--out", "out/report.html", *options)
    assert (ran.code, ran.err) == (0, "")
    path = desk.directory / "out" / "report.html"
    assert ran.out.strip() == path.as_uri()
    return path.read_text(encoding="utf-8")


def test_results_alone_give_a_page_without_verdict(recorded):
    text = page(recorded)
    assert "Results</h1>" in text
    assert "slipway report results.jsonl --out out/report.html" in text
    assert "Say a" not in text


def test_suite_and_gate_add_prompts_verdict_and_gaps(recorded):
    text = page(recorded, "--suite", "suite.yaml", "--gate", "gate.yaml", "--attempt", "2")
    assert "Hold</h1>" in text
    assert "Say a, card 4111-1111" in text
    assert "suite.yaml:5" in text
    assert "--suite suite.yaml --gate gate.yaml --attempt 2" in text


def test_patterns_of_the_target_mask_prompts(recorded):
    text = page(recorded, "--suite", "suite.yaml", "--target", "target.yaml")
    assert "Say a, card ***" in text
    assert "4111" not in text


@pytest.mark.parametrize("options", [(), ("--target", "judged.yaml")])
def test_checks_that_a_targets_judge_applied_are_no_gaps(recorded, options):
    """The suite alone cannot have them applied; the results say that they were."""
    rubric = "assert: [{type: llm-rubric, value: polite}, {type: python, value: 'print(1)'}]"
    recorded.write("suite.yaml", SUITE.replace("assert: [{type: python, value: 'print(1)'}]", rubric))
    recorded.write("judged.yaml", TARGET + "judge: {model: m, url: 'http://127.0.0.1:9/v1'}\n")
    results = (recorded.directory / "results.jsonl").read_text()
    recorded.write("results.jsonl", results.replace('"type": "equals"', '"type": "llm-rubric"'))
    text = page(recorded, "--suite", "suite.yaml", *options)
    assert "it runs a program in Python" in text
    assert "a model must judge it" not in text


def test_secrets_of_the_environment_are_masked(recorded, monkeypatch):
    monkeypatch.setitem(recorded.environment, "HF_TOKEN", "candidate-token")
    monkeypatch.setenv("HF_TOKEN", "candidate-token")
    text = (recorded.directory / "results.jsonl").read_text()
    recorded.write("results.jsonl", text.replace('"output": "candidate"', '"output": "candidate-token"'))
    assert "candidate-token" not in page(recorded)


def test_release_without_a_report_is_told(recorded):
    ran = recorded.call("report", "support-3")
    assert ran.code == 2
    assert "neither a file of results nor a release" in ran.err


def test_release_with_a_report_is_found(recorded):
    home = recorded.directory / "home"
    recorded.environment["SLIPWAY_HOME"] = str(home)
    path = home / "releases" / "support-3" / "report.html"
    path.parent.mkdir(parents=True)
    path.write_text("<!doctype html>")
    ran = recorded.call("report", "support-3", "--json")
    assert json.loads(ran.out) == {"report": str(path), "url": path.as_uri()}


def test_commands_append_to_the_summary_of_the_step(recorded, monkeypatch):
    summary = recorded.directory / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert recorded.call("gate", "results.jsonl", "--gate", "gate.yaml").code == 1
    text = summary.read_text()
    assert text.startswith("# ✗ results.jsonl: hold\n")
    assert "## Regressions: 2" in text
    recorded.write("outputs.jsonl", json.dumps({"test": 0, "output": "A"}))
    recorded.call("grade", "suite.yaml", "outputs.jsonl")
    recorded.call("report", "results.jsonl", "--out", "report.html")
    headings = [line for line in summary.read_text().splitlines() if line.startswith("# ")]
    assert headings == ["# ✗ results.jsonl: hold", "# • suite.yaml: results", "# • results.jsonl: results"]
