"""JSON Schemas of the files that people write, made from the models that read them, for editors to complete and check.

A schema can say less than the reader: one of two keys, a file that must exist. What it refuses, the reader refuses too.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from slipway.checks import known_types
from slipway.gate_file import Gate
from slipway.suite_file import AssertionEntry, SuiteEntry, TestEntry
from slipway.targets import Target

__all__ = ["SCHEMA_KINDS", "config_schema", "schema_text"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_KINDS = ("gate", "suite", "target")

Schema = dict[str, Any]


def config_schema(kind: str) -> Schema:
    """Make the schema of one kind of file.

    Args:
        kind: ``gate``, ``suite`` or ``target``.
    """
    if kind == "suite":
        return _suite_schema()
    models: dict[str, type[BaseModel]] = {"gate": Gate, "target": Target}
    return {"$schema": DIALECT, "title": f"Slipway {kind} file", **_plain(models[kind].model_json_schema())}


def schema_text(kind: str) -> str:
    """Render the schema as it is kept in ``configs/schema/KIND.json``."""
    return json.dumps(config_schema(kind), indent=2, ensure_ascii=False) + "\n"


def _suite_schema() -> Schema:
    """Join the parts of a suite, which are read one by one so that errors name their lines."""
    suite, test, assertion = (_plain(entry.model_json_schema()) for entry in (SuiteEntry, TestEntry, AssertionEntry))
    definitions: Schema = {}
    for part in (suite, test, assertion):
        definitions |= part.pop("$defs", {})
    reference = {"type": "string", "description": "A path or glob, relative to this file."}
    one_test = {"$ref": "#/$defs/Test"}
    tests = {"anyOf": [reference, {"type": "array", "items": {"anyOf": [reference, _only("path"), one_test]}}]}
    assertion["properties"]["type"] = {"enum": [f"{form}{kind}" for kind in known_types() for form in ("", "not-")]}
    test["properties"]["assert"] = {"type": "array", "items": {"$ref": "#/$defs/Assertion"}}
    suite["properties"] |= {
        "$schema": {"type": "string"},
        "prompts": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "object"]}}]},
        "tests": tests,
        "defaultTest": {"anyOf": [reference, one_test]},
    }
    return {
        "$schema": DIALECT,
        "title": "Slipway suite file",
        "anyOf": [{"$ref": "#/$defs/Suite"}, {"type": "array", "items": {"anyOf": [reference, one_test]}}],
        "$defs": {**definitions, "Suite": suite, "Test": test, "Assertion": assertion},
    }


def _only(key: str) -> Schema:
    return {
        "type": "object",
        "properties": {key: {"type": "string"}},
        "required": [key],
        "additionalProperties": False,
    }


def _plain(schema: Any) -> Any:  # noqa: ANN401  # any part of a JSON document
    """Drop the titles that repeat a key, and the marks of reStructuredText in descriptions."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        is_text = key == "description" and isinstance(value, str)
        plain[key] = re.sub(r"``", "`", value.partition("\n\nAttributes:")[0]) if is_text else _plain(value)
    return plain
