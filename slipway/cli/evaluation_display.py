"""Show an evaluation as it goes: a live panel on a terminal, a line now and then where the output is piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from slipway.progress import Kind, ProgressEvent, listening
from slipway.release import Step
from slipway.scoreboard import Scoreboard, Standing

__all__ = ["showing_evaluation"]

REFRESHES_PER_SECOND = 4
LINE_SECONDS = 10.0
"""Between two lines where nobody can redraw."""
BAR_WIDTH = 32
SCALE_WIDTH = 32
"""Characters that stand for pass rates from 0 to 100 %."""
LEAST_WIDTH = 8
"""Of bar and scale: a narrow terminal shows shorter ones, and none rather than shorter than this."""


@contextmanager
def showing_evaluation(console: Console) -> Iterator[None]:
    """Show the evaluations of this process for the time of a ``with`` block."""
    if not console.is_terminal:
        with listening(_Lines(console, time.monotonic)):
            yield
        return
    from rich.live import Live

    panel = _Panel()
    # It redraws in a thread of its own, so that drawing is in nobody's latency.
    with (
        Live(
            console=console,
            get_renderable=lambda: panel.render(console.width),
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        ),
        listening(panel.listen),
    ):
        yield


class _Lines:
    """Prints how far it is every ten seconds."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._next = clock() + LINE_SECONDS

    def __call__(self, event: ProgressEvent) -> None:
        if event.step != Step.EVALUATE or event.kind is not Kind.ADVANCED or self._clock() < self._next:
            return
        self._next = self._clock() + LINE_SECONDS
        self._console.print(
            f"evaluate  {event.done}/{event.total}, {event.per_second:.0f}/s: {event.message}",
            markup=False,
            soft_wrap=True,
        )


class _Panel:
    """Draws the last event."""

    def __init__(self) -> None:
        self._event: ProgressEvent | None = None

    def listen(self, event: ProgressEvent) -> None:
        """Take an event in."""
        if event.step == Step.EVALUATE and event.kind is Kind.ADVANCED:
            self._event = event

    def render(self, width: int) -> RenderableType:
        """Draw, on so many columns."""
        event = self._event
        if event is None:
            return Text("  evaluate  ...", style="dim")
        lines = [_bar(event, width)]
        return Group(*lines, _standings(event.scoreboard, width)) if event.scoreboard is not None else Group(*lines)


def _bar(event: ProgressEvent, width: int) -> Text:
    share = event.done / event.total if event.total else 1.0
    reused = event.scoreboard.reused if event.scoreboard is not None else 0
    counts = f"{event.done}/{event.total}"
    load = f"  {event.in_flight} in flight, {event.per_second:.0f}/s" + (f", {reused} reused" if reused else "")
    line = Text("  evaluate  ")
    room = _room(width - len(line) - len(f"  {counts}{load}"), BAR_WIDTH)
    if room:
        full = round(share * room)
        line.append("━" * full, style="green")
        line.append("━" * (room - full), style="dim")
        line.append("  ")
    line.append(counts)
    line.append(load, style="dim")
    return line


def _standings(board: Scoreboard, width: int) -> Table:
    names = [f"  {arm:<9}  " for arm in board.standings]
    rates = [f"{standing.describe()}  " for standing in board.standings.values()]
    counts = [f"{standing.passed}/{standing.answered}" for standing in board.standings.values()]
    used = sum(max(map(len, column)) for column in (names, rates, counts))
    room = _room(width - used - 2, SCALE_WIDTH)
    table = Table(box=None, show_header=False, pad_edge=False, padding=0)
    for name, rate, count, standing in zip(names, rates, counts, board.standings.values(), strict=True):
        scale = [_scale(standing, room).append("  ")] if room else []
        table.add_row(name, *scale, rate, count)
    return table


def _room(columns: int, most: int) -> int:
    return 0 if columns < LEAST_WIDTH else min(columns, most)


def _scale(standing: Standing, width: int) -> Text:
    """The interval of the pass rate on a line from 0 to 100 %, the rate itself marked."""
    bounds, rate = standing.bounds(), standing.rate
    line = Text()
    for place in range(width):
        low, high = place / width, (place + 1) / width
        if bounds is None or rate is None:
            line.append("·", style="dim")
        elif low <= rate < high or (high == 1.0 and rate == 1.0):
            line.append("●", style="bold cyan")
        elif high > bounds[0] and low < bounds[1]:
            line.append("─", style="cyan")
        else:
            line.append("·", style="dim")
    return line
