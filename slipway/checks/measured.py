"""Checks of what an answer took, not of what it says."""

from __future__ import annotations

import math

from slipway.checks.registry import Check, Graded, InapplicableCheckError, Subject, kind

__all__: list[str] = []


def _milliseconds(check: Check) -> Check:
    if check.threshold is None or not math.isfinite(check.threshold) or check.threshold < 0:
        raise ValueError(f"{check.type} needs `threshold:`, in milliseconds")
    return check


@kind("latency", prepare=_milliseconds)
def _latency(check: Check, subject: Subject) -> Graded:
    """Compare with the threshold; promptfoo ignores a ``not-`` here, and so do we."""
    if subject.latency_ms is None:
        raise InapplicableCheckError("the latency of this answer is unknown")
    passed = check.threshold is not None and subject.latency_ms <= check.threshold
    reason = "" if passed else f"Expected at most {check.threshold:g} ms, took {subject.latency_ms:.1f} ms."
    return Graded(passed=passed, score=float(passed), reason=reason)
