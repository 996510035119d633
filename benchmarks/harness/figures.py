"""Medians, paired ratios and the small tables they are printed in."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Bound", "interleaved", "paired_ratio", "parse_rounds", "print_bounds", "print_table"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One figure and what it must not fall below or rise above.

    Attributes:
        name: Of the figure.
        value: As measured.
        limit: In the same unit.
        at_least: Whether ``limit`` is a floor; otherwise it is a ceiling.
        unit: Printed after both numbers.
    """

    name: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the figure is within the bound; NaN never is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def parse_rounds(doc: str | None, *, full: int, quick: int) -> int:
    """Read ``--quick`` and ``--rounds`` from the command line; returns how many rounds to measure."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{quick} rounds instead of {full}")
    parser.add_argument("--rounds", type=int, help="so many rounds")
    options = parser.parse_args()
    return max(1, options.rounds or (quick if options.quick else full))


def interleaved(kinds: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each kind once per round, so that a busy machine slows all alike.

    The order flips from round to round: who comes first meets colder caches.

    Returns:
        By kind, one figure per round.
    """
    samples: dict[str, list[float]] = {name: [] for name in kinds}
    for index in range(rounds):
        for name in kinds if index % 2 == 0 else reversed(kinds):
            samples[name].append(kinds[name]())
    return samples


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; the first column is left-aligned, floats have three digits after the point."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        first, *others = (
            cell.ljust(widths[0]) if index == 0 else cell.rjust(widths[index]) for index, cell in enumerate(row)
        )
        print("  ".join((first, *others)).rstrip())


def print_bounds(bounds: Sequence[Bound]) -> int:
    """Print each figure with its bound; returns the exit code, 1 when one is broken."""
    print()
    for bound in bounds:
        side = "at least" if bound.at_least else "at most"
        verdict = "ok" if bound.is_kept else "MISSED"
        print(f"{bound.name}: {bound.value:.3f}{bound.unit}, {side} {bound.limit:g}{bound.unit}: {verdict}")
    return 0 if all(bound.is_kept for bound in bounds) else 1
