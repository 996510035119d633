"""Checks of the text itself: the same, a part of it, a pattern in it."""

from __future__ import annotations

import json

from slipway.checks.registry import Check, Graded, Subject, kind
from slipway.checks.values import answer, any_value, parse_json, text_value
from slipway.js_regex import compile_javascript
from slipway.validation_errors import describe

__all__: list[str] = []


def _pattern(check: Check) -> Check:
    if not isinstance(check.value, str) or not check.value:
        raise ValueError(f"{check.type} needs a pattern as its value; found {describe(check.value)}")
    compile_javascript(check.value)
    return check


@kind("equals", prepare=any_value)
def _equals(check: Check, subject: Subject) -> Graded:
    if not isinstance(check.value, list | dict):
        return answer(check, subject.output == check.value, "equal", check.value)
    try:
        parsed = parse_json(subject.output)
    except ValueError:
        return Graded(
            passed=False, score=0, reason="Expected JSON, to compare with an object."
        )  # the not- form fails as well
    return answer(check, _deep_equal(parsed, check.value), "equal", json.dumps(check.value))


@kind("contains", prepare=text_value)
def _contains(check: Check, subject: Subject) -> Graded:
    return answer(check, str(check.value) in subject.output, "contain", check.value)


@kind("icontains", prepare=text_value)
def _icontains(check: Check, subject: Subject) -> Graded:
    return answer(check, str(check.value).lower() in subject.output.lower(), "contain, in any case,", check.value)


@kind("regex", prepare=_pattern)
def _regex(check: Check, subject: Subject) -> Graded:
    return answer(check, compile_javascript(str(check.value)).search(subject.output) is not None, "match", check.value)


@kind("starts-with", prepare=text_value)
def _starts_with(check: Check, subject: Subject) -> Graded:
    return answer(check, subject.output.startswith(str(check.value)), "start with", check.value)


def _deep_equal(left: object, right: object) -> bool:
    """Compare JSON values as JavaScript does: 1 equals 1.0 but not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_deep_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_deep_equal, left, right))
    return left == right
