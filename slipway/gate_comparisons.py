"""The candidate against another arm, case by case: scores, latencies and costs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from slipway.bootstrap import (
    BOOTSTRAP_MIN_N,
    TooFewGroupsError,
    bootstrap_quantile_ratio,
    bootstrap_total_ratio,
    hodges_lehmann,
    sign_flip,
)
from slipway.evidence import Evidence, Gap
from slipway.gate_completion import Sample, settle
from slipway.gate_file import (
    CostRule,
    EarlyStop,
    Gate,
    LatencyRule,
    Measure,
    Metric,
    NonInferiority,
    Superiority,
)
from slipway.gate_further import further_by_width, further_pairs, further_sentence, further_values
from slipway.gate_requirements import mean_interval, sequence
from slipway.gate_rules import (
    Outcome,
    RuleOutcome,
    bounded,
    is_binary,
    made,
    numbers_of,
    undecided,
)
from slipway.paired_rates import paired_difference
from slipway.results import Arm
from slipway.statistics import Interval, mcnemar
from slipway.wording import counted, counted_are, p_value

__all__ = ["compare_cost", "compare_latency", "compare_scores"]

Pair = tuple[float, float, Hashable]
"""The candidate's value, the other arm's, and the unit that is drawn with them: their case, or its group."""

_QUANTILES = {"p50": 0.50, "p95": 0.95}
_NAMES = {"p50": "median latencies", "p95": "95th percentiles of latency"}


def compare_scores(evidence: Evidence, arm: Arm, rule: NonInferiority | Superiority, gate: Gate) -> RuleOutcome:
    """Compare the candidate with ``arm`` on the cases that both answered.

    The quantity is the mean of candidate minus other, case by case. Non-inferiority asks whether it is at least
    -margin, superiority whether it is more than better_by. Binary outcomes take the exact path: McNemar's test where
    the limit is 0, the interval otherwise. Graded ones take the paired bootstrap, grouped ones the cluster bootstrap.
    """
    if arm not in evidence.arms:
        return undecided(rule.name, _absent(arm, "compare with"))
    concerned = evidence.concerned(rule.metric)
    if not concerned:
        return undecided(rule.name, f"No case has a value for {rule.metric}.")
    sample = _sample(evidence, arm, rule.metric, concerned)
    if len(sample.answered) < gate.min_cases:
        return undecided(rule.name, _too_few(arm, len(sample.answered), gate.min_cases), n=len(sample.answered))
    comparison = _Comparison(
        name=rule.name,
        phrase=f"{rule.metric} of the candidate minus the {arm}'s",
        limit=rule.limit,
        is_strict=isinstance(rule, Superiority),
        gate=gate,
    )
    may_look = gate.early_stop is EarlyStop.SEQUENTIAL and not evidence.is_clustered
    return settle(
        sample,
        comparison.judge,
        is_exact=rule.metric == Metric.PASS_RATE and not evidence.is_clustered,
        sequential=comparison.look if may_look else None,
        further=comparison.further,
    )


def compare_latency(evidence: Evidence, rule: LatencyRule, gate: Gate) -> RuleOutcome:
    """Compare latencies on the cases that both arms answered in one session; a missing answer has none to assume."""
    arm = Arm(rule.of)
    if arm not in evidence.arms:
        return undecided(rule.name, _absent(arm, "compare latency with"))
    sample = _sample(evidence, arm, Metric.LATENCY_P50, evidence.cases, one_session=True)
    pairs = sample.answered
    q = _QUANTILES[rule.quantile]
    # So many pairs that the quantile's own interval has an upper bound.
    needed = max(gate.min_cases, BOOTSTRAP_MIN_N, math.ceil(math.log((1 - gate.confidence) / 2) / math.log(q)))
    apart = _in_two_sessions(evidence, arm)
    if len(pairs) < needed:
        aside = f" {apart} more were asked in different sessions, under another load." if apart else ""
        return undecided(rule.name, _too_few(arm, len(pairs), needed) + aside, n=len(pairs))
    known = len(evidence.cases) - apart - len(sample.pending_worst)
    if problem := _unknown(known - len(pairs), known, "latency", gate):
        return undecided(rule.name, problem, n=len(pairs))
    if min(other for _, other, _ in pairs) <= 0:
        return undecided(rule.name, f"The {arm} has latencies of 0 ms, so there is no ratio.", n=len(pairs))
    phrase = f"The ratio of {_NAMES[rule.quantile]} to the {arm}'s"

    ours, theirs, _ = zip(*pairs, strict=True)
    interval = bootstrap_quantile_ratio(ours, theirs, confidence=gate.confidence, q=q)
    shift = hodges_lehmann([mine - other for mine, other in zip(ours, theirs, strict=True)])
    outcome = bounded(rule.name, phrase, interval, gate, ceiling=rule.ratio_at_most, noun="pair")
    outcome = replace(
        outcome, reason=f"{outcome.reason} The typical shift is {round(shift, 1) + 0.0:+.1f} ms (Hodges-Lehmann)."
    )

    def further(_: Sequence[Pair], found: RuleOutcome) -> str:
        return further_by_width(found, limit=rule.ratio_at_most, noun="pairs")

    return settle(sample, lambda _: outcome, is_exact=False, further=further)


def compare_cost(evidence: Evidence, rule: CostRule, gate: Gate) -> RuleOutcome:
    """Compare what the cases that both arms answered have cost; a missing answer has no cost to assume."""
    arm = Arm(rule.of)
    if arm not in evidence.arms:
        return undecided(rule.name, _absent(arm, "compare cost with"))
    sample = _sample(evidence, arm, Metric.COST_MEAN, evidence.cases)
    pairs = sample.answered
    if problem := _too_few_costs(evidence, arm, sample, gate):
        return undecided(rule.name, problem, n=len(pairs))
    phrase = f"The ratio of costs to the {arm}'s"

    def judge(values: Sequence[Pair]) -> RuleOutcome:
        ours, theirs, units = zip(*values, strict=True)
        groups = units if len(set(units)) < len(units) else None
        try:
            interval = bootstrap_total_ratio(ours, theirs, confidence=gate.confidence, groups=groups)
        except TooFewGroupsError as error:
            return undecided(rule.name, f"The ratio of costs: {_too_few_drawn(error)}", n=len(values))
        return bounded(rule.name, phrase, interval, gate, ceiling=rule.ratio_at_most, noun="pair")

    def further(values: Sequence[Pair], outcome: RuleOutcome) -> str:
        return further_sentence(further_values(values, outcome, limit=rule.ratio_at_most, judge=judge), "pairs")

    return settle(sample, judge, is_exact=False, further=further)


def _too_few_costs(evidence: Evidence, arm: Arm, sample: Sample[Pair], gate: Gate) -> str:
    """Say why no ratio of costs can be had; empty where one can."""
    n, needed = len(sample.answered), max(gate.min_cases, BOOTSTRAP_MIN_N)
    if not n:
        return f"No case has a cost of both the candidate and the {arm}; give the target its prices."
    if n < needed:
        return _too_few(arm, n, needed)
    if sum(theirs > 0 for _, theirs, _ in sample.answered) < BOOTSTRAP_MIN_N:
        return f"The {arm} has a cost above 0 on fewer than {BOOTSTRAP_MIN_N} cases, so there is no ratio."
    known = len(evidence.cases) - len(sample.pending_worst)
    return _unknown(known - n, known, "cost", gate)


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """A paired comparison of scores, to be judged on whatever pairs there are or could be."""

    name: str
    phrase: str
    limit: float
    is_strict: bool
    gate: Gate

    def judge(self, pairs: Sequence[Pair]) -> RuleOutcome:
        """Judge pairs of which the number was fixed beforehand."""
        differences, units = [ours - theirs for ours, theirs, _ in pairs], [unit for *_, unit in pairs]
        gains, losses = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
        is_clustered = len(set(units)) < len(units)
        is_exact = all(is_binary(pair[:2]) for pair in pairs)
        phrase = f"{self.phrase} ({counted(gains, 'case')} gained, {losses} lost)" if is_exact else self.phrase
        if is_exact and not is_clustered:
            return self._exact(phrase, gains, losses, len(pairs))
        confidence = self.gate.confidence

        def alone() -> Interval:
            return paired_difference(gains, losses, len(pairs), confidence=confidence)

        try:
            interval = mean_interval(
                differences, units, confidence=confidence, support=(-1.0, 1.0), exact=alone if is_exact else None
            )
        except TooFewGroupsError as error:
            return undecided(self.name, f"{phrase}: {_too_few_drawn(error)}", n=len(pairs))
        return self._checked(self._bounded(phrase, interval), differences, units if is_clustered else None)

    def look(self, pairs: Sequence[Pair]) -> RuleOutcome:
        """Judge the first pairs, however many they are, by a bound that holds at every number."""
        differences = [ours - theirs for ours, theirs, _ in pairs]
        interval = sequence(differences, limit=self.limit, support=(-1.0, 1.0), confidence=self.gate.confidence)
        return self._bounded(self.phrase, interval)

    def further(self, pairs: Sequence[Pair], outcome: RuleOutcome) -> str:
        """Say how many more pairs like these would settle it."""
        units = {unit for *_, unit in pairs}
        if len(units) < len(pairs) or not all(is_binary(pair[:2]) for pair in pairs):
            more = further_values(pairs, outcome, limit=self.limit, judge=self.judge)
        else:
            gains, losses = (sum(sign * (ours - theirs) > 0 for ours, theirs, _ in pairs) for sign in (1, -1))
            more = further_pairs(gains, losses, len(pairs), limit=self.limit, confidence=self.gate.confidence)
        return further_sentence(more, "pairs")

    def _exact(self, phrase: str, gains: int, losses: int, n: int) -> RuleOutcome:
        interval = paired_difference(gains, losses, n, confidence=self.gate.confidence, limit=self.limit)
        if self.limit == 0:
            return self._mcnemar(phrase, interval, gains, losses)

        return self._bounded(phrase, interval)

    def _bounded(self, phrase: str, interval: Interval) -> RuleOutcome:
        return bounded(
            self.name,
            phrase,
            interval,
            self.gate,
            floor=self.limit,
            is_strict=self.is_strict,
            noun="pair",
        )

    def _checked(
        self, outcome: RuleOutcome, differences: Sequence[float], groups: Sequence[Hashable] | None
    ) -> RuleOutcome:
        """Ask a permutation test as well; it informs, the interval decides."""
        if outcome.outcome is Outcome.INCONCLUSIVE:
            return outcome
        higher, lower = sign_flip([value - self.limit for value in differences], groups=groups)
        p = higher if outcome.outcome is Outcome.PASS else lower
        outcome = replace(outcome, method=f"{outcome.method}; sign-flip permutation test p = {p:.2g}")
        if p <= (1 - self.gate.confidence) / 2:
            return outcome
        doubt = f"A sign-flip permutation test, for a check, does not confirm it (one-sided p = {p:.2g})."
        return replace(outcome, reason=f"{outcome.reason} {doubt}")

    def _mcnemar(self, phrase: str, interval: Interval, gains: int, losses: int) -> RuleOutcome:
        tail = (1 - self.gate.confidence) / 2
        if mcnemar(gains, losses, alternative="gain") <= tail:
            outcome, tells = Outcome.PASS, "is above 0"
        elif mcnemar(gains, losses, alternative="loss") <= tail:
            outcome, tells = Outcome.FAIL, "is below 0"
        else:
            outcome, tells = Outcome.INCONCLUSIVE, "may be above or below 0"
        p = mcnemar(gains, losses)
        reason = f"{phrase} {numbers_of(interval, 0.0, self.gate, '', 'pair')} {tells} (exact McNemar {p_value(p)})."
        return made(self.name, outcome, interval, reason, method="exact McNemar test; interval " + interval.method)


def _sample(
    evidence: Evidence, arm: Arm, measure: Measure, concerned: Sequence[str], *, one_session: bool = False
) -> Sample[Pair]:
    """Pair the two arms; a value that is missing or not asked is filled in against, or for, the candidate."""
    sample: Sample[Pair] = Sample()
    by_case: dict[str, tuple[Pair, bool]] = {}
    for case in concerned:
        mine, other = evidence.reading(Arm.CANDIDATE, case, measure), evidence.reading(arm, case, measure)
        unit = evidence.unit(case)
        worst = (0.0 if isinstance(mine, Gap) else mine, 1.0 if isinstance(other, Gap) else other, unit)
        best = (1.0 if isinstance(mine, Gap) else mine, 0.0 if isinstance(other, Gap) else other, unit)
        if Gap.MISSING in (mine, other):
            sample.missing_worst.append(worst)
            by_case[case] = worst, False
        elif Gap.NOT_ASKED in (mine, other):
            sample.pending_worst.append(worst)
            sample.pending_best.append(best)
        elif not one_session or _share_a_session(evidence, arm, case):
            sample.answered.append(worst)
            by_case[case] = worst, True
    if sample.pending_worst:
        for case in evidence.asked_first():
            if case in by_case:
                pair, is_answered = by_case[case]
                (sample.first if is_answered else sample.first_missing_worst).append(pair)
    return sample


def _share_a_session(evidence: Evidence, arm: Arm, case: str) -> bool:
    """Latencies compare only under the same load."""
    return evidence.arms[Arm.CANDIDATE][case].session == evidence.arms[arm][case].session


def _in_two_sessions(evidence: Evidence, arm: Arm) -> int:
    ours, theirs = evidence.sound[Arm.CANDIDATE], evidence.sound[arm]
    return sum(not _share_a_session(evidence, arm, case) for case in ours & theirs)


def _unknown(unknown: int, known: int, what: str, gate: Gate) -> str:
    """Each of the two arms may miss its share."""
    if unknown <= 2 * gate.max_missing * known:
        return ""
    return f"The {what} of {unknown} of {known} pairs is unknown."


def _absent(arm: Arm, purpose: str) -> str:
    if arm is not Arm.CHAMPION:
        return f"There are no results of the {arm} to {purpose}."
    return f"There are no results of the champion to {purpose}; before there is one, --first-release says so."


def _too_few(arm: Arm, n: int, needed: int) -> str:
    were = "was" if n == 1 else "were"
    return (
        f"{counted(n, 'case')} {were} answered and measured by both the candidate and the {arm}; {needed} are needed."
    )


def _too_few_drawn(error: TooFewGroupsError) -> str:
    return f"{counted_are(error.n, error.noun)} too few for a bootstrap interval; {BOOTSTRAP_MIN_N} are needed."
