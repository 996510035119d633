"""What keeps recorded results from carrying any decision, whatever the rules say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from slipway.evidence import Evidence, instrument_fault, is_out_of_range
from slipway.gate_file import Gate
from slipway.gate_rules import RuleOutcome, undecided
from slipway.results import Arm
from slipway.wording import counted

__all__ = ["list_obstacles"]

_SHOWN_TYPES = 5


def list_obstacles(evidence: Evidence, gate: Gate) -> list[RuleOutcome]:
    """List them; empty where the rules may decide."""
    if not evidence.cases:
        return [undecided("results", "There are no results.")]
    if Arm.CANDIDATE not in evidence.arms:
        return [undecided("results", "There are no results of the candidate.")]
    obstacles = []
    if same := _is_champion(evidence):
        obstacles.append(undecided("candidate", same))
    if gate.is_about_quality and not any(_is_checked(evidence, case) for case in evidence.sound[Arm.CANDIDATE]):
        reason = "No answer of the candidate was checked: without a check everything passes."
        obstacles.append(undecided("checks", reason))
    answered = len(evidence.sound[Arm.CANDIDATE])
    if answered < gate.min_cases:
        reason = f"The candidate answered {counted(answered, 'case')}; the gate asks for at least {gate.min_cases}."
        obstacles.append(undecided(f"min_cases {gate.min_cases}", reason, n=answered))
    for arm in evidence.arms:
        obstacles += _of_arm(evidence, arm)
    if reason := _too_much_missing(evidence, gate):
        obstacles.append(undecided(f"max_missing {gate.max_missing:g}", reason))
    if reason := _too_little_coverage(evidence, gate):
        obstacles.append(undecided(f"min_coverage {gate.min_coverage:g}", reason))
    return obstacles


def _of_arm(evidence: Evidence, arm: Arm) -> list[RuleOutcome]:
    obstacles, lines, sound = [], evidence.arms[arm], evidence.sound[arm]
    if reason := _is_several(evidence, arm):
        obstacles.append(undecided(str(arm), reason))
    broken = [case for case, result in lines.items() if case not in sound and is_out_of_range(result)]
    if broken:
        reason = (
            f"The {arm}'s score, latency or cost for case {min(broken)!r} is not a number in range "
            f"({len(broken)} such)."
        )
        obstacles.append(undecided("finite values", reason, n=len(broken)))
    return obstacles


def _too_little_coverage(evidence: Evidence, gate: Gate) -> str:
    """One sentence for all arms: the same check lacks in each."""
    lacking = {arm: share for arm, share in evidence.coverage.items() if share < gate.min_coverage}
    if not lacking:
        return ""
    *others, last = (f"{share:.1%} of the {arm}'s" for arm, share in lacking.items())
    shares = f"{', '.join(others)} and {last}" if others else last
    named = _unsupported(evidence, lacking)
    return f"Only {shares} checks could be applied, fewer than {gate.min_coverage:.1%}: {named}."


def _unsupported(evidence: Evidence, arms: Iterable[Arm]) -> str:
    """Name the types that were not applied, each with how many cases some of these arms lacks it in."""
    found = {
        (check.type, case)
        for arm in arms
        for case, result in evidence.arms[arm].items()
        for check in result.checks
        if check.passed is None
    }
    counts = Counter(sorted(kind for kind, _ in found))
    shown = [f"{name} in {counted(count, 'case')}" for name, count in counts.most_common(_SHOWN_TYPES)]
    return ", ".join(shown) + (f" and {len(counts) - len(shown)} more types" if len(counts) > len(shown) else "")


def _is_checked(evidence: Evidence, case: str) -> bool:
    return any(check.passed is not None for check in evidence.arms[Arm.CANDIDATE][case].checks)


def _adapters(evidence: Evidence, arm: Arm) -> set[str]:
    return {result.adapter_id for result in evidence.arms.get(arm, {}).values() if result.adapter_id}


def _is_several(evidence: Evidence, arm: Arm) -> str:
    ids = _adapters(evidence, arm)
    if len(ids) < 2:
        return ""
    first, second, *more = sorted(ids)
    names = f"{first!r} and {second!r}" + (f" and {len(more)} more" if more else "")
    return f"The {arm}'s results are those of {len(ids)} adapters, {names}: what holds for all holds for none of them."


def _is_champion(evidence: Evidence) -> str:
    both = _adapters(evidence, Arm.CANDIDATE) & _adapters(evidence, Arm.CHAMPION)
    if not both:
        return ""
    return f"Candidate and champion are the same adapter, {min(both)!r}: there is nothing to release."


def _too_much_missing(evidence: Evidence, gate: Gate) -> str:
    """One sentence for all arms: what takes one's answers often takes the others' too."""
    lacking = []
    for arm, lines in evidence.arms.items():
        missing, asked = evidence.missing(arm), len(evidence.cases) - len(evidence.not_asked(arm))
        if len(missing) > gate.max_missing * asked:
            first = lines.get(missing[0])
            why = instrument_fault(first) if first else "no line in the results"
            lacking.append((arm, f"{len(missing)} of {asked}", f"{missing[0]!r}: {why}"))
    if not lacking:
        return ""
    (arm, shares, first_why), *others = lacking
    also = "".join(f", the {other} {count}" for other, count, _ in others)
    return f"The {arm} did not answer {shares} cases{also}, more than {gate.max_missing:.1%} (first: {first_why})."
