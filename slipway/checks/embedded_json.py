"""Find the JSON objects inside a text, as forgivingly as promptfoo's ``contains-json`` does."""

from __future__ import annotations

import json
from collections.abc import Iterator

__all__ = ["embedded_objects"]

MAX_OBJECT_CHARACTERS = 100_000
"""As in promptfoo."""
_WORK_PER_CHARACTER = 8
"""Bounds the text read again and again where braces open and nothing behind them is an object."""


def embedded_objects(text: str) -> Iterator[dict[str, object]]:
    """Give the objects in the order in which they start, none inside another.

    What is not JSON but nearly so counts as well: keys without quotes, single quotes, a comma too many, closing braces
    that are missing at the end (promptfoo reads such text as YAML, and so do we). Arrays and scalars do not count.
    """
    decoder = json.JSONDecoder()
    ends = _closing_braces(text)
    budget = _WORK_PER_CHARACTER * len(text)
    at = text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = ends.get(at, 0) or min(len(text), at + MAX_OBJECT_CHARACTERS)
            budget -= end - at
            if budget < 0:
                return
            found = _nearly_json(text[at:end], is_cut_off=at not in ends)
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


def _nearly_json(text: str, *, is_cut_off: bool) -> object:
    import yaml  # noqa: PLC0415  # most outputs never come here

    if len(text) > MAX_OBJECT_CHARACTERS:
        return None
    if is_cut_off:
        text += "}" * (text.count("{") - text.count("}"))
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.CSafeLoader)):
            return None  # an alias can make a few characters grow to gigabytes
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
