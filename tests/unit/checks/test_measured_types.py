"""Types that look at what came with an answer."""

from __future__ import annotations

import math

import pytest

from slipway.checks import Check, prepare


@pytest.mark.parametrize(("cost", "expected"), [(0.0099, True), (0.01, True), (0.0101, False)])
def test_cost_is_at_most_its_threshold(passes, cost, expected):
    assert passes("cost", None, "", threshold=0.01, cost_usd=cost) is expected
    assert passes("not-cost", None, "", threshold=0.01, cost_usd=cost) is not expected


@pytest.mark.parametrize(
    ("value", "found", "expected"),
    [
        ("stop", "stop", True),
        ("Stop", "STOP", True),
        ("stop", "eos_token", True),
        ("stop", "stop_sequence", True),
        ("eos_token", "eos_token", True),
        ("length", "length", True),
        ("length", "stop", False),
        ("tool_calls", "function_call", True),
        ("content_filter", "stop", False),
    ],
)
def test_finish_reason_is_compared_in_the_words_of_openai(passes, value, found, expected):
    """LoRAX's native route has words of its own; a suite is written in promptfoo's."""
    assert passes("finish-reason", value, "", finish_reason=found) is expected
    assert passes("not-finish-reason", value, "", finish_reason=found) is not expected


LOGPROBS = (math.log(0.5), math.log(0.125))
"""Their mean is log(0.25): a perplexity of 4."""


@pytest.mark.parametrize(("threshold", "expected"), [(4.001, True), (3.999, False), (None, True), (0, False)])
def test_perplexity_is_at_most_its_threshold_if_there_is_one(graded, threshold, expected):
    result = graded("perplexity", None, "", threshold=threshold, logprobs=LOGPROBS)
    assert (result.passed, result.score) == (expected, float(expected))


@pytest.mark.parametrize(("threshold", "expected"), [(0.199, True), (0.201, False), (None, True)])
def test_perplexity_score_is_at_least_its_threshold(graded, threshold, expected):
    result = graded("perplexity-score", None, "", threshold=threshold, logprobs=LOGPROBS)
    assert (result.passed, result.score) == (expected, pytest.approx(0.2))
    assert graded("not-perplexity-score", None, "", threshold=0.1, logprobs=LOGPROBS).score == pytest.approx(0.8)


def test_an_impossible_token_is_infinitely_perplexing(graded):
    assert graded("perplexity", None, "", threshold=1e9, logprobs=(-math.inf,)).passed is False
    assert graded("perplexity-score", None, "", logprobs=(-1e6,)).score == 0


@pytest.mark.parametrize(
    ("kind", "keys", "says"),
    [
        ("latency", {"threshold": 5}, "latency: the latency of this answer is unknown"),
        ("cost", {"threshold": 5}, "cost: the cost of this answer is unknown"),
        ("finish-reason", {"value": "stop"}, "finish-reason: the server did not say"),
        ("perplexity", {"threshold": 5}, "perplexity: the server gave no log probabilities"),
        ("perplexity-score", {"logprobs": ()}, "perplexity-score: the server gave no log probabilities"),
        ("perplexity", {"logprobs": (math.nan,)}, "perplexity: a log probability of this answer is no number"),
    ],
)
def test_what_is_unknown_makes_the_case_missing_and_not_failed(graded, kind, keys, says):
    result = graded(kind, keys.pop("value", None), "", **keys)
    assert (result.passed, result.score, result.checks) == (None, None, ())
    assert result.error.startswith(says)


@pytest.mark.parametrize(
    "check",
    [
        Check(type="cost"),
        Check(type="cost", threshold=math.nan),
        Check(type="not-cost", threshold=-0.1),
        Check(type="perplexity", threshold=-1.0),
        Check(type="perplexity-score", threshold=math.inf),
        Check(type="finish-reason"),
        Check(type="finish-reason", value=["stop"]),
    ],
    ids=lambda check: f"{check.type} {check.threshold} {check.value}",
)
def test_bound_that_bounds_nothing_is_refused(check):
    with pytest.raises(ValueError, match=f"{check.type} "):
        prepare(check)
