"""Checks of the text itself: the same, a part of it, a pattern in it, how long and how far it is."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from slipway.checks.registry import Check, Graded, Subject, kind
from slipway.checks.values import answer, any_value, javascript_text, parse_json, shown, text_value, trimmed, words
from slipway.javascript import ScriptError, check_pattern, matches
from slipway.validation_errors import describe

__all__: list[str] = []

DEFAULT_DISTANCE = 5
"""Of ``levenshtein``, where no threshold is written."""
_FIELD = re.compile(r'"((?:\\["\\]|""|[^"])*+)"|[^,"][^,]*')
_DOUBLED = re.compile(r'\\(["\\])|""')
_SEPARATOR = re.compile(r"[\s,\ufeff]*")


def _several_values(check: Check) -> Check:
    """Take a list, or text with commas in which ``"quoted, items"`` stay together; an empty list is one."""
    value = check.value
    if isinstance(value, str) and trimmed(value):
        value = _split(value, check.type)
    if not isinstance(value, list) or any(item in ("", None) or isinstance(item, list | dict) for item in value):
        raise ValueError(
            f"{check.type} needs a list of text, or text with commas, and nothing empty in it; "
            f"found {describe(check.value)}"
        )
    return replace(check, value=tuple(javascript_text(item) for item in value))


def _split(text: str, name: str) -> list[str]:
    """Split text at commas as promptfoo does: what is quoted is kept as it is, a quote in it is doubled or escaped."""
    items = []
    at = _end(_SEPARATOR, text, 0)
    while at < len(text):
        field = _FIELD.match(text, at)
        if field is None:
            raise ValueError(f"{name}: a quote in {shown(text)!r} is not closed")
        quoted = field.group(1)
        items.append(trimmed(field.group()) if quoted is None else _DOUBLED.sub(_single, quoted))
        at = _end(_SEPARATOR, text, field.end())
        if quoted is not None and at < len(text) and "," not in text[field.end() : at]:
            raise ValueError(f"{name}: a comma must follow the quoted item {shown(quoted)!r}")
    return items


def _single(match: re.Match[str]) -> str:
    return match[1] or '"'


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _pattern(check: Check) -> Check:
    if not isinstance(check.value, str) or not check.value:
        raise ValueError(f"{check.type} needs a pattern as its value; found {describe(check.value)}")
    try:
        check_pattern(check.value)
    except ValueError as error:
        hint = ". Flags cannot be set in a pattern: write [Yy]es, or use icontains" if "(?" in check.value else ""
        raise ValueError(f"{error}{hint}") from None
    return check


def _distance(check: Check) -> Check:
    if check.value is None or isinstance(check.value, list | dict | bool):
        raise ValueError(f"{check.type} needs a text as its value; found {describe(check.value)}")
    if check.threshold is not None and not check.threshold >= 0:
        raise ValueError(f"the threshold of {check.type} must be a number of edits, 0 or more")
    return replace(check, value=javascript_text(check.value))


def _count(check: Check) -> Check:
    written = check.value if isinstance(check.value, dict) else {"min": check.value, "max": check.value}
    bounds = {name: _number(value) for name, value in written.items()}
    if not bounds or not set(bounds) <= {"min", "max"} or None in bounds.values():
        raise ValueError(
            f"{check.type} needs a number, or {{min: 5, max: 20}} with one of them or both; "
            f"found {describe(check.value)}"
        )
    least, most = bounds.get("min") or 0.0, bounds.get("max", math.inf)
    if most is None or least > most:
        raise ValueError(f"{check.type} has a min, {least:g}, above its max, {most:g}")
    return replace(check, value=(least, most))


def _number(value: object) -> float | None:
    """Read a finite number, which may be written as text; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@kind("equals", prepare=any_value)
def _equals(check: Check, subject: Subject) -> Graded:
    if not isinstance(check.value, list | dict):
        return answer(check, subject.output == check.value, "equal", check.value)
    try:
        parsed = parse_json(subject.output)
    except ValueError:
        # The not- form fails as well, in promptfoo 0.121.9.
        return Graded(passed=False, score=0, reason="Expected the output to be JSON, to compare it with an object.")
    return answer(check, _deep_equal(parsed, check.value), "equal", json.dumps(check.value))


