"""Recorded outputs become results: what they may tell, with a judge and without, masked where asked."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from slipway.errors import ConfigFileError, ServiceTimeoutError
from slipway.grading import grade_outputs, judge_outputs
from slipway.judge_settings import JudgeSettings
from slipway.suite import load_suite

SUITE = """
prompts: [hi]
tests:
- description: one
  options: {transform: output.trim()}
  assert:
  - {type: equals, value: x, metric: exact}
  - {type: cost, threshold: 0.01}
  - {type: finish-reason, value: stop}
  - {type: perplexity, threshold: 3}
  - {type: javascript, value: context.providerResponse.tokenUsage.total === 7}
"""
FULL = {
    "test": 0,
    "output": " x ",
    "latency_ms": 5.0,
    "cost_usd": 0.01,
    "finish_reason": "eos_token",
    "prompt_tokens": 3,
    "generated_tokens": 4,
    "logprobs": [-0.5, -1.0],
}


@pytest.fixture
def files(tmp_path):
    """Write a suite and outputs; returns the loaded suite and the path of the outputs."""

    def write(text, *outputs, judge=None):
        (tmp_path / "suite.yaml").write_text(text)
        path = tmp_path / "outputs.jsonl"
        path.write_text("".join(json.dumps(output) + "\n" for output in outputs))
        return load_suite(tmp_path / "suite.yaml", need_prompts=False, judge=judge), path

    return write


@pytest.mark.parametrize(
    ("cases", "says", "write"),
    [(1, "the suite has 1 case.", "Write 0."), (2, "the suite has 2 cases.", "Write 0 to 1.")],
)
def test_an_index_that_the_suite_does_not_have_is_refused_with_those_it_has(files, cases, says, write):
    tests = "- {assert: [{type: equals, value: x}]}\n" * cases
    with pytest.raises(ConfigFileError, match=f"there is no test 3: {says}") as refused:
        grade_outputs(*files(f"prompts: [hi]\ntests:\n{tests}", {**FULL, "test": 3}))
    assert refused.value.fix == write


def test_everything_that_is_recorded_is_looked_at_and_kept(files):
    (result,) = grade_outputs(*files(SUITE, FULL))
    assert [check.passed for check in result.checks] == [True] * 5
    assert (result.output, result.metrics) == (" x ", {"exact": 1.0})
    assert (result.cost_usd, result.finish_reason, result.prompt_tokens, result.generated_tokens) == (
        0.01,
        "eos_token",
        3,
        4,
    )


@pytest.mark.parametrize("key", ["cost_usd", "finish_reason", "logprobs"])
def test_what_is_not_recorded_makes_the_case_missing(files, key):
    (result,) = grade_outputs(*files(SUITE, {name: value for name, value in FULL.items() if name != key}))
    assert (result.passed, result.score) == (None, None)
    assert result.error


@pytest.mark.parametrize(
    ("key", "value"), [("cost_usd", -1), ("prompt_tokens", 1.5), ("logprobs", ["x"]), ("finish_reason", 3)]
)
def test_record_that_cannot_be_meant_is_refused(files, key, value):
    with pytest.raises(ConfigFileError) as caught:
        grade_outputs(*files(SUITE, {**FULL, key: value}))
    assert caught.value.line == 1
    assert caught.value.key.startswith(key)


def test_private_data_is_masked_after_grading(files):
    suite, path = files("tests: [{assert: [{type: equals, value: secret}]}]", {"test": 0, "output": "my secret"})
    (result,) = grade_outputs(suite, path, redact=lambda text: text.replace("secret", "***"))
    assert (result.output, result.redacted, result.passed) == ("my ***", True, False)
    assert "secret" not in result.checks[0].reason
    (plain,) = grade_outputs(suite, path)
    assert (plain.output, plain.redacted) == ("my secret", False)


JUDGED = """
tests:
- assert: [{type: llm-rubric, value: is kind}, {type: contains, value: a}]
- assert: [{type: contains, value: a}]
- assert: [{type: llm-rubric, value: is kind}]
"""
SETTINGS = JudgeSettings(model="m", max_concurrency=2)


class FakeJudge(SimpleNamespace):
    """Replies in turn, and notes how many ask at once."""

    settings = SETTINGS
    busy = most = asked = 0

    async def complete(self, messages, *, json=False):
        self.busy += 1
        self.asked += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def test_judge_grades_recorded_outputs(files):
    judge = FakeJudge(reply='{"pass": true, "score": 0.5, "reason": "kind"}')
    suite, path = files(JUDGED, {"test": 0, "output": "a"}, {"test": 1, "output": "b"}, judge=SETTINGS)
    one, two, three = asyncio.run(judge_outputs(suite, path, judge))
    assert (one.passed, one.score, two.passed, three.error) == (True, 0.75, False, "no recorded output")
    assert judge.asked == 1


def test_judge_that_does_not_answer_leaves_the_case_missing_and_the_others_graded(files):
    judge = FakeJudge(reply=ServiceTimeoutError("The judge is slow.", service="judge"))
    outputs = [{"test": number, "output": "a"} for number in range(3)]
    suite, path = files(JUDGED, *outputs, judge=SETTINGS)
    one, two, three = asyncio.run(judge_outputs(suite, path, judge))
    assert (one.passed, two.passed, three.passed) == (None, True, None)
    assert one.error.startswith("the judge did not answer: ")


def test_no_more_answers_are_judged_at_once_than_the_judge_bears(files):
    judge = FakeJudge(reply='{"pass": true, "score": 1, "reason": ""}')
    text = "tests:\n" + "- assert: [{type: llm-rubric, value: is kind}]\n" * 8
    suite, path = files(text, *({"test": number, "output": "a"} for number in range(8)), judge=SETTINGS)
    assert all(result.passed for result in asyncio.run(judge_outputs(suite, path, judge)))
    assert (judge.asked, judge.most) == (8, 2)


def test_without_a_judge_the_rest_is_graded_and_the_coverage_told(files):
    suite, path = files(JUDGED, *({"test": number, "output": "a"} for number in range(3)))
    one, two, three = grade_outputs(suite, path)
    assert [result.passed for result in (one, two, three)] == [True, True, None]
    assert three.error.startswith("unsupported: llm-rubric")
    assert suite.coverage == 0.5


def test_a_case_without_a_recorded_output_is_missing_and_not_one_that_was_never_asked(files):
    """The gate forgives what was not asked where it could change nothing; what is missing counts."""
    suite, path = files(JUDGED, judge=SETTINGS)
    judged = asyncio.run(judge_outputs(suite, path, FakeJudge(reply=AssertionError())))
    for results in (judged, grade_outputs(suite, path)):
        assert [(result.error, result.not_asked) for result in results] == [("no recorded output", False)] * 3
