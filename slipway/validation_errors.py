"""Say what pydantic found wrong in words that tell a person what to write.

Pure: it knows models and their errors, not files and lines (``yaml_files`` adds those).
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

__all__ = ["Problem", "describe", "documented_names", "explain", "nearest", "sentence"]

MAX_SHOWN_CHARACTERS = 60

_SECRET_WORDS = ("token", "secret", "password", "credential", "api_key", "apikey", "authorization")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong.

    Attributes:
        key: Where, in the words of the file: without the tags that pydantic adds for unions.
        message: What is wrong there, a sentence.
        fix: What to write, a sentence; empty where the message says it.
        is_missing: Whether the key is absent. A misspelt key causes one of these, so it is the other that helps.
    """

    key: tuple[str | int, ...]
    message: str
    fix: str
    is_missing: bool = False


def explain(
    error: ValidationError, model: type[BaseModel], exists: Callable[[tuple[str | int, ...]], bool]
) -> list[Problem]:
    """Turn a validation error into problems, in pydantic's order, one for each place.

    Args:
        error: What pydantic raised for ``model``.
        model: The model that was validated.
        exists: Whether the file has such a key; tells keys from the tags of unions.
    """
    problems: dict[tuple[str | int, ...], Problem] = {}
    for details in error.errors(include_url=False):
        problem = _problem(details, model, exists)
        problems.setdefault(problem.key, problem)
    return list(problems.values())


def describe(value: object) -> str:
    """Say what a value read from a file is: ``nothing``, ``the text 'x'``, ``the number 5``, ``a list``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        shown = value if len(value) <= MAX_SHOWN_CHARACTERS else value[:MAX_SHOWN_CHARACTERS] + "..."
        return f"the text {shown!r}"
    return "a list" if isinstance(value, list | tuple) else "keys and values"


def documented_names(model: type[BaseModel]) -> list[str]:
    """List the keys of a model that say what they are for, as a file spells them; all where none does.

    The others are known only so that they can be ignored or refused by name.
    """
    named = [field.alias or name for name, field in model.model_fields.items() if field.description]
    return named or _written_names(model)


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name most like ``name``, or list them all: a sentence for ``fix``."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else f"Use one of: {', '.join(known)}."


def _problem(details: ErrorDetails, model: type[BaseModel], exists: Callable[[tuple[str | int, ...]], bool]) -> Problem:
    location = details["loc"]
    key: tuple[str | int, ...] = ()
    for position, element in enumerate(location):
        is_last_and_missing = position == len(location) - 1 and details["type"] == "missing"
        if exists((*key, element)) or is_last_and_missing:
            key = (*key, element)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(key=key, message="unknown key.", fix=nearest(str(key[-1]), _known_keys(model, location[:-1])))
    if kind == "missing":
        return Problem(
            key=key, message="this key is required and missing.", fix=f"Add `{key[-1]}: ...`.", is_missing=True
        )
    if kind == "value_error":
        return Problem(key=key, message=sentence(str(context["error"])), fix="")
    expected = details["msg"].removeprefix("Input should be ")
    if any(word in str(element).lower() for element in key for word in _SECRET_WORDS):
        return Problem(key=key, message=f"expected {expected}.", fix="")
    found = details["input"]
    suggestion = ""
    if kind in {"literal_error", "enum"} and isinstance(found, str):
        choices = [choice.strip("'") for choice in str(context["expected"]).replace(" or ", ", ").split(", ")]
        suggestion = nearest(found, choices)
    return Problem(key=key, message=f"expected {expected}, found {describe(found)}.", fix=suggestion)


def sentence(clause: object) -> str:
    """End a clause with a full stop, where it ends with no mark of its own."""
    text = str(clause)
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """List the keys of the model that stands at ``location`` below ``model``."""
    models: list[type[BaseModel]] = [model]
    for element in location:
        fields = [kind.model_fields.get(str(element)) for kind in models]
        below = [found for field in fields if field for found in _models_in(field.annotation)]
        models = below or models  # an index or a union's tag leads to no field
    tags = {kind.__name__: kind for kind in models}
    chosen = [tags[str(element)] for element in location if str(element) in tags] or models
    return list(dict.fromkeys(name for kind in chosen for name in _written_names(kind)))


def _written_names(model: type[BaseModel]) -> list[str]:
    """List the keys of a model as a file spells them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in typing.get_args(annotation) for found in _models_in(part)]
