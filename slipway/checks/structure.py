"""Checks of structure: JSON and JSON Schema."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from slipway.checks.embedded_json import embedded_objects
from slipway.checks.registry import Check, Graded, InapplicableCheckError, Subject, kind
from slipway.checks.values import answer, parse_json, shown
from slipway.errors import ConfigFileError
from slipway.validation_errors import describe
from slipway.yaml_files import parse_yaml

__all__ = ["check_schema", "schema_problem"]


def check_schema(schema: object, name: str) -> None:
    """Verify a JSON Schema.

    Args:
        schema: As read from JSON or YAML.
        name: What it belongs to, for the message.

    Raises:
        ValueError: It is none, or refers to something outside itself.
    """
    if not isinstance(schema, bool | dict):
        raise ValueError(  # noqa: TRY004  # what is wrong is the file, not a caller's type
            f"the value of {name} must be a JSON Schema, found {describe(schema)}"
        )
    _refuse_remote_references(schema)
    try:
        _validator(_text(schema))
    except ValueError as error:
        raise ValueError(f"the JSON Schema of {name} is not valid: {error}") from None


def schema_problem(schema: object, value: object) -> str:
    """Say where a value does not conform to a verified schema, of draft 7 where it names none; empty where it does.

    Raises:
        InapplicableCheckError: The schema refers to something that is nowhere, or to itself without end.
    """
    from referencing.exceptions import Unresolvable  # noqa: PLC0415  # slow to import, and few suites need it

    try:
        problem = next(iter(_validator(_text(schema)).iter_errors(value)), None)
    except (Unresolvable, RecursionError) as error:
        raise InapplicableCheckError(f"the JSON Schema cannot be applied: {error}") from None
    return "" if problem is None else str(problem.message)


def _schema(check: Check) -> Check:
    if check.value is None or check.value == "":
        return replace(check, value=None)
    schema = check.value
    if isinstance(schema, str):
        try:
            schema = parse_yaml(schema, path=Path("schema")).value
        except ConfigFileError as error:
            raise ValueError(f"the JSON Schema of {check.type} cannot be read: {error.message}") from None
    check_schema(schema, check.type)
    return replace(check, value=schema)


@kind("is-json", prepare=_schema)
def _is_json(check: Check, subject: Subject) -> Graded:
    try:
        parsed = parse_json(subject.output)
    except ValueError:
        return answer(check, False, "be", "JSON")  # it is not
    if check.value is None:
        return answer(check, True, "be", "JSON")  # it is
    return _conforming(check, schema_problem(check.value, parsed))


@kind("contains-json", prepare=_schema)
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


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:  # noqa: ANN401  # jsonschema's classes are made at run time
    from jsonschema import Draft7Validator  # noqa: PLC0415  # as above
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415  # without it remote references are fetched

    value = json.loads(schema)
    kind_of_schema = validator_for(value, default=Draft7Validator)  # draft 7 is ajv's default
    try:
        kind_of_schema.check_schema(value)
    except SchemaError as error:
        raise ValueError(error.message) from None
    return kind_of_schema(value, registry=REGISTRY, format_checker=kind_of_schema.FORMAT_CHECKER)


def _text(schema: object) -> str:
    """Give a key for the cache; cases that share a schema hold copies of it."""
    return json.dumps(schema, sort_keys=True, default=str)


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
