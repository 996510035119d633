"""Recorded results aligned by case and arm, as the gate and the report look at them.

A case that an arm did not answer is missing, never failed: whether that matters is for the rules to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slipway.errors import ConfigurationError
from slipway.gate_file import Metric
from slipway.results import Arm, CaseResult

__all__ = ["Evidence", "align", "instrument_fault", "is_out_of_range"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Results by arm and case.

    Attributes:
        cases: Every case that any arm has a line for, sorted, so that no outcome depends on the order of lines.
        arms: Only arms with at least one line.
        tags: Tags by case; every arm's lines contribute.
    """

    cases: tuple[str, ...]
    arms: Mapping[Arm, Mapping[str, CaseResult]]
    tags: Mapping[str, frozenset[str]]

    def tagged(self, tag: str | None) -> tuple[str, ...]:
        """List the cases that carry ``tag``; all of them for None."""
        return self.cases if tag is None else tuple(case for case in self.cases if tag in self.tags[case])

    def value(self, arm: Arm, case: str, metric: Metric) -> float | None:
        """Give what ``arm`` reached on ``case``: a pass as 0 or 1, a score, or milliseconds; None when missing."""
        result = self.arms.get(arm, {}).get(case)
        if result is None or instrument_fault(result):
            return None
        if metric is Metric.PASS_RATE:
            return None if result.passed is None else float(result.passed)
        return result.score if metric is Metric.SCORE else result.latency_ms

    def values(self, arm: Arm, cases: Iterable[str], metric: Metric) -> list[float]:
        """Give the values of the cases that have one, in the order of ``cases``."""
        return [value for case in cases if (value := self.value(arm, case, metric)) is not None]

    def missing(self, arm: Arm) -> tuple[str, ...]:
        """List the cases that ``arm`` did not answer, for want of a line or because the instrument failed."""
        lines = self.arms.get(arm, {})
        return tuple(case for case in self.cases if case not in lines or instrument_fault(lines[case]))


def align(results: Sequence[CaseResult]) -> Evidence:
    """Sort results by arm and case.

    Raises:
        ConfigurationError: Two lines for the same case and arm, so that we cannot know which one counts.
    """
    arms: dict[Arm, dict[str, CaseResult]] = {}
    tags: dict[str, frozenset[str]] = {}
    for result in results:
        lines = arms.setdefault(result.arm, {})
        if result.case in lines:
            raise ConfigurationError(
                f"The results have two lines for case {result.case!r} and arm {result.arm}.",
                fix="Keep one line for each case and arm; give every case its own id.",
            )
        lines[result.case] = result
        tags[result.case] = tags.get(result.case, frozenset()) | set(result.tags)
    return Evidence(cases=tuple(sorted(tags)), arms=arms, tags=tags)


def instrument_fault(result: CaseResult) -> str:
    """Say why this line measures nothing; empty when it does."""
    if result.error is not None:
        return result.error or "an error without a message"
    if is_out_of_range(result):
        return "the score or latency is not a number in range"
    if result.passed is None and result.score is None:
        return "neither passed nor scored"
    return ""


def is_out_of_range(result: CaseResult) -> bool:
    """Whether a grader or a clock recorded what cannot be: NaN, infinity, or a score outside [0, 1]."""
    if result.score is not None and not (math.isfinite(result.score) and 0 <= result.score <= 1):
        return True
    return result.latency_ms is not None and not math.isfinite(result.latency_ms)
