"""What is written down of one answer: its grade, masked where the target says so, with cost and session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slipway.answers import Answer
from slipway.checks import Grade, Subject
from slipway.results import Arm, CaseResult, CheckResult
from slipway.suite import Case

__all__ = ["Recorder", "Redact", "subject_of"]

Redact = Callable[[str], str]
"""Masks what is private in a text."""


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """Makes the results of one evaluation.

    Attributes:
        redact: Applied to outputs, reasons and errors, after grading; None leaves them.
    """

    redact: Redact | None = None

    def graded(  # noqa: PLR0917  # the hot path
        self,
        case: Case,
        arm: Arm,
        adapter_id: str,
        answer: Answer,
        verdict: Grade,
        cost_usd: float | None,
        session: str,
    ) -> CaseResult:
        """Record an answer and its grade."""
        output, checks, error = answer.output, verdict.checks, verdict.error
        is_masked = False
        if self.redact is not None:
            output, checks, error = self.redact(output), self._masked(checks), error and self.redact(error)
            is_masked = output != answer.output
        return CaseResult(
            case=case.id,
            arm=arm,
            adapter_id=adapter_id,
            output=output,
            passed=verdict.passed,
            score=verdict.score,
            tags=case.tags,
            group=case.group,
            checks=checks,
            metrics=dict(verdict.metrics),
            latency_ms=answer.latency_ms,
            timing=answer.timing,
            prompt_tokens=answer.prompt_tokens,
            generated_tokens=answer.generated_tokens,
            finish_reason=answer.finish_reason,
            cost_usd=cost_usd,
            session=session,
            redacted=is_masked,
            error=error,
            not_asked=False,
        )

    def missing(self, case: Case, arm: Arm, adapter_id: str, why: str, *, not_asked: bool = False) -> CaseResult:
        """Record that there is no answer, and why."""
        return CaseResult(
            case=case.id,
            arm=arm,
            adapter_id=adapter_id,
            tags=case.tags,
            group=case.group,
            error=why if self.redact is None else self.redact(why),
            not_asked=not_asked,
        )

    def _masked(self, checks: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
        mask = self.redact
        if mask is None:
            return checks
        return tuple(check.but(reason=mask(check.reason)) for check in checks)


def subject_of(case: Case, answer: Answer, cost_usd: float | None) -> Subject:
    """Give an answer as checks look at it."""
    return Subject(  # by place: keywords take twice the time, and this is made for each answer
        answer.output,
        None,
        case.prompt,
        case.vars,
        answer.latency_ms,
        cost_usd,
        answer.finish_reason,
        answer.logprobs,
        answer.prompt_tokens,
        answer.generated_tokens,
    )
