"""Plots as inline SVG, drawn here: intervals on an axis, shares of a whole, cumulative distributions.

Positions are percentages of the width and sizes are pixels, so a plot fits any column and its text stays legible on a
phone. Colours are the style sheet's; arms differ in shape and dash as well. Knows numbers and labels only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Curve", "Part", "axis_labels", "ecdf", "shares", "swatch", "whisker"]

ROW_HEIGHT = 32
CURVE_HEIGHT = 180
CURVE_POINTS = 160
"""Steps of a distribution that are drawn; more than the pixels of a phone show nothing more."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear scale from ``low`` at the left to ``high`` at the right, with ticks between them."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: Callable[[float], str]

    @classmethod
    def around(
        cls, values: Iterable[float | None], label: Callable[[float], str], *, count: int = 5, pad: float = 0.06
    ) -> Axis:
        """Choose a scale that holds all finite values, with room at both ends and round ticks."""
        known = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
        low, high = min(known), max(known)
        room = (high - low) * pad or abs(high) * pad or 1.0
        return cls.between(low - room, high + room, label, count=count)

    @classmethod
    def between(cls, low: float, high: float, label: Callable[[float], str], *, count: int = 5) -> Axis:
        """Make a scale with about ``count`` round ticks."""
        rough = (high - low) / count
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(magnitude * factor for factor in _STEPS if magnitude * factor >= rough * (1 - 1e-9))
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        return cls(low=low, high=high, ticks=tuple(number * step for number in range(first, last + 1)), label=label)

    def at(self, value: float) -> str:
        """Where a value is, in percent of the width; values outside are at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(1.0, max(0.0, share)):.2f}%"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a whole; ``kind`` is its class in the style sheet."""

    kind: str
    label: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One arm's values, in ascending order, and the quantiles to mark: share and value."""

    kind: str
    label: str
    values: Sequence[float]
    marks: tuple[tuple[float, float], ...] = ()


def whisker(
    axis: Axis,
    *,
    kind: str,
    estimate: float | None,
    low: float | None,
    high: float | None,
    limit: float | None = None,
    limit_label: str = "",
    zero: bool = False,
) -> str:
    """Draw an estimate with its interval; a missing bound reaches the edge as an arrow would: the whisker is dashed.

    Args:
        axis: The scale.
        kind: Class of the mark: an arm or an outcome.
        estimate: Where the mark goes; None draws none.
        low: Lower bound; None where there is none.
        high: Upper bound; None where there is none.
        limit: Where a rule draws its line.
        limit_label: Written below that line.
        zero: Whether to draw a line at 0.
    """
    middle = ROW_HEIGHT / 2
    parts = [_line(axis.at(tick), 0, axis.at(tick), ROW_HEIGHT, "grid") for tick in axis.ticks]
    if zero:
        parts.append(_line(axis.at(0.0), 0, axis.at(0.0), ROW_HEIGHT, "zero"))
    if limit is not None:
        parts.append(_line(axis.at(limit), 0, axis.at(limit), ROW_HEIGHT, "limit"))
    if estimate is not None:
        left, right = axis.low if low is None else low, axis.high if high is None else high
        endless = " endless" if low is None or high is None else ""
        parts.append(_line(axis.at(left), middle, axis.at(right), middle, f"whisker {kind}{endless}"))
        parts.extend(
            _line(axis.at(bound), middle - 4, axis.at(bound), middle + 4, f"whisker {kind}")
            for bound in (low, high)
            if bound is not None and axis.low <= bound <= axis.high
        )
        parts.append(_mark(axis.at(estimate), middle, kind))
    if limit is not None and limit_label:
        parts.append(_text(axis, limit, ROW_HEIGHT + 12, limit_label, margin=0.3))
    return _svg("".join(parts), ROW_HEIGHT + (16 if limit_label else 0), "row")


def axis_labels(axis: Axis) -> str:
    """Draw the tick labels of an axis, to stand above its rows."""
    return _svg(_tick_texts(axis, 12), 16, "ticks")


