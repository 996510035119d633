"""How commands print: people's text on a terminal, plain when piped, one JSON document with ``--json``."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from slipway.errors import ConfigurationError, SlipwayError, StoreError
from slipway.redaction import scrub_text, secrets_from_environment

__all__ = [
    "ago",
    "discard_stdout",
    "fail",
    "print_json",
    "print_table",
    "printable",
    "require_writable",
    "stderr",
    "stdout",
    "write_text",
]

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

COLUMN_GAP = "  "
SENTENCE_WIDTH = 40
"""Columns below which sentences are torn to pieces."""
PIPED_WIDTH = 160
"""Columns of a table that no terminal shows: wide enough that ids are not cut."""


def stdout() -> Console:
    """For what was asked for."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def stderr() -> Console:
    """For progress and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else PIPED_WIDTH, highlight=False)


def print_json(document: object) -> None:
    """Print one JSON document, and nothing else, on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]], *, empty: str) -> None:
    """Print a table, or the sentence ``empty`` when there are no rows. Text is printed as it is, brackets too.

    Where a last column of sentences has no room beside the others, each stands below its row.
    """
    console = stdout()
    if not rows:
        console.print(empty, markup=False, soft_wrap=True)
        return
    cells = [[cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row] for row in rows]
    widths = [
        max(map(cell_len, (name, *map(str, column))))
        for name, column in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    if widths[-1] > SENTENCE_WIDTH > console.width - sum(widths[:-1]) - len(COLUMN_GAP) * len(widths):
        _print_with_sentences(console, columns, cells, widths)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _print_with_sentences(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[Text]], widths: Sequence[int]
) -> None:
    heads = [Text(name, "bold") for name in columns[:-1]]
    for *cells, sentence in ([*heads, Text()], *rows):
        for cell, width in zip(cells, widths, strict=False):
            cell.pad_right(width - cell.cell_len)
        line = Text(COLUMN_GAP).join(cells)
        line.rstrip()
        console.print(line)
        if sentence:
            console.print(Padding(sentence, (0, 0, 0, 2 * len(COLUMN_GAP))))


def printable(text: str) -> str:
    """Escape what could steer a terminal or cannot be encoded: texts come from models, services and files."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def require_writable(*paths: Path | None) -> None:
    """Make sure, before long work, that its result can be written to these places; None is no place.

    Raises:
        ConfigurationError: One cannot.
    """
    for path in paths:
        if path is None:
            continue
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory.", fix="Give the name of a file in it.")
        if not existing.is_dir() or not os.access(path if path.exists() else existing, os.W_OK):
            raise ConfigurationError(f"{path} cannot be written.", fix=f"Look at {existing}, or give another path.")


def write_text(path: Path, text: str) -> None:
    """Write a file for the user, with the directories it needs.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}.", fix="Free some space, or give a path where you may write."
        ) from error


def discard_stdout() -> None:
    """Give up standard output: what it still buffers would fail again when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: Exception, *, as_json: bool = False) -> int:
    """Print an error with its fix, and return the exit code that it stands for."""
    secrets = secrets_from_environment(os.environ)
    known = _as_ours(error)
    if known is not None:
        message, fix, code = known.message, known.fix, known.exit_code
    else:
        message, fix, code = f"{type(error).__name__}: {error}", "This is a defect in Slipway; please report it.", 3
    message, fix = printable(scrub_text(message, secrets)), printable(scrub_text(fix, secrets))
    console = stderr()
    if known is None:
        console.print(scrub_text("".join(traceback.format_exception(error)), secrets), markup=False, style="dim")
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if fix:
        console.print(f"[bold]fix:[/]   {escape(fix)}", soft_wrap=True)
    document: Mapping[str, object] = {
        "error": type(known or error).__name__,
        "message": message,
        "fix": fix,
        "exit_code": code,
    }
    try:
        if as_json:
            print_json(document)
        sys.stdout.flush()
    except OSError:  # standard output is what has failed
        discard_stdout()
    return code


def _as_ours(error: Exception) -> SlipwayError | None:
    """What an error means to the user; None for a defect of ours."""
    if isinstance(error, SlipwayError):
        return error
    if not isinstance(error, OSError):
        return None
    if error.errno in DISK_FULL:
        place = error.filename or "The output"
        return StoreError(
            f"{place} cannot be written: {error.strerror}.",
            fix="Free some space where the output goes and under SLIPWAY_HOME, then run this again.",
        )
    if error.filename is not None:
        return ConfigurationError(f"{error.filename}: {error.strerror}.", fix="Check the path and who may use it.")
    return None


def ago(moment: datetime, now: datetime) -> str:
    """A time span for people: ``5 min ago``."""
    seconds = (now - moment).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
