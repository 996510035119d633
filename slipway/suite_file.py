"""What a suite file may say, in the words of promptfoo, and where its tests and values are read from.

Knows files, keys and formats; ``suite`` makes cases of what is found here.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from slipway.suite_csv import read_csv
from slipway.yaml_files import KeyPath, YamlDocument, parse_yaml, read_document, read_text

__all__ = [
    "AssertionEntry",
    "OptionsEntry",
    "SuiteEntry",
    "TestEntry",
    "TestSource",
    "find_files",
    "is_file",
    "read_reference",
    "resolve",
    "test_sources",
]

_STRUCTURED = frozenset({".yaml", ".yml", ".json"})
_CODE = frozenset({".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"})


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OptionsEntry(_Strict):
    """``options`` of a test: what surrounds the prompt, and how the answer is generated."""

    prefix: str = ""
    suffix: str = ""
    disable_var_expansion: bool = Field(default=False, alias="disableVarExpansion")
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    stop: tuple[str, ...] = ()


class AssertionEntry(_Strict):
    """One entry of ``assert``."""

    type: str
    value: Any = None
    threshold: float | None = None
    weight: float = Field(default=1.0, ge=0)
    metric: str = ""


class TestEntry(_Strict):
    """One entry of ``tests``, or ``defaultTest``."""

    __test__ = False  # pytest takes every class named Test... for its own

    description: str | None = Field(default=None, min_length=1)
    vars: dict[str, Any] | str | None = None
    assertions: list[Any] | None = Field(default=None, alias="assert")
    threshold: float | None = None
    metadata: dict[str, Any] | None = None
    tags: list[str] | str = []
    options: OptionsEntry = OptionsEntry()
    provider: Any = None


class SuiteEntry(_Strict):
    """The top of a suite file."""

    schema_: Any = Field(default=None, alias="$schema")
    description: str = ""
    prompts: Any = None
    tests: Any = None
    default_test: Any = Field(default=None, alias="defaultTest")
    providers: Any = None
    targets: Any = None
    tags: Any = None
    evaluate_options: Any = Field(default=None, alias="evaluateOptions")
    output_path: Any = Field(default=None, alias="outputPath")
    env: Any = None
    sharing: Any = None
    command_line_options: Any = Field(default=None, alias="commandLineOptions")

    def ignored(self) -> tuple[str, ...]:
        """List the keys that are present, are promptfoo's, and mean nothing here: the target is the adapter."""
        names = {
            "providers": self.providers,
            "targets": self.targets,
            "tags": self.tags,
            "evaluateOptions": self.evaluate_options,
            "outputPath": self.output_path,
            "env": self.env,
            "sharing": self.sharing,
            "commandLineOptions": self.command_line_options,
        }
        return tuple(name for name, value in names.items() if value is not None)


@dataclass(frozen=True, kw_only=True)
class TestSource:
    """Where one test is written."""

    __test__ = False

    document: YamlDocument
    at: KeyPath


def resolve(reference: str, beside: Path) -> Path:
    """Give the path of ``file://x`` or ``x``, relative to the file that names it."""
    return beside.parent / reference.removeprefix("file://")


def find_files(reference: str, beside: Path) -> list[Path]:
    """Give the files that ``file://x`` or ``x``, perhaps a glob, names; none where there is none."""
    pattern = str(resolve(reference, beside))
    if not glob.has_magic(pattern):
        return [Path(pattern)] if is_file(Path(pattern)) else []
    # Path.glob takes no pattern that begins with another directory.
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207
    return [Path(path) for path in sorted(found) if is_file(Path(path))]


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that the file system refuses is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_reference(reference: str, document: YamlDocument, at: KeyPath) -> object:
    """Read what a value ``file://x`` stands for: an object for YAML and JSON, text for everything else.

    Raises:
        ConfigFileError: There is no such file, or it is a program; those are never run.
    """
    path = resolve(reference, document.path)
    if path.suffix in _CODE:
        raise document.error(
            f"{reference!r} is a program, and programs of a suite are not run.", key=at, fix="Write the value itself."
        )
    if not is_file(path):
        raise document.error(f"{reference!r} is not a file.", key=at, fix="Paths are relative to the file they are in.")
    return read_document(path).value if path.suffix in _STRUCTURED else read_text(path)


def test_sources(document: YamlDocument, at: KeyPath, tests: object) -> Iterator[TestSource]:
    """Find every test below the key ``at``: a list, a path, or a list of tests, paths and globs.

    Raises:
        ConfigFileError: A path that leads nowhere, a format that is not supported, or something that is no test.
    """
    if isinstance(tests, str):
        yield from _from_files(tests, document, at)
        return
    if not isinstance(tests, list):
        raise document.error("expected a list of tests or the path of one.", key=at, fix="Write `- vars: {...}`.")
    for index, test in enumerate(tests):
        place = (*at, index)
        if isinstance(test, str):
            yield from _from_files(test, document, place)
        elif isinstance(test, dict) and set(test) == {"path"}:
            yield from _from_files(str(test["path"]), document, place)
        else:
            yield TestSource(document=document, at=place)


test_sources.__test__ = False  # type: ignore[attr-defined]  # pytest takes every function named test_... for its own


def _from_files(reference: str, document: YamlDocument, at: KeyPath) -> Iterator[TestSource]:
    paths = find_files(reference, document.path)
    if not paths:
        raise document.error(
            f"no file of tests is at {reference!r}.",
            key=at,
            fix="Paths and globs are relative to the file they are in.",
        )
    for path in paths:
        found = _read_tests(path, document, at)
        count = len(found.value) if isinstance(found.value, list) else None
        places: list[KeyPath] = [()] if count is None else [(index,) for index in range(count)]
        yield from (TestSource(document=found, at=place) for place in places)


def _read_tests(path: Path, document: YamlDocument, at: KeyPath) -> YamlDocument:
    if path.suffix in _STRUCTURED:
        return read_document(path)
    if path.suffix == ".jsonl":
        return _read_json_lines(path)
    if path.suffix == ".csv":
        return read_csv(path)
    raise document.error(
        f"tests cannot be read from {path.name!r}.", key=at, fix="Use a .yaml, .yml, .json, .jsonl or .csv file."
    )


def _read_json_lines(path: Path) -> YamlDocument:
    tests: list[object] = []
    lines: dict[KeyPath, int] = {(): 1}
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            lines[len(tests),] = number
            tests.append(parse_yaml(text, path=path, first_line=number).value)
    return YamlDocument(path=path, value=tests, lines=lines)
