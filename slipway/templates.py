"""Render the templates of a suite: Jinja2 in a sandbox, close to the Nunjucks that promptfoo uses.

Values look as they do in JavaScript: ``true``, ``1`` for 1.0, lists with commas; objects become JSON. An undefined
variable is empty. Nothing random, and nothing from outside the suite: environment variables and the answers to other
cases are refused by name.

Jinja2's sandbox keeps a template from everything but time and memory. So only a template that costs at most its length
times that of what it is filled with is rendered here; every other one, with a call, arithmetic, or loops in each other,
is rendered by ``template_process``, in a process with limits.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.nodes import Node
    from jinja2.sandbox import SandboxedEnvironment

__all__ = [
    "TemplateError",
    "VariableError",
    "fill_variables",
    "json_text",
    "number_text",
    "render",
    "render_here",
    "render_value",
    "unset_names",
]

MAX_RENDERED_CHARACTERS = 16 * 2**20
"""Of one template, and of all variables of one case. Variables that repeat each other would double with every step."""
MAX_REASON_CHARACTERS = 200
_SMALLEST_PLAIN = 1e-6
_EXPONENT_FROM = 1e21
"""Between these JavaScript writes a number without an exponent."""

_BOUNDED_NODES = frozenset(
    """
    And Compare CondExpr Const Filter Getattr Getitem If Keyword Name Not Operand Or Output Template TemplateData Test
    """.split()  # noqa: SIM905  # a dozen quoted words are harder to read
)
"""Jinja2's nodes that do a bounded number of steps, each in proportion to one variable or to the template."""
_BOUNDED_FILTERS = frozenset(
    """
    abs capitalize count d default first float int last length load lower title trim upper
    """.split()  # noqa: SIM905
)
_GROWING_FILTERS = frozenset({"dump", "e", "escape", "nl2br", "tojson"})
"""Make a text up to seven times as long: bounded where none is applied to what another one made."""
_BOUNDED_IN_LOOPS = frozenset(
    {"And", "Const", "Getattr", "Getitem", "If", "Name", "Not", "Or", "Output", "TemplateData"}
)
"""Those whose steps do not grow with a variable, or are in proportion to what they print."""
MAX_COST_HERE = 2**27
"""Length of a template times that of its variables, in characters and items; a second or so at worst."""
_CONSTANT = "0"
"""No name in a template."""
_PLAIN_NAME = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")


class TemplateError(ValueError):
    """A template that cannot be filled in."""


class VariableError(TemplateError):
    """A variable that cannot be filled in.

    Attributes:
        name: Its name.
        fix: What to write.
    """

    def __init__(self, message: str, *, name: str, fix: str) -> None:
        super().__init__(message)
        self.name = name
        self.fix = fix


def render(text: str, variables: Mapping[str, object]) -> str:
    """Fill in one template.

    Raises:
        TemplateError: The template is malformed, does what the sandbox forbids, fails on these variables, or needs more
            time, memory or characters than there are.
    """
    if "{" not in text:
        return text
    parts = _plain_parts(text)
    if parts is not None and all(name in variables for name in parts[1::2]):
        values = (str(_javascript_text(variables[name])) for name in parts[1::2])
        return _joined(itertools.chain(*zip(parts[::2], itertools.chain(values, ("",)), strict=True)), text)
    names = _names(text)
    named = {name: value for name, value in variables.items() if name in names}
    if _is_bounded(text) and len(text) * _size(named) <= MAX_COST_HERE:
        return render_here(text, named)
    from slipway.template_process import LimitError, RefusedError, render_apart  # noqa: PLC0415  # few suites need it

    try:
        return render_apart(text, named)
    except RefusedError as error:
        raise TemplateError(str(error)) from None
    except LimitError as error:
        raise TemplateError(f"the template {_shown(text)!r} cannot be rendered: {error}") from None


def render_here(text: str, variables: Mapping[str, object]) -> str:
    """Fill in one template in this process, whatever it costs.

    Raises:
        TemplateError: As ``render``, short of limits on time and memory.
    """
    from jinja2 import TemplateError as JinjaError  # noqa: PLC0415  # commands that read no suite need not pay for it

    try:
        return _joined(_template(text).generate(variables), text)
    except _TooLongError:
        raise
    except JinjaError as error:
        raise TemplateError(f"the template {_shown(text)!r} is not valid: {_reason(error)}") from None
    except Exception as error:  # whatever an expression can raise: a division by zero, a wrong type
        raise TemplateError(f"the template {_shown(text)!r} cannot be rendered: {_reason(error)}") from error


def render_value(value: object, variables: Mapping[str, object]) -> object:
    """Fill in every text inside a value; keys of objects stay as they are.

    Raises:
        TemplateError: As ``render``.
    """
    return _fill(value, variables, _Allowance())


def fill_variables(variables: Mapping[str, object]) -> dict[str, object]:
    """Fill in the variables themselves, each once and after those that it names.

    The line break that ends a text is dropped, as promptfoo does: YAML's ``|`` adds one that nobody means.

    Raises:
        VariableError: As ``render``, and variables that name each other in a circle.
    """
    filled = {name: value.removesuffix("\n") if isinstance(value, str) else value for name, value in variables.items()}
    waiting = {name: names for name, value in filled.items() if (names := _names_in(value)) is not None}
    allowance = _Allowance()
    while waiting:
        ready = next((name for name, names in waiting.items() if names.isdisjoint(waiting)), None)
        if ready is None:
            raise _circle(waiting)
        del waiting[ready]
        try:
            filled[ready] = _fill(filled[ready], filled, allowance)
        except ValueError as error:
            raise VariableError(str(error), name=ready, fix="Correct the template.") from None
    return filled


