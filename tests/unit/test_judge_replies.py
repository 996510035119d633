"""Replies of a judge are read strictly: what is not exactly the object asked for says nothing."""

from __future__ import annotations

import json

import pytest

from slipway.judge_replies import (
    RubricReply,
    UnreadableReplyError,
    read_category,
    read_numbers,
    read_pass,
    read_rubric,
    read_score,
    read_texts,
)

GOOD = '{"reason": "Says so.", "pass": true, "score": 0.75}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```",
        f'<think>Is it {{"pass": false}}?</think>\n{GOOD}',
        '{"score": 0.75, "reason": "Says so.", "pass": true, "confidence": "high"}',
    ],
)
def test_one_object_is_read_whatever_servers_wrap_it_in(text):
    assert read_rubric(text) == RubricReply(passed=True, score=0.75, reason="Says so.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes, it passes.",
        f"The output says {GOOD}",
        f"{GOOD} as I said",
        f'{GOOD}\n{{"pass": false, "score": 0}}',
        f"[{GOOD}]",
        '"pass"',
        '{"pass": false, "pass": true}',
        '{"pass": true, "score": NaN}',
        '{"pass": true, "score": Infinity}',
        '{"pass": true, "score": 1e999}',
        '{"pass": true, "score": 1.01}',
        '{"pass": true, "score": -0.01}',
        '{"pass": true, "score": "1"}',
        '{"pass": true, "score": true}',
        '{"pass": "true"}',
        '{"pass": 1}',
        '{"pass": true, "reason": {"a": 1}}',
        '{"reason": "well"}',
        "{'pass': true}",
        "[" * 100_000,
        f"```json\n{GOOD}\n```\nor rather\n```json\n{GOOD}\n```",
        f'<think>"</think>{GOOD}" is what it wants me to say</think> It fails.',
    ],
)
def test_anything_else_is_unreadable(text):
    """Above all a verdict inside a longer text: a quotation of the graded output can hold one."""
    with pytest.raises(UnreadableReplyError):
        read_rubric(text)


@pytest.mark.parametrize("score", [0, 1, 0.5])
def test_a_score_may_be_at_either_end(score):
    assert read_rubric(json.dumps({"score": score})) == RubricReply(passed=None, score=score, reason="")


def test_a_verdict_alone_is_one():
    assert read_rubric('{"pass": false, "score": null}') == RubricReply(passed=False, score=None, reason="")


def test_long_reasons_are_shortened():
    """A judge may repeat the whole answer, and results are kept for every case."""
    assert len(read_rubric(json.dumps({"pass": True, "reason": "a" * 9_000})).reason) == 2_003


def test_yes_or_no():
    assert read_pass('{"reason": "r", "pass": false}') == (False, "r")
    with pytest.raises(UnreadableReplyError):
        read_pass("Y")


@pytest.mark.parametrize(("text", "passed"), [("It does.\nY", True), ("N", False), (" Well.\n\n N \n", False)])
def test_a_last_line_is_a_verdict_where_the_suite_asked_for_one(text, passed):
    assert read_pass(text, allow_letter=True)[0] is passed


@pytest.mark.parametrize("text", ["", "It is YES\nOKAY", "y", "The answer is Y", '"Y"'])
def test_a_last_line_must_be_a_letter_alone(text):
    """In promptfoo every reply passes that ends in Y, such as OKAY."""
    with pytest.raises(UnreadableReplyError):
        read_pass(text, allow_letter=True)


def test_categories():
    assert read_category('{"category": " b ", "reason": "more"}') == ("B", "more")
    assert read_category("(D) They disagree.", allow_letter=True) == ("D", "They disagree.")
    assert read_category('{"category": "C"}', allow_letter=True) == ("C", "")


@pytest.mark.parametrize("text", ['{"category": "F"}', '{"category": "AB"}', '{"category": 1}', "(A) yes", "{}"])
def test_what_is_no_category(text):
    with pytest.raises(UnreadableReplyError):
        read_category(text)


def test_a_letter_is_read_only_at_the_beginning():
    with pytest.raises(UnreadableReplyError):
        read_category("It could be (A) or (D).", allow_letter=True)


@pytest.mark.parametrize(("score", "share"), [(0, 0.0), (7, 0.7), (7.5, 0.75), (10, 1.0)])
def test_scores_are_shares_of_the_highest(score, share):
    assert read_score(json.dumps({"score": score, "reason": "r"}), highest=10) == (share, "r")


@pytest.mark.parametrize("score", [10.01, -1, "7", None, True])
def test_scores_outside(score):
    with pytest.raises(UnreadableReplyError):
        read_score(json.dumps({"score": score}), highest=10)


def test_lists_of_texts():
    assert read_texts('{"steps": [" a ", "b"]}', "steps", least=1, most=2) == ("a", "b")


@pytest.mark.parametrize("steps", [[], ["a", "b", "c"], ["a", ""], ["a", 1], "ab", None])
def test_lists_of_texts_outside(steps):
    with pytest.raises(UnreadableReplyError):
        read_texts(json.dumps({"steps": steps}), "steps", least=1, most=2)


def test_numbers_of_parts_count_once():
    assert read_numbers('{"relevant": [1, 3, 3]}', "relevant", of=3) == {1, 3}
    assert read_numbers('{"relevant": []}', "relevant", of=3) == set()


@pytest.mark.parametrize("numbers", [[0], [4], [1.0], [True], ["1"], 1, None])
def test_numbers_outside(numbers):
    with pytest.raises(UnreadableReplyError):
        read_numbers(json.dumps({"relevant": numbers}), "relevant", of=3)
