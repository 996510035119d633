"""Recorded results and outputs as files."""

from __future__ import annotations

import gc
import itertools
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.errors import ConfigFileError, ConfigurationError, StoreError
from slipway.gate import Gate, decide
from slipway.results import Arm, CaseResult, CheckResult, evidence_digest
from slipway.results_io import read_outputs, read_results, write_results

FULL_LINE = (
    '{"case": "refund-1", "arm": "candidate", "adapter_id": "support/4", "output": "", "passed": true, "score": 1.0, '
    '"tags": ["refund"], "group": null, "checks": [{"type": "icontains", "passed": true, "score": 1.0, "reason": ""}], '
    '"latency_ms": 41.2, "prompt_tokens": 9, "generated_tokens": 7, "error": null}\n'
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "results.jsonl"


def test_contracted_line_is_read(file):
    file.write_text(FULL_LINE + "\n")
    (result,) = read_results(file)
    assert result.arm is Arm.CANDIDATE
    assert result.tags == ("refund",)
    assert result.checks == (CheckResult(type="icontains", passed=True, score=1.0),)


def test_collector_runs_again_after_a_file_and_after_a_broken_one(file):
    file.write_text(FULL_LINE)
    read_results(file)
    assert gc.isenabled()
    file.write_text("{")
    with pytest.raises(ConfigFileError):
        read_results(file)
    assert gc.isenabled()


results = st.builds(
    CaseResult,
    case=st.text(max_size=8),
    arm=st.sampled_from(Arm),
    output=st.text(max_size=30),
    passed=st.none() | st.booleans(),
    score=st.none() | st.floats(0, 1),
    tags=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    latency_ms=st.none() | st.floats(0, 1e6),
    error=st.none() | st.text(max_size=8),
)


@given(st.lists(results, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("results") / "deep" / "results.jsonl"
    write_results(file, lines)
    assert read_results(file) == lines
    assert [child.name for child in file.parent.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize(
    ("place", "number"),
    [*itertools.product(("score", "metrics"), (math.nan, math.inf, -math.inf)), ("cost_usd", math.inf)],
)
def test_broken_numbers_survive_the_file_and_stop_the_gate(file, place, number):
    """A NaN that turned into null would pass for a score that nobody gave."""
    checks = (CheckResult(type="equals", passed=True, score=1.0),)
    lines = [
        CaseResult(case=str(index), arm=Arm.CANDIDATE, passed=True, score=1.0, checks=checks) for index in range(100)
    ]
    gate = Gate.model_validate({"require": [{"metric": "pass_rate", "at_least": 0.5}]}, strict=False)
    write_results(file, lines)
    assert decide(read_results(file), gate).verdict == "promote"
    lines[3] = lines[3].but(**{place: {"tone": number} if place == "metrics" else number})
    write_results(file, lines)
    verdict = decide(read_results(file), gate)
    assert verdict.verdict == "inconclusive"
    assert "is not a number in range" in verdict.reasons[0]


def test_a_checks_broken_score_survives_the_file(file):
    broken = CheckResult(type="equals", passed=True, score=math.nan)
    write_results(file, [CaseResult(case="a", arm=Arm.CANDIDATE, passed=True, score=1.0, checks=(broken,))])
    assert math.isnan(read_results(file)[0].checks[0].score)


def test_latency_to_be_graded_that_is_no_number_is_refused_as_it_was_written(file):
    file.write_text('{"test": 0, "output": "", "latency_ms": NaN}')
    with pytest.raises(ConfigFileError, match="expected a finite number, found the number nan"):
        read_outputs(file)


def test_latency_that_is_no_number_becomes_one_that_the_gate_refuses(file):
    file.write_text('{"case": "a", "arm": "base", "latency_ms": NaN}')
    assert read_results(file)[0].latency_ms == math.inf


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ("{", "", "not JSON"),
        ("[]", "", "not a JSON object"),
        ("[" * 100_000, "", "not JSON"),
        ('{"arm": "base"}', "case", "required"),
        ('{"case": "a", "arm": "bse"}', "arm", "Did you mean 'base'?"),
        ('{"case": "a", "arm": "base", "latency_ms": -1}', "latency_ms", "greater than or equal to 0"),
        ('{"case": "a", "arm": "base", "passed": "yes"}', "passed", "boolean"),
        ('{"case": "a", "arm": "base", "checks": [{"type": 1}]}', "checks.0.type", "string"),
    ],
)
def test_bad_line_is_named(file, line, key, says):
    file.write_text(FULL_LINE + "\n" + line)
    with pytest.raises(ConfigFileError) as caught:
        read_results(file)
    assert (caught.value.line, caught.value.key) == (3, key)
    assert says in str(caught.value)


def test_outputs_remember_their_line(file):
    file.write_text('\n{"test": 0, "output": "a\\u2028b", "latency_ms": 12.0}\n{"test": 1, "output": ""}\n')
    first, second = read_outputs(file)
    assert (first.test, first.output, first.latency_ms, first.line) == (0, "a\u2028b", 12.0, 2)
    assert (second.test, second.latency_ms, second.line) == (1, None, 3)


def test_half_of_a_surrogate_pair_is_written_and_read(file):
    """A model may stop inside an emoji."""
    write_results(file, [CaseResult(case="a", arm=Arm.BASE, output="\ud83d!")])
    assert read_results(file)[0].output == "?!"
    file.write_text('{"test": 0, "output": "\\ud83d!"}')
    assert read_outputs(file)[0].output == "?!"


def test_results_that_cannot_be_written_leave_nothing(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_results(tmp_path / "taken" / "results", [])
    assert [child.name for child in tmp_path.iterdir()] == ["taken"]


def test_results_take_no_place_of_what_is_no_file(tmp_path):
    """Written aside and renamed, they would be in the place of a device: of /dev/null, for whoever may write there."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("directory", "pipe"):
        with pytest.raises(ConfigurationError, match="is no file"):
            write_results(tmp_path / name, [])
    assert {child.name for child in tmp_path.iterdir()} == {"directory", "pipe"}
    assert (tmp_path / "pipe").is_fifo()


def test_evidence_is_what_was_observed():
    lines = [
        CaseResult(case="a", arm=Arm.CANDIDATE, passed=True, score=1.0, session="s"),
        CaseResult(case="b", arm=Arm.BASE),
    ]
    digest = evidence_digest(lines)
    not_asked = CaseResult(case="c", arm=Arm.BASE, error="not asked: certain", not_asked=True)
    assert evidence_digest([not_asked, *reversed(lines)]) == digest
    assert evidence_digest([lines[0].but(session="t"), lines[1]]) != digest
    assert evidence_digest(lines[:1]) != digest