def shares(parts: Sequence[Part]) -> str:
    """Draw the parts of a whole as one bar; its numbers belong into a table beside it."""
    total = sum(part.count for part in parts) or 1
    drawn, at = [], 0.0
    for part in parts:
        if part.count:
            width = 100 * part.count / total
            drawn.append(
                f'<rect class="share {part.kind}" x="{at:.2f}%" y="8" width="{width:.2f}%" height="{ROW_HEIGHT - 16}"/>'
            )
            at += width
    return _svg("".join(drawn), ROW_HEIGHT, "row")


def ecdf(axis: Axis, curves: Sequence[Curve], title: str) -> str:
    """Draw, for each curve, which share of the values is at or below each point of the axis."""
    top, height = 8, CURVE_HEIGHT - 32
    parts = [_line(axis.at(tick), top, axis.at(tick), top + height, "grid") for tick in axis.ticks]
    for share in (0.0, 0.5, 0.95):
        y = top + height * (1 - share)
        parts.append(_line("0%", y, "100%", y, "zero" if share == 0 else "grid"))
    for share, text in ((0.5, "50 %"), (0.95, "95 %")):
        parts.append(f'<text class="tick" x="0" y="{top + height * (1 - share) - 4:g}">{text}</text>')
    paths = "".join(f'<path class="curve {curve.kind}" d="{_steps(axis, curve.values)}"/>' for curve in curves)
    parts.append(
        f'<svg x="0" y="{top}" width="100%" height="{height}" viewBox="0 0 1000 100" preserveAspectRatio="none" '
        f'overflow="visible">{paths}</svg>'
    )
    parts.extend(
        _mark(axis.at(value), top + height * (1 - share), curve.kind)
        for curve in curves
        for share, value in curve.marks
    )
    parts.append(_tick_texts(axis, CURVE_HEIGHT - 8))
    return _svg("".join(parts), CURVE_HEIGHT, "curves", title)


def swatch(kind: str, *, is_curve: bool = False) -> str:
    """Draw the mark, or the line, by which an arm is told from the others."""
    line = f'<line class="curve {kind}" x1="0" y1="7" x2="26" y2="7"/>' if is_curve else ""
    at = "13" if is_curve else "7"
    width = 26 if is_curve else 14
    return f'<svg class="swatch" width="{width}" height="14" aria-hidden="true">{line}{_mark(at, 7, kind)}</svg>'


def _svg(content: str, height: int, kind: str, title: str = "") -> str:
    named = f'role="img" aria-label="{escape(title)}"' if title else 'aria-hidden="true"'
    return f'<svg class="plot {kind}" width="100%" height="{height}" {named}>{content}</svg>'


def _line(x1: str, y1: float, x2: str, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1:g}" x2="{x2}" y2="{y2:g}"/>'


def _mark(x: str, y: float, kind: str) -> str:
    """A nested picture whose origin is the point, so that any shape keeps its form at any width."""
    shapes = {
        "champion": '<rect class="mark champion" x="-4.5" y="-4.5" width="9" height="9"/>',
        "base": '<path class="mark base" d="M0-6L6 0L0 6L-6 0Z"/>',
    }
    shape = shapes.get(kind, f'<circle class="mark {kind}" r="5"/>')
    return f'<svg x="{x}" y="{y:g}" overflow="visible">{shape}</svg>'


def _tick_texts(axis: Axis, y: float) -> str:
    return "".join(_text(axis, tick, y, axis.label(tick), margin=0.04) for tick in axis.ticks)


def _text(axis: Axis, value: float, y: float, text: str, *, margin: float) -> str:
    """Write a text at a value; one within ``margin`` of an end grows away from it."""
    share = (value - axis.low) / (axis.high - axis.low)
    anchor = "start" if share < margin else "end" if share > 1 - margin else "middle"
    return f'<text class="tick" x="{axis.at(value)}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _steps(axis: Axis, values: Sequence[float]) -> str:
    """The path of a cumulative distribution in a box 1000 wide and 100 high."""
    n = len(values)
    count = min(n, CURVE_POINTS)
    path, width = ["M0 100"], axis.high - axis.low
    for number in range(1, count + 1):
        rank = math.ceil(number * n / count)
        x = 1000 * min(1.0, max(0.0, (values[rank - 1] - axis.low) / width))
        path.append(f"H{x:.1f}V{100 - 100 * rank / n:.2f}")
    return "".join(path)
