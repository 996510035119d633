"""Show a release on the terminal as it goes: one line per step, a bar while evaluating, the verdict at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from slipway.cli.output import printable
from slipway.cli.progress_bar import showing_bars
from slipway.ledger import Outcome
from slipway.progress import Kind, ProgressEvent, listening
from slipway.release import ReleaseOutcome

__all__ = ["outcome_document", "print_outcome", "watching"]

SHOWN_REASONS = 3
"""On the terminal; the report has all of them."""

COLOURS = {
    Outcome.PROMOTED: "green",
    Outcome.UNCHANGED: "green",
    Outcome.HELD: "red",
    Outcome.REFUSED: "red",
    Outcome.INCONCLUSIVE: "yellow",
}
MARKS = {Outcome.PROMOTED: "✓", Outcome.UNCHANGED: "=", Outcome.HELD: "✗", Outcome.REFUSED: "✗"}


@contextmanager
def watching(console: Console) -> Iterator[None]:
    """Print the steps of every release in this process for the time of a ``with`` block."""

    def listen(event: ProgressEvent) -> None:
        if event.kind is Kind.FINISHED:
            message = escape(printable(event.message))
            took = f" [dim]{event.seconds:.2f} s[/]" if event.seconds else ""
            console.print(f"  [dim]{event.step:<9}[/] {message}{took}", soft_wrap=True)

    with showing_bars(console), listening(listen):
        yield


def print_outcome(console: Console, outcome: ReleaseOutcome) -> None:
    """Print how it ended and why."""
    colour = COLOURS.get(outcome.outcome, "yellow")
    mark = MARKS.get(outcome.outcome, "?")
    words = str(outcome.outcome)
    if outcome.is_rollback:
        words = "rolled back to" if outcome.outcome is Outcome.PROMOTED else "not rolled back to"
    console.print(f"[bold {colour}]{mark} {words}[/] [bold]{escape(outcome.release_id)}[/]")
    for reason in outcome.reasons[:SHOWN_REASONS]:
        console.print(f"  - {escape(printable(reason))}", soft_wrap=True)
    if len(outcome.reasons) > SHOWN_REASONS:
        console.print(f"  - and {len(outcome.reasons) - SHOWN_REASONS} more in the report")
    if outcome.champion:
        console.print(f"  champion of {outcome.name} on {outcome.target}: [bold]{escape(outcome.champion)}[/]")
    if outcome.report is not None:
        console.print(f"  report: {escape(outcome.report.as_uri())}", soft_wrap=True)


def outcome_document(outcome: ReleaseOutcome) -> dict[str, object]:
    """For ``--json``."""
    return {
        "release": outcome.release_id,
        "name": outcome.name,
        "target": outcome.target,
        "outcome": "rolled-back" if outcome.is_rollback and outcome.exit_code == 0 else outcome.outcome,
        "reasons": list(outcome.reasons),
        "digest": outcome.digest,
        "adapter_id": outcome.adapter_id or None,
        "champion": outcome.champion or None,
        "report": str(outcome.report) if outcome.report else None,
        "results": str(outcome.results) if outcome.results else None,
        "seconds": outcome.seconds,
    }
