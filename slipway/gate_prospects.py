"""How far each rule of a gate still is from being settled, as answers come in: quick to know, and never too far.

Asking the gate costs intervals and bootstraps; this costs an addition for each answer. An interval holds its estimate,
so a rule cannot fail for certain before even the best answers would leave the estimate on the wrong side of the limit,
nor pass before even the worst would leave it on the right one. From there on a rule on a rate takes one exact test at
the limit. Where the gate takes always-valid bounds, they are computed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from slipway.evidence import Evidence
from slipway.gate_file import EarlyStop, Gate, Measure, Metric, NonInferiority, Requirement, Superiority, is_share
from slipway.gate_requirements import QUANTILES
from slipway.gate_rules import confidence_of
from slipway.paired_rates import refutes
from slipway.results import Arm
from slipway.sequential import confidence_sequence, settled_at
from slipway.statistics import clopper_pearson
from slipway.suite import Case

__all__ = ["Prospect", "prospects_of"]

_SLACK = 1e-9


@dataclass(kw_only=True)
class Prospect:
    """What the answers so far leave open for the mean that a rule is about.

    Attributes:
        name: The rule's.
        metric: What is averaged; of a percentile of latency the share within the limit.
        other: The arm to subtract, if any.
        tag: Of the cases that count.
        within_ms: For latencies, what turns them into 0 or 1.
        limit: Of the mean.
        is_floor: Whether the mean must be above it.
        open: Cases that count and were not answered yet.
        confidence: Of the gate's intervals, two-sided.
        is_exact: Whether the gate decides it by an exact method, which the answers to come cannot undo.
        has_bound: Whether an always-valid bound may settle it.
        values: Of the cases that have one, in the order of the answers.
        total: Their sum.
    """

    name: str
    metric: Measure
    other: Arm | None = None
    tag: str | None = None
    within_ms: float | None = None
    limit: float
    is_floor: bool = True
    open: int
    confidence: float
    is_exact: bool
    has_bound: bool = False
    values: list[float] = field(default_factory=list)
    total: float = 0.0

    def read(self, fresh: Evidence) -> None:
        """Take in the answers to further cases."""
        for case in fresh.tagged(self.tag):
            self.open -= 1
            value = self._value(fresh, Arm.CANDIDATE, case)
            reference = self._value(fresh, self.other, case) if self.other else 0.0
            if value is not None and reference is not None:
                self.values.append(value - reference)
                self.total += value - reference

    def certain(self) -> tuple[float, float]:
        """Give the least and the largest that the mean can become."""
        n = len(self.values) + self.open
        if n == 0:
            return -math.inf, math.inf
        return (self.total - self.open * bool(self.other)) / n, (self.total + self.open) / n

    def may_pass_anyhow(self) -> bool:
        """Whether it may pass whatever the answers to come are."""
        return self.may_pass(self.certain()) and self._is_beyond(is_above=self.is_floor)

    def may_fail_anyhow(self) -> bool:
        """Whether it may fail whatever the answers to come are."""
        return self.may_fail(self.certain()) and self._is_beyond(is_above=not self.is_floor)

    def bounded(self) -> tuple[float, float]:
        """Give the always-valid bounds of the mean once they leave the limit out; infinite ones before, or without."""
        support = (-1.0 if self.other else 0.0, 1.0)
        if not self.has_bound or not self.values:
            return -math.inf, math.inf
        settled = settled_at(self.values, limit=self.limit, support=support, confidence=self.confidence)
        if settled is None:
            return -math.inf, math.inf
        interval = confidence_sequence(self.values[:settled], support=support, confidence=self.confidence)
        return interval.low, interval.high

    def may_pass(self, bounds: tuple[float, float]) -> bool:
        """Whether bounds are on the right side of the limit."""
        return bounds[0] >= self.limit - _SLACK if self.is_floor else bounds[1] <= self.limit + _SLACK

    def may_fail(self, bounds: tuple[float, float]) -> bool:
        """Whether bounds are on the wrong side of the limit."""
        return bounds[1] < self.limit - _SLACK if self.is_floor else bounds[0] > self.limit + _SLACK

    def _is_beyond(self, *, is_above: bool) -> bool:
        """Whether the exact method finds the mean above (below) the limit with all that is open counted the other way.

        Missing answers are left out, as the gate leaves them out first.
        """
        if not self.is_exact:
            return True
        n = len(self.values) + self.open
        higher = self.values.count(1.0) + (0 if is_above else self.open)
        if self.other is None:
            low, high = clopper_pearson(higher, n, confidence=self.confidence)
            return low >= self.limit - _SLACK if is_above else high <= self.limit + _SLACK
        lower = self.values.count(-1.0) + (self.open if is_above else 0)
        tail = (1 - self.confidence) / 2
        if is_above:
            return refutes(higher, lower, n, self.limit, tail)
        return refutes(lower, higher, n, -self.limit, tail)

    def _value(self, fresh: Evidence, arm: Arm, case: str) -> float | None:
        value = fresh.value(arm, case, self.metric)
        return value if value is None or self.within_ms is None else float(value <= self.within_ms)


def prospects_of(
    gate: Gate, cases: Sequence[Case], arms: Sequence[Arm], *, has_champion: bool | None, attempt: int
) -> tuple[list[Prospect], bool]:
    """List the rules that can be settled before the last answer, and say whether these are all.

    A mean of latencies or costs, or their ratio, can turn with any answer. A graded score, or one of cases that share a
    source, takes a bootstrap, of which nothing is certain but what the always-valid bound says.
    """
    against = gate.against
    is_first = has_champion is False and Arm.CHAMPION not in arms
    comparisons: list[tuple[Arm, NonInferiority | Superiority]] = []
    if against.champion is not None and not is_first:
        comparisons.append((Arm.CHAMPION, against.champion))
    if against.base is not None:
        comparisons.append((Arm.BASE, against.base))
    is_clustered = max(Counter(case.group for case in cases if case.group is not None).values(), default=1) > 1
    has_bound = gate.early_stop is EarlyStop.SEQUENTIAL and not is_clustered
    confidence = confidence_of(gate, attempt)

    def is_countable(metric: Measure) -> bool:
        return is_share(metric) and (has_bound or (metric == Metric.PASS_RATE and not is_clustered))

    def is_exact(metric: Measure) -> bool:
        return metric in QUANTILES or (metric == Metric.PASS_RATE and not is_clustered)

    prospects = [
        Prospect(
            name=rule.name,
            metric=rule.metric,
            other=arm,
            limit=rule.limit,
            open=len(cases),
            confidence=confidence,
            is_exact=is_exact(rule.metric),
            has_bound=has_bound,
        )
        for arm, rule in comparisons
        if is_countable(rule.metric)
    ]
    prospects += [
        _of_requirement(
            rule,
            cases,
            confidence=confidence,
            is_exact=is_exact(rule.metric) and not _is_absolute(rule),
            has_bound=has_bound and not _is_absolute(rule),
        )
        for rule in gate.require
        if rule.metric in QUANTILES or _is_absolute(rule) or is_countable(rule.metric)
    ]
    has_ratios = against.latency is not None or against.cost is not None
    return prospects, not has_ratios and len(prospects) == len(comparisons) + len(gate.require)


def _is_absolute(rule: Requirement) -> bool:
    """Whether one exception fails it, however its cases hang together."""
    return is_share(rule.metric) and (rule.at_least == 1.0 or rule.at_most == 0.0)


def _of_requirement(
    rule: Requirement, cases: Sequence[Case], *, confidence: float, is_exact: bool, has_bound: bool
) -> Prospect:
    is_quantile = rule.metric in QUANTILES
    return Prospect(
        name=rule.name,
        metric=rule.metric,
        tag=rule.tag,
        within_ms=rule.bound if is_quantile else None,
        limit=QUANTILES[Metric(rule.metric)] if is_quantile else rule.bound,
        is_floor=is_quantile or rule.at_least is not None,
        open=sum(rule.tag is None or rule.tag in case.tags for case in cases),
        confidence=confidence,
        is_exact=is_exact,
        has_bound=has_bound,
    )
