"""Render the templates of a suite: Jinja2 in a sandbox, close to the Nunjucks that promptfoo uses.

An undefined variable is empty, objects become JSON, and ``true`` and ``1`` look as they do in JavaScript.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

__all__ = ["render", "render_value"]


def render(text: str, variables: Mapping[str, object]) -> str:
    """Fill in one template.

    Raises:
        ValueError: The template is malformed, does what the sandbox forbids, or fails on these variables.
    """
    if "{" not in text:
        return text
    from jinja2 import TemplateError  # noqa: PLC0415  # commands that read no suite need not pay for it

    try:
        return _template(text).render(variables)
    except TemplateError as error:
        raise ValueError(f"the template {_shown(text)!r} is not valid: {error.message}") from None
    except Exception as error:  # whatever an expression can raise: a division by zero, a wrong type
        raise ValueError(f"the template {_shown(text)!r} cannot be rendered: {error}") from error


def render_value(value: object, variables: Mapping[str, object]) -> object:
    """Fill in every text inside a value; keys of objects stay as they are.

    Raises:
        ValueError: As ``render``.
    """
    if isinstance(value, str):
        return render(value, variables)
    if isinstance(value, list):
        return [render_value(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: render_value(item, variables) for key, item in value.items()}
    return value


@cache
def _environment() -> SandboxedEnvironment:
    from jinja2 import ChainableUndefined  # noqa: PLC0415  # as above
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415  # as above

    environment = ImmutableSandboxedEnvironment(
        undefined=ChainableUndefined, keep_trailing_newline=True, finalize=_javascript_text
    )
    environment.filters["dump"] = json.dumps  # Nunjucks' name for it
    return environment


@lru_cache(maxsize=1024)
def _template(text: str) -> Template:
    return _environment().from_string(text)


def _javascript_text(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _shown(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "..."
