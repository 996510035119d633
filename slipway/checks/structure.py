"""Checks of structure: JSON and JSON Schema."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from slipway.checks.registry import Check, Graded, InapplicableCheckError, Subject, kind
from slipway.checks.values import answer, parse_json, shown
from slipway.errors import ConfigFileError
from slipway.validation_errors import describe
from slipway.yaml_files import parse_yaml

__all__: list[str] = []


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


@kind("is-json", prepare=_schema)
def _is_json(check: Check, subject: Subject) -> Graded:
    try:
        parsed = parse_json(subject.output)
    except ValueError:
        return answer(check, False, "be", "JSON")  # it is not
    if check.value is None:
        return answer(check, True, "be", "JSON")  # it is
    problem = _schema_problem(check.value, parsed)
    if check.is_negated or not problem:
        return answer(check, not problem, "conform to", "the JSON Schema")
    return Graded(passed=False, score=0, reason=f"Expected the output to conform to the JSON Schema: {shown(problem)}.")


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
