"""Checks: what one assertion of a suite says of one output.

Types and their meaning are promptfoo's, as observed in 0.121.9; docs/checks.md lists them, and where we depart. A check
that answers no is a result with a reason. One that cannot be applied is an instrument error and makes the case missing,
never failed; one whose type is not supported is neither, and lowers the coverage. ``registry`` says what a type is; the
modules imported here for their effect register theirs.
"""

from slipway.checks import (  # noqa: F401  # they register their types
    judged,
    judged_context,
    markup,
    measured,
    meteor,
    ngrams,
    refusal,
    script,
    similarity,
    sql,
    structure,
    text,
    tools,
)
from slipway.checks.examples import example
from slipway.checks.registry import (
    Check,
    Graded,
    InapplicableCheckError,
    Judge,
    Subject,
    Synonyms,
    UnknownTypeError,
    assess,
    assess_judged,
    is_judged,
    judged_kind,
    kind,
    known_types,
    prepare,
    remarks,
    supported_types,
)
from slipway.checks.scoring import Grade, grade, grade_judged

__all__ = [
    "Check",
    "Grade",
    "Graded",
    "InapplicableCheckError",
    "Judge",
    "Subject",
    "Synonyms",
    "UnknownTypeError",
    "assess",
    "assess_judged",
    "example",
    "grade",
    "grade_judged",
    "is_judged",
    "judged_kind",
    "kind",
    "known_types",
    "prepare",
    "remarks",
    "supported_types",
]
