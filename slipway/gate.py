"""Decide on recorded results: promote, hold or inconclusive.

Pure: results and a gate in, a verdict out. Every rule must pass for a promotion, so several rules need no correction
for a false one. A rule that clearly fails holds. Evidence that cannot carry a decision (too little, too much of it
missing, a broken grader) decides nothing, whatever the rules say of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from slipway.evidence import Evidence, align, instrument_fault
from slipway.gate_comparisons import compare_cost, compare_latency, compare_scores
from slipway.gate_file import FirstRelease, Gate, load_gate
from slipway.gate_obstacles import list_obstacles
from slipway.gate_requirements import require
from slipway.gate_rules import DecidedBy, Outcome, RuleOutcome, confidence_of, undecided
from slipway.regressions import Regression, regressions
from slipway.results import Arm, CaseResult
from slipway.wording import all_of, p_value

__all__ = ["Decision", "Gate", "Outcome", "RuleOutcome", "Verdict", "decide", "load_gate"]

_SHOWN_REGRESSIONS = 5


class Decision(StrEnum):
    """What is to be done with the candidate."""

    PROMOTE = "promote"
    HOLD = "hold"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision, why, and what every rule said.

    Attributes:
        verdict: Promote, hold or inconclusive.
        reasons: Sentences for people, the ones that decided first; of a promotion the comparisons.
        rules: Every rule that was applied or could not be, in the order of the gate file.
        attempt: Which attempt of this candidate on this suite it is, from 1.
        confidence: Of the intervals, two-sided: the gate's, less what attempts and early looks spend.
        coverage: Share of the checks that could be applied, of the arm with the least.
        is_obstructed: Whether the evidence could not have carried any decision: such a verdict spends no attempt.
        not_asked: Cases that some arm was not asked, because the evaluation had ended.
        decided_by: What decided; with cases not asked, certainty or the sequential bound.
        regressions: Tags and metrics below the champion's, or the base's; those beyond chance first. They inform only.
    """

    verdict: Decision
    reasons: tuple[str, ...]
    rules: tuple[RuleOutcome, ...]
    attempt: int = 1
    confidence: float = 0.95
    coverage: float = 1.0
    is_obstructed: bool = False
    not_asked: int = 0
    decided_by: DecidedBy = DecidedBy.ANALYSIS
    regressions: tuple[Regression, ...] = ()

    def as_document(self) -> dict[str, object]:
        """Give what ``slipway gate --json`` prints; bounds that do not exist are null."""
        return {
            "verdict": str(self.verdict),
            "reasons": list(self.reasons),
            "rules": [
                {
                    "rule": rule.rule,
                    "outcome": str(rule.outcome),
                    "estimate": rule.estimate,
                    "low": rule.low,
                    "high": rule.high,
                    "n": rule.n,
                    "reason": rule.reason,
                    "method": rule.method,
                    "decided_by": str(rule.decided_by),
                }
                for rule in self.rules
            ],
            "attempt": self.attempt,
            "confidence": self.confidence,
            "coverage": self.coverage,
            "not_asked": self.not_asked,
            "decided_by": str(self.decided_by),
            "regressions": [regression.as_document() for regression in self.regressions],
        }


