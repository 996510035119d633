"""Find the JSON objects inside a text, as forgivingly as promptfoo's ``contains-json`` does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

__all__ = ["embedded_objects"]

MAX_OBJECT_CHARACTERS = 100_000
"""As in promptfoo."""
MAX_DEPTH = 200
"""Of near JSON: the loader of YAML recurses on the stack of C. No aliases are taken either: they can make a few
characters grow to gigabytes."""
_WORK_PER_CHARACTER = 8
"""Bounds the text read again and again where braces open and nothing behind them is an object."""
_SLASHES = re.compile(r"""\s+|"(?:\\.|[^"\\\n])*"?|(?<![A-Za-z])'(?:\\'|'(?=[A-Za-z])|[^'\n])*'?|/{2,}""")


def embedded_objects(text: str) -> Iterator[dict[str, object]]:
    """Give the objects in the order in which they start, none inside another.

    What is not JSON but nearly so counts as well: keys without quotes, single quotes, a comma too many, comments after
    ``//`` (promptfoo reads such text as YAML, and so do we). Arrays, scalars and objects that are never closed do not
    count.
    """
    decoder = json.JSONDecoder()
    ends = _closing_braces(text)
    budget = _WORK_PER_CHARACTER * len(text)
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = ends.get(at, at)
            budget -= end - at
            if budget < 0:
                return
            found = _nearly_json(text[at:end])
        if isinstance(found, dict):
            yield found
            at = text.find("{", end)
        else:
            at = text.find("{", at + 1)


def _closing_braces(text: str) -> dict[int, int]:
    """Map the place of each brace that is closed to the place behind its closing one; strings are not looked at."""
    ends: dict[int, int] = {}
    open_at: list[int] = []
    for place, character in enumerate(text):
        if character == "{":
            open_at.append(place)
        elif character == "}" and open_at:
            ends[open_at.pop()] = place + 1
    return ends


def _nearly_json(text: str) -> object:
    import yaml  # noqa: PLC0415  # most outputs never come here

    if not 0 < len(text) <= MAX_OBJECT_CHARACTERS:
        return None
    text = _without_slashes(text)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                return None
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _without_slashes(text: str) -> str:
    """Begin comments with ``#``, as YAML does, where they begin with ``//``; addresses (``https://``) stay."""
    if "//" not in text:
        return text
    made: list[str] = []
    end, in_address = 0, False
    for match in _SLASHES.finditer(text):
        found = match.group()
        made.append(text[end : match.start()])
        end = match.end()
        if found.isspace():
            in_address = False
        elif found.startswith("//"):
            in_address = in_address or text[match.start() - 1] == ":"
            found = found if in_address else "#" * (len(found) // 2)
        made.append(found)
    return "".join((*made, text[end:]))
