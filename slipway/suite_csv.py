"""Tests written as a CSV file, in promptfoo's columns and cells (its src/csv.ts)."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from slipway.errors import ConfigFileError
from slipway.yaml_files import KeyPath, YamlDocument, read_text

__all__ = ["read_csv"]

_COLUMN = re.compile(r"__(expected[0-9]*|description|prefix|suffix|metric|threshold|metadata:.+)")

# Bare text in a cell means `equals`; only one of promptfoo's type names before a colon makes it something else.
_CELL = re.compile(
    r"(?P<type>(?:not-)?[a-z][a-z-]*)(?:\((?P<threshold>[0-9]+(?:\.[0-9]+)?)\))?(?::(?P<value>.*))?", re.DOTALL
)
_CELL_TYPES = frozenset(
    """
    answer-relevance bleu classifier contains contains-all contains-any contains-html contains-json contains-sql
    contains-xml context-faithfulness context-recall context-relevance conversation-relevance cost equals eval
    factuality finish-reason fn g-eval gleu grade guardrails icontains icontains-all icontains-any is-html is-json
    is-refusal is-sql
    is-valid-openai-tools-call is-xml javascript latency levenshtein llm-rubric meteor model-graded-closedqa
    model-graded-factuality moderation perplexity perplexity-score pi python regex rouge-n similar starts-with
    tool-call-f1 webhook word-count
    """.split()  # noqa: SIM905  # sixty quoted words are harder to read and to keep in order
)
_DEFAULT_THRESHOLD = 0.75  # promptfoo's, where a cell gives none


def read_csv(path: Path) -> YamlDocument:
    """Read tests from a CSV file, as a list of tests with the line of each.

    Raises:
        ConfigFileError: Malformed CSV, a row of another length than the header, an unknown column.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
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
                tests.append(_csv_test(dict(zip(header, row, strict=True)), path, start))
            start = reader.line_num + 1
    except csv.Error as error:
        raise ConfigFileError(f"is not valid CSV: {error}.", file=path, line=reader.line_num) from None
    return YamlDocument(path=path, value=tests, lines=lines)


def _csv_test(row: dict[str, str], path: Path, line: int) -> dict[str, object]:
    """Make a test of a row: columns with two underscores are directions, every other one is a variable."""
    directions = {name: cell for name, cell in row.items() if name.startswith("__") and cell.strip()}
    metadata = dict(
        _csv_metadata(name.removeprefix("__metadata:"), cell)
        for name, cell in directions.items()
        if name.startswith("__metadata:")
    )
    common = {"metric": directions["__metric"]} if "__metric" in directions else {}
    expected = [cell for name, cell in directions.items() if re.fullmatch(r"__expected[0-9]*", name)]
    test: dict[str, object] = {
        "vars": {name: cell for name, cell in row.items() if not name.startswith("__")},
        "assert": [{**_csv_assertion(cell), **common} for cell in expected],
        "options": {name[2:]: directions[name] for name in ("__prefix", "__suffix") if name in directions},
        "metadata": metadata,
    }
    if "__description" in directions:
        test["description"] = directions["__description"]
    if "__threshold" in directions:
        test["threshold"] = _csv_number(directions["__threshold"], path, line)
    return test


def _csv_metadata(key: str, cell: str) -> tuple[str, object]:
    """``__metadata:key[]`` holds a list."""
    if key.endswith("[]"):
        return key.removesuffix("[]"), [part.strip() for part in cell.split(",")]
    return key, cell


def _check_header(header: list[str], path: Path) -> None:
    for name in header:
        if name.startswith("__") and not _COLUMN.fullmatch(name):
            raise ConfigFileError(
                f"the column {name!r} is not supported.",
                file=path,
                line=1,
                fix="Use __expected, __expected1..., __description, __prefix, __suffix, __metric, __threshold or "
                "__metadata:KEY.",
            )
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ConfigFileError(f"there are two columns {twice!r}.", file=path, line=1, fix="Rename one of them.")


def _csv_assertion(cell: str) -> dict[str, object]:
    match = _CELL.fullmatch(cell)
    if match is None or match["type"].removeprefix("not-") not in _CELL_TYPES:
        return {"type": "equals", "value": cell}
    assertion: dict[str, object] = {"type": match["type"], "value": match["value"]}
    if match["threshold"] is not None:
        assertion["threshold"] = float(match["threshold"])
    elif match["type"].removeprefix("not-") == "latency":
        assertion["threshold"] = _DEFAULT_THRESHOLD
    return assertion


def _csv_number(cell: str, path: Path, line: int) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ConfigFileError(
            f"expected a number, found {cell!r}.", file=path, line=line, key="__threshold", fix="Write 0.8."
        ) from None
