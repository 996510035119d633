"""Checks: what one assertion of a suite says of one output.

Types and their meaning are promptfoo's, as observed in 0.121.9; docs/suites.md lists where we are stricter. A type is
one function with the decorator ``kind``; nothing else has to know of it. A check that answers no is a result with a
reason. One that cannot be applied is an instrument error and makes the case missing, never failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slipway.errors import ConfigFileError
from slipway.js_regex import compile_javascript
from slipway.results import CheckResult
from slipway.validation_errors import describe, nearest
from slipway.yaml_files import parse_yaml

__all__ = ["Check", "Grade", "InapplicableCheckError", "grade", "prepare", "supported_types"]

MAX_SHOWN_CHARACTERS = 120


class InapplicableCheckError(Exception):
    """A check cannot say yes or no, for want of something to look at."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One assertion, its templates rendered and its value verified.

    Attributes:
        type: As written, ``not-`` included.
        value: What to compare with, in the form that the type's ``prepare`` gave it.
        threshold: For types that have one.
        weight: Share in the case's score; 0 only measures.
        metric: Name under which scores are gathered; empty for none.
    """

    type: str
    value: object = None
    threshold: float | None = None
    weight: float = 1.0
    metric: str = ""

    @property
    def is_negated(self) -> bool:
        """Whether the type starts with ``not-``."""
        return self.type.startswith("not-")


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What all checks of a case say of one output.

    Attributes:
        passed: None where a check could not be applied.
        score: Weighted mean of the checks' scores, in [0, 1]; None likewise.
        checks: One result for each check, in order.
        metrics: Weighted mean of the scores that share a metric's name.
        error: Why a check could not be applied; None where all could.
    """

    passed: bool | None
    score: float | None
    checks: tuple[CheckResult, ...]
    metrics: Mapping[str, float]
    error: str | None = None


Prepare = Callable[[Check], Check]
"""Verify and normalise a check when the suite is loaded; raises ValueError saying what to write."""
Judge = Callable[[Check, str, float | None], tuple[bool, str]]
"""Check, output and latency in milliseconds to whether it passes and, where not, why."""


@dataclass(frozen=True)
class _Kind:
    prepare: Prepare
    judge: Judge


_KINDS: dict[str, _Kind] = {}


def kind(name: str, prepare: Prepare) -> Callable[[Judge], Judge]:
    """Register the decorated function as the check type ``name`` and ``not-name``."""

    def register(judge: Judge) -> Judge:
        _KINDS[name] = _Kind(prepare, judge)
        return judge

    return register


def supported_types() -> tuple[str, ...]:
    """List the types, without their ``not-`` forms."""
    return tuple(_KINDS)


def prepare(check: Check) -> Check:
    """Verify a check before any output is seen.

    Raises:
        ValueError: Unknown type, or a value or threshold that the type cannot use; says what to write.
    """
    base = check.type.removeprefix("not-")
    if base not in _KINDS:
        raise ValueError(
            f"the assertion type {check.type!r} is not supported. {nearest(base, _KINDS)} Supported, each also with "
            f"not- in front: {', '.join(_KINDS)}"
        )
    return _KINDS[base].prepare(check)


def grade(checks: Sequence[Check], output: str, latency_ms: float | None, *, threshold: float | None = None) -> Grade:
    """Apply prepared checks to one output.

    The score is sum(weight * score) / sum(weight). The case passes when every check with a weight passes or, with a
    ``threshold`` other than 0, when the score reaches it. Without checks it passes with 1; with nothing but weights of
    0 it passes with 0 (promptfoo 0.121.9).
    """
    results: list[CheckResult] = []
    for check in checks:
        try:
            passed, reason = _KINDS[check.type.removeprefix("not-")].judge(check, output, latency_ms)
        except InapplicableCheckError as error:
            return Grade(passed=None, score=None, checks=(), metrics={}, error=f"{check.type}: {error}")
        results.append(CheckResult(type=check.type, passed=passed, score=float(passed), reason=reason))
    weighted = list(zip(checks, results, strict=True))
    score = _weighted_mean(weighted) if checks else 1.0
    names = dict.fromkeys(check.metric for check in checks if check.metric)
    return Grade(
        passed=score >= threshold if threshold else all(result.passed for check, result in weighted if check.weight),
        score=score,
        checks=tuple(results),
        metrics={name: _weighted_mean([pair for pair in weighted if pair[0].metric == name]) for name in names},
    )


def _weighted_mean(pairs: Sequence[tuple[Check, CheckResult]]) -> float:
    total = math.fsum(check.weight for check, _ in pairs)
    return math.fsum(check.weight * result.score for check, result in pairs) / total if total else 0.0


def _text_value(check: Check) -> Check:
    """Require a value that is not empty once templates are rendered; numbers are compared as JavaScript shows them."""
    if check.value is None or check.value == "" or isinstance(check.value, list | dict | bool):
        raise ValueError(f"{check.type} needs a value: text or a number, and not empty; found {describe(check.value)}")
    return replace(check, value=_javascript_text(check.value))


def _any_value(check: Check) -> Check:
    if check.value is None:
        raise ValueError(f"{check.type} needs a value: text, a number or an object")
    return check if isinstance(check.value, list | dict) else replace(check, value=_javascript_text(check.value))


def _pattern(check: Check) -> Check:
    if not isinstance(check.value, str) or not check.value:
        raise ValueError(f"{check.type} needs a pattern as its value; found {describe(check.value)}")
    compile_javascript(check.value)
    return check


