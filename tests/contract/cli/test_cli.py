"""The command line's contracts: help, documents, exit codes, and how it behaves in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from slipway.cli import COMMANDS

SHA256 = re.compile(r"[0-9a-f]{64}")
ESCAPE = "\x1b"

CASE_KEYS = {
    "case",
    "arm",
    "adapter_id",
    "output",
    "passed",
    "score",
    "tags",
    "group",
    "checks",
    "latency_ms",
    "prompt_tokens",
    "generated_tokens",
    "error",
    "metrics",
    "timing",
    "finish_reason",
    "cost_usd",
    "session",
    "redacted",
    "not_asked",
}
OUTCOME_KEYS = {
    "release",
    "name",
    "target",
    "outcome",
    "reasons",
    "digest",
    "adapter_id",
    "champion",
    "report",
    "results",
    "seconds",
}


@pytest.fixture
def graded_desk(desk):
    """A desk with a suite of three cases, of which two are met by what ``outputs`` writes."""
    desk.write(
        "suite.yaml",
        "prompts: ['{{text}}']\n"
        "tests:\n"
        "- {description: one, vars: {text: a}, assert: [{type: equals, value: A}]}\n"
        "- {description: two, vars: {text: b}, assert: [{type: icontains, value: B}]}\n"
        "- {description: three, vars: {text: c}, assert: [{type: equals, value: C}]}\n",
    )
    return desk


def outputs(desk, *texts: str) -> Path:
    lines = [json.dumps({"test": test, "output": text, "latency_ms": 12.5}) for test, text in enumerate(texts)]
    return desk.write("outputs.jsonl", "\n".join(lines))


def results(desk, passed: list[bool], *, arm: str = "candidate", **more) -> Path:
    lines = [
        json.dumps(
            {
                "case": f"c{at}",
                "arm": arm,
                "passed": good,
                "score": float(good),
                "checks": [{"type": "equals", "passed": good, "score": float(good)}],
                **more,
            }
        )
        for at, good in enumerate(passed)
    ]
    return desk.write("results.jsonl", "\n".join(lines))


# Help and usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(desk, command):
    ran = desk.call(command, "--help")
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith(f"Usage: slipway {command}")
    assert "Exit codes: 0 yes" in ran.out
    options = re.findall(r"^  (?:--[a-z-]+|[A-Z]+).*$", ran.out, re.MULTILINE)
    assert all(": " in option for option in options), options


def test_bare_command_lists_all_commands_and_version_is_told(desk):
    ran = desk.run()
    assert ran.code == 0
    assert all(re.search(rf"^ +{command}\b", ran.out, re.MULTILINE) for command in COMMANDS)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", desk.call("--version").out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("inspect",),
        ("inspect", "a", "b"),
        ("release", "a"),
        ("grade", "any"),
        ("evaluate", "any"),
        ("status", "--nonsense"),
        ("resolve", "a", "--target"),
    ],
)
def test_usage_errors_are_two_lines_and_code_2(desk, arguments):
    ran = desk.call(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert re.fullmatch(r"error: .+\nfix:   `slipway.* --help` shows how it is used\.\n", ran.err)


def test_no_command_pays_for_prefect_or_torch_before_it_needs_them(desk):
    """What `slipway status` imports is most of the time it takes."""
    desk.write(
        "probe.py",
        "import sys\nfrom slipway.cli import app\napp(['status'], exit_on_error=False)\n"
        "print({'prefect', 'torch', 'scipy', 'boto3', 'huggingface_hub', 'transformers'} & set(sys.modules))\n",
    )
    done = subprocess.run(
        [sys.executable, "probe.py"],
        cwd=desk.directory,
        env=desk.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


# inspect


def test_inspect_prints_the_documented_document(desk):
    adapter = desk.adapter("a")
    ran = desk.call("inspect", adapter, "--base", "configs/bases/tiny-llama.json", "--json")
    assert ran.code == 0, ran.err
    document = ran.document
    assert set(document) == {"adapter", "facts", "profile", "prediction", "verdict", "findings"}
    files = document["adapter"].pop("files")
    digest = document["adapter"]["digest"]
    assert SHA256.fullmatch(digest.removeprefix("sha256:"))
    assert document["adapter"] == {
        "uri": f"file://{adapter}",
        "resolved_revision": digest,
        "digest": digest,
        "size_bytes": sum(file["size_bytes"] for file in files),
    }
    assert [file["name"] for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert all(set(file) == {"name", "size_bytes", "sha256"} and SHA256.fullmatch(file["sha256"]) for file in files)
    assert document["facts"] == {
        "peft_type": "LORA",
        "rank": 8,
        "alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "parameters": 2 * 2 * 2 * 8 * 128,
        "dtype": "float32",
        "layers": 2,
        "base_model": "slipway/tiny-llama",
    }
    assert (document["profile"], document["prediction"], document["verdict"]) == ("lorax-0.12", "ok", "servable")
    # The sandbox's tiny base has widths that no kernel of LoRAX has; nothing else is to be said.
    assert {finding["code"] for finding in document["findings"]} == {"modules.width"}


def test_inspect_of_a_broken_adapter_says_why_and_exits_1(desk):
    adapter = desk.adapter("a")
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, adapter / "adapter_model.safetensors")
    ran = desk.call("inspect", adapter, "--json")
    assert ran.code == 1
    assert ran.document["verdict"] == "refused"
    errors = [finding for finding in ran.document["findings"] if finding["severity"] == "error"]
    assert errors
    for finding in ran.document["findings"]:
        assert set(finding) == {"code", "severity", "prediction", "where", "message", "fix"}
        assert finding["fix"] in {"fit", "manual", "none"}
    plain = desk.call("inspect", adapter)
    assert plain.code == 1
    assert f"error {errors[0]['code']}:" in plain.out


# grade and gate


def test_grade_prints_one_result_per_case(graded_desk):
    ran = graded_desk.call("grade", "suite.yaml", outputs(graded_desk, "A", "abc", "nope"), "--json")
    assert ran.code == 1
    assert ran.err == ""
    assert set(ran.document) == {"arms", "coverage", "checks", "unsupported", "notes", "results"}
    counts = {"cases": 3, "answered": 3, "not_asked": 0, "passed": 2, "pass_rate": 2 / 3}
    assert ran.document["arms"] == {"candidate": counts}
    assert (ran.document["coverage"], ran.document["unsupported"]) == (1.0, [])
    results = ran.document["results"]
    assert [set(result) for result in results] == [CASE_KEYS] * 3
    assert [(result["case"], result["passed"]) for result in results] == [
        ("one", True),
        ("two", True),
        ("three", False),
    ]
    assert set(results[2]["checks"][0]) == {"type", "passed", "score", "reason", "metric", "weight"}
    assert results[0]["latency_ms"] == 12.5


def test_grade_exits_0_when_all_passed_and_3_when_an_output_is_missing(graded_desk):
    assert graded_desk.call("grade", "suite.yaml", outputs(graded_desk, "A", "b", "C")).code == 0
    ran = graded_desk.call("grade", "suite.yaml", outputs(graded_desk, "A", "b"))
    assert ran.code == 3
    assert "missing of candidate: three: no recorded output" in ran.out


def test_grade_writes_junit_into_new_directories(graded_desk):
    path = outputs(graded_desk, "A", "b")
    ran = graded_desk.call("grade", "suite.yaml", path, "--junit", "new/deep/results.xml")
    assert ran.code == 3
    root = ET.parse(graded_desk.directory / "new" / "deep" / "results.xml").getroot()
    assert root.find("testsuite").attrib["skipped"] == "1"


def test_outputs_with_escapes_and_halves_of_characters_are_shown_harmlessly(graded_desk):
    """Models say anything; it must neither steer the terminal nor end in a traceback."""
    path = outputs(graded_desk, "\x1b[2J", "\ud83d", "\x1b]0;title\x07")
    ran = graded_desk.call("grade", "suite.yaml", path, "--junit", "results.xml")
    assert ran.code == 1
    assert ESCAPE not in ran.out
    assert ran.err == ""
    document = graded_desk.call("grade", "suite.yaml", path, "--json").document
    assert [result["passed"] for result in document["results"]] == [False] * 3


@pytest.mark.parametrize(
    ("passed", "verdict", "code"),
    [([True] * 40, "promote", 0), ([False] * 40, "hold", 1), ([True], "inconclusive", 3)],
)
def test_gate_verdicts_and_exit_codes(desk, passed, verdict, code):
    ran = desk.call("gate", results(desk, passed), "--gate", "any", "--json")
    assert ran.code == code
    assert set(ran.document) >= {"verdict", "reasons", "rules", "attempt", "confidence", "regressions"}
    assert ran.document["verdict"] == verdict
    for rule in ran.document["rules"]:
        assert set(rule) >= {"rule", "outcome", "estimate", "low", "high", "n"}
        assert rule["outcome"] in {"pass", "fail", "inconclusive"}
    plain = desk.call("gate", desk.directory / "results.jsonl", "--gate", "any")
    assert plain.code == code
    assert plain.out.startswith(f"{verdict}\n")


def test_gate_is_told_that_there_is_no_champion_yet(desk):
    """Results that lack the champion may be those of a first release, or of one that forgot to ask it."""
    gate = desk.write(
        "compared.yaml",
        "require: [{metric: pass_rate, at_least: 0.8}]\nagainst: {champion: {metric: score, margin: 0.1}}\n",
    )
    lines = results(desk, [True] * 40)
    open_one = desk.call("gate", lines, "--gate", gate)
    assert open_one.code == 3
    assert "no results of the champion" in open_one.out
    first = desk.call("gate", lines, "--gate", gate, "--first-release")
    assert first.code == 0
    assert "There is no champion yet" in first.out


def test_gate_prints_valid_json_for_results_that_are_not_numbers(desk):
    """NaN is no JSON; it decides nothing and must not break the document."""
    path = desk.write(
        "results.jsonl",
        "".join(f'{{"case": "c{at}", "arm": "candidate", "passed": true, "score": NaN}}\n' for at in range(40)),
    )
    gate = desk.write("gate.yaml", "min_cases: 2\nrequire:\n- {metric: score, at_least: 0.5}\n")
    ran = desk.call("gate", path, "--gate", gate, "--json")
    assert ran.code == 3
    assert ran.document["verdict"] == "inconclusive"
    assert "NaN" not in ran.out


# A release, and what the ledger knows of it


def test_release_and_rollback_print_their_outcome(released):
    desk, (first, second, back) = released
    for number, ran in enumerate((first, second), start=1):
        document = ran.document
        assert set(document) == OUTCOME_KEYS
        assert (document["release"], document["outcome"]) == (f"support-{number}", "promoted")
        assert document["champion"] == document["adapter_id"] == f"support/{number}"
        assert Path(document["report"]).is_file()
        assert set(document["seconds"]) >= {"inspect", "upload", "serve", "prove", "evaluate", "gate", "promote"}
        recorded = [json.loads(line) for line in Path(document["results"]).read_text().splitlines()]
        assert {frozenset(line) for line in recorded} == {frozenset(CASE_KEYS)}
        assert re.search(r"^  promote +support/", ran.err, re.MULTILINE)
    assert {result["arm"] for result in recorded} == {"candidate", "champion", "base"}
    assert set(back.document) == OUTCOME_KEYS
    assert (back.document["outcome"], back.document["champion"]) == ("rolled-back", "support/1")
    gated = desk.run("gate", second.document["results"], "--gate", "any", "--json")
    assert (gated.code, gated.document["verdict"]) == (0, "promote")


def test_status_history_and_resolve_agree(released, monkeypatch, capfd):
    desk = replace(released[0], patch=monkeypatch, capture=capfd)
    status = desk.run("status", "--json")
    assert status.code == 0
    (leader,) = status.document
    assert set(leader) == {
        "name",
        "target",
        "adapter_id",
        "adapter_source",
        "digest",
        "release",
        "kind",
        "since",
        "evidence_digest",
        "actor",
    }
    assert (leader["adapter_id"], leader["release"], leader["kind"]) == ("support/1", "support-1", "rollback")
    assert datetime.fromisoformat(leader["since"]).tzinfo is not None
    assert SHA256.fullmatch(leader["evidence_digest"])

    history = desk.call("history", "support", "--json")
    assert history.code == 0
    assert [(entry["release"], entry["outcome"]) for entry in history.document] == [
        ("support-1", "promoted"),
        ("support-2", "promoted"),
        ("support-1", "rolled back"),
    ]
    keys = {"at", "release", "target", "outcome", "adapter_id", "digest", "reasons", "actor"}
    assert all(set(entry) == keys for entry in history.document)

    assert desk.call("resolve", "support").out == "support/1\n"
    assert desk.call("resolve", "support", "--json").document == {
        "name": "support",
        "target": "sandbox",
        "adapter_id": "support/1",
        "adapter_source": "pbase",
        "release": "support-1",
    }
    assert "support/1" in desk.call("status", "support").out
    assert "rolled back" in desk.call("history", "support").out


def test_names_without_a_past_are_empty_and_not_errors_except_to_resolve(desk):
    assert desk.call("status", "nobody", "--json").document == []
    assert desk.call("history", "nobody", "--json").document == []
    ran = desk.call("resolve", "nobody", "--json")
    assert ran.code == 1
    assert ran.document == {"name": "nobody", "target": "sandbox", "adapter_id": None}
    plain = desk.call("resolve", "nobody")
    assert (plain.code, plain.out) == (1, "")  # so that `ID=$(slipway resolve ..)` is empty


# evaluate


def test_evaluate_asks_all_arms_records_and_writes_junit(served_desk, released):
    ran = served_desk.run(
        "evaluate",
        "any",
        "--adapter",
        "support/2",
        "--against",
        "support/1",
        "--out",
        "results/run.jsonl",
        "--junit",
        "results/run.xml",
        "--json",
    )
    assert ran.code == 0, ran.err
    arms = {"candidate": "support/2", "champion": "support/1", "base": ""}
    results = ran.document["results"]
    assert [(result["arm"], result["adapter_id"]) for result in results] == [*arms.items()] * 6
    assert all(set(result) == CASE_KEYS and result["latency_ms"] > 0 for result in results)
    written = (served_desk.directory / "results" / "run.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == results
    suites = ET.parse(served_desk.directory / "results" / "run.xml").getroot().findall("testsuite")
    assert [(suite.attrib["tests"], suite.attrib["failures"]) for suite in suites] == [("6", "0")] * 3
    verdict = served_desk.call("gate", "results/run.jsonl", "--gate", "any", "--json")
    assert (verdict.code, verdict.document["verdict"]) == (0, "promote")


def test_evaluate_exits_1_when_the_adapter_fails_a_case(served_desk, released):
    suite = served_desk.write("hard.yaml", "prompts: [x]\ntests:\n- {assert: [{type: equals, value: impossible}]}\n")
    ran = served_desk.call("evaluate", suite, "--adapter", "support/1")
    assert ran.code == 1
    assert "candidate  0/1 passed (0.0%)" in ran.out
    assert "impossible" in ran.out


# doctor, sandbox, rehearse


def test_doctor_says_what_is_wrong_and_how_to_mend_it(served_desk):
    served_desk.write("configs/gates/typo.yaml", "confidense: 0.9\n")
    ran = served_desk.run("doctor", "--target", "sandbox", "--json")
    assert ran.code == 1
    checks = {check["subject"]: check for check in ran.document}
    assert all(set(check) == {"subject", "state", "message", "fix"} for check in ran.document)
    assert checks["target sandbox"]["message"] == "reached, as local"
    assert checks["gates"]["state"] == "problem"
    assert "typo.yaml:1: confidense" in checks["gates"]["message"]
    assert checks["gates"]["fix"]
    assert checks["Prefect server"]["state"] == "warning"
    (served_desk.directory / "configs" / "gates" / "typo.yaml").unlink()
    assert served_desk.call("doctor").code == 0


def test_doctor_reaches_a_lorax_server_of_any_of_the_targets_bases(served_desk, control_plane, released):
    """A target file may list what several servers serve; the one that answers decides."""
    deployment = next(iter(control_plane.deployments()))
    url = f"{control_plane.environment['PREDIBASE_GATEWAY']}/local/deployments/v2/llms/{deployment}"
    served_desk.environment["LORAX_URL"] = url
    served_desk.write("configs/targets/ours.yaml", "kind: lorax\nbases: {org/another: {}, slipway/tiny-llama: {}}\n")
    ran = served_desk.call("doctor", "--target", "ours", "--json")
    assert ran.document[-1]["state"] == "ok", ran.document[-1]
    served_desk.write("configs/targets/ours.yaml", "kind: lorax\nbases: {org/another: {}}\n")
    ran = served_desk.call("doctor", "--target", "ours", "--json")
    assert (ran.code, ran.document[-1]["state"]) == (1, "problem")
    assert "serves slipway/tiny-llama, and this release needs org/another" in ran.document[-1]["message"]


def test_doctor_prints_brackets_as_they_are(desk):
    """Extras in a command to install were once taken for markup, and vanished."""
    desk.write("configs/gates/typo.yaml", "require:\n- {metric: score}\n")
    assert "require[0]" in desk.call("doctor").out


def test_sandbox_says_how_its_options_are_listed(desk):
    assert "slipway sandbox -- --help" in " ".join(desk.call("sandbox", "--help").out.split())


def test_sandbox_passes_its_arguments_on(desk):
    ran = desk.run("sandbox", "--", "--help")
    assert ran.code == 0
    assert "--no-train" in ran.out


# Terminals and pipes


def on_a_terminal(desk, *arguments: str, **environment: str) -> str:
    """What a person sees: stdout and stderr are a terminal."""
    master, slave = pty.openpty()
    with desk.start(
        *arguments, stdout=slave, stderr=slave, env={**desk.environment, "TERM": "xterm-256color", **environment}
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            seen += chunk
        process.wait(60)
    os.close(master)
    return seen.decode()


def test_output_is_coloured_on_a_terminal_and_plain_in_a_pipe_or_with_no_color(graded_desk):
    arguments = ("gate", str(results(graded_desk, [True] * 40)), "--gate", "any")
    coloured = on_a_terminal(graded_desk, *arguments)
    assert f"{ESCAPE}[1m" in coloured
    assert f"{ESCAPE}[32m" in coloured
    assert f"{ESCAPE}[32m" not in on_a_terminal(graded_desk, *arguments, NO_COLOR="1")
    assert ESCAPE not in graded_desk.run(*arguments).out


def test_help_is_boxed_on_a_terminal_and_plain_in_a_pipe(desk):
    assert "╭" in on_a_terminal(desk, "--help")
    assert "╭" not in desk.run("--help").out


def test_a_reader_that_has_gone_is_met_in_silence(graded_desk):
    """As with `| head -1`; the code is not 0, because the answer did not get out."""
    path = outputs(graded_desk, *("A" * 100_000,) * 3)
    with graded_desk.start("grade", "suite.yaml", path, "--json") as process:
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == 141
    assert err == ""


def test_json_is_alone_on_stdout_also_when_it_fails(desk):
    ran = desk.run("evaluate", "any", "--adapter", "support/1", "--json")
    assert ran.code == 2
    assert set(ran.document) == {"error", "message", "fix", "exit_code"}
    assert ran.document["exit_code"] == 2
    assert "slipway sandbox" in ran.document["fix"]
