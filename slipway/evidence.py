"""Recorded results aligned by case and arm, as the gate and the report look at them.

A case that an arm did not answer is missing, never failed: whether that matters is for the rules to say. A case that
nobody asked, because the verdict was certain without it, is neither.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from slipway.coverage import measure_coverage
from slipway.errors import ConfigurationError
from slipway.gate_file import NAMED, Measure, Metric, is_cost, is_latency
from slipway.results import Arm, CaseResult
from slipway.suite_shape import CaseShape, SuiteShape

__all__ = ["Evidence", "Gap", "align", "instrument_fault", "is_out_of_range"]


class Gap(StrEnum):
    """Why an arm has no value on a case."""

    MISSING = "missing"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Results by arm and case.

    Attributes:
        cases: Every case that any arm has a line for, sorted, so that no fixed-size analysis depends on the order of
            lines.
        order: The same cases in the order of their first lines, which is the suite's; for sequential bounds only.
        arms: Only arms with at least one line.
        tags: Tags by case; every arm's lines contribute.
        groups: ``metadata.group`` by case, where it has one.
        sound: By arm, the cases whose line measures something.
    """

    cases: tuple[str, ...]
    order: tuple[str, ...]
    arms: Mapping[Arm, Mapping[str, CaseResult]]
    tags: Mapping[str, frozenset[str]]
    groups: Mapping[str, str]
    sound: Mapping[Arm, frozenset[str]]

    def tagged(self, tag: str | None) -> tuple[str, ...]:
        """List the cases that carry ``tag``; all of them for None."""
        return self.cases if tag is None else self._cases_by_tag.get(tag, ())

    def concerned(self, measure: Measure, tag: str | None = None) -> tuple[str, ...]:
        """List the cases with ``tag`` that ``measure`` is about.

        A named metric is about the cases on which some arm has it, and may be about those that no arm answered.
        """
        cases = self.tagged(tag)
        if not measure.startswith(NAMED):
            return cases
        name = measure.removeprefix(NAMED)
        if not any(name in result.metrics for lines in self.arms.values() for result in lines.values()):
            return ()
        return tuple(case for case in cases if self._may_have(case, name))

    def value(self, arm: Arm, case: str, measure: Measure) -> float | None:
        """Give what ``arm`` reached on ``case``: a pass as 0 or 1, a score, milliseconds or US dollars.

        None where it has no such value.
        """
        return self.by_case(arm, measure).get(case)

    def by_case(self, arm: Arm, measure: Measure) -> Mapping[str, float]:
        """Give the values of all cases on which ``arm`` has one; collected once, as every rule asks for them anew."""
        known = self._known.get((arm, measure))
        if known is None:
            read, lines = _reader(measure), self.arms.get(arm, {})
            known = {case: value for case in self.sound.get(arm, ()) if (value := read(lines[case])) is not None}
            self._known[arm, measure] = known
        return known

    def reading(self, arm: Arm, case: str, measure: Measure) -> float | Gap:
        """Give the value, or why there is none."""
        value = self.value(arm, case, measure)
        if value is not None:
            return value
        return Gap.NOT_ASKED if self._is_pending(arm, case) else Gap.MISSING

    def values(self, arm: Arm, cases: Iterable[str], measure: Measure) -> list[float]:
        """Give the values of the cases that have one, in the order of ``cases``."""
        known = self.by_case(arm, measure)
        return [known[case] for case in cases if case in known]

    def missing(self, arm: Arm) -> tuple[str, ...]:
        """List the cases that ``arm`` did not answer, for want of a line or because the instrument failed."""
        sound = self.sound.get(arm, frozenset())
        return tuple(case for case in self.cases if case not in sound and not self._is_pending(arm, case))

    def not_asked(self, arm: Arm) -> tuple[str, ...]:
        """List the cases that ``arm`` was never asked, because the evaluation had stopped."""
        return tuple(case for case in self.cases if self._is_pending(arm, case))

    def asked_first(self) -> tuple[str, ...]:
        """List the cases, in the suite's order, before the first that some arm was not asked."""
        for place, case in enumerate(self.order):
            if any(self._is_pending(arm, case) for arm in self.arms):
                return self.order[:place]
        return self.order

    def unit(self, case: str) -> Hashable:
        """Give what is drawn when this case is: its group, or itself."""
        group = self.groups.get(case)
        return ("case", case) if group is None else ("group", group)

    @cached_property
    def is_clustered(self) -> bool:
        """Whether some group holds more than one case, so that cases are not independent."""
        return any(count > 1 for count in Counter(self.groups.values()).values())

    @cached_property
    def shape(self) -> SuiteShape:
        """What is known of the suite that these are results of."""
        found: dict[str, list[CaseResult]] = {case: [] for case in self.cases}
        for lines in self.arms.values():
            for case, result in lines.items():
                found[case].append(result)
        shapes = tuple(
            CaseShape(
                tags=self.tags[case],
                group=self.groups.get(case),
                metrics=frozenset(name for result in results for name in result.metrics),
                is_checked=any(result.checks or instrument_fault(result) for result in results),
            )
            for case, results in found.items()
        )
        return SuiteShape(shapes, coverage=min(self.coverage.values(), default=1.0))

    @cached_property
    def coverage(self) -> Mapping[Arm, float]:
        """For each arm with checks, the share of them that could be applied."""
        measured = {arm: measure_coverage(lines.values()) for arm, lines in self.arms.items()}
        return {arm: coverage.share for arm, coverage in measured.items() if coverage.total}

    @cached_property
    def all_tags(self) -> tuple[str, ...]:
        """Every tag of any case, sorted."""
        return tuple(sorted(self._cases_by_tag))

    @cached_property
    def all_metrics(self) -> tuple[str, ...]:
        """Every named metric of any line, as ``metrics.NAME``, sorted."""
        names = {name for lines in self.arms.values() for result in lines.values() for name in result.metrics}
        return tuple(f"{NAMED}{name}" for name in sorted(names))

    @cached_property
    def _cases_by_tag(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for case in self.cases:
            for tag in self.tags[case]:
                found.setdefault(tag, []).append(case)
        return {tag: tuple(cases) for tag, cases in found.items()}

    @cached_property
    def _known(self) -> dict[tuple[Arm, Measure], dict[str, float]]:
        return {}

    def _is_pending(self, arm: Arm, case: str) -> bool:
        result = self.arms.get(arm, {}).get(case)
        return result is not None and result.not_asked

    def _may_have(self, case: str, name: str) -> bool:
        answers = [self.arms[arm][case] for arm in self.arms if case in self.sound[arm]]
        return not answers or any(name in answer.metrics for answer in answers)


def align(results: Sequence[CaseResult]) -> Evidence:
    """Sort results by arm and case.

    Raises:
        ConfigurationError: Two lines for the same case and arm, so that we cannot know which one counts; or two groups
            for one case.
    """
    arms: dict[Arm, dict[str, CaseResult]] = {}
    tags: dict[str, frozenset[str]] = {}
    groups: dict[str, str] = {}
    for result in results:
        lines = arms.setdefault(result.arm, {})
        if result.case in lines:
            raise ConfigurationError(
                f"The results have two lines for case {result.case!r} and arm {result.arm}.",
                fix="Keep one line for each case and arm; give every case its own id.",
            )
        lines[result.case] = result
        known = tags.get(result.case)
        if known is None or not known.issuperset(result.tags):
            tags[result.case] = (known or frozenset()).union(result.tags)
        if result.group is not None and groups.setdefault(result.case, result.group) != result.group:
            raise ConfigurationError(
                f"The results put case {result.case!r} into two groups, {groups[result.case]!r} and {result.group!r}.",
                fix="Give all lines of a case the same group.",
            )
    return Evidence(
        cases=tuple(sorted(tags)),
        order=tuple(tags),
        arms=arms,
        tags=tags,
        groups=groups,
        sound={
            arm: frozenset(case for case, result in lines.items() if not instrument_fault(result))
            for arm, lines in arms.items()
        },
    )


def _reader(measure: Measure) -> Callable[[CaseResult], float | None]:
    if measure == Metric.PASS_RATE:
        return lambda result: None if result.passed is None else float(result.passed)
    if measure == Metric.SCORE:
        return lambda result: result.score
    if is_latency(measure):
        return lambda result: result.latency_ms
    if is_cost(measure):
        return lambda result: result.cost_usd
    name = measure.removeprefix(NAMED)
    return lambda result: result.metrics.get(name)


def instrument_fault(result: CaseResult) -> str:
    """Say why this line measures nothing; empty when it does."""
    if result.not_asked:
        return result.error or "not asked"
    if result.error is not None:
        return result.error or "an error without a message"
    if is_out_of_range(result):
        return "a score, latency or cost is not a number in range"
    if result.passed is None and result.score is None:
        return "neither passed nor scored"
    return ""


def is_out_of_range(result: CaseResult) -> bool:
    """Whether a grader or a clock recorded what cannot be: NaN, infinity, or a score outside [0, 1]."""
    if result.score is not None and not 0 <= result.score <= 1:  # as NaN is not
        return True
    for score in result.metrics.values():
        if not 0 <= score <= 1:
            return True
    latency, cost = result.latency_ms, result.cost_usd
    return (latency is not None and not math.isfinite(latency)) or (cost is not None and not math.isfinite(cost))
