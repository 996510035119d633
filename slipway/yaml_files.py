"""Read a YAML or JSON file into a strict model, with errors that name file, line, key and what to write.

Scalars follow the YAML 1.2 core schema, so ``no``, ``on`` and ``2026-01-01`` are text, as they are for tools written in
JavaScript. The file is read as a stream of events, never by a recursive composer: libyaml's own overflows the C stack
on deep nesting. Depth, size and what aliases expand to are bounded. Leaves to others: what the keys mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from slipway.errors import ConfigFileError
from slipway.validation_errors import Problem, describe, documented_names, explain

__all__ = [
    "KeyPath",
    "YamlDocument",
    "is_too_deep",
    "load_model",
    "parse_yaml",
    "read_document",
    "read_text",
    "validate",
]

KeyPath = tuple[str | int, ...]
"""Keys and 0-based indexes from the top of the document."""

MAX_FILE_BYTES = 64 * 2**20
MAX_DEPTH = 100
MAX_ALIASED_CHARACTERS = 10_000_000
"""How much text and structure the aliases of one file may repeat, in characters plus nodes."""

ModelT = TypeVar("ModelT", bound=BaseModel)

# The YAML 1.2 core schema, https://yaml.org/spec/1.2.2/#103-core-schema.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)\Z")
_JSON_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}")
_NAN = frozenset({".nan", ".NaN", ".NAN"})

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is 10 times faster; not every wheel has it
_STANDARD_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    _STANDARD_TAG + "int": (int,),
    _STANDARD_TAG + "float": (int, float),
    _STANDARD_TAG + "bool": (bool,),
    _STANDARD_TAG + "null": (type(None),),
}


@dataclass(frozen=True, kw_only=True)
class YamlDocument:
    """A parsed file and where its keys stand.

    Attributes:
        path: The file.
        value: ``dict`` with text keys, ``list``, ``str``, ``int``, ``float``, ``bool`` or ``None``.
        lines: 1-based line of every key and list item.
    """

    path: Path
    value: object
    lines: Mapping[KeyPath, int]

    def line(self, key: KeyPath) -> int | None:
        """Give the line of the key, or of the nearest enclosing one that is known."""
        for length in range(len(key), -1, -1):
            if key[:length] in self.lines:
                return self.lines[key[:length]]
        return None

    def error(self, message: str, *, key: KeyPath = (), fix: str = "") -> ConfigFileError:
        """Build the error that points at ``key`` in this file; the caller raises it."""
        return ConfigFileError(message, file=self.path, line=self.line(key), key=_dotted(key), fix=fix)


def load_model(path: Path | str, model: type[ModelT]) -> ModelT:
    """Read a YAML or JSON file into ``model``, strictly: ``"5"`` is no number and ``1`` is no boolean.

    Raises:
        ConfigFileError: Missing or unreadable file, malformed YAML, duplicate, unknown or missing key, wrong type.
    """
    return validate(read_document(path), model)


def read_document(path: Path | str) -> YamlDocument:
    """Parse a YAML or JSON file and keep the positions of its keys.

    Raises:
        ConfigFileError: As ``load_model``, short of the model.
    """
    return parse_yaml(read_text(path), path=Path(path))


def read_text(path: Path | str) -> str:
    """Read a UTF-8 text file of at most 64 MiB; a byte order mark is dropped.

    Raises:
        ConfigFileError: The file is missing, unreadable, too large, or not UTF-8.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigFileError("there is no such file.", file=path, fix="Check the path.") from None
    except IsADirectoryError:
        raise ConfigFileError("is a directory.", file=path, fix="Name a file inside it.") from None
    except OSError as error:
        raise ConfigFileError(f"cannot be read: {error.strerror}.", file=path, fix="Check its permissions.") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigFileError(
            f"is larger than {MAX_FILE_BYTES // 2**20} MiB.", file=path, fix="Split it into several files."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigFileError("is not UTF-8 text.", file=path, line=line, fix="Save it as UTF-8.") from None


def parse_yaml(text: str, *, path: Path, first_line: int = 1) -> YamlDocument:
    """Parse YAML or JSON text that came from ``path``, its first line being ``first_line`` there.

    Raises:
        ConfigFileError: Malformed text, a duplicate key, or more than the limits of this module.
    """
    if path.suffix in {".json", ".jsonl"}:
        return _parse_json(text, path, first_line)
    return _Reader(text, path, first_line).read()


def validate(document: YamlDocument, model: type[ModelT], *, at: KeyPath = ()) -> ModelT:
    """Build ``model`` from the part of the document at ``at``.

    Raises:
        ConfigFileError: The first problem in file order; the number of further ones is told.
    """
    value = document.value
    for element in at:
        value = value[element]  # type: ignore[index]  # the caller names a place that exists
    if not isinstance(value, dict):
        raise document.error(
            f"expected keys and values, found {describe(value)}.",
            key=at,
            fix=f"Write some of the keys {', '.join(documented_names(model))}.",
        )
    try:
        # As JSON, because strict validation of Python objects would refuse text for an enum and a list for a tuple.
        # Half of a surrogate pair, which JSON can spell, has no UTF-8 and becomes a question mark.
        return model.model_validate_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), strict=True)
    except ValidationError as error:
        problems = sorted(
            explain(error, model, lambda key: (*at, *key) in document.lines),
            key=lambda problem: (problem.is_missing, document.line((*at, *problem.key)) or 0),
        )
        raise _first_problem(document, at, problems) from None


