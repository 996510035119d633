"""Files that a suite names: where they are, and what a value ``file://x`` stands for.

A relative path is first looked for beside the suite, as promptfoo does, then beside the file that names it. Knows files
and formats, nothing of tests and prompts.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from slipway.javascript import Script
from slipway.templates import json_text
from slipway.yaml_files import KeyPath, YamlDocument, read_document, read_text

__all__ = ["PREFIX", "STRUCTURED", "SuiteFiles", "UnsupportedProgramError", "is_program"]

PREFIX = "file://"
STRUCTURED = frozenset({".yaml", ".yml", ".json"})

_PROGRAM = re.compile(r"(?P<path>.*\.(?P<kind>py|rb|js|mjs|cjs|ts|mts|cts))(?::(?P<function>[\w$.]+))?", re.DOTALL)
_JAVASCRIPT = frozenset({"js", "mjs", "cjs"})
_BESIDE = "Paths are relative to the suite, or to the file that they are in."


class UnsupportedProgramError(Exception):
    """A program in a language that is not run; the text says which, to follow "because"."""


def is_program(reference: str) -> bool:
    """Whether ``file://x`` names a program, perhaps with one of its functions (``x.js:check``)."""
    return _PROGRAM.fullmatch(reference) is not None


class SuiteFiles:
    """Finds and reads what the suite in the directory ``root`` names; each file is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._documents: dict[Path, YamlDocument] = {}
        self._texts: dict[Path, str] = {}
        self._names: dict[Path, str] = {}

    def where(self, document: YamlDocument, at: KeyPath) -> str:
        """Say ``tests/refunds.yaml:12``, the path from the suite's directory."""
        path = document.path
        if path not in self._names:
            name = path.relative_to(self._root) if path.is_relative_to(self._root) else path
            self._names[path] = Path(os.path.normpath(name)).as_posix()
        return f"{self._names[path]}:{document.line(at)}"

    def find(self, reference: str, document: YamlDocument) -> list[Path]:
        """Give the files that ``file://x`` or ``x``, perhaps a glob, names in ``document``; perhaps none."""
        name = reference.removeprefix(PREFIX)
        for directory in dict.fromkeys((self._root, document.path.parent)):
            pattern = str(directory / name)
            if _is_file(Path(pattern)):
                return [Path(pattern)]
            if glob.has_magic(pattern):
                # Path.glob takes no pattern that begins with another directory.
                found = glob.glob(pattern, recursive=True)  # noqa: PTH207
                if paths := [Path(path) for path in sorted(found) if _is_file(Path(path))]:
                    return paths
        return []

    def one(self, reference: str, document: YamlDocument, at: KeyPath) -> Path:
        """Give the one file that ``file://x`` names.

        Raises:
            ConfigFileError: There is none, or there are several.
        """
        paths = self.find(reference, document)
        if len(paths) != 1:
            problem = f"{reference!r} is not a file." if not paths else f"{reference!r} names {len(paths)} files."
            raise document.error(problem, key=at, fix=_BESIDE if not paths else "Name one of them.")
        return paths[0]

    def document(self, path: Path) -> YamlDocument:
        """Read a YAML or JSON file.

        Raises:
            ConfigFileError: As ``read_document``.
        """
        if path not in self._documents:
            self._documents[path] = read_document(path)
        return self._documents[path]

    def text(self, path: Path) -> str:
        """Read a text file.

        Raises:
            ConfigFileError: As ``read_text``.
        """
        if path not in self._texts:
            self._texts[path] = read_text(path)
        return self._texts[path]

    def value(self, reference: str, document: YamlDocument, at: KeyPath) -> object:
        """Read what the value ``file://x`` of an assertion stands for: an object for YAML and JSON, else text.

        Raises:
            ConfigFileError: There is no such file, or it cannot be read.
        """
        path = self.one(reference, document, at)
        return self.document(path).value if path.suffix in STRUCTURED else self.text(path).strip()

    def variables(self, reference: str, document: YamlDocument, at: KeyPath) -> list[str]:
        """Read what the variable ``file://x`` stands for: one text for every file that it names.

        YAML becomes JSON without spaces; JSON and everything else stays as it is written, without surrounding space.

        Raises:
            ConfigFileError: There is no such file, it cannot be read, or it is a program.
        """
        if is_program(reference):
            raise document.error(
                f"{reference!r} is a program, and programs of a suite are not run.",
                key=at,
                fix="Write the value that it would give.",
            )
        paths = self.find(reference, document)
        if not paths:
            raise document.error(f"{reference!r} is not a file.", key=at, fix=_BESIDE)
        return [
            json_text(self.document(path).value) if path.suffix in {".yaml", ".yml"} else self.text(path).strip()
            for path in paths
        ]

    def javascript(self, reference: str, document: YamlDocument, at: KeyPath) -> Script:
        """Read the program that ``file://x.js`` or ``file://x.js:function`` stands for; it is not run here.

        Raises:
            ConfigFileError: There is no such file, or it cannot be read.
            UnsupportedProgramError: It is in another language.
        """
        match = _PROGRAM.fullmatch(reference)
        if match is None or match["kind"] not in _JAVASCRIPT:
            raise UnsupportedProgramError(f"{reference!r} is not JavaScript, and other programs of a suite are not run")
        source = self.text(self.one(match["path"], document, at))
        return Script(source=source, is_module=True, function=match["function"] or "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that the file system refuses is none
        return False
