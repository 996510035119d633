"""`slipway evaluate` as a process: what it prints, and what is left when it is killed or interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from slipway.results_io import read_results

ROOT = Path(__file__).parents[3]
HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""A shell starts what is in its background deaf to it, and children inherit that."""
COMMAND = [sys.executable, "-c", f"{HEARS_CTRL_C}; from slipway.cli import main; main()"]


@pytest.fixture
def start(files):
    """Start `slipway evaluate` on the suite; what is still running at the end is killed."""
    processes = []

    def start(*arguments):
        environment = {**os.environ, "SLIPWAY_HOME": str(files.directory / "home"), "NO_COLOR": "1"}
        environment.pop("SLIPWAY_LEDGER_URL", None)
        command = [*COMMAND, "evaluate", str(files.suite), "--target", str(files.target), "--adapter", "org/candidate"]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    def run(*arguments, code=0):
        process = start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        return out, err

    return run


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_results_go_to_stdout_and_the_file_and_nothing_is_paid_twice(run, stub, files):
    out, _ = run("--out", str(files.out))
    assert "candidate  10/10 passed" in out
    assert len(stub.asked) == 22
    assert len(read_results(files.out)) == 20
    out, err = run("--out", str(files.out))
    assert len(stub.asked) == 22
    assert "20 of 20 answers reused from earlier evaluations (--fresh asks again)" in err
    run("--fresh")
    assert len(stub.asked) == 44


def test_json_is_one_document_whatever_else_is_said(run, files):
    files.write_suite(3, value="better")
    out, err = run("--json", code=1)
    json.loads(out)
    _, err = run("--json", code=1)
    assert "reused" in err


def test_killed_it_goes_on_and_asks_only_for_the_rest(start, run, stub, files):
    """At -9 no handler runs: what was written down a moment after each answer is what there is."""
    files.write_suite(40)
    stub.seconds = 0.05
    process = start("--out", str(files.out))
    wait_until(lambda: lines_of(files.out) >= 15)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    time.sleep(0.1)  # what it had sent is counted
    partial = {(result.case, result.arm) for result in read_results(files.out)}
    assert 15 <= len(partial) < 80
    stub.asked.clear()
    out, err = run("--out", str(files.out))
    assert "candidate  40/40 passed" in out
    warm_up = 2
    assert len(stub.asked) == 80 - len(partial) + warm_up
    assert f"{len(partial)} of 80 answers reused" in err
    assert [result.case for result in read_results(files.out)][::2] == [f"case {number}" for number in range(40)]
    again = Counter((prompt.replace("prompt", "case"), adapter) for prompt, adapter in stub.asked)
    names = {"candidate": "org/candidate", "base": ""}
    asked_again = [key for case, arm in partial if again[key := (case, names[arm])]]
    assert len(asked_again) <= warm_up


def test_a_line_that_the_kill_tore_is_one_answer_lost(start, run, stub, files):
    files.write_suite(40)
    run("--out", str(files.out))
    for path in files.answers:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 30)
    stub.asked.clear()
    out, _ = run("--out", str(files.out))
    assert "candidate  40/40 passed" in out
    assert len(stub.asked) == 2 + 2


def test_interrupted_it_leaves_a_readable_record_and_says_so(start, run, stub, files):
    files.write_suite(200)  # 5 s, so that it is far from its end when the signal comes
    stub.seconds = 0.05
    process = start("--out", str(files.out))
    wait_until(lambda: lines_of(files.out) >= 10)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    partial = read_results(files.out)
    assert 10 <= len(partial) < 400
    assert f"cut: {len(partial)} of 400 results are recorded, in {files.out}" in " ".join(err.split())
    assert "; the same command asks only for what is not on record" in " ".join(err.split())
    stub.asked.clear()
    stub.seconds = 0.0
    run("--out", str(files.out))
    assert len(stub.asked) == 400 - len(partial) + 2


def test_interrupted_while_asking_afresh_it_says_how_to_go_on(start, run, stub, files):
    """The same command would begin anew."""
    files.write_suite(200)
    stub.seconds = 0.05
    process = start("--fresh", "--out", str(files.out))
    wait_until(lambda: lines_of(files.out) >= 10)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "without --fresh the same command asks only for what is not on record" in " ".join(err.split())
    partial = read_results(files.out)
    stub.asked.clear()
    stub.seconds = 0.0
    run("--out", str(files.out))
    assert len(stub.asked) == 400 - len(partial) + 2


def test_a_gate_says_beforehand_what_can_be_seen_and_ends_what_is_settled(run, stub, files):
    """All 200 answers of the candidate are wrong: no need to ask for each of them."""
    files.write_suite(200, value="better")
    gate = files.directory / "gate.yaml"
    gate.write_text(yaml.safe_dump({"require": [{"metric": "pass_rate", "at_least": 0.9}]}))
    stub.seconds = 0.01
    _, err = run("--gate", str(gate), "--out", str(files.out), code=1)
    assert "pass_rate at_least 0.9" in err
    results = read_results(files.out)
    assert len(results) == 400
    not_asked = sum(result.not_asked for result in results)
    assert 0 < not_asked < 400
    assert len(stub.asked) <= 400 - not_asked + 2
    assert "not asked:" in err


def test_cases_that_check_nothing_are_told_once(run, files):
    suite = yaml.safe_load(files.suite.read_text())
    del suite["tests"][0]["assert"]
    files.suite.write_text(yaml.safe_dump(suite))
    gate = files.directory / "gate.yaml"
    gate.write_text(yaml.safe_dump({"min_cases": 1, "require": [{"metric": "pass_rate", "at_least": 0.1}]}))
    _, err = run("--gate", str(gate))
    assert "1 case has no assertion: whatever is answered passes." in err
    assert "have no check" not in err
