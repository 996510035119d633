"""Tests written as a CSV file, in promptfoo's columns and cells (its src/csv.ts)."""

from __future__ import annotations

import csv
import io
import math
import re
from functools import cache
from pathlib import Path

from slipway.checks import known_types
from slipway.errors import ConfigFileError
from slipway.results import ASSERT_SET
from slipway.suite_paths import PREFIX, is_program
from slipway.yaml_files import KeyPath, YamlDocument

__all__ = ["read_csv"]

_EXPECTED = re.compile(r"__expected[0-9]*")
_CONFIG = re.compile(r"__config:(__expected[0-9]*):threshold")
_COLUMN = re.compile(
    rf"{_EXPECTED.pattern}|{_CONFIG.pattern}|__(description|prefix|suffix|metric|threshold|providerOutput|metadata:.+)"
)
_OTHER_NAMES = {"fn": "javascript", "eval": "javascript", "grade": "llm-rubric"}
"""Names that only cells know."""
_DEFAULT_THRESHOLDS = {
    **dict.fromkeys(
        """
        answer-relevance classifier context-faithfulness context-recall context-relevance cost latency levenshtein
        perplexity perplexity-score rouge-n starts-with
        """.split(),  # noqa: SIM905  # a dozen quoted words are harder to read
        0.75,
    ),
    "similar": 0.8,
}
"""Where a cell gives none; promptfoo's."""
_LISTS = frozenset({"contains-all", "contains-any", "icontains-all", "icontains-any"})
_ARRAY_COMMA = re.compile(r"(?<!\\),")


def read_csv(path: Path, text: str) -> YamlDocument:
    """Read tests from the text of a CSV file, as a list of tests with the line of each.

    Raises:
        ConfigFileError: Malformed CSV, a row of another length than the header, an unknown column.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    tests: list[object] = []
    lines: dict[KeyPath, int] = {(): 1}
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, path)
        start = reader.line_num + 1
        for row in reader:
            if any(cell.strip() for cell in row):
                if len(row) != len(header):
                    raise ConfigFileError(
                        f"this row has {len(row)} cells, the header has {len(header)}.",
                        file=path,
                        line=start,
                        fix="Quote cells that hold commas.",
                    )
                lines[len(tests),] = start
                tests.append(_test(dict(zip(header, row, strict=True)), path, start))
            start = reader.line_num + 1
    except csv.Error as error:
        raise ConfigFileError(
            f"is not valid CSV: {error}.",
            file=path,
            line=reader.line_num,
            fix="Close each quote, and write a quote inside a cell twice.",
        ) from None
    return YamlDocument(path=path, value=tests, lines=lines)


def _check_header(header: list[str], path: Path) -> None:
    for name in header:
        if name.startswith("__") and not _COLUMN.fullmatch(name):
            raise ConfigFileError(
                f"the column {name!r} is not supported.",
                file=path,
                line=1,
                fix="Use __expected, __expected1..., __description, __prefix, __suffix, __metric, __threshold, "
                "__metadata:KEY or __config:__expected1:threshold.",
            )
        target = _CONFIG.fullmatch(name)
        if target is not None and target[1] not in header:
            raise ConfigFileError(
                f"the column {name!r} is for {target[1]!r}, and there is no such column.",
                file=path,
                line=1,
                fix=f"Add the column {target[1]}, or name one that there is.",
            )
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ConfigFileError(f"there are two columns {twice!r}.", file=path, line=1, fix="Rename one of them.")


def _test(row: dict[str, str], path: Path, line: int) -> dict[str, object]:
    """Make a test of a row: columns with two underscores are directions, every other one is a variable."""
    directions = {name: cell for name, cell in row.items() if name.startswith("__") and cell.strip()}
    assertions = []
    for name, cell in directions.items():
        if not _EXPECTED.fullmatch(name):
            continue
        assertion = _assertion(cell.strip())
        if "__metric" in directions:
            assertion["metric"] = directions["__metric"]
        column = f"__config:{name}:threshold"
        if column in directions:
            assertion["threshold"] = _number(directions[column], column, path, line)
        assertions.append(assertion)
    test: dict[str, object] = {
        "vars": {name: cell for name, cell in row.items() if not name.startswith("__")},
        "assert": assertions,
        "options": {name[2:]: directions[name] for name in ("__prefix", "__suffix") if name in directions},
        "metadata": dict(
            _metadata(name.removeprefix("__metadata:"), cell)
            for name, cell in directions.items()
            if name.startswith("__metadata:")
        ),
    }
    for column in ("__description", "__providerOutput"):
        if column in directions:
            test[column[2:]] = directions[column]
    if "__threshold" in directions:
        test["threshold"] = _number(directions["__threshold"], "__threshold", path, line)
    return test


def _metadata(key: str, cell: str) -> tuple[str, object]:
    r"""``__metadata:key[]`` holds a list; ``\,`` is a comma inside an item."""
    if key.endswith("[]"):
        return key.removesuffix("[]"), [part.strip().replace("\\,", ",") for part in _ARRAY_COMMA.split(cell)]
    return key, cell


def _assertion(cell: str) -> dict[str, object]:
    """Read ``type:value``, ``type(threshold):value``, ``file://program`` or a bare text, which is ``equals``."""
    if cell.startswith(PREFIX) and is_program(cell):
        return {"type": "python" if ".py" in cell else "javascript", "value": cell}
    match = _cells().fullmatch(cell)
    if match is None:
        return {"type": "equals", "value": cell}
    base = _OTHER_NAMES.get(match["type"], match["type"])
    value: object = None if match["value"] is None else match["value"].strip()
    if base in _LISTS and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    assertion: dict[str, object] = {"type": match["not"] + base, "value": value}
    if match["threshold"] is not None:
        assertion["threshold"] = float(match["threshold"])
    elif base in _DEFAULT_THRESHOLDS:
        assertion["threshold"] = _DEFAULT_THRESHOLDS[base]
    return assertion


@cache
def _cells() -> re.Pattern[str]:
    """Only a known type before the colon makes a cell something else than ``equals``; the longest one counts."""
    names = sorted({*known_types(), *_OTHER_NAMES} - {ASSERT_SET}, key=len, reverse=True)
    types = "|".join(map(re.escape, names))
    return re.compile(
        rf"(?P<not>(?:not-)?)(?P<type>{types})(?:\((?P<threshold>[0-9]+(?:\.[0-9]+)?)\))?(?::(?P<value>.*))?", re.DOTALL
    )


def _number(cell: str, column: str, path: Path, line: int) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    raise ConfigFileError(f"expected a number, found {cell!r}.", file=path, line=line, key=column, fix="Write 0.8.")
