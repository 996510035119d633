"""Checks of what came with an answer, not of what it says: time, cost, why it ended, how sure the model was."""

from __future__ import annotations

import math
from dataclasses import replace

from slipway.checks.registry import Check, Graded, InapplicableCheckError, Subject, kind
from slipway.checks.values import text_value

__all__: list[str] = []

_SAME_REASON = {"eos_token": "stop", "eos": "stop", "stop_sequence": "stop", "function_call": "tool_calls"}
"""Names that servers give (LoRAX on its native route, older OpenAI), in the words of a suite."""


def _milliseconds(check: Check) -> Check:
    return _bounded(check, "in milliseconds")


def _dollars(check: Check) -> Check:
    return _bounded(check, "in US dollars")


def _bounded(check: Check, unit: str) -> Check:
    if check.threshold is None or not math.isfinite(check.threshold) or check.threshold < 0:
        raise ValueError(f"{check.type} needs `threshold:`, {unit}")
    return check


def _optional_bound(check: Check) -> Check:
    if check.threshold is not None and not (math.isfinite(check.threshold) and check.threshold >= 0):
        raise ValueError(f"the threshold of {check.type} must be a number, 0 or more")
    return check


def _reason_name(check: Check) -> Check:
    return replace(text_value(check), value=str(check.value).strip().lower())


@kind("latency", prepare=_milliseconds, ignores_not=True, has_threshold=True)
def _latency(check: Check, subject: Subject) -> Graded:
    if subject.latency_ms is None:
        raise InapplicableCheckError("the latency of this answer is unknown")
    passed = check.threshold is not None and subject.latency_ms <= check.threshold
    reason = "" if passed else f"Expected at most {check.threshold:g} ms, took {subject.latency_ms:.1f} ms."
    return Graded(passed=passed, score=float(passed), reason=reason)


@kind("cost", prepare=_dollars, has_threshold=True)
def _cost(check: Check, subject: Subject) -> Graded:
    if subject.cost_usd is None:
        raise InapplicableCheckError("the cost of this answer is unknown; give `prices` in the target")
    holds = check.threshold is not None and subject.cost_usd <= check.threshold
    passed = holds != check.is_negated
    relation = "more than" if check.is_negated else "at most"
    reason = "" if passed else f"Expected {relation} ${check.threshold:g}, cost ${subject.cost_usd:.3g}."
    return Graded(passed=passed, score=float(passed), reason=reason)


@kind("finish-reason", prepare=_reason_name)
def _finish_reason(check: Check, subject: Subject) -> Graded:
    if not subject.finish_reason:
        raise InapplicableCheckError("the server did not say why it stopped")
    found = subject.finish_reason.lower()
    passed = (check.value in {found, _SAME_REASON.get(found)}) != check.is_negated
    expected = f"{'not ' * check.is_negated}{check.value!r}"
    reason = "" if passed else f"Expected the answer to end for {expected}, it ended for {subject.finish_reason!r}."
    return Graded(passed=passed, score=float(passed), reason=reason)


@kind("perplexity", prepare=_optional_bound, has_threshold=True)
def _perplexity_at_most(check: Check, subject: Subject) -> Graded:
    """Compare exp(-mean of the log probabilities) with the threshold; without one every answer passes."""
    value = _perplexity(subject)
    passed = (check.threshold is None or value <= check.threshold) != check.is_negated
    reason = f"The perplexity is {value:.4g}."
    return Graded(passed=passed, score=float(passed), reason=reason)


@kind("perplexity-score", prepare=_optional_bound, has_threshold=True)
def _perplexity_score(check: Check, subject: Subject) -> Graded:
    """Score 1 / (1 + perplexity), which the threshold, where there is one, must not exceed."""
    score = 1 / (1 + _perplexity(subject))
    passed = (check.threshold is None or score >= check.threshold) != check.is_negated
    return Graded(
        passed=passed, score=1 - score if check.is_negated else score, reason=f"The perplexity score is {score:.4f}."
    )


def _perplexity(subject: Subject) -> float:
    if not subject.logprobs:
        raise InapplicableCheckError("the server gave no log probabilities with this answer")
    mean = math.fsum(subject.logprobs) / len(subject.logprobs)
    if math.isnan(mean):
        raise InapplicableCheckError("a log probability of this answer is no number")
    try:
        return math.exp(-mean)
    except OverflowError:
        return math.inf
