"""How the checks of a case make one grade: applied one by one, then weighed as promptfoo weighs them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from slipway.checks.registry import (
    ASSERT_SET,
    Check,
    Graded,
    InapplicableCheckError,
    Judge,
    Subject,
    assess,
    assess_judged,
    is_judged,
)
from slipway.results import CheckResult

__all__ = ["Grade", "grade", "grade_judged"]


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What all checks of a case say of one output.

    Attributes:
        passed: None where no answer can be given.
        score: Weighted mean of the checks' scores, in [0, 1]; None likewise.
        checks: One result for each check, in order; those of an ``assert-set`` follow it, with no weight of their own.
        metrics: Weighted mean of the scores that share a metric's name.
        error: Why no answer can be given; None where one is.
    """

    passed: bool | None
    score: float | None
    checks: tuple[CheckResult, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


def grade(checks: Sequence[Check], subject: Subject, *, threshold: float | None = None) -> Grade:
    """Apply prepared checks, none of which needs a judge, to one output.

    The score is sum(weight * score) / sum(weight) over the checks that could be applied. The case passes when each of
    these with a weight passes or, with a ``threshold`` other than 0, when the score reaches it. Without checks it
    passes with 1; with nothing but weights of 0 it passes with 0 (promptfoo 0.121.9). Where none of the checks with a
    weight could be applied, or one lacks what it looks at, nothing is known: ``error`` is set.
    """
    outcomes: list[Graded | None] = []
    for check in _leaves(checks):
        try:
            outcomes.append(None if check.unsupported else assess(check, subject))
        except InapplicableCheckError as error:
            return _unknown(check, error)
    return _combined(checks, outcomes, threshold)


async def grade_judged(
    checks: Sequence[Check], subject: Subject, judge: Judge, *, threshold: float | None = None
) -> Grade:
    """Do as ``grade``, and ask the judge for the checks that need it, all at once; the others come first.

    Raises:
        ServiceError: The judge did not answer.
    """
    leaves = list(_leaves(checks))
    outcomes: list[Graded | None] = [None] * len(leaves)
    judged = []
    for index, check in enumerate(leaves):
        if is_judged(check):
            judged.append(index)
            continue
        try:
            outcomes[index] = None if check.unsupported else assess(check, subject)
        except InapplicableCheckError as error:
            return _unknown(check, error)
    replies = await asyncio.gather(
        *(assess_judged(leaves[index], subject, judge) for index in judged), return_exceptions=True
    )
    for index, reply in zip(judged, replies, strict=True):
        if isinstance(reply, InapplicableCheckError):
            return _unknown(leaves[index], reply)
        if isinstance(reply, BaseException):
            raise reply
        outcomes[index] = reply
    return _combined(checks, outcomes, threshold)


def _leaves(checks: Sequence[Check]) -> Iterator[Check]:
    for check in checks:
        yield from check.checks if check.base_type == ASSERT_SET else (check,)


def _unknown(check: Check, error: InapplicableCheckError) -> Grade:
    return Grade(passed=None, score=None, error=f"{check.type}: {error}")


def _combined(checks: Sequence[Check], outcomes: Sequence[Graded | None], threshold: float | None) -> Grade:
    remaining = iter(outcomes)
    results: list[CheckResult] = []
    named: list[CheckResult] = []
    top: list[CheckResult] = []
    for check in checks:
        if check.base_type != ASSERT_SET:
            result = _result(check, next(remaining))
            top.append(result)
            named.append(result)
            results.append(result)
            continue
        members = [_result(inner, next(remaining)) for inner in check.checks]
        of_set = _set_result(check, members)
        top.append(of_set)
        named.extend((of_set, *members))
        results.extend((of_set, *(member.model_copy(update={"weight": 0.0}) for member in members)))
    metrics = _metrics(named)
    applied = [result for result in top if result.passed is not None]
    weighted = [result for result in top if result.weight]
    if weighted and not any(result.weight for result in applied):
        reasons = "; ".join(dict.fromkeys(f"{result.type}: {result.reason}" for result in weighted))
        return Grade(passed=None, score=None, checks=tuple(results), metrics=metrics, error=f"unsupported: {reasons}")
    score = _weighted_mean(applied) if checks else 1.0
    return Grade(
        passed=score >= threshold if threshold else all(result.passed for result in applied if result.weight),
        score=score,
        checks=tuple(results),
        metrics=metrics,
    )


def _result(check: Check, outcome: Graded | None) -> CheckResult:
    passed, score, reason = (None, 0.0, check.unsupported)
    if outcome is not None:
        passed, score, reason = outcome.passed, outcome.score, outcome.reason
    return CheckResult(
        type=check.type, passed=passed, score=score, reason=reason, metric=check.metric, weight=check.weight
    )


def _set_result(check: Check, members: Sequence[CheckResult]) -> CheckResult:
    applied = [member for member in members if member.passed is not None]
    if not any(member.weight for member in applied) and any(member.weight for member in members):
        passed, score, reason = None, 0.0, "none of its assertions can be applied"
    else:
        score = _weighted_mean(applied)
        failed = [member for member in applied if member.weight and not member.passed]
        passed = score >= check.threshold if check.threshold else not failed
        if check.threshold:
            reason = f"The set scores {score:.4f}; it needs {check.threshold:g}."
        else:
            reason = failed[0].reason if failed else ""
    return CheckResult(
        type=check.type, passed=passed, score=score, reason=reason, metric=check.metric, weight=check.weight
    )


def _metrics(results: Sequence[CheckResult]) -> dict[str, float]:
    applied = [result for result in results if result.metric and result.passed is not None]
    names = dict.fromkeys(result.metric for result in applied)
    return {name: _weighted_mean([result for result in applied if result.metric == name]) for name in names}


def _weighted_mean(results: Sequence[CheckResult]) -> float:
    total = math.fsum(result.weight for result in results)
    return math.fsum(result.weight * result.score for result in results) / total if total else 0.0