def unset_names(value: object, variables: Mapping[str, object]) -> tuple[str, ...]:
    """List the variables that the templates inside a value name and that are not set, in alphabetical order."""
    names = (_names_in(value) or frozenset()) - variables.keys()
    return tuple(sorted(names - _environment().globals.keys() if names else names))


def number_text(value: float) -> str:
    """Write a number as JavaScript's ``String`` does: ``1`` for 1.0, ``0.00001`` for 1e-05, ``1e-7`` for 1e-07.

    Whole numbers keep all their digits, which JavaScript rounds from 2**53 on.
    """
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    written = repr(value).removesuffix(".0").removeprefix("-" if value == 0 else "")
    if "e" not in written:
        return written
    if _SMALLEST_PLAIN <= abs(value) < _EXPONENT_FROM:
        return f"{Decimal(written):f}"
    digits, _, exponent = written.partition("e")
    return f"{digits}e{int(exponent):+d}"


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


class _TooLongError(TemplateError):
    """A template makes too many characters."""


def _joined(pieces: Iterable[str], template: str) -> str:
    """Put the pieces together as they are made, up to the limit."""
    made, length = [], 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_RENDERED_CHARACTERS:
            raise _TooLongError(
                f"the template {_shown(template)!r} makes more than {MAX_RENDERED_CHARACTERS} characters"
            )
        made.append(piece)
    return "".join(made)


class _Allowance:
    """How many characters the templates of one value, or of the variables of one case, may still make."""

    def __init__(self) -> None:
        self._left = MAX_RENDERED_CHARACTERS

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _TooLongError(f"together the texts have more than {MAX_RENDERED_CHARACTERS} characters")


def _fill(value: object, variables: Mapping[str, object], allowance: _Allowance) -> object:
    if isinstance(value, str):
        text = render(value, variables)
        if text is not value:
            allowance.take(len(text))
        return text
    if isinstance(value, list):
        return [_fill(item, variables, allowance) for item in value]
    if isinstance(value, dict):
        return {key: _fill(item, variables, allowance) for key, item in value.items()}
    return value


def _circle(waiting: Mapping[str, frozenset[str]]) -> VariableError:
    """Say which variables name each other, given some that all wait for one of them."""
    path = [next(iter(waiting))]
    while (following := min(waiting[path[-1]] & waiting.keys())) not in path:
        path.append(following)
    circle = path[path.index(following) :]
    return VariableError(
        f"the variable {circle[0]!r} names itself" + "".join(f", through {name!r}" for name in circle[1:]),
        name=circle[0],
        fix="Break the circle; around braces that are no template write {% raw %}...{% endraw %}.",
    )


def _reason(error: Exception) -> str:
    """Give what an error says as a clause; some say nothing, or quote a variable at length."""
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = str(getattr(error, "message", None) or error or type(error).__name__).strip().rstrip(".")
    return said if len(said) <= MAX_REASON_CHARACTERS else said[:MAX_REASON_CHARACTERS] + "..."


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
    from jinja2 import TemplateError as JinjaError  # noqa: PLC0415  # as above
    from jinja2.meta import find_undeclared_variables  # noqa: PLC0415  # as above
    from jinja2.nodes import Const, Name  # noqa: PLC0415  # as above
    from jinja2.visitor import NodeTransformer  # noqa: PLC0415  # as above

    class WithoutConstants(NodeTransformer):
        """Looking for names compiles, and would compute ``9**99999999`` were it not for this."""

        def visit_Const(self, _: Const) -> Node:  # noqa: N802  # how Jinja2 finds it
            return Name(_CONSTANT, "load")

    try:
        tree = WithoutConstants().visit(_environment().parse(text))
        return frozenset(find_undeclared_variables(tree)) - {_CONSTANT}
    except (JinjaError, RecursionError):
        return frozenset()  # rendering it says what is wrong


@lru_cache(maxsize=4096)
def _is_bounded(text: str) -> bool:
    """Whether rendering costs no more than its length times that of what it is filled with.

    It must not even be compiled before this is known: Jinja2 computes what is constant then.
    """
    from jinja2 import TemplateError as JinjaError  # noqa: PLC0415  # as above

    try:
        return _is_bounded_node(_environment().parse(text), may_grow=True)
    except JinjaError:
        return True  # compiling it says what is wrong, and does no more
    except RecursionError:
        return False


def _is_bounded_node(node: Node, *, may_grow: bool) -> bool:
    kind = type(node).__name__
    if kind == "For":
        return not getattr(node, "recursive", False) and all(map(_is_bounded_in_loop, node.iter_child_nodes()))
    if kind == "Filter":
        name = getattr(node, "name", "")
        if name in _GROWING_FILTERS and may_grow:
            may_grow = False
        elif name not in _BOUNDED_FILTERS:
            return False
    return kind in _BOUNDED_NODES and all(
        _is_bounded_node(child, may_grow=may_grow) for child in node.iter_child_nodes()
    )


def _is_bounded_in_loop(node: Node) -> bool:
    return type(node).__name__ in _BOUNDED_IN_LOOPS and all(map(_is_bounded_in_loop, node.iter_child_nodes()))


def _size(value: object) -> int:
    """Count characters and items."""
    if isinstance(value, str):
        return len(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, items))


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
    return number_text(value) if isinstance(value, float) else value


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
