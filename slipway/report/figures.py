"""The numbers that a report shows, worked out once from what was recorded.

Decides nothing: where the gate has said something of a quantity, its interval is the one shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from slipway.comparison import (
    PairSummary,
    changed_cases,
    compare_arms,
    paired_values,
    pass_difference,
    pass_rate,
)
from slipway.coverage import Coverage, measure_coverage
from slipway.evidence import Evidence, align, instrument_fault
from slipway.gate import RuleOutcome
from slipway.gate_file import Metric
from slipway.judge_agreement import Agreement, judge_agreement
from slipway.power import DesignNote, design_notes
from slipway.report.data import CheckGap, ReportData
from slipway.results import Arm, CaseResult
from slipway.statistics import Interval, quantile

__all__ = ["Bound", "Distribution", "Figures", "PairFigure", "Rate", "RateRow", "TagPair", "bound_of"]

_BOUND = re.compile(r" (at_least|at_most|margin|better_by|ratio_at_most) ([0-9.e+-]+)$")
NOT_ASKED = "not asked: "


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The limit that a rule is about, on the scale of its estimate."""

    value: float
    is_floor: bool
    unit: str
    """``share``, ``difference``, ``ratio``, ``ms``, ``usd`` or empty."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One arm's pass rate on some cases; no interval where nothing was answered."""

    arm: Arm
    interval: Interval | None
    missing: int
    not_asked: int


@dataclass(frozen=True, kw_only=True)
class RateRow:
    """Pass rates of all arms on the cases with a tag, or on all; ``floor`` is what the gate asks of the candidate."""

    tag: str | None
    cases: int
    rates: tuple[Rate, ...]
    floor: float | None


@dataclass(frozen=True, kw_only=True)
class PairFigure:
    """The candidate against another arm, case by case."""

    arm: Arm
    metric: str
    summary: PairSummary
    estimate: float | None
    low: float | None
    high: float | None
    n: int
    bound: float | None
    """From here on upwards the gate is content; None where it does not ask."""


