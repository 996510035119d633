"""A bar on the terminal for what goes on in parts: bytes of a pull, cases of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from slipway.progress import Kind, ProgressEvent, Unit, listening

__all__ = ["describe_count", "showing_bars"]

WIDE = 140
"""Columns: three arms with their intervals fit beside the bar."""


@contextmanager
def showing_bars(console: Console) -> Iterator[None]:
    """Draw a bar for the time of a ``with`` block, while there is something to draw; nothing when piped."""
    if not console.is_terminal:
        yield
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TextColumn("[dim]{task.fields[rates]}[/]"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        bar = progress.add_task("", total=None, visible=False, count="", rates="")

        def listen(event: ProgressEvent) -> None:
            if event.kind is Kind.ADVANCED:
                progress.update(
                    bar,
                    description=event.step,
                    visible=True,
                    completed=event.done,
                    total=event.total or None,
                    count=describe_count(event),
                    rates=_rates(event, console.width),
                )
            elif event.kind is Kind.FINISHED:
                progress.update(bar, visible=False)

        with listening(listen):
            yield


def _rates(event: ProgressEvent, width: int) -> str:
    """What an evaluation says so far: with intervals where there is room for them."""
    if event.scoreboard is None or width >= WIDE:
        return event.message
    return event.scoreboard.rates()


def describe_count(event: ProgressEvent) -> str:
    """How much is done of how much: ``12/30`` or ``45.2/80.1 MB``."""
    if event.unit is Unit.PARTS:
        return f"{event.done}/{event.total}" if event.total else f"{event.done}"
    size, unit = (1e9, "GB") if max(event.done, event.total) >= 1e9 else (1e6, "MB")
    total = f"/{event.total / size:.1f}" if event.total else ""
    return f"{event.done / size:.1f}{total} {unit}"