@kind("contains", prepare=text_value)
def _contains(check: Check, subject: Subject) -> Graded:
    return answer(check, str(check.value) in subject.output, "contain", check.value)


@kind("icontains", prepare=text_value)
def _icontains(check: Check, subject: Subject) -> Graded:
    return answer(check, str(check.value).lower() in subject.output.lower(), "contain, in any case,", check.value)


@kind("contains-any", prepare=_several_values)
def _contains_any(check: Check, subject: Subject) -> Graded:
    return _any_of(check, subject.output, str)


@kind("icontains-any", prepare=_several_values)
def _icontains_any(check: Check, subject: Subject) -> Graded:
    return _any_of(check, subject.output, str.lower)


@kind("contains-all", prepare=_several_values)
def _contains_all(check: Check, subject: Subject) -> Graded:
    return _all_of(check, subject.output, str)


@kind("icontains-all", prepare=_several_values)
def _icontains_all(check: Check, subject: Subject) -> Graded:
    return _all_of(check, subject.output, str.lower)


@kind("starts-with", prepare=text_value)
def _starts_with(check: Check, subject: Subject) -> Graded:
    return answer(check, subject.output.startswith(str(check.value)), "start with", check.value)


@kind("regex", prepare=_pattern)
def _regex(check: Check, subject: Subject) -> Graded:
    try:
        found = matches(str(check.value), subject.output)
    except ScriptError as error:  # neither form passes: nothing was found out
        return Graded(passed=False, score=0, reason=f"The search for {shown(check.value)!r} was ended: {error}.")
    return answer(check, found, "match", check.value)


@kind("levenshtein", prepare=_distance, ignores_not=True, has_threshold=True)
def _levenshtein(check: Check, subject: Subject) -> Graded:
    from rapidfuzz.distance import Levenshtein  # noqa: PLC0415  # few suites need it

    most = DEFAULT_DISTANCE if check.threshold is None else check.threshold
    distance = Levenshtein.distance(*_units(subject.output, str(check.value)), score_cutoff=int(most))
    passed = distance <= most
    reason = "" if passed else f"Expected at most {most:g} edits from {shown(check.value)!r}; there are more."
    return Graded(passed=passed, score=float(passed), reason=reason)


@kind("word-count", prepare=_count)
def _word_count(check: Check, subject: Subject) -> Graded:
    least, most = check.value if isinstance(check.value, tuple) else (0, math.inf)
    count = len(words(subject.output))
    passed = (least <= count <= most) != check.is_negated
    reason = "" if passed else f"Expected {'not ' * check.is_negated}{_words(least, most)}, counted {count}."
    return Graded(passed=passed, score=float(passed), reason=reason)


def _units(*texts: str) -> Sequence[Sequence[Hashable]]:
    """Give texts in the units that JavaScript counts, of which an emoji has two."""
    if all(map(str.isascii, texts)):
        return texts
    return [array("H", text.encode("utf-16-le", "surrogatepass")) for text in texts]


def _words(least: float, most: float) -> str:
    unit = "word" if (least if math.isinf(most) else most) == 1 else "words"
    if least == most:
        return f"{least:g} {unit}"
    if math.isinf(most):
        return f"at least {least:g} {unit}"
    return f"{least:g} to {most:g} {unit}" if least else f"at most {most:g} {unit}"


def _any_of(check: Check, output: str, fold: Callable[[str], str]) -> Graded:
    text, items = fold(output), _items(check)
    return answer(check, any(fold(item) in text for item in items), "contain one of", ", ".join(items))


def _all_of(check: Check, output: str, fold: Callable[[str], str]) -> Graded:
    text, items = fold(output), _items(check)
    missing = [item for item in items if fold(item) not in text]
    graded = answer(check, not missing, "contain all of", ", ".join(items))
    if graded.passed or check.is_negated:
        return graded
    return graded._replace(reason=f"{graded.reason[:-1]}; it lacks {shown(', '.join(missing))!r}.")


def _items(check: Check) -> tuple[str, ...]:
    return check.value if isinstance(check.value, tuple) else ()


def _deep_equal(left: object, right: object) -> bool:
    """Compare JSON values as JavaScript does: 1 equals 1.0 but not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_deep_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_deep_equal, left, right))
    return left == right