@dataclass(frozen=True, kw_only=True)
class TagPair:
    """Passes gained and lost against the reference on the cases with one tag."""

    tag: str
    gained: int
    lost: int
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One arm's measured values, in ascending order, with exact intervals of two quantiles where there are enough."""

    arm: Arm
    values: tuple[float, ...]
    p50: Interval | None = None
    p95: Interval | None = None

    @property
    def mean(self) -> float:
        """Of the values."""
        return sum(self.values) / len(self.values)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a report shows of the results in ``data``."""

    data: ReportData
    evidence: Evidence

    @classmethod
    def of(cls, data: ReportData) -> Figures:
        """Align the results.

        Raises:
            ConfigurationError: The results hold two lines for one case and arm.
        """
        return cls(data=data, evidence=align(data.results))

    @property
    def confidence(self) -> float:
        """Of the intervals: the verdict's, which attempts and early stops raise above the gate's."""
        return self.data.verdict.confidence if self.data.verdict else self.data.confidence

    @property
    def attempt(self) -> int:
        """Which decision about this candidate on this suite it is, from 1."""
        return self.data.verdict.attempt if self.data.verdict else 1

    @cached_property
    def agreement(self) -> Agreement | None:
        """How far the judge agrees with the rules; None where no answer has both."""
        return judge_agreement(self.data.results)

    @cached_property
    def design(self) -> tuple[DesignNote, ...]:
        """What a suite of this size can show of each rule; empty without a gate."""
        if self.data.gate is None:
            return ()
        has_champion = Arm.CHAMPION in self.evidence.arms
        return design_notes(self.evidence.shape, self.data.gate, has_champion=has_champion, attempt=self.attempt)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Arms with results."""
        return tuple(arm for arm in Arm if arm in self.evidence.arms)

    @cached_property
    def reference(self) -> Arm | None:
        """Whom the candidate is compared with: the champion, the base where there is none."""
        if Arm.CANDIDATE not in self.arms:
            return None
        return next((arm for arm in (Arm.CHAMPION, Arm.BASE) if arm in self.arms), None)

    @cached_property
    def rates(self) -> tuple[RateRow, ...]:
        """Of all cases, then of each tag."""
        return tuple(self._rate_row(tag) for tag in (None, *self.evidence.all_tags)) if self.evidence.cases else ()

    @cached_property
    def pairs(self) -> tuple[PairFigure, ...]:
        """Against the champion and against the base, as far as there are any."""
        found = []
        for arm in (Arm.CHAMPION, Arm.BASE):
            summary = compare_arms(self.evidence, arm, self.confidence)
            if summary is not None:
                found.append(self._pair(arm, summary))
        return tuple(found)

    @cached_property
    def tag_pairs(self) -> tuple[TagPair, ...]:
        """Passes against the reference, by tag; the interval of each tag is its own, at the report's confidence."""
        if self.reference is None:
            return ()
        found = []
        for tag in self.evidence.all_tags:
            difference = pass_difference(self.evidence, self.reference, self.confidence, tag=tag)
            if difference is not None:
                both = Counter(
                    ours - theirs
                    for _, ours, theirs in paired_values(self.evidence, self.reference, Metric.PASS_RATE, tag=tag)
                )
                found.append(TagPair(tag=tag, gained=both[1.0], lost=both[-1.0], difference=difference))
        return tuple(found)

    @cached_property
    def has_grades(self) -> bool:
        """Whether scores say more than passed and failed."""
        return any(line.score not in {None, 0.0, 1.0} for line in self.data.results)

    @cached_property
    def means(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """Mean score and mean of each named metric, by arm; scores only where they say more than the pass rate."""
        rows = []
        for measure in (Metric.SCORE, *self.evidence.all_metrics):
            values = [self.evidence.values(arm, self.evidence.cases, measure) for arm in self.arms]
            if measure is Metric.SCORE and not self.has_grades:
                continue
            rows.append((str(measure), tuple(sum(of_arm) / len(of_arm) if of_arm else None for of_arm in values)))
        return tuple(rows)

    @cached_property
    def latencies(self) -> tuple[Distribution, ...]:
        """In milliseconds, of the answered cases."""
        found = []
        for arm in self.arms:
            values = self.evidence.values(arm, self.evidence.cases, Metric.LATENCY_P50)
            if values:
                p50, p95 = (quantile(values, share, confidence=self.confidence) for share in (0.5, 0.95))
                found.append(Distribution(arm=arm, values=tuple(sorted(values)), p50=p50, p95=p95))
        return tuple(found)

    @cached_property
    def elsewhen(self) -> tuple[Arm, ...]:
        """Arms with answers of other evaluations than the candidate's last, whose latencies compare with nobody's."""
        sessions = {
            arm: {line.session for line in self.evidence.arms[arm].values() if line.error is None} for arm in self.arms
        }
        own = sessions.get(Arm.CANDIDATE, set())
        return tuple(arm for arm in self.arms if sessions[arm] - own)

    @cached_property
    def costs(self) -> tuple[Distribution, ...]:
        """In US dollars an answer."""
        found = []
        for arm in self.arms:
            values = [line.cost_usd for line in self.evidence.arms[arm].values() if line.cost_usd is not None]
            if values:
                found.append(Distribution(arm=arm, values=tuple(sorted(values))))
        return tuple(found)

    @cached_property
    def regressed(self) -> tuple[str, ...]:
        """Cases that the reference passes and the candidate fails."""
        return tuple(changed_cases(self.evidence, is_regression=True)) if self.reference else ()

    @cached_property
    def gained(self) -> tuple[str, ...]:
        """Cases that the candidate passes and the reference fails."""
        return tuple(changed_cases(self.evidence, is_regression=False)) if self.reference else ()

    @cached_property
    def not_asked(self) -> tuple[int, str]:
        """How many cases nobody was asked, because the verdict was certain, and why."""
        reasons: dict[str, str] = {}
        for line in self.data.results:
            if line.not_asked:
                reasons.setdefault(line.case, (line.error or "").removeprefix(NOT_ASKED))
        return len(reasons), next(iter(reasons.values()), "")

    @cached_property
    def coverage(self) -> Coverage:
        """Of the checks of the candidate's answers."""
        return measure_coverage(self.evidence.arms.get(Arm.CANDIDATE, {}).values())

    @cached_property
    def gaps(self) -> tuple[CheckGap, ...]:
        """Checks that could not be applied: as the suite tells, else as the results do."""
        if self.data.gaps:
            return self.data.gaps
        counted = Counter(
            (check.type, check.reason)
            for line in self.evidence.arms.get(Arm.CANDIDATE, {}).values()
            for check in line.checks
            if check.passed is None
        )
        return tuple(
            CheckGap(where="", type=kind, reason=reason, cases=count) for (kind, reason), count in counted.items()
        )

    @cached_property
    def faults(self) -> tuple[tuple[Arm, str, int], ...]:
        """Why answers are missing: arm, cause and how many, the commonest first. Not asked is no fault."""
        causes = Counter(
            (arm, instrument_fault(line))
            for arm, lines in self.evidence.arms.items()
            for line in lines.values()
            if instrument_fault(line) and not line.not_asked
        )
        return tuple((arm, cause, count) for (arm, cause), count in causes.most_common())

    def of_case(self, case: str) -> Mapping[Arm, CaseResult]:
        """Every arm's line for one case."""
        return {arm: lines[case] for arm in self.arms if case in (lines := self.evidence.arms[arm])}

    def _rate_row(self, tag: str | None) -> RateRow:
        named = f"pass_rate tag {tag} at_least " if tag is not None else "pass_rate at_least "
        floors = (bound_of(rule.rule) for rule in self._rules if rule.rule.startswith(named))
        return RateRow(
            tag=tag,
            cases=len(self.evidence.tagged(tag)),
            rates=tuple(self._rate(arm, tag) for arm in self.arms),
            floor=next((bound.value for bound in floors if bound), None),
        )

    def _rate(self, arm: Arm, tag: str | None) -> Rate:
        cases = self.evidence.tagged(tag)
        interval = pass_rate(self.evidence, arm, self.confidence, tag=tag)
        not_asked = len(self._not_asked_of[arm].intersection(cases))
        missing = len(cases) - not_asked - (interval.n if interval else 0)
        return Rate(arm=arm, interval=interval, missing=missing, not_asked=not_asked)

    @cached_property
    def _not_asked_of(self) -> Mapping[Arm, frozenset[str]]:
        return {arm: frozenset(self.evidence.not_asked(arm)) for arm in self.arms}

    @property
    def _rules(self) -> Sequence[RuleOutcome]:
        return self.data.verdict.rules if self.data.verdict else ()

    def _pair(self, arm: Arm, summary: PairSummary) -> PairFigure:
        """Take the gate's own interval where it compared, which attempts and early stops have widened."""
        judged = _first(self._rules, f" against {arm} ")
        metric, ours = ("score", summary.difference) if self.has_grades else ("pass_rate", summary.pass_difference)
        n = summary.both_pass + summary.gained + summary.lost + summary.both_fail
        if judged is not None and judged.estimate is not None:
            bound = bound_of(judged.rule)
            return PairFigure(
                arm=arm,
                metric=judged.rule.split(" against ")[0],
                summary=summary,
                estimate=judged.estimate,
                low=judged.low,
                high=judged.high,
                n=judged.n,
                bound=bound.value if bound else None,
            )
        return PairFigure(
            arm=arm,
            metric=metric,
            summary=summary,
            estimate=ours.estimate if ours else None,
            low=ours.low if ours else None,
            high=ours.high if ours else None,
            n=ours.n if ours else n,
            bound=None,
        )


def _first(rules: Iterable[RuleOutcome], part: str) -> RuleOutcome | None:
    """The paired comparison of scores, and not that of latency or cost."""
    return next(
        (rule for rule in rules if part in rule.rule and (" margin " in rule.rule or " better_by " in rule.rule)), None
    )


def bound_of(rule: str) -> Bound | None:
    """Read a rule's limit from its name, as the gate makes it: ``pass_rate tag safety at_least 1``."""
    match = _BOUND.search(rule)
    if match is None:
        return None
    kind, value = match[1], float(match[2])
    if kind == "ratio_at_most":
        return Bound(value=value, is_floor=False, unit="ratio")
    if kind in {"margin", "better_by"}:
        return Bound(value=-value if kind == "margin" else value, is_floor=True, unit="difference")
    unit = {"latency_ms": "ms", "cost_usd": "usd"}.get(re.split(r"[. ]", rule, maxsplit=1)[0], "share")
    return Bound(value=value, is_floor=kind == "at_least", unit=unit)