def _first_problem(document: YamlDocument, at: KeyPath, problems: list[Problem]) -> ConfigFileError:
    first, more = problems[0], len(problems) - 1
    further = f" ({more} further {'problem' if more == 1 else 'problems'} below it.)" if more else ""
    return document.error(f"{first.message}{further}", key=(*at, *first.key), fix=first.fix)


def _parse_json(text: str, path: Path, first_line: int) -> YamlDocument:
    def refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigFileError(
                f"the key {twice!r} stands twice in one object.", file=path, fix="Remove one of them."
            )
        return result

    def refuse_constant(name: str) -> object:
        raise ConfigFileError(f"{name} is not JSON.", file=path, fix="Write a number or null.")

    try:
        value = json.loads(text, object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise ConfigFileError(
            f"is not valid JSON: {error.msg}.",
            file=path,
            line=error.lineno + first_line - 1,
            fix="Check the quotes, commas and brackets at this line and just above it.",
        ) from None
    except RecursionError:
        raise ConfigFileError("is nested too deeply.", file=path, line=first_line, fix="Flatten it.") from None
    except ValueError:
        raise ConfigFileError("holds a number of thousands of digits.", file=path, fix="Shorten it.") from None
    if is_too_deep(value):
        raise ConfigFileError(
            f"is nested more than {MAX_DEPTH} levels deep.", file=path, line=first_line, fix="Flatten it."
        )
    if "\n" not in text.strip():  # as in JSONL, whose many lines would each cost a reader of YAML
        return YamlDocument(path=path, value=value, lines=dict.fromkeys(_key_paths(value), first_line))
    # JSON is YAML but for tabs between tokens and escapes of surrogates; neither changes a position that matters.
    as_yaml = _JSON_ESCAPE.sub("x", text.replace("\t", " "))
    try:
        lines = _Reader(as_yaml, path, first_line).read().lines
    except ConfigFileError:
        lines = {(): first_line}
    return YamlDocument(path=path, value=value, lines=lines)


def _key_paths(value: object) -> Iterator[KeyPath]:
    """List the places inside a value, itself included."""
    yield ()
    for key, item in _items(value):
        for below in _key_paths(item):
            yield (key, *below)


def is_too_deep(value: object) -> bool:
    """Whether lists and objects stand in each other more than ``MAX_DEPTH`` times, which recursion may not survive."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for outer in level for _, item in _items(outer)]
        if not level:
            return False
    return True


def _items(value: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _resolve(text: str) -> str | int | float | bool | None:
    """Give the value of a plain scalar in the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    for pattern, base in ((_INTEGER, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.match(text):
            return int(text, base)
    if _FLOAT.match(text):
        return float(text)
    if _INFINITY.match(text):
        return float(text.replace(".", ""))
    return float("nan") if text in _NAN else text


def _dotted(key: KeyPath) -> str:
    text = ""
    for element in key:
        text += f"[{element}]" if isinstance(element, int) else f".{element}" if text else element
    return text


@dataclass(frozen=True)
class _Anchored:
    value: object
    characters: int


class _Reader:
    """One pass over the events of one document. Recursion is bounded by ``MAX_DEPTH``."""

    def __init__(self, text: str, path: Path, first_line: int) -> None:
        self._path = path
        self._offset = first_line
        self._lines: dict[KeyPath, int] = {}
        self._anchors: dict[str, _Anchored | None] = {}
        self._characters = 0
        self._aliased = 0
        self._events = yaml.parse(text, Loader=_LOADER)

    def read(self) -> YamlDocument:
        try:
            next(self._events)  # the stream's start
            event = next(self._events)
            value: object = None
            if not isinstance(event, yaml.StreamEndEvent):
                value = self._value(next(self._events), (), 0)
                next(self._events)  # the document's end
                event = next(self._events)
            if not isinstance(event, yaml.StreamEndEvent):
                raise self._error(event, "a second document starts here.", "Keep one document in a file.")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            context = f" {error.context}" if error.context else ""
            raise ConfigFileError(
                f"is not valid YAML: {error.problem or 'unreadable'}{context}.",
                file=self._path,
                line=mark.line + self._offset if mark else None,
                fix="Check the indentation, quotes and brackets at this line and just above it.",
            ) from None
        except yaml.YAMLError as error:
            raise ConfigFileError(
                "is not valid YAML: it holds a control character.", file=self._path, fix="Save it as plain UTF-8 text."
            ) from error
        return YamlDocument(path=self._path, value=value, lines=self._lines)

    def _value(self, event: yaml.Event, key: KeyPath, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise self._error(event, f"is nested more than {MAX_DEPTH} levels deep.", "Flatten it.")
        self._lines.setdefault(key, self._line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor = getattr(event, "anchor", None)
        if anchor:
            self._anchors[anchor] = None
        before = self._characters + self._aliased
        self._characters += 1
        value: object
        if isinstance(event, yaml.ScalarEvent):
            self._characters += len(event.value)
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(event, key, depth)
        else:
            value = self._mapping(event, key, depth)
        if anchor:
            self._anchors[anchor] = _Anchored(value, self._characters + self._aliased - before)
        return value

    def _alias(self, event: yaml.AliasEvent) -> object:
        if event.anchor not in self._anchors:
            raise self._error(event, f"*{event.anchor} names no anchor above it.", f"Define &{event.anchor} first.")
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise self._error(event, f"*{event.anchor} stands inside itself.", "Write the value out.")
        self._aliased += anchored.characters
        if self._aliased > MAX_ALIASED_CHARACTERS:
            raise self._error(event, "the aliases up to here expand to too much text.", "Write the values out.")
        return anchored.value

    def _sequence(self, start: yaml.Event, key: KeyPath, depth: int) -> list[object]:
        self._check_tag(start, "seq")
        items: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*key, len(items)), depth + 1))
        return items

    def _mapping(self, start: yaml.Event, key: KeyPath, depth: int) -> dict[str, object]:
        self._check_tag(start, "map")
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be plain text.", "Write `key: value`.")
            name = event.value
            if name == "<<" and event.implicit[0]:
                for source in self._merge_sources(next(self._events), key, depth):
                    merged = {**source, **merged}
                continue
            if name in own:
                first = self._lines[*key, name]
                raise self._error(event, f"the key {name!r} is already at line {first}.", "Remove one of them.", key)
            self._lines[*key, name] = self._line(event)
            self._characters += len(name)
            own[name] = self._value(next(self._events), (*key, name), depth + 1)
        return {**merged, **own}

    def _merge_sources(self, event: yaml.Event, key: KeyPath, depth: int) -> list[dict[str, object]]:
        value = self._value(event, (*key, "<<"), depth + 1)
        sources = value if isinstance(value, list) else [value]
        mappings = [source for source in sources if isinstance(source, dict)]
        if len(mappings) != len(sources):
            raise self._error(event, "`<<` merges only mappings.", "Write `<<: *name` of an anchored mapping.")
        return mappings

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        plain = event.tag is None and event.implicit[0]
        if not plain and event.tag in {None, "!", _STANDARD_TAG + "str"}:
            return event.value
        try:
            value = _resolve(event.value)
        except ValueError:
            raise self._error(event, "this number has thousands of digits.", "Shorten or quote it.") from None
        if not plain and not isinstance(value, _SCALAR_TAGS.get(str(event.tag), ())):
            raise self._error(event, f"the tag {event.tag!r} does not fit or is not supported.", "Leave the tag out.")
        return value

    def _check_tag(self, event: yaml.Event, name: str) -> None:
        tag = getattr(event, "tag", None)
        if tag not in {None, "!", _STANDARD_TAG + name}:
            raise self._error(event, f"the tag {tag!r} is not supported.", "Leave the tag out.")

    def _line(self, event: yaml.Event) -> int:
        return (event.start_mark.line if event.start_mark else 0) + self._offset

    def _error(self, event: yaml.Event, message: str, fix: str, key: KeyPath = ()) -> ConfigFileError:
        return ConfigFileError(message, file=self._path, line=self._line(event), key=_dotted(key), fix=fix)
