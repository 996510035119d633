"""How a judge's reply becomes a grade: read strictly, asked for at most twice, compared with the threshold.

What the judged types share; knows none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from slipway.checks.registry import Check, Graded, InapplicableCheckError, Judge
from slipway.judge_replies import UnreadableReplyError
from slipway.judging import Question, ask_again
from slipway.validation_errors import describe

__all__ = ["answered", "graded", "reaches", "with_text", "with_threshold"]

_Read = TypeVar("_Read")


def with_text(check: Check) -> Check:
    """Require a text as the value, when the suite is loaded.

    Raises:
        ValueError: It is none, or blank.
    """
    if not isinstance(check.value, str) or not check.value.strip():
        raise ValueError(f"{check.type} needs a text as its value; found {describe(check.value)}")
    return check


def with_threshold(check: Check) -> Check:
    """Require a threshold that a score in [0, 1] can reach, or none, when the suite is loaded.

    Raises:
        ValueError: It is outside.
    """
    if check.threshold is not None and not 0 <= check.threshold <= 1:
        raise ValueError(f"the threshold of {check.type} is a score from 0 to 1; found {check.threshold:g}")
    return check


async def answered(judge: Judge, question: Question, read: Callable[[str], _Read]) -> _Read:
    """Ask, and read the reply; one that cannot be read is asked for once more, with what was wrong with it.

    Raises:
        InapplicableCheckError: The second cannot be read either.
        ServiceError: The judge did not answer.
    """
    try:
        return read(await judge.complete(question.messages, json=question.json))
    except UnreadableReplyError as error:
        question = ask_again(question, str(error))
    try:
        return read(await judge.complete(question.messages, json=question.json))
    except UnreadableReplyError as error:
        raise InapplicableCheckError(f"the judge's reply cannot be used, asked twice, because {error}") from error


def graded(check: Check, passed: bool, score: float, reason: str) -> Graded:  # noqa: FBT001  # the answer
    """Make a grade, turned around for a ``not-`` form."""
    if check.is_negated:
        return Graded(passed=not passed, score=1 - score, reason=reason)
    return Graded(passed=passed, score=score, reason=reason)


def reaches(score: float, threshold: float | None) -> bool:
    """Whether a score reaches a threshold, up to the rounding of a double, as promptfoo compares."""
    return score >= (threshold or 0.0) - sys.float_info.epsilon