def decide(results: Sequence[CaseResult], gate: Gate, *, has_champion: bool | None = None, attempt: int = 1) -> Verdict:
    """Apply every rule of the gate to the results.

    Args:
        results: One per case and arm, in any order; only a sequential bound reads them as the order of asking. Lines
            with ``not_asked`` set are neither answers nor missing: rules decide only what these cases could not change,
            or what a sequential bound has settled.
        gate: The rules.
        has_champion: Whether applications get a champion now. With None the results tell; without a champion in them
            they cannot tell a first release from a champion that was never asked, and comparisons with it are open.
        attempt: Which attempt of this candidate on this suite it is, from 1; each spends half of the error that the one
            before had.

    Raises:
        ConfigurationError: Two results for one case and arm.
        ValueError: An attempt below 1.
    """
    evidence = align(results)
    confidence = confidence_of(gate, attempt)
    usual, gate = gate, gate.model_copy(update={"confidence": confidence})
    obstacles = list_obstacles(evidence, gate)
    if not evidence.arms.get(Arm.CANDIDATE):
        return Verdict(
            verdict=Decision.INCONCLUSIVE,
            reasons=(*_reasons(obstacles), *_of_attempts(usual, attempt)),
            rules=tuple(obstacles),
            attempt=attempt,
            confidence=confidence,
            is_obstructed=True,
        )
    is_first = has_champion is False and Arm.CHAMPION not in evidence.arms
    rules, skipped = _apply(evidence, gate, is_first=is_first)
    if not rules:
        skipped.append("No rule of the gate could be applied, and without one nothing is promoted.")
    doubt = _attachment(evidence)
    if doubt is not None:
        rules.append(doubt)
    if not has_champion and Arm.CHAMPION not in evidence.arms and gate.first_release is FirstRelease.REFUSE:
        reason = "There is no champion to compare with, and the gate says first_release: refuse."
        rules.append(RuleOutcome(rule="first_release refuse", outcome=Outcome.FAIL, reason=reason))
    decision, decisive = _weigh(obstacles, rules)
    if decision is Decision.PROMOTE:  # what was compared case by case says most
        compared = {rule.name for rule in (gate.against.champion, gate.against.base) if rule is not None}
        decisive.sort(key=lambda rule: rule.rule not in compared)
    decided_by = _decided_by(decision, rules)
    not_asked = _not_asked(evidence)
    if decision is Decision.HOLD and not_asked:  # the rest is open because it did not matter any more
        decisive = [rule for rule in decisive if rule.outcome is Outcome.FAIL]
    worse = regressions(evidence, gate)
    reasons = (
        *_reasons(decisive[:1]),
        *_of_attempts(usual, attempt),  # among the first, since few are shown
        *_reasons(decisive[1:]),
        *_of_regressions(worse),
        *_of_stopping(evidence, decision, decided_by, not_asked),
        *skipped,
        *_of_coverage(evidence, gate),
    )
    return Verdict(
        verdict=decision,
        reasons=reasons,
        rules=(*obstacles, *rules),
        attempt=attempt,
        confidence=confidence,
        coverage=min(evidence.coverage.values(), default=1.0),
        is_obstructed=bool(obstacles),
        not_asked=not_asked,
        decided_by=decided_by,
        regressions=worse,
    )


def _weigh(obstacles: Sequence[RuleOutcome], rules: Sequence[RuleOutcome]) -> tuple[Decision, list[RuleOutcome]]:
    """Give the decision and the outcomes that made it, the weightiest first."""
    failed = [rule for rule in rules if rule.outcome is Outcome.FAIL]
    open_ones = [rule for rule in rules if rule.outcome is Outcome.INCONCLUSIVE]
    if obstacles:
        return Decision.INCONCLUSIVE, [*obstacles, *failed, *open_ones]
    if failed:
        return Decision.HOLD, [*failed, *open_ones]
    if open_ones or not rules:
        return Decision.INCONCLUSIVE, open_ones
    return Decision.PROMOTE, list(rules)


def _decided_by(decision: Decision, rules: Sequence[RuleOutcome]) -> DecidedBy:
    if decision is Decision.INCONCLUSIVE:
        return DecidedBy.ANALYSIS
    if decision is Decision.HOLD:
        grounds = {rule.decided_by for rule in rules if rule.outcome is Outcome.FAIL}
        order = (DecidedBy.ANALYSIS, DecidedBy.CURTAILMENT, DecidedBy.SEQUENTIAL)  # one is enough: the firmest counts
    else:
        grounds = {rule.decided_by for rule in rules}
        order = (DecidedBy.SEQUENTIAL, DecidedBy.CURTAILMENT, DecidedBy.ANALYSIS)  # all are needed: the loosest counts
    return next(ground for ground in order if ground in grounds)


def _not_asked(evidence: Evidence) -> int:
    return len({case for arm in evidence.arms for case in evidence.not_asked(arm)})


