"""How commands print: people's text on a terminal, plain when piped, one JSON document with ``--json``."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slipway.errors import ConfigurationError, SlipwayError
from slipway.redaction import scrub_text, secrets_from_environment

__all__ = ["ago", "fail", "print_json", "print_table", "stderr", "stdout"]

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


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print a table, or the sentence ``empty`` when there are no rows."""
    console = stdout()
    if not rows:
        console.print(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def fail(error: Exception, *, as_json: bool = False) -> int:
    """Print an error with its fix, and return the exit code that it stands for."""
    secrets = secrets_from_environment(os.environ)
    if isinstance(error, SlipwayError):
        message, fix, code = error.message, error.fix, error.exit_code
    elif isinstance(error, OSError) and error.filename is not None:
        message, fix, code = f"{error.filename}: {error.strerror}.", "", ConfigurationError.exit_code
    else:
        message, fix, code = f"{type(error).__name__}: {error}", "This is a defect in Slipway; please report it.", 3
    message, fix = scrub_text(message, secrets), scrub_text(fix, secrets)
    if as_json:
        document: Mapping[str, object] = {
            "error": type(error).__name__,
            "message": message,
            "fix": fix,
            "exit_code": code,
        }
        print_json(document)
    console = stderr()
    if not isinstance(error, SlipwayError | OSError):
        console.print(scrub_text("".join(traceback.format_exception(error)), secrets), markup=False, style="dim")
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if fix:
        console.print(f"[bold]fix:[/]   {escape(fix)}", soft_wrap=True)
    return code


def ago(moment: datetime, now: datetime) -> str:
    """A time span for people: ``5 min ago``."""
    seconds = (now - moment).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
