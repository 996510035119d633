"""JSON Schema as promptfoo applies it: draft 7 unless the schema names another, and patterns as JavaScript reads them.

Patterns run in the engine of the ``regex`` assertion, since Python's ``re`` gives them another meaning and no end.
Knows no check type; ``structure`` and ``tools`` have those that use schemas.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any

from slipway.checks.registry import Check, Graded, InapplicableCheckError, Subject
from slipway.checks.values import shown
from slipway.javascript import TIME_LIMIT_SECONDS, ScriptError, check_pattern, matches
from slipway.validation_errors import describe

__all__ = ["check_schema", "ends_in_time", "schema_problem"]

_READ_WITH_U = (
    "The patterns of a JSON Schema are read with the flag u, which allows no needless escape and no flags inside: "
    r"write - for \-, { as \{, and [Yy] for (?i)y"
)
_PATTERN_WORDS = ('"pattern"', '"patternProperties"', '"regex"')
"""A schema in whose JSON none of them stands has no pattern."""
_NULLABLE = '"nullable"'
_REFUSED_ANCHOR = re.compile(r"[^\\]\\Z")
"""Not JavaScript's; ajv-formats refuses it, though without the flag u it would be a letter."""

_spent_seconds: ContextVar[float] = ContextVar("_spent_seconds")
"""Of processor time, on the searches of the check that is applied."""


class _SearchError(Exception):
    """A pattern's search did not end within its limits."""


def check_schema(schema: object, name: str) -> None:
    """Verify a JSON Schema.

    Args:
        schema: As read from JSON or YAML.
        name: What it belongs to, for the message.

    Raises:
        ValueError: It is none, holds a pattern that JavaScript refuses, or refers to something outside itself.
    """
    if not isinstance(schema, bool | dict):
        raise ValueError(  # noqa: TRY004  # what is wrong is the file, not a caller's type
            f"the value of {name} must be a JSON Schema, found {describe(schema)}"
        )
    _refuse_remote_references(schema)
    try:
        _validator(_text(schema))
    except ValueError as error:
        raise ValueError(f"the JSON Schema of {name} is not valid{error}") from None


def schema_problem(schema: object, value: object) -> str:
    """Say where a value does not conform to a verified schema, of draft 7 where it names none; empty where it does.

    To be called by checks that are decorated with ``ends_in_time``.

    Raises:
        InapplicableCheckError: The schema refers to something that is nowhere, or to itself without end.
    """
    from referencing.exceptions import Unresolvable  # noqa: PLC0415  # slow to import, and few suites need it

    try:
        problem = next(iter(_validator(_text(schema)).iter_errors(value)), None)
    except (Unresolvable, RecursionError) as error:
        raise InapplicableCheckError(f"the JSON Schema cannot be applied: {error}") from None
    return "" if problem is None else str(problem.message)


def ends_in_time(assess: Callable[[Check, Subject], Graded]) -> Callable[[Check, Subject], Graded]:
    """Make a check that applies schemas fail where the searches for their patterns do not end, as ``regex`` does.

    A single search has the limits of JavaScript; all of one check have that time together, however many strings the
    output holds. Neither form of the check passes then: nothing was found out.
    """

    @wraps(assess)
    def bounded(check: Check, subject: Subject) -> Graded:
        _spent_seconds.set(0.0)
        try:
            return assess(check, subject)
        except _SearchError as error:
            return Graded(passed=False, score=0, reason=f"{error}.")

    return bounded


def _search(pattern: str, text: str) -> bool:
    spent, began = _spent_seconds.get(), time.thread_time()
    if spent > TIME_LIMIT_SECONDS:
        raise _SearchError(
            f"The searches for patterns of the JSON Schema were ended: together they ran longer than "
            f"{TIME_LIMIT_SECONDS:g} s"
        )
    try:
        found = _is_found(pattern, text)
    except ScriptError as error:
        raise _SearchError(
            f"The search for {shown(pattern)!r}, a pattern of the JSON Schema, was ended: {error}"
        ) from None
    _spent_seconds.set(spent + time.thread_time() - began)
    return found


