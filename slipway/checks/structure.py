"""Checks of structure: JSON, alone and inside text, with and without a schema."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slipway.checks.embedded_json import embedded_objects
from slipway.checks.json_schema import check_schema, ends_in_time, schema_problem
from slipway.checks.registry import Check, Graded, Subject, kind
from slipway.checks.values import answer, parse_json, shown
from slipway.errors import ConfigFileError
from slipway.validation_errors import describe
from slipway.yaml_files import parse_yaml

__all__: list[str] = []


def _schema(check: Check) -> Check:
    if check.value is None or check.value == "":
        return replace(check, value=None)
    schema = check.value
    if isinstance(schema, bool):
        raise ValueError(f"the value of {check.type} must be a JSON Schema, or left out; found {describe(schema)}")  # noqa: TRY004  # what is wrong is the file, not a caller's type
    if isinstance(schema, str):
        try:
            schema = parse_yaml(schema, path=Path("schema")).value
        except ConfigFileError as error:
            raise ValueError(f"the JSON Schema of {check.type} cannot be read: {error.message}") from None
    check_schema(schema, check.type)
    return replace(check, value=schema)


@kind("is-json", prepare=_schema)
@ends_in_time
def _is_json(check: Check, subject: Subject) -> Graded:
    try:
        parsed = parse_json(subject.output)
    except ValueError:
        return answer(check, False, "be", "JSON")  # it is not
    if check.value is None:
        return answer(check, True, "be", "JSON")  # it is
    return _conforming(check, schema_problem(check.value, parsed))


@kind("contains-json", prepare=_schema)
@ends_in_time
def _contains_json(check: Check, subject: Subject) -> Graded:
    """Look for one object that conforms; the ``not-`` form wants that none does."""
    problem = "it holds no JSON object"
    for found in embedded_objects(subject.output):
        problem = "" if check.value is None else schema_problem(check.value, found)
        if not problem:
            break
    if check.value is None:
        return answer(check, not problem, "contain", "a JSON object")
    return _conforming(check, problem)


def _conforming(check: Check, problem: str) -> Graded:
    if check.is_negated or not problem:
        return answer(check, not problem, "conform to", "the JSON Schema")
    return Graded(passed=False, score=0, reason=f"Expected the output to conform to the JSON Schema: {shown(problem)}.")
