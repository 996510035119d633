"""`slipway history`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from slipway.cli.output import print_json, print_table
from slipway.history import Entry, history_of
from slipway.services.workspace import open_workspace

__all__ = ["history"]


def history(
    name: str,
    /,
    *,
    target: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Show every release and rollback of an adapter, oldest first.

    Args:
        name: The adapter's name.
        target: Only there.
        as_json: Print one JSON document.
    """
    ledger = open_workspace().ledger
    entries = history_of(ledger.releases(name, target), ledger.promotions(name, target))
    if as_json:
        print_json([entry.as_json() for entry in entries])
        return 0
    print_table(
        ("when (UTC)", "release", "target", "outcome", "adapter", "digest", "why"),
        [_row(entry) for entry in entries],
        empty=f"There is no release of {name}.",
    )
    return 0


def _row(entry: Entry) -> tuple[str | Text, ...]:
    colour = {"promoted": "green", "rolled back": "yellow", "inconclusive": "yellow", "open": "cyan"}.get(
        entry.outcome, "red"
    )
    return (
        f"{entry.at:%Y-%m-%d %H:%M:%S}",
        entry.release_id,
        entry.target,
        Text(entry.outcome, colour),
        entry.adapter_id or "-",
        entry.digest.removeprefix("sha256:")[:12],
        entry.why,
    )
