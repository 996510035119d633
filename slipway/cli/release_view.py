"""Show a release on the terminal as it goes: one line per step, a bar while evaluating, the verdict at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slipway.cli.output import printable
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
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[rates]}[/]"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("evaluate", total=None, visible=False, rates="")

        def listen(event: ProgressEvent) -> None:
            if event.kind is Kind.ADVANCED:
                progress.update(bar, visible=True, completed=event.done, total=event.total, rates=event.message)
            elif event.kind is Kind.FINISHED:
                progress.update(bar, visible=False)
                message = escape(printable(event.message))
                console.print(f"  [dim]{event.step:<9}[/] {message} [dim]{event.seconds:.2f} s[/]", soft_wrap=True)

        with listening(listen):
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
        console.print(f"  report: {escape(str(outcome.report))}", soft_wrap=True)


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
