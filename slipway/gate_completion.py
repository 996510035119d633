"""What cases without an answer do to a rule.

Missing ones are looked at twice: left out, and counted against the candidate; a rule that would say two things says
neither. Cases that were not asked are looked at as the worst and as the best that they could have become: what passes
with the worst passes, what fails with the best fails, and the rest is open unless a sequential bound settles it. Knows
what a rule says of a list of values, not how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from slipway.gate_rules import DecidedBy, Outcome, RuleOutcome
from slipway.wording import counted_are, fixed

__all__ = ["Sample", "settle"]

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, kw_only=True)
class Sample(Generic[ValueT]):
    """The values that a rule is about.

    Attributes:
        answered: Those there are.
        missing_worst: For each case that is missing, the worst it could have been; empty where that has no meaning.
        pending_worst: For each case that was not asked, the worst it could become.
        pending_best: The best.
        first: The answered cases before the first that was not asked, in the suite's order.
        first_missing_worst: The missing ones among these.
    """

    answered: list[ValueT] = field(default_factory=list)
    missing_worst: list[ValueT] = field(default_factory=list)
    pending_worst: list[ValueT] = field(default_factory=list)
    pending_best: list[ValueT] = field(default_factory=list)
    first: list[ValueT] = field(default_factory=list)
    first_missing_worst: list[ValueT] = field(default_factory=list)


Judge = Callable[[Sequence[ValueT]], RuleOutcome]
Further = Callable[[Sequence[ValueT], RuleOutcome], str]
"""Given the values and what the rule says of them: a sentence on how many more would settle it."""


def settle(
    sample: Sample[ValueT],
    judge: Judge[ValueT],
    *,
    is_exact: bool,
    sequential: Judge[ValueT] | None = None,
    further: Further[ValueT],
) -> RuleOutcome:
    """Apply a rule to its sample.

    Args:
        sample: At least one value must be answered.
        judge: What the rule says of a list of values.
        is_exact: Whether the rule can only gain from a better value, so that its worst and its best completion bound
            all others. A bootstrap cannot promise that.
        sequential: What the rule's always-valid bound says; None where it has none or may not look.
        further: How many more values would settle it; asked once all there are leave the rule open.
    """
    now = judge(sample.answered)
    if not sample.pending_worst:
        if now.outcome is Outcome.INCONCLUSIVE and now.estimate is not None:
            return replace(now, reason=f"{now.reason} {further(sample.answered, now)}")
        return _against_missing(now, judge, sample.answered, sample.missing_worst)
    if is_exact:
        worst = _final(sample, judge, sample.pending_worst)
        if worst.outcome is Outcome.PASS:
            return _certain(now, worst, len(sample.pending_worst), "against the candidate")
        best = _final(sample, judge, sample.pending_best)
        if best.outcome is Outcome.FAIL:
            return _certain(now, best, len(sample.pending_best), "in the candidate's favour")
    if sequential is not None and sample.first:
        looked = _reconcile(sequential, sample.first, sample.first_missing_worst)
        if looked.outcome is not Outcome.INCONCLUSIVE:
            return replace(looked, decided_by=DecidedBy.SEQUENTIAL)
    pending = counted_are(len(sample.pending_worst), "case")
    reason = f"{now.reason} {pending} not asked, and the rule is not settled without them."
    return replace(now, outcome=Outcome.INCONCLUSIVE, reason=reason)


def _final(sample: Sample[ValueT], judge: Judge[ValueT], extra: Sequence[ValueT]) -> RuleOutcome:
    return _reconcile(judge, [*sample.answered, *extra], sample.missing_worst)


def _reconcile(judge: Judge[ValueT], answered: Sequence[ValueT], missing_worst: Sequence[ValueT]) -> RuleOutcome:
    """Judge the complete cases, and whether the missing ones could have changed that."""
    return _against_missing(judge(answered), judge, answered, missing_worst)


def _against_missing(
    complete: RuleOutcome, judge: Judge[ValueT], answered: Sequence[ValueT], missing_worst: Sequence[ValueT]
) -> RuleOutcome:
    """Keep the outcome on the complete cases only if the missing ones could not have changed it."""
    if not missing_worst or complete.outcome is Outcome.INCONCLUSIVE:
        return complete
    worst = judge([*missing_worst, *answered])  # first, so that no sequential bound is settled without them
    if complete.outcome is worst.outcome:
        return complete
    reason = (
        f"{complete.reason} But {counted_are(len(missing_worst), 'case')} missing; counted against the candidate, the "
        f"rule's outcome is {worst.outcome}."
    )
    return replace(complete, outcome=Outcome.INCONCLUSIVE, reason=reason)


def _certain(now: RuleOutcome, then: RuleOutcome, pending: int, side: str) -> RuleOutcome:
    """Show what was observed, with the outcome of the completion that decides, and what that completion comes to."""
    counted = "the case that was not asked" if pending == 1 else f"the {pending} cases that were not asked"
    if now.outcome is then.outcome:
        reason = f"{now.reason} Counting {counted} {side}, it would still be {_numbers(then)}."
    else:
        reason = f"{then.reason} This counts {counted} {side}."
    return replace(
        now,
        outcome=then.outcome,
        reason=reason,
        method=now.method or then.method,
        decided_by=DecidedBy.CURTAILMENT,
    )


def _numbers(outcome: RuleOutcome) -> str:
    estimate, low, high = (
        "unknown" if value is None else fixed(value, 2) for value in (outcome.estimate, outcome.low, outcome.high)
    )
    return f"{estimate} ({low} to {high})"