def _schema(check: Check) -> Check:
    if check.value is None or check.value == "":
        return replace(check, value=None)
    schema = check.value
    if isinstance(schema, str):
        try:
            schema = parse_yaml(schema, path=Path("schema")).value
        except ConfigFileError as error:
            raise ValueError(f"the JSON Schema of {check.type} cannot be read: {error.message}") from None
    if not isinstance(schema, bool | dict):
        raise ValueError(  # noqa: TRY004  # what is wrong is the file, not a caller's type
            f"the value of {check.type} must be a JSON Schema, found {describe(schema)}"
        )
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415  # slow to import, and few suites need it

    try:
        _validator_class(schema).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"the JSON Schema of {check.type} is not valid: {error.message}") from None
    _refuse_remote_references(schema)
    return replace(check, value=schema)


def _milliseconds(check: Check) -> Check:
    if check.threshold is None or not math.isfinite(check.threshold) or check.threshold < 0:
        raise ValueError(f"{check.type} needs `threshold:`, in milliseconds")
    return check


@kind("equals", prepare=_any_value)
def _equals(check: Check, output: str, _: float | None) -> tuple[bool, str]:
    if not isinstance(check.value, list | dict):
        return _answer(check, output == check.value, "equal", check.value)
    try:
        parsed = _parse_json(output)
    except ValueError:
        return False, "Expected the output to be JSON, to compare it with an object."  # the not- form fails as well
    return _answer(check, _deep_equal(parsed, check.value), "equal", json.dumps(check.value))


@kind("contains", prepare=_text_value)
def _contains(check: Check, output: str, _: float | None) -> tuple[bool, str]:
    return _answer(check, str(check.value) in output, "contain", check.value)


@kind("icontains", prepare=_text_value)
def _icontains(check: Check, output: str, _: float | None) -> tuple[bool, str]:
    return _answer(check, str(check.value).lower() in output.lower(), "contain, in any case,", check.value)


@kind("regex", prepare=_pattern)
def _regex(check: Check, output: str, _: float | None) -> tuple[bool, str]:
    return _answer(check, compile_javascript(str(check.value)).search(output) is not None, "match", check.value)


@kind("starts-with", prepare=_text_value)
def _starts_with(check: Check, output: str, _: float | None) -> tuple[bool, str]:
    return _answer(check, output.startswith(str(check.value)), "start with", check.value)


@kind("is-json", prepare=_schema)
def _is_json(check: Check, output: str, _: float | None) -> tuple[bool, str]:
    try:
        parsed = _parse_json(output)
    except ValueError:
        return check.is_negated, "" if check.is_negated else "Expected the output to be JSON."
    if check.value is None:
        return _answer(check, True, "be", "JSON")  # it is
    problem = _schema_problem(check.value, parsed)
    if check.is_negated or not problem:
        return _answer(check, not problem, "conform to", "the JSON Schema")
    return False, f"Expected the output to conform to the JSON Schema: {_shown(problem)}."


@kind("latency", prepare=_milliseconds)
def _latency(check: Check, _: str, latency_ms: float | None) -> tuple[bool, str]:
    """Compare with the threshold; promptfoo ignores a ``not-`` here, and so do we."""
    if latency_ms is None:
        raise InapplicableCheckError("the latency of this answer is unknown")
    passed = check.threshold is not None and latency_ms <= check.threshold
    return passed, "" if passed else f"Expected at most {check.threshold:g} ms, took {latency_ms:.1f} ms."


def _answer(check: Check, holds: bool, verb: str, value: object) -> tuple[bool, str]:  # noqa: FBT001  # the answer
    passed = holds != check.is_negated
    return passed, "" if passed else f"Expected the output {'not ' * check.is_negated}to {verb} {_shown(value)!r}."


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."


def _javascript_text(value: object) -> str:
    """Show a scalar as JavaScript's ``String`` does: ``true``, ``1`` for 1.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:  # where String changes
        return str(int(value))
    return str(value)


def _parse_json(text: str) -> object:
    def refuse(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _deep_equal(left: object, right: object) -> bool:
    """Compare JSON values as JavaScript does: 1 equals 1.0 but not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_deep_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_deep_equal, left, right))
    return left == right


def _validator_class(schema: object) -> Any:  # noqa: ANN401  # jsonschema's classes are made at run time
    from jsonschema import Draft7Validator  # noqa: PLC0415  # as above
    from jsonschema.validators import validator_for  # noqa: PLC0415

    return validator_for(schema, default=Draft7Validator)  # draft 7 is ajv's default


def _schema_problem(schema: object, value: object) -> str:
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415  # without it remote references would be fetched
    from referencing.exceptions import Unresolvable  # noqa: PLC0415  # as above

    kind_of_schema = _validator_class(schema)
    validator = kind_of_schema(schema, registry=REGISTRY, format_checker=kind_of_schema.FORMAT_CHECKER)
    try:
        problem = next(iter(validator.iter_errors(value)), None)
    except (Unresolvable, RecursionError) as error:
        raise InapplicableCheckError(f"the JSON Schema cannot be applied: {error}") from None
    return "" if problem is None else str(problem.message)


def _refuse_remote_references(schema: object) -> None:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise ValueError(f"the JSON Schema refers to {reference!r}; only references inside it, #/..., are followed")
        for value in schema.values():
            _refuse_remote_references(value)
    elif isinstance(schema, list):
        for value in schema:
            _refuse_remote_references(value)
