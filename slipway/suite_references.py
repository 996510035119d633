"""Put in what ``$ref`` stands for: an assertion template of the suite, or any other part of a file.

A reference is ``#/assertionTemplates/NAME``, another path from the top of its file, or ``FILE#/PATH``; keys beside it
override what it brings. References inside values are left alone: those of a JSON Schema mean something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote

from slipway.suite_file import OWN_KEYS
from slipway.suite_paths import STRUCTURED, SuiteFiles
from slipway.validation_errors import nearest
from slipway.yaml_files import KeyPath, YamlDocument

__all__ = ["dereference"]

_OPAQUE = frozenset(
    {"value", "providers", "targets", "provider", "metadata", "rubricPrompt", "assertionTemplates", "evaluateOptions"}
)
"""Keys whose insides are values and not parts of the suite; templates are looked at where they are used."""


def dereference(document: YamlDocument, suite: YamlDocument, files: SuiteFiles) -> YamlDocument:
    """Give the document with its references replaced.

    Args:
        document: The suite, or a file of tests.
        suite: Where a path is looked for that ``document`` does not have.
        files: Reads other files.

    Raises:
        ConfigFileError: A reference that leads nowhere, or in a circle.
    """
    resolver = _Resolver(document, suite, files)
    value = resolver.walk(document.value, (), ())
    return document if value is document.value else replace(document, value=value, lines=resolver.lines)


class _Resolver:
    def __init__(self, document: YamlDocument, suite: YamlDocument, files: SuiteFiles) -> None:
        self._document = document
        self._suite = suite
        self._files = files
        self.lines = dict(document.lines)

    def walk(self, value: object, at: KeyPath, followed: tuple[str, ...]) -> object:
        """Give the value, itself where nothing changes."""
        if isinstance(value, list):
            items = [self.walk(item, (*at, index), followed) for index, item in enumerate(value)]
            return value if all(map(_is_same, items, value)) else items
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("$ref"), str):
            return self._follow(value, at, followed)
        parts = {key: self._part(key, part, at, followed) for key, part in value.items()}
        return value if all(map(_is_same, parts.values(), value.values())) else parts

    def _part(self, key: str, part: object, at: KeyPath, followed: tuple[str, ...]) -> object:
        is_value = key in _OPAQUE or key.startswith(OWN_KEYS) or (key == "config" and not isinstance(part, list))
        if is_value or (key == "vars" and not (isinstance(part, dict) and "$ref" in part)):
            return part
        return self.walk(part, (*at, key), followed)

    def _follow(self, value: dict[str, object], at: KeyPath, followed: tuple[str, ...]) -> object:
        reference = str(value["$ref"])
        if reference in followed:
            raise self._error(f"the reference {reference!r} leads back to itself.", at, "Break the circle.")
        source, path = self._target(reference, at)
        target = _at(source.value, path)
        own = {key: part for key, part in value.items() if key != "$ref"}
        if own and not isinstance(target, dict):
            raise self._error(f"{reference!r} holds no keys to override.", at, "Write `$ref` alone.")
        line = self._document.line(at) or 1
        for below in _paths(target):
            known = source.lines.get((*path, *below), line) if source is self._document else line
            self.lines.setdefault((*at, *below), known)
        merged = {**target, **own} if isinstance(target, dict) else target
        return self.walk(merged, at, (*followed, reference))

    def _target(self, reference: str, at: KeyPath) -> tuple[YamlDocument, KeyPath]:
        name, _, pointer = reference.partition("#")
        if name:
            path = self._files.one(name, self._document, (*at, "$ref"))
            if path.suffix not in STRUCTURED:
                raise self._error(f"{name!r} has no keys.", at, "Refer to a .yaml or .json file.")
            candidates = [self._files.document(path)]
        else:
            candidates = [self._document, self._suite]
        keys = [unquote(key).replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]
        for source in candidates:
            found = _key_path(source.value, keys)
            if found is not None and (found or name):
                return source, found
        parents = [_at(source.value, found) for source in candidates if (found := _key_path(source.value, keys[:-1]))]
        names = [key for parent in parents if isinstance(parent, dict) for key in parent]
        fix = nearest(keys[-1], names) if keys and names else "Write `$ref: '#/assertionTemplates/NAME'`."
        raise self._error(f"the reference {reference!r} leads nowhere.", at, fix)

    def _error(self, message: str, at: KeyPath, fix: str) -> Exception:
        return self._document.error(message, key=(*at, "$ref"), fix=fix)


def _is_same(left: object, right: object) -> bool:
    return left is right


def _key_path(value: object, keys: list[str]) -> KeyPath | None:
    """Give the path with indexes as numbers; None where it leads nowhere."""
    path: list[str | int] = []
    for key in keys:
        if isinstance(value, dict) and key in value:
            path.append(key)
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            path.append(int(key))
            value = value[int(key)]
        else:
            return None
    return tuple(path)


def _at(value: object, path: KeyPath) -> object:
    for element in path:
        value = value[element]  # type: ignore[index]  # the path was found in this value
    return value


def _paths(value: object) -> Iterator[KeyPath]:
    """List the places inside a value, itself included."""
    yield ()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from ((key, *below) for below in _paths(item))
