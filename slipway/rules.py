"""What a rule is, and the profiles that collect rules.

A rule is a function from evidence to what it has to say, with what is always true of it in a decorator: so a table of
all rules can be printed without an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from slipway.adapter_evidence import Evidence
from slipway.findings import Finding, Fix, Prediction, Severity

__all__ = ["Hit", "Rule", "ServerProfile", "rule"]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One case that a rule has found.

    Attributes:
        message: What is the matter, what the server would do, and what to do about it.
        where: File, tensor or module; texts from the adapter are quoted.
        prediction: Where it is another than the rule's first.
    """

    message: str
    where: str = ""
    prediction: Prediction | None = None


Check = Callable[[Evidence], Iterable[Hit]]
"""One question about an adapter. Pure, and silent where another rule says why the question cannot be asked."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One question with its name.

    Attributes:
        code: Stable name, such as ``rank.padding``.
        severity: Of its findings.
        prediction: What the server does where the rule finds something.
        also: What else it may do, depending on the case.
        fix: Who can mend it.
        source: Where in the server's source, documentation or issues this is to be read.
        summary: One sentence: what is found, and why.
        check: The question itself.
    """

    code: str
    severity: Severity
    prediction: Prediction
    also: tuple[Prediction, ...] = ()
    fix: Fix
    source: str
    summary: str
    check: Check

    def __call__(self, evidence: Evidence) -> Iterator[Finding]:
        """Ask the question."""
        for hit in self.check(evidence):
            prediction = self.prediction if hit.prediction is None else hit.prediction
            if prediction is not self.prediction and prediction not in self.also:
                raise ValueError(f"The rule {self.code} predicts {prediction} and does not declare it.")
            yield Finding(
                code=self.code,
                severity=self.severity,
                prediction=prediction,
                where=hit.where,
                message=hit.message,
                fix=self.fix,
            )


def rule(
    code: str,
    severity: Severity,
    prediction: Prediction,
    fix: Fix,
    *,
    source: str,
    also: tuple[Prediction, ...] = (),
) -> Callable[[Check], Rule]:
    """Make a rule of a function; the first line of its docstring is the summary."""

    def decorate(check: Check) -> Rule:
        summary = (check.__doc__ or "").strip().partition("\n")[0]
        return Rule(
            code=code,
            severity=severity,
            prediction=prediction,
            also=also,
            fix=fix,
            source=source,
            summary=summary,
            check=check,
        )

    return decorate


@dataclass(frozen=True, kw_only=True)
class ServerProfile:
    """What one server version accepts, drops and gets wrong.

    Attributes:
        name: As people give it, such as ``lorax-0.12``.
        server: The server's name in sentences.
        reference: Where its sources are; what ``Rule.source`` is relative to.
        rules: In the order in which findings of equal severity are shown.
    """

    name: str
    server: str
    reference: str
    rules: Sequence[Rule]
