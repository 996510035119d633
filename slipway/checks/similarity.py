"""``similar`` and its metrics: how near the output is to a text, by the embeddings of a model."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from slipway.checks.registry import Check, Graded, InapplicableCheckError, Judge, Subject, judged_kind
from slipway.validation_errors import describe
from slipway.vectors import cosine, dot, euclidean

__all__: list[str] = []

DEFAULT_THRESHOLD = 0.75

_EPSILON = sys.float_info.epsilon


def _with_texts(check: Check) -> Check:
    texts = check.value if isinstance(check.value, list) else [check.value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(
            f"{check.type} needs a text, or a list of texts, to compare with; found {describe(check.value)}"
        )
    threshold = DEFAULT_THRESHOLD if check.threshold is None else check.threshold
    if not math.isfinite(threshold):
        raise ValueError(f"the threshold of {check.type} must be a finite number")
    return replace(check, value=tuple(texts), threshold=threshold)


@judged_kind("similar", prepare=_with_texts, needs="embeddings")
@judged_kind("similar:cosine", prepare=_with_texts, needs="embeddings")
async def _by_cosine(check: Check, subject: Subject, judge: Judge) -> Graded:
    return _near_enough(check, max(_measured(cosine, await _vectors(check, subject, judge)), default=0.0))


@judged_kind("similar:dot", prepare=_with_texts, needs="embeddings")
async def _by_dot(check: Check, subject: Subject, judge: Judge) -> Graded:
    return _near_enough(check, max(_measured(dot, await _vectors(check, subject, judge)), default=0.0))


@judged_kind("similar:euclidean", prepare=_with_texts, needs="embeddings")
async def _by_distance(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Pass where the distance is at most the threshold; the score of a distance d is 1 / (1 + d)."""
    distance = min(_measured(euclidean, await _vectors(check, subject, judge)), default=math.inf)
    threshold = check.threshold or 0.0
    score = 1 / (1 + distance)
    reason = f"Distance {distance:.2f}; the threshold is {threshold:g}."
    if check.is_negated:
        return Graded(passed=distance >= threshold - _EPSILON, score=1 - score, reason=reason)
    return Graded(passed=distance <= threshold + _EPSILON, score=score, reason=reason)


def _near_enough(check: Check, similarity: float) -> Graded:
    """Compare with the threshold. Of several texts the nearest counts, for ``not-`` too: none may be near."""
    threshold = check.threshold or 0.0
    score = max(0.0, min(1.0, similarity))
    reason = f"Similarity {similarity:.2f}; the threshold is {threshold:g}."
    if check.is_negated:
        return Graded(passed=similarity <= threshold + _EPSILON, score=1 - score, reason=reason)
    return Graded(passed=similarity >= threshold - _EPSILON, score=score, reason=reason)


async def _vectors(check: Check, subject: Subject, judge: Judge) -> Sequence[Sequence[float]]:
    """Embed the output and the texts; nothing for a blank output, which servers refuse and which is near to nothing."""
    if not subject.output.strip():
        return ()
    return await judge.embed([subject.output, *(check.value if isinstance(check.value, tuple) else ())])


def _measured(
    metric: Callable[[Sequence[float], Sequence[float]], float], vectors: Sequence[Sequence[float]]
) -> list[float]:
    try:
        return [metric(vectors[0], other) for other in vectors[1:]]
    except ValueError as error:
        raise InapplicableCheckError(str(error)) from error