def _of_stopping(evidence: Evidence, decision: Decision, decided_by: DecidedBy, not_asked: int) -> list[str]:
    if not not_asked:
        return []
    cases = len(evidence.cases)
    counted = f"{not_asked} of {cases} cases {'was' if not_asked == 1 else 'were'} not asked"
    if decision is Decision.INCONCLUSIVE:
        return [f"The evaluation ended early: {counted}."]
    if decided_by is DecidedBy.SEQUENTIAL:
        return [f"Stopped early: {counted}, since a bound that holds at every number of cases had settled it."]
    return [f"Stopped early: {counted}, since no answer to them could change the verdict."]


def _of_regressions(found: Sequence[Regression]) -> list[str]:
    certain = [regression for regression in found if regression.is_beyond_chance]
    if not certain:
        return []
    shown = [
        f"{one.kind} {one.name} {one.difference:+.2f} ({p_value(one.p_holm)})" for one in certain[:_SHOWN_REGRESSIONS]
    ]
    more = f" and {len(certain) - len(shown)} more" if len(certain) > len(shown) else ""
    return [f"Regressed beyond chance (Holm) against the {certain[0].against}: {', '.join(shown)}{more}."]


def _of_attempts(gate: Gate, attempt: int) -> list[str]:
    if attempt == 1:
        return []
    now, usual = (100 * confidence_of(gate, number) for number in (attempt, 1))
    confidence = f"decided at {now:g} % confidence and not {usual:g} %, since repeats share one budget of error"
    return [f"This is attempt {attempt} of this candidate on this suite, {confidence}."]


def _of_coverage(evidence: Evidence, gate: Gate) -> list[str]:
    applied = [(arm, share) for arm, share in evidence.coverage.items() if share < 1]
    notes = [f"Only {share:.1%} of the {arm}'s checks could be applied." for arm, share in applied]
    answers = evidence.arms[Arm.CANDIDATE]
    sound = evidence.sound[Arm.CANDIDATE]
    unchecked = sum(not answers[case].checks for case in sound)
    if gate.is_about_quality and 0 < unchecked < len(sound):
        notes.append(f"{unchecked} of {len(sound)} cases have no check: they pass whatever is answered.")
    return notes


def _apply(evidence: Evidence, gate: Gate, *, is_first: bool) -> tuple[list[RuleOutcome], list[str]]:
    rules = [require(evidence, requirement, gate) for requirement in gate.require]
    notes: list[str] = []
    against = gate.against
    skipped = "There is no champion yet, so the candidate was not compared with one"
    if against.champion is not None:
        if is_first:
            notes.append(f"{skipped} (first_release: {gate.first_release}).")
        else:
            rules.append(compare_scores(evidence, Arm.CHAMPION, against.champion, gate))
    if against.base is not None:
        rules.append(compare_scores(evidence, Arm.BASE, against.base, gate))
    if against.latency is not None:
        if is_first and Arm(against.latency.of) is Arm.CHAMPION:
            notes.append(f"{skipped} in latency.")
        else:
            rules.append(compare_latency(evidence, against.latency, gate))
    if against.cost is not None:
        if is_first and Arm(against.cost.of) is Arm.CHAMPION:
            notes.append(f"{skipped} in cost.")
        else:
            rules.append(compare_cost(evidence, against.cost, gate))
    return rules, notes


def _attachment(evidence: Evidence) -> RuleOutcome | None:
    """Doubt an adapter that cannot be told from the base: a server may have ignored it.

    Outputs that were not recorded tell nothing. Grades that differ on equal outputs come from latency, and are left to
    the rules.
    """
    ours, base = evidence.arms[Arm.CANDIDATE], evidence.arms.get(Arm.BASE, {})
    pairs = [
        (ours[case], base[case])
        for case in evidence.cases
        if case in ours and case in base and not instrument_fault(ours[case]) and not instrument_fault(base[case])
    ]
    is_recorded = any(mine.output for mine, _ in pairs)
    if not is_recorded or any((mine.output, mine.passed) != (other.output, other.passed) for mine, other in pairs):
        return None
    reason = (
        f"Attachment not proven: the candidate's output equals the base's on {all_of(len(pairs), 'case')}, "
        "as it would if the server had ignored the adapter."
    )
    return undecided("attachment", reason, n=len(pairs))


def _reasons(rules: Sequence[RuleOutcome]) -> tuple[str, ...]:
    return tuple(rule.reason for rule in rules)
