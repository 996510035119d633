"""When an evaluation may end before every case was asked.

Completes what was answered so far with lines for the cases not asked yet, and lets the gate decide on that: a promotion
or a hold that stands already is not worth another prompt. What may be concluded from an incomplete record is the gate's
to know; here is only when to look, since a look can cost a bootstrap, and what to say.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from slipway.evidence import align
from slipway.gate import Decision, Verdict, decide
from slipway.gate_file import EarlyStop as EarlyStopRule
from slipway.gate_file import Gate
from slipway.gate_prospects import prospects_of
from slipway.gate_rules import DecidedBy, Outcome
from slipway.paired_rates import refutes
from slipway.results import Arm, CaseResult
from slipway.statistics import clopper_pearson
from slipway.suite import Case

__all__ = ["EarlyStop", "asking_order", "why_settled"]

_LOOKS = 20
"""At most about so many, whatever the size of the suite."""
_FEWEST_BETWEEN_LOOKS = 5


def asking_order(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Order cases as if drawn at random, and always alike: by the digest of their group, or of their id without one.

    The always-valid bound takes the first cases for a sample of all. Suites are written topic by topic, so they have to
    be asked in an order that has nothing to do with what they ask. Cases of one group stay together.
    """
    return tuple(sorted(cases, key=lambda case: hashlib.sha256((case.group or case.id).encode()).digest()))


def why_settled(results: Sequence[CaseResult], gate: Gate, *, has_champion: bool | None, attempt: int) -> str | None:
    """Say why the verdict stands although some cases were not asked, as their lines will say; None if it does not.

    Args:
        results: Of the whole suite, with lines for what was not asked.
        gate: As for ``decide``.
        has_champion: As for ``decide``.
        attempt: As for ``decide``.
    """
    verdict = decide(results, gate, has_champion=has_champion, attempt=attempt)
    return None if verdict.verdict is Decision.INCONCLUSIVE else _reason(verdict)


class EarlyStop:
    """Tells, as answers come in, whether the verdict stands; to be called with growing prefixes of the suite.

    It looks when a rule comes within reach of being settled, and from then on every 5 % of the cases.
    """

    def __init__(
        self,
        gate: Gate,
        cases: Sequence[Case],
        arms: Sequence[Arm],
        *,
        has_champion: bool | None = None,
        attempt: int = 1,
        every: int | None = None,
    ) -> None:
        """Prepare for one evaluation.

        Args:
            gate: The rules; ``early_stop`` among them says whether only certainty ends the evaluation.
            cases: The whole suite, in the order in which it is asked.
            arms: Who is asked.
            has_champion: As for ``decide``.
            attempt: As for ``decide``.
            every: Cases between two looks; by default a twentieth of the suite, at least 5.
        """
        self._gate = gate
        self._cases = cases
        self._arms = arms
        self._has_champion = has_champion
        self._attempt = attempt
        self._every = every or max(_FEWEST_BETWEEN_LOOKS, math.ceil(len(cases) / _LOOKS))
        self._prospects, self._is_promotable = prospects_of(
            gate, cases, arms, has_champion=has_champion, attempt=attempt
        )
        self._read = 0
        self._answered = 0
        self._next_look = 0
        self._within_reach: frozenset[str] = frozenset()

    def __call__(self, results: Sequence[CaseResult]) -> str | None:
        """Give the reason to stop, or None.

        Args:
            results: Those of the first cases of the suite, every arm's, case by case; each call's begin with the last
                one's. None at all load what a look needs, which takes longer than a look.
        """
        if not results:
            clopper_pearson(0, 1, confidence=self._gate.confidence)
            refutes(1, 0, 1, 0.5, self._gate.confidence)
            return None
        fresh = align(results[self._read :])
        self._read = len(results)
        self._answered += len(fresh.cases)
        for prospect in self._prospects:
            prospect.read(fresh)
        if not self._gate.min_cases <= self._answered < len(self._cases) or not self._is_time_to_look():
            return None
        self._next_look = self._answered + self._every
        lines = [*results, *self._not_asked()]
        return why_settled(lines, self._in_question(), has_champion=self._has_champion, attempt=self._attempt)

    def _not_asked(self) -> list[CaseResult]:
        return [
            CaseResult(case=case.id, arm=arm, tags=case.tags, group=case.group, error="not asked", not_asked=True)
            for case in self._cases[self._answered :]
            for arm in self._arms
        ]

    def _is_time_to_look(self) -> bool:
        """Whether the gate may have an answer: when certainty comes within reach, and then, or by a bound, at looks."""
        within_reach = self._settled(
            [prospect.may_pass_anyhow() for prospect in self._prospects],
            [prospect.may_fail_anyhow() for prospect in self._prospects],
        )
        is_news, self._within_reach = within_reach != self._within_reach, within_reach
        is_due = self._answered >= self._next_look
        if within_reach and (is_news or is_due):
            return True
        if not is_due or self._gate.early_stop is not EarlyStopRule.SEQUENTIAL:
            return False
        self._next_look = self._answered + self._every
        found = [(prospect, prospect.bounded()) for prospect in self._prospects]
        self._within_reach = self._settled(
            [one.may_pass(bounds) or one.may_pass_anyhow() for one, bounds in found],
            [one.may_fail(bounds) or one.may_fail_anyhow() for one, bounds in found],
        )
        return bool(self._within_reach)

    def _settled(self, passed: Sequence[bool], failed: Sequence[bool]) -> frozenset[str]:
        """Name the rules that may have failed, and promotion if all may have passed."""
        names = {prospect.name for prospect, has_failed in zip(self._prospects, failed, strict=True) if has_failed}
        if self._is_promotable and passed and all(passed):
            names.add(Decision.PROMOTE)
        return frozenset(names)

    def _in_question(self) -> Gate:
        """Leave out the rules that the answer does not depend on: one that fails is enough to hold."""
        if Decision.PROMOTE in self._within_reach:
            return self._gate
        against = self._gate.against
        rules = {"champion": against.champion, "base": against.base, "latency": against.latency, "cost": against.cost}
        left_out = {
            key: None for key, rule in rules.items() if rule is not None and rule.name not in self._within_reach
        }
        return self._gate.model_copy(
            update={
                "require": [rule for rule in self._gate.require if rule.name in self._within_reach],
                "against": against.model_copy(update=left_out),
            }
        )


def _reason(verdict: Verdict) -> str:
    """Say what settled it, as every line of a case that is not asked will say."""
    is_certain = verdict.decided_by is not DecidedBy.SEQUENTIAL
    grounds = (
        "no answer still to come can change the verdict" if is_certain else "settled early by the always-valid bound"
    )
    failed = [rule.rule for rule in verdict.rules if rule.outcome is Outcome.FAIL]
    return f"{grounds} ({verdict.verdict}): {', '.join(failed) or 'every rule passes'}"