@lru_cache(maxsize=1024)  # names of properties are the same in most outputs
def _is_found(pattern: str, text: str) -> bool:
    return matches(pattern, text, "u")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:  # noqa: ANN401  # jsonschema's classes are made at run time
    """Make what applies a schema, given as JSON.

    Raises:
        ValueError: It is not valid; the message continues "is not valid".
    """
    from jsonschema import Draft7Validator  # noqa: PLC0415  # as above
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415  # without it remote references are fetched

    value = json.loads(schema)
    kind: Any = validator_for(value, default=Draft7Validator)  # draft 7 is ajv's default
    formats = kind.FORMAT_CHECKER
    if any(word in schema for word in (*_PATTERN_WORDS, _NULLABLE)):
        kind, formats = _as_ajv(kind), _formats(kind, _verify_regex)
    try:
        kind.check_schema(value, format_checker=_formats(kind, _verify_schema_pattern))
    except SchemaError as error:
        place = ".".join(map(str, error.absolute_path))
        raise ValueError(f"{place and f' at {place}'}: {error.cause or error.message}") from None
    if "unevaluatedProperties" in kind.VALIDATORS and all(
        f'"{word}":' in schema for word in ("unevaluatedProperties", "patternProperties")
    ):
        raise ValueError(": unevaluatedProperties beside patternProperties is not supported; use additionalProperties")
    return kind(value, registry=REGISTRY, format_checker=formats)


@lru_cache(maxsize=8)  # one for each draft
def _as_ajv(kind: Any) -> Any:  # noqa: ANN401  # as above
    """Extend the validator of a draft by what ajv reads otherwise: ``nullable``, and the patterns, as JavaScript."""
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415  # as above
    from jsonschema.validators import extend  # noqa: PLC0415

    def pattern(validator: Any, wanted: str, instance: object, _: object) -> Iterator[ValidationError]:  # noqa: ANN401
        if validator.is_type(instance, "string") and not _search(wanted, str(instance)):
            yield ValidationError(f"{instance!r} does not match {wanted!r}")

    def pattern_properties(
        validator: Any,  # noqa: ANN401
        schemas: Mapping[str, object],
        instance: object,
        _: object,
    ) -> Iterator[ValidationError]:
        for wanted, schema in schemas.items() if isinstance(instance, dict) else ():
            for name, value in instance.items() if isinstance(instance, dict) else ():
                if _search(wanted, name):
                    yield from validator.descend(value, schema, path=name, schema_path=wanted)

    def additional_properties(
        validator: Any,  # noqa: ANN401
        allowed: object,
        instance: object,
        schema: Mapping[str, object],
    ) -> Iterator[ValidationError]:
        if isinstance(instance, dict) and isinstance(patterns := schema.get("patternProperties"), dict):
            instance = {k: v for k, v in instance.items() if not any(_search(wanted, k) for wanted in patterns)}
            schema = {keyword: value for keyword, value in schema.items() if keyword != "patternProperties"}
        yield from kind.VALIDATORS["additionalProperties"](validator, allowed, instance, schema)

    def evolve(validator: Any, **changes: object) -> Any:  # noqa: ANN401
        return type(validator)(**{alias: getattr(validator, name) for name, alias in fields} | changes)

    own: Any = extend(
        kind,
        {
            "type": _nullable(kind.VALIDATORS["type"]),
            "pattern": pattern,
            "patternProperties": pattern_properties,
            "additionalProperties": additional_properties,
        },
    )
    fields = [(field.name, field.alias) for field in own.__attrs_attrs__ if field.init]
    own.evolve = evolve  # jsonschema's goes back to its own keywords where a schema inside, or "#", names its draft
    return own


def _nullable(has_type: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
    """Let ``nullable: true`` beside ``type`` allow null as well."""

    def types(validator: object, wanted: object, instance: object, schema: Mapping[str, object]) -> Iterator[Any]:
        if instance is not None or schema.get("nullable") is not True:
            yield from has_type(validator, wanted, instance, schema) or ()

    return types


def _formats(kind: Any, verify: Callable[[object], bool]) -> Any:  # noqa: ANN401  # as above
    from jsonschema import FormatChecker  # noqa: PLC0415  # as above

    formats = FormatChecker(formats=())
    formats.checkers = {**kind.FORMAT_CHECKER.checkers, "regex": (verify, ValueError)}
    return formats


def _verify_schema_pattern(pattern: object) -> bool:
    if isinstance(pattern, str):
        try:
            _is_found(pattern, "")
        except ScriptError as error:
            raise ValueError(f"JavaScript refuses the pattern {shown(pattern)!r}: {error}. {_READ_WITH_U}") from None
    return True


def _verify_regex(text: object) -> bool:
    """Verify the format ``regex`` as ajv-formats does: without the flag u."""
    if isinstance(text, str):
        check_pattern(text)
        return _REFUSED_ANCHOR.search(text) is None
    return True


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
