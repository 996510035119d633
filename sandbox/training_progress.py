"""Show training on stderr: bars on a terminal, one line per event elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["Bars", "Display", "Lines", "choose_display"]


class Display(AbstractContextManager["Display"], Protocol):
    """Where progress is shown."""

    def begin(self, name: str, purpose: str, steps: int) -> None:
        """Tell that an adapter is due and how many steps it may take."""

    def advance(self, name: str, step: int, loss: float) -> None:
        """Tell how far it is."""

    def finish(self, name: str, summary: str) -> None:
        """Tell that it is ready, whether just made or found in the cache."""


class Lines:
    """Plain lines, for logs. Steps are left out."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, name: str, purpose: str, steps: int) -> None:
        """Print what is due."""
        limit = f", at most {steps} steps" if steps else ""
        self._print(f"due    {name}: {purpose}{limit}")

    def advance(self, name: str, step: int, loss: float) -> None:
        """Print nothing: a log wants events, not steps."""

    def finish(self, name: str, summary: str) -> None:
        """Print what became of it."""
        self._print(f"ready  {name}: {summary}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class Bars:
    """One bar per adapter, with its loss, time and outcome."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[name]:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, name: str, purpose: str, steps: int) -> None:
        """Add a bar; its clock starts with the first step."""
        self._bars[name] = self._progress.add_task(
            "", total=max(1, steps), name=name, note=f"[dim]{purpose}", start=False
        )

    def advance(self, name: str, step: int, loss: float) -> None:
        """Move the bar."""
        self._progress.start_task(self._bars[name])
        self._progress.update(self._bars[name], completed=step, note=f"loss {loss:.2f}")

    def finish(self, name: str, summary: str) -> None:
        """Fill the bar and show the outcome."""
        bar = self._bars[name]
        self._progress.start_task(bar)
        task = next(task for task in self._progress.tasks if task.id == bar)
        done = max(1, int(task.completed))
        self._progress.update(bar, total=done, completed=done, note=f"[green]✓[/] {summary}")
        self._progress.stop_task(bar)


def choose_display() -> Display:
    """Bars when stderr is a terminal, lines otherwise."""
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal else Lines(console)
