"""The words in which an adapter is judged.

A finding is a value, never an exception: what is wrong with an adapter is an answer. Leaves to others: what is looked
at (``adapter_evidence``) and by which rules (``rules``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from slipway.tensors import shown

__all__ = ["Finding", "Fix", "InspectionVerdict", "Prediction", "Severity", "judge", "listed", "plainly", "predict"]

_LISTED_NAMES = 3
_PLAIN_NAMES = 12
_PLAIN = re.compile(r"[\w. -]{1,40}", re.ASCII)


class Severity(StrEnum):
    """How bad: an error keeps the adapter from being served, a warning and a note do not. Most severe first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Prediction(StrEnum):
    """What the server would do, in the order in which one hides the next.

    ``reject``: answer with an error. ``wrong``: answer, computing something else than what was trained. ``drop``:
    answer, leaving part or all of the adapter unused. ``ok``: serve it as trained.
    """

    REJECT = "reject"
    WRONG = "wrong"
    DROP = "drop"
    OK = "ok"


class Fix(StrEnum):
    """Who can mend it: ``slipway fit``, a person, or nobody (or nothing is to be mended)."""

    FIT = "fit"
    MANUAL = "manual"
    NONE = "none"


class InspectionVerdict(StrEnum):
    """Whether the adapter may be uploaded: as it is, after ``fit``, or not."""

    SERVABLE = "servable"
    FIXABLE = "fixable"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a rule has to say.

    Attributes:
        code: Stable name of the rule, such as ``rank.config``.
        severity: How bad.
        prediction: What the server would do because of this alone; for a warning, what it may do.
        where: File, tensor or module; texts from the adapter are quoted.
        message: What is the matter, what the server would do, and what to do about it.
        fix: Who can mend it.
    """

    code: str
    severity: Severity
    prediction: Prediction
    where: str
    message: str
    fix: Fix


def predict(findings: Iterable[Finding]) -> Prediction:
    """Say what the server would do on account of all errors together; a warning is about what may happen."""
    predictions = {finding.prediction for finding in findings if finding.severity is Severity.ERROR}
    return next((prediction for prediction in Prediction if prediction in predictions), Prediction.OK)


def judge(findings: Iterable[Finding]) -> InspectionVerdict:
    """Decide whether the adapter may be uploaded: never with an error that ``fit`` cannot mend."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return InspectionVerdict.SERVABLE
    return InspectionVerdict.FIXABLE if all(finding.fix is Fix.FIT for finding in errors) else InspectionVerdict.REFUSED


def listed(names: Iterable[str]) -> str:
    """Quote the first few of many names and count the rest."""
    names = list(names)
    rest = len(names) - _LISTED_NAMES
    return ", ".join(map(shown, names[:_LISTED_NAMES])) + (f" and {rest:,} more" if rest > 0 else "")


def plainly(names: Iterable[object]) -> str:
    """List names of types and ranks without quotes where they need none, and count the rest of many."""
    texts = [str(name) for name in names]
    rest = len(texts) - _PLAIN_NAMES
    kept = [text if _PLAIN.fullmatch(text) else shown(text) for text in texts[:_PLAIN_NAMES]]
    return ", ".join(kept) + (f" and {rest:,} more" if rest > 0 else "")
