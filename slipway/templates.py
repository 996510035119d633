"""Render the templates of a suite: Jinja2 in a sandbox, close to the Nunjucks that promptfoo uses.

Values look as they do in JavaScript: ``true``, ``1`` for 1.0, lists with commas; objects become JSON. An undefined
variable is empty. Nothing random, and nothing from outside the suite: environment variables and the answers to other
cases are refused by name.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

__all__ = ["fill_variables", "json_text", "render", "render_value"]

MAX_RENDERED_CHARACTERS = 16 * 2**20
"""Of one template. Variables that repeat each other would double with every step."""

_PLAIN_NAME = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")


def render(text: str, variables: Mapping[str, object]) -> str:
    """Fill in one template.

    Raises:
        ValueError: The template is malformed, does what the sandbox forbids, or fails on these variables.
    """
    if "{" not in text:
        return text
    parts = _plain_parts(text)
    if parts is not None and all(name in variables for name in parts[1::2]):
        values = [str(_javascript_text(variables[name])) for name in parts[1::2]]
        return _within_limit("".join(itertools.chain(*zip(parts[::2], [*values, ""], strict=True))), text)
    from jinja2 import TemplateError  # noqa: PLC0415  # commands that read no suite need not pay for it

    try:
        rendered = _template(text).render(variables)
    except TemplateError as error:
        raise ValueError(f"the template {_shown(text)!r} is not valid: {error.message}") from None
    except Exception as error:  # whatever an expression can raise: a division by zero, a wrong type
        raise ValueError(f"the template {_shown(text)!r} cannot be rendered: {error}") from error
    return _within_limit(rendered, text)


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


def fill_variables(variables: Mapping[str, object]) -> dict[str, object]:
    """Fill in the variables themselves, each once and after those that it names; a circle is left as it stands.

    The line break that ends a text is dropped, as promptfoo does: YAML's ``|`` adds one that nobody means.

    Raises:
        ValueError: As ``render``.
    """
    filled = {name: value.removesuffix("\n") if isinstance(value, str) else value for name, value in variables.items()}
    waiting = {name: names for name, value in filled.items() if (names := _names_in(value)) is not None}
    while waiting:
        ready = next((name for name, names in waiting.items() if names.isdisjoint(waiting)), next(iter(waiting)))
        del waiting[ready]
        filled[ready] = render_value(filled[ready], filled)
    return filled


def json_text(value: object, *, indent: int | None = None) -> str:
    """Write a value as JavaScript's ``JSON.stringify`` does."""
    return json.dumps(
        _whole_numbers(value), ensure_ascii=False, indent=indent, separators=(",", ": " if indent else ":")
    )


@lru_cache(maxsize=4096)
def _plain_parts(text: str) -> tuple[str, ...] | None:
    """Split a template of nothing but ``{{name}}``, the usual one, into texts and names in turn; None for others.

    Filling these in without Jinja2 is ten times faster, and a large suite is mostly this.
    """
    parts = tuple(_PLAIN_NAME.split(text))
    return None if any("{" in part for part in parts[::2]) or any(map(_is_word, parts[1::2])) else parts


def _is_word(name: str) -> bool:
    return name in {"true", "false", "none", "True", "False", "None", "not"}


def _within_limit(rendered: str, template: str) -> str:
    if len(rendered) > MAX_RENDERED_CHARACTERS:
        raise ValueError(f"the template {_shown(template)!r} makes more than {MAX_RENDERED_CHARACTERS} characters")
    return rendered


def _names_in(value: object) -> frozenset[str] | None:
    """Give the variables that the templates inside a value name; None where there is no template."""
    if isinstance(value, str):
        return _names(value) if "{" in value else None
    if not isinstance(value, list | dict):
        return None
    found = [_names_in(item) for item in (value.values() if isinstance(value, dict) else value)]
    named = [names for names in found if names is not None]
    return frozenset().union(*named) if named else None


@lru_cache(maxsize=4096)
def _names(text: str) -> frozenset[str]:
    parts = _plain_parts(text)
    if parts is not None:
        return frozenset(parts[1::2])
    from jinja2 import TemplateError  # noqa: PLC0415  # as above
    from jinja2.meta import find_undeclared_variables  # noqa: PLC0415  # as above

    try:
        return frozenset(find_undeclared_variables(_environment().parse(text)))
    except TemplateError:
        return frozenset()  # rendering it says what is wrong


class _Refused:
    """A name of promptfoo's that has no value here, and must not quietly be empty."""

    def __init__(self, reason: str) -> None:
        object.__setattr__(self, "_reason", reason)

    def _refuse(self, *_: object) -> NoReturn:
        raise ValueError(object.__getattribute__(self, "_reason"))

    __getitem__ = __str__ = __iter__ = __len__ = __bool__ = __call__ = _refuse

    def __getattribute__(self, name: str) -> object:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise ValueError(object.__getattribute__(self, "_reason"))


_REFUSED = {
    "env": _Refused("a suite does not read environment variables, which may hold secrets; write the value itself"),
    "_conversation": _Refused("cases are asked one by one, so none has a conversation before it; write its messages"),
}


@cache
def _environment() -> SandboxedEnvironment:
    from jinja2 import ChainableUndefined, Undefined  # noqa: PLC0415  # as above
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415  # as above

    class JavaScriptLike(ImmutableSandboxedEnvironment):
        def getattr(self, obj: object, attribute: str) -> object:
            if attribute == "length" and isinstance(obj, str | list):
                return len(obj)
            return super().getattr(obj, attribute)

    def dump(value: object, indent: int | None = None) -> str:
        return "" if isinstance(value, Undefined) else json_text(value, indent=indent)

    environment = JavaScriptLike(undefined=ChainableUndefined, keep_trailing_newline=True, finalize=_javascript_text)
    environment.filters |= {"dump": dump, "load": json.loads, "nl2br": lambda text: str(text).replace("\n", "<br />\n")}
    environment.globals |= _REFUSED
    del environment.filters["random"], environment.globals["lipsum"]  # every run must ask the same
    return environment


@lru_cache(maxsize=4096)
def _template(text: str) -> Template:
    return _environment().from_string(text)


def _javascript_text(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(_javascript_text(item)) for item in value)
    if isinstance(value, dict):
        return json_text(value)
    return _whole_numbers(value)


def _whole_numbers(value: object) -> object:
    """Write 1.0 as 1, up to where JavaScript changes to exponents."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return value


def _shown(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "..."
