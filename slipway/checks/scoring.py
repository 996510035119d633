"""How the checks of a case make one grade: applied one by one, then weighed as promptfoo weighs them."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from slipway.checks.registry import (
    Check,
    Graded,
    InapplicableCheckError,
    Judge,
    Subject,
    assess,
    assess_judged,
    is_judged,
)
from slipway.checks.script import TransformError, transformed
from slipway.javascript import Script
from slipway.results import ASSERT_SET, CheckResult

__all__ = ["Grade", "grade", "grade_judged"]

_Named = tuple[str, float, float]
"""A metric's name, a weight and a score."""


class Grade(NamedTuple):
    """What all checks of a case say of one output. A named tuple: an evaluation makes one for each answer.

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
    metrics: Mapping[str, float] = MappingProxyType({})
    error: str | None = None


def grade(
    checks: Sequence[Check], subject: Subject, *, threshold: float | None = None, transform: str | Script = ""
) -> Grade:
    """Apply prepared checks, none of which needs a judge, to one output.

    The score is sum(weight * score) / sum(weight) over the checks that could be applied. The case passes when each of
    these with a weight passes or, with a ``threshold`` other than 0, when the score reaches it. Without checks it
    passes with 1; with nothing but weights of 0 it passes with 0 (promptfoo 0.121.9). Where none of the checks with a
    weight could be applied, or one lacks what it looks at, nothing is known: ``error`` is set.

    Args:
        checks: Of one case.
        subject: The answer.
        threshold: The case's.
        transform: Verified JavaScript that makes what all checks look at out of the output. Where it throws, the
            output is not in the form that the suite expects, and the case fails.
    """
    leaves = _leaves(checks)
    failure: Graded | None = None
    try:
        if transform:
            subject, failure = _prepared(subject, transform)
        outcomes = [failure or _outcome(check, subject) for check in leaves]
    except _UnknownError as unknown:
        return unknown.grade
    return _combined(checks, outcomes, threshold, failure)


async def grade_judged(
    checks: Sequence[Check],
    subject: Subject,
    judge: Judge,
    *,
    threshold: float | None = None,
    transform: str | Script = "",
) -> Grade:
    """Do as ``grade``, and ask the judge for the checks that need it, all at once; the others come first.

    Raises:
        ServiceError: The judge did not answer.
    """
    leaves = _leaves(checks)
    failure: Graded | None = None
    try:
        if transform:
            subject, failure = _prepared(subject, transform)
        outcomes = [failure or (None if is_judged(check) else _outcome(check, subject)) for check in leaves]
        if failure is None:
            asked = [index for index, check in enumerate(leaves) if is_judged(check)]
            replies = await asyncio.gather(
                *(_judged_outcome(leaves[index], subject, judge) for index in asked), return_exceptions=True
            )
            for index, reply in zip(asked, replies, strict=True):
                if isinstance(reply, BaseException):
                    raise reply
                outcomes[index] = reply
    except _UnknownError as unknown:
        return unknown.grade
    return _combined(checks, outcomes, threshold, failure)


class _UnknownError(Exception):
    """No answer can be given for this case."""

    def __init__(self, what: str, error: InapplicableCheckError) -> None:
        super().__init__(what)
        self.grade = Grade(passed=None, score=None, error=f"{what}: {error}")


def _prepared(subject: Subject, transform: str | Script) -> tuple[Subject, Graded | None]:
    """Give what the checks look at, and how all of them end where the transform could not make it."""
    try:
        return transformed(transform, subject), None
    except TransformError as error:
        return subject, Graded(passed=False, score=0, reason=f"{error}.")
    except InapplicableCheckError as error:
        raise _UnknownError("transform", error) from None


def _outcome(check: Check, subject: Subject) -> Graded | None:
    """Apply one check; None where its type is not supported."""
    if check.unsupported:
        return None
    try:
        if check.transform:
            subject, failure = _prepared(subject, check.transform)
            if failure is not None:
                return failure
        return assess(check, subject)
    except InapplicableCheckError as error:
        raise _UnknownError(check.type, error) from None


async def _judged_outcome(check: Check, subject: Subject, judge: Judge) -> Graded:
    try:
        if check.transform:
            subject, failure = _prepared(subject, check.transform)
            if failure is not None:
                return failure
        return await assess_judged(check, subject, judge)
    except InapplicableCheckError as error:
        raise _UnknownError(check.type, error) from None


def _leaves(checks: Sequence[Check]) -> list[Check]:
    leaves: list[Check] = []
    for check in checks:
        if check.base_type == ASSERT_SET:
            leaves.extend(check.checks)
        else:
            leaves.append(check)
    return leaves


def _combined(
    checks: Sequence[Check], outcomes: Sequence[Graded | None], threshold: float | None, failure: Graded | None
) -> Grade:
    remaining = iter(outcomes)
    results: list[CheckResult] = []
    counted: list[CheckResult] = []  # those that make the score: a set, not its members
    for check in checks:
        if check.base_type == ASSERT_SET:
            members = [_result(inner, outcome) for inner, outcome in zip(check.checks, remaining, strict=False)]
            result = _set_result(check, members)
            results.extend((result, *(member.but(weight=0.0) for member in members)))
        else:
            outcome = next(remaining)
            result = _result(check, outcome)
            results.append(result)
        counted.append(result)
    applied = [result for result in counted if result.passed is not None]
    named = _contributions(checks, counted, outcomes)
    passed: bool | None
    score: float | None
    passed, score, error = None, None, None
    weighing = [result for result in applied if result.weight]
    if not weighing and (missed := [result for result in counted if result.weight]):
        reasons = "; ".join(dict.fromkeys(f"{result.type}: {result.reason}" for result in missed))
        error = f"unsupported: {reasons}"
    elif failure is not None:
        passed, score = False, 0.0
    else:
        score = _weighted_mean(weighing) if checks else 1.0
        passed = score >= threshold if threshold else all(result.passed for result in weighing)
    return Grade(passed=passed, score=score, checks=tuple(results), metrics=_means(named), error=error)


def _result(check: Check, outcome: Graded | None) -> CheckResult:
    passed, score, reason = (None, 0.0, check.unsupported)
    if outcome is not None:
        passed, score, reason = outcome.passed, outcome.score, outcome.reason
    return _recorded(check.type, passed, score, reason, check.metric, check.weight)


@lru_cache(maxsize=1024)  # most answers pass, and passing says the same each time
def _recorded(  # noqa: PLR0917  # keywords make a key of the cache twice as dear
    kind: str,
    passed: bool | None,  # noqa: FBT001  # as above
    score: float,
    reason: str,
    metric: str,
    weight: float,
) -> CheckResult:
    return CheckResult(type=kind, passed=passed, score=score, reason=reason, metric=metric, weight=weight)


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


def _contributions(
    checks: Sequence[Check], results: Sequence[CheckResult], outcomes: Sequence[Graded | None]
) -> list[_Named]:
    """Collect what checks, the members of sets, and the scores of scripts contribute to metrics.

    Inside a set or a script the weight is multiplied by that of the set or the check around it; what has the metric of
    that one does not count beside it (promptfoo 0.121.9).
    """
    remaining = iter(outcomes)
    named: list[_Named] = []
    for check, result in zip(checks, results, strict=True):
        if check.base_type == ASSERT_SET:
            members = list(itertools.islice(remaining, len(check.checks)))
            inner = [_result(member, outcome) for member, outcome in zip(check.checks, members, strict=True)]
            inside = _contributions(check.checks, inner, members)
            named.extend((name, weight * check.weight, score) for name, weight, score in inside if name != check.metric)
        else:
            outcome = next(remaining)
            scores = outcome.metrics if outcome is not None else {}
            named.extend((name, check.weight, score) for name, score in scores.items() if name != check.metric)
        if result.passed is not None and check.metric:
            named.append((check.metric, check.weight, result.score))
    return named


def _means(named: Sequence[_Named]) -> dict[str, float]:
    gathered: dict[str, list[tuple[float, float]]] = {}
    for name, weight, score in named:
        if name:
            gathered.setdefault(name, []).append((weight, score))
    return {name: _mean(pairs) for name, pairs in gathered.items()}


def _weighted_mean(results: Sequence[CheckResult]) -> float:
    return _mean([(result.weight, result.score) for result in results])


def _mean(pairs: Sequence[tuple[float, float]]) -> float:
    total = math.fsum([weight for weight, _ in pairs])
    return math.fsum([weight * score for weight, score in pairs]) / total if total else 0.0
