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
from slipway.suite_file import OWN_KEYS, AssertionEntry, PromptEntry, ScenarioEntry, SuiteEntry, TestEntry
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
    entries: dict[str, type[BaseModel]] = {
        "Suite": SuiteEntry,
        "Test": TestEntry,
        "Assertion": AssertionEntry,
        "Scenario": ScenarioEntry,
    }
    parts: dict[str, Schema] = {name: _plain(entry.model_json_schema()) for name, entry in entries.items()}
    shared: Schema = {"Prompt": _plain(PromptEntry.model_json_schema())}
    for part in (*parts.values(), *tuple(shared.values())):
        shared |= part.pop("$defs", {})
    file = {"type": "string", "description": "A path or glob, relative to this file."}
    tests = _one_or_several(file, {"$ref": "#/$defs/TestFile"}, {"$ref": "#/$defs/Test"})
    assertions = {"type": "array", "items": {"$ref": "#/$defs/AssertionOrReference"}}
    types = [f"{form}{kind}" for kind in known_types() for form in ("", "not-")]
    _refine(parts["Assertion"], {"type": {"enum": types}, "assert": assertions})
    _refine(parts["Test"], {"assert": assertions})
    _refine(parts["Scenario"], {"config": tests, "tests": tests})
    _refine(
        parts["Suite"],
        {
            "$schema": {"type": "string"},
            "prompts": _one_or_several({"type": "string"}, {"$ref": "#/$defs/Prompt"}),
            "tests": tests,
            "defaultTest": {"anyOf": [file, {"$ref": "#/$defs/Test"}]},
            "scenarios": _one_or_several(file, {"$ref": "#/$defs/Scenario"}),
        },
    )
    parts["Suite"]["patternProperties"] = {f"^({'|'.join(map(re.escape, OWN_KEYS))})": {}}
    return {
        "$schema": DIALECT,
        "title": "Slipway suite file",
        "anyOf": [
            {"$ref": "#/$defs/Suite"},
            {"type": "array", "items": {"anyOf": [file, {"$ref": "#/$defs/Test"}]}},
        ],
        "$defs": {
            **shared,
            **parts,
            "TestFile": _object({"path": {"type": "string"}, "config": {}}, required="path"),
            "AssertionOrReference": {"anyOf": [file, {"$ref": "#/$defs/Reference"}, {"$ref": "#/$defs/Assertion"}]},
            "Reference": {
                "description": "An assertion template, with keys of its own in place of the template's.",
                **_object({**parts["Assertion"]["properties"], "$ref": {"type": "string"}}, required="$ref"),
            },
        },
    }


def _refine(part: Schema, properties: Schema) -> None:
    """Say of keys whose values the model leaves open what is read from them."""
    for key, value in properties.items():
        told = part["properties"].get(key, {}).get("description")
        part["properties"][key] = {"description": told, **value} if told else value


def _one_or_several(*kinds: Schema) -> Schema:
    return {"anyOf": [*kinds, {"type": "array", "items": {"anyOf": list(kinds)}}]}


def _object(properties: Schema, *, required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}


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
