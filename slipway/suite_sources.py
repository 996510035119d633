"""Where the tests of a suite are written: in the suite, or in files that it names.

Knows forms and formats; what a test says is for others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.suite_csv import read_csv
from slipway.suite_paths import STRUCTURED, SuiteFiles, is_program
from slipway.suite_references import dereference
from slipway.yaml_files import KeyPath, YamlDocument, parse_yaml

__all__ = ["Place", "SourceFinder"]

_ELSEWHERE = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SPREADSHEET = re.compile(r"\.xlsx?(#.*)?$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one test, or one part of it, is written."""

    document: YamlDocument
    at: KeyPath

    def below(self, *keys: str | int) -> Place:
        """Give the place of a part of it."""
        return Place(document=self.document, at=(*self.at, *keys))

    @property
    def value(self) -> object:
        """What is written there."""
        value = self.document.value
        for element in self.at:
            value = value[element]  # type: ignore[index]  # a place exists
        return value

    def error(self, message: str, fix: str = "") -> Exception:
        """Build the error that points here; the caller raises it."""
        return self.document.error(message, key=self.at, fix=fix)


class SourceFinder:
    """Finds the tests of one suite; every file is read once."""

    def __init__(self, suite: YamlDocument, files: SuiteFiles) -> None:
        self._suite = suite
        self._files = files
        self._read: dict[Path, YamlDocument] = {}

    def tests(self, place: Place) -> Iterator[Place]:
        """Find every test: a list, a path, ``{path: ...}``, or a list of tests, paths and globs.

        Raises:
            ConfigFileError: A path that leads nowhere, a format that is not supported, or something that is no test.
        """
        value = place.value
        if not isinstance(value, list):
            path = _path_of(value)
            if path is None:
                raise place.error("expected a list of tests or the path of one.", "Write `- vars: {...}`.")
            yield from self._in_files(path, place)
            return
        for index, test in enumerate(value):
            path = _path_of(test)
            if path is None:
                yield place.below(index)
            else:
                yield from self._in_files(path, place.below(index))

    def part(self, place: Place) -> Place:
        """Follow ``file://x`` to the part of the suite that is written in that YAML or JSON file.

        Raises:
            ConfigFileError: There is no such file, or it is of another kind.
        """
        value = place.value
        if not isinstance(value, str):
            return place
        path = self._files.one(value, place.document, place.at)
        if path.suffix not in STRUCTURED:
            raise place.error(f"{path.name!r} has no keys.", "Name a .yaml, .yml or .json file.")
        return Place(document=self._document(path, place), at=())

    def _in_files(self, reference: str, place: Place) -> Iterator[Place]:
        if _ELSEWHERE.match(reference):
            raise place.error(
                f"{reference!r} is not on this machine, and tests are read from files only.",
                "Download it, and name the .yaml, .jsonl or .csv file.",
            )
        if is_program(reference):
            raise place.error(
                f"{reference!r} is a program, and programs of a suite are not run.",
                "Write the tests that it makes to a .yaml or .jsonl file.",
            )
        if _SPREADSHEET.search(reference):
            raise place.error(f"tests cannot be read from {reference!r}.", "Save the sheet as a .csv file.")
        paths = self._files.find(reference, place.document)
        if not paths:
            raise place.error(
                f"no file of tests is at {reference!r}.",
                "Paths and globs are relative to the suite, or to the file that they are in.",
            )
        for path in paths:
            found = self._document(path, place)
            if isinstance(found.value, list):
                yield from (Place(document=found, at=(index,)) for index in range(len(found.value)))
            else:
                yield Place(document=found, at=())

    def _document(self, path: Path, place: Place) -> YamlDocument:
        if path not in self._read:
            self._read[path] = dereference(self._parse(path, place), self._suite, self._files)
        return self._read[path]

    def _parse(self, path: Path, place: Place) -> YamlDocument:
        if path.suffix in STRUCTURED:
            return self._files.document(path)
        if path.suffix == ".jsonl":
            return _read_json_lines(path, self._files.text(path))
        if path.suffix == ".csv":
            return read_csv(path, self._files.text(path))
        raise place.error(f"tests cannot be read from {path.name!r}.", "Use a .yaml, .yml, .json, .jsonl or .csv file.")


def _path_of(value: object) -> str | None:
    """Give the path if ``value`` is one, or ``{path: ..., config: ...}``; the configuration is for programs."""
    if isinstance(value, dict) and "path" in value and set(value) <= {"path", "config"}:
        value = value["path"]
    return value if isinstance(value, str) else None


def _read_json_lines(path: Path, text: str) -> YamlDocument:
    tests: list[object] = []
    lines: dict[KeyPath, int] = {(): 1}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            parsed = parse_yaml(line, path=path, first_line=number)
            lines.update(((len(tests), *key), number) for key in parsed.lines)
            tests.append(parsed.value)
    return YamlDocument(path=path, value=tests, lines=lines)
