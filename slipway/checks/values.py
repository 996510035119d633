"""What the types share: verifying values as promptfoo takes them, comparing as JavaScript does, wording reasons."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

from slipway.checks.registry import Check, Graded
from slipway.templates import number_text
from slipway.validation_errors import describe

__all__ = [
    "SPACE",
    "answer",
    "any_value",
    "javascript_text",
    "no_value",
    "parse_json",
    "scored",
    "shown",
    "text_value",
    "threshold_or",
    "trimmed",
    "words",
]

MAX_SHOWN_CHARACTERS = 120
_SPACES = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f"
    "\u3000\ufeff"
)
"""What JavaScript takes for space; Python knows no byte order mark there, and knows five control characters."""
SPACE = re.compile(f"[{_SPACES}]+")


def text_value(check: Check) -> Check:
    """Require a value that is not empty once templates are rendered; numbers are compared as JavaScript shows them.

    Raises:
        ValueError: There is none, or it is no scalar.
    """
    if check.value is None or check.value == "" or isinstance(check.value, list | dict | bool):
        raise ValueError(f"{check.type} needs a value: text or a number, and not empty; found {describe(check.value)}")
    return replace(check, value=javascript_text(check.value))


def any_value(check: Check) -> Check:
    """Require a value; scalars become text.

    Raises:
        ValueError: There is none.
    """
    if check.value is None:
        raise ValueError(f"{check.type} needs a value: text, a number or an object")
    return check if isinstance(check.value, list | dict) else replace(check, value=javascript_text(check.value))


def no_value(check: Check) -> Check:
    """Take a check whose type has no value; one that is written is ignored, as promptfoo does."""
    return replace(check, value=None)


def answer(check: Check, holds: bool, verb: str, value: object) -> Graded:  # noqa: FBT001  # the answer
    """Grade yes or no, a ``not-`` turned round; the reason reads "Expected the output to VERB VALUE"."""
    passed = holds != check.is_negated
    reason = "" if passed else f"Expected the output {'not ' * check.is_negated}to {verb} {shown(value)!r}."
    return Graded(passed=passed, score=float(passed), reason=reason)


def scored(check: Check, score: float, threshold: float, name: str) -> Graded:
    """Grade a similarity in [0, 1] that passes from ``threshold`` on; ``not-`` turns both round."""
    passed = (score >= threshold) != check.is_negated
    relation = "at least" if not check.is_negated else "less than"
    return Graded(
        passed=passed,
        score=1 - score if check.is_negated else score,
        reason=f"{name} is {score:.4f}" + ("." if passed else f"; expected {relation} {threshold:g}."),
    )


def shown(value: object) -> str:
    """Give text to show in a reason, cut short."""
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."


def javascript_text(value: object) -> str:
    """Show a scalar as JavaScript's ``String`` does: ``true``, ``1`` for 1.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return number_text(value) if isinstance(value, int | float) else str(value)


def trimmed(text: str) -> str:
    """Cut space off both ends, as JavaScript's ``trim`` does."""
    return text.strip(_SPACES)


def words(text: str) -> list[str]:
    """Split at JavaScript's spaces; none of the words is empty."""
    return [word for word in SPACE.split(text) if word]


def parse_json(text: str) -> object:
    """Parse JSON as JavaScript does, which knows no NaN.

    Raises:
        ValueError: Not JSON, or nested too deeply.
    """

    def refuse(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def threshold_or(check: Check, default: float) -> float:
    """Give the threshold, or the type's own where none is written.

    Raises:
        ValueError: It is no finite number.
    """
    if check.threshold is None:
        return default
    if not math.isfinite(check.threshold):
        raise ValueError(f"the threshold of {check.type} must be a number")
    return check.threshold
