"""Decide on recorded results: promote, hold or inconclusive.

Pure: results and a gate in, a verdict out. Every rule must pass for a promotion, so several rules need no correction
for a false one. A rule that clearly fails holds. Evidence that cannot carry a decision (too little, too much of it
missing, a broken grader) decides nothing, whatever the rules say of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from slipway.evidence import Evidence, align, instrument_fault, is_out_of_range
from slipway.gate_file import FirstRelease, Gate, load_gate
from slipway.gate_rules import Outcome, RuleOutcome, compare_latency, compare_scores, require, undecided
from slipway.results import Arm, CaseResult

__all__ = ["Decision", "Gate", "Outcome", "RuleOutcome", "Verdict", "decide", "load_gate"]


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
        reasons: Sentences for people, the ones that decided first.
        rules: Every rule that was applied or could not be, in the order of the gate file.
    """

    verdict: Decision
    reasons: tuple[str, ...]
    rules: tuple[RuleOutcome, ...]

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
                }
                for rule in self.rules
            ],
        }


def decide(results: Sequence[CaseResult], gate: Gate, *, has_champion: bool | None = None) -> Verdict:
    """Apply every rule of the gate to the results.

    Args:
        results: One per case and arm, in any order.
        gate: The rules.
        has_champion: Whether applications get a champion now. None infers it from the results, which then cannot tell
            a first release from a champion that was never asked.

    Raises:
        ConfigurationError: Two results for one case and arm.
    """
    evidence = align(results)
    obstacles = _obstacles(evidence, gate)
    if not evidence.arms.get(Arm.CANDIDATE):
        return Verdict(verdict=Decision.INCONCLUSIVE, reasons=_reasons(obstacles), rules=tuple(obstacles))
    is_first = not has_champion and Arm.CHAMPION not in evidence.arms
    rules, notes = _apply(evidence, gate, is_first=is_first)
    if not rules:
        notes.append("No rule of the gate could be applied, and without one nothing is promoted.")
    doubt = _attachment(evidence)
    if doubt is not None:
        rules.append(doubt)
    if is_first and gate.first_release is FirstRelease.REFUSE:
        reason = "There is no champion to compare with, and the gate says first_release: refuse."
        rules.append(RuleOutcome(rule="first_release refuse", outcome=Outcome.FAIL, reason=reason))
    failed = [rule for rule in rules if rule.outcome is Outcome.FAIL]
    open_ones = [rule for rule in rules if rule.outcome is Outcome.INCONCLUSIVE]
    everything = (*obstacles, *rules)
    if obstacles:
        return _verdict(Decision.INCONCLUSIVE, [*obstacles, *failed, *open_ones], notes, everything)
    if failed:
        return _verdict(Decision.HOLD, [*failed, *open_ones], notes, everything)
    if open_ones or not rules:
        return _verdict(Decision.INCONCLUSIVE, open_ones, notes, everything)
    return _verdict(Decision.PROMOTE, rules, notes, everything)


def _obstacles(evidence: Evidence, gate: Gate) -> list[RuleOutcome]:
    """List what keeps this evidence from carrying any decision."""
    if not evidence.cases:
        return [undecided("results", "There are no results.")]
    if Arm.CANDIDATE not in evidence.arms:
        return [undecided("results", "There are no results of the candidate.")]
    obstacles = []
    answered = len(evidence.cases) - len(evidence.missing(Arm.CANDIDATE))
    if answered < gate.min_cases:
        cases = "case" if answered == 1 else "cases"
        reason = f"The candidate answered {answered} {cases}; the gate asks for at least {gate.min_cases}."
        obstacles.append(undecided(f"min_cases {gate.min_cases}", reason, n=answered))
    for arm, lines in evidence.arms.items():
        broken = [case for case, result in lines.items() if is_out_of_range(result)]
        if broken:
            reason = (
                f"The {arm}'s score or latency for case {min(broken)!r} is not a number in range ({len(broken)} such)."
            )
            obstacles.append(undecided("finite values", reason, n=len(broken)))
        if reason := _too_much_missing(evidence, arm, gate):
            obstacles.append(undecided(f"max_missing {gate.max_missing:g}", reason, n=len(evidence.missing(arm))))
    return obstacles


def _too_much_missing(evidence: Evidence, arm: Arm, gate: Gate) -> str:
    missing, cases = evidence.missing(arm), len(evidence.cases)
    if len(missing) <= gate.max_missing * cases:
        return ""
    first = evidence.arms[arm].get(missing[0])
    why = instrument_fault(first) if first else "no line in the results"
    return (
        f"The {arm} did not answer {len(missing)} of {cases} cases, more than {gate.max_missing:.1%} "
        f"(first: {missing[0]!r}: {why})."
    )


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
        f"Attachment not proven: the candidate's output equals the base's on all {len(pairs)} cases, "
        "as it would if the server had ignored the adapter."
    )
    return undecided("attachment", reason, n=len(pairs))


def _verdict(
    decision: Decision, decisive: Sequence[RuleOutcome], notes: Sequence[str], rules: Sequence[RuleOutcome]
) -> Verdict:
    return Verdict(verdict=decision, reasons=(*_reasons(decisive), *notes), rules=tuple(rules))


def _reasons(rules: Sequence[RuleOutcome]) -> tuple[str, ...]:
    return tuple(rule.reason for rule in rules)
