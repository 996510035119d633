"""What the templates show beside texts: plots of the figures, with their axes and legends chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from slipway.gate import RuleOutcome
from slipway.regressions import Regression
from slipway.report import plots
from slipway.report.figures import Bound, Distribution, Figures, PairFigure, Rate, RateRow, TagPair, bound_of
from slipway.report.texts import milliseconds, percent, signed, usd
from slipway.results import Arm

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Panels", "RuleRow", "Tile"]

RULE_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}
RULE_TONES = {"pass": "good", "fail": "bad", "inconclusive": "open"}
CURVE_REACH = 0.99
"""Quantile at which the axis of a distribution ends: one straggler must not squeeze the rest."""
SHOWN_TAGS = 40
"""Tags with rows of their own; a suite with more uses them as ids."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number for the first glance."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class RuleRow:
    """One rule of the gate: its interval drawn against its limit."""

    rule: RuleOutcome
    mark: str
    tone: str
    observed: str
    interval: str
    limit: str
    plot: Markup | None


class Panels:
    """Draws what ``figures`` holds."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The numbers at the top: rates, changed cases, slow answers, how much was asked."""
        figures = self._figures
        if not figures.rates:
            return ()
        tiles = []
        for rate in figures.rates[0].rates:
            if rate.interval is not None:
                detail = f"{percent(rate.interval.low)} to {percent(rate.interval.high)}"
                tiles.append(Tile(label=f"{rate.arm} passes", value=percent(rate.interval.estimate), detail=detail))
        tiles.extend(
            Tile(
                label=f"against the {pair.arm}",
                value=f"+{pair.summary.gained} \N{MINUS SIGN}{pair.summary.lost}",
                detail="cases gained and lost",
            )
            for pair in figures.pairs[:1]
        )
        for spread in figures.latencies[:1]:
            if spread.p95 is not None and spread.p50 is not None:
                detail = f"95 % of answers; half within {milliseconds(spread.p50.estimate)}"
                tiles.append(
                    Tile(label=f"{spread.arm} answers within", value=milliseconds(spread.p95.estimate), detail=detail)
                )
        return tuple(tiles)

    @cached_property
    def rules(self) -> tuple[RuleRow, ...]:
        """Every rule of the gate, in its order."""
        verdict = self._figures.data.verdict
        return tuple(_rule_row(rule) for rule in verdict.rules) if verdict else ()

    @cached_property
    def rate_rows(self) -> tuple[RateRow, ...]:
        """All cases and the tags that get rows of their own."""
        return self._figures.rates[: SHOWN_TAGS + 1]

    @cached_property
    def _rate_axis(self) -> plots.Axis:
        known = [bound for row in self.rate_rows for rate in row.rates if rate.interval for bound in _ends(rate)]
        low = max(0.0, math.floor(10 * (min(known, default=0.0) - 0.02)) / 10)
        return plots.Axis.between(low, 1.0, lambda value: f"{100 * value:.0f}", count=4 if low > 0.5 else 5)

    @cached_property
    def rate_labels(self) -> Markup:
        """Tick labels of the pass rates, in percent."""
        return _markup(plots.axis_labels(self._rate_axis))

    def rate_plot(self, rate: Rate, row: RateRow) -> Markup:
        """Draw one pass rate; the floor is the candidate's alone."""
        interval = rate.interval
        return _markup(
            plots.whisker(
                self._rate_axis,
                kind=rate.arm,
                estimate=interval.estimate if interval else None,
                low=interval.low if interval else None,
                high=interval.high if interval else None,
                limit=row.floor if rate.arm is Arm.CANDIDATE else None,
            )
        )

    @cached_property
    def _pair_axis(self) -> plots.Axis:
        found: list[float | None] = [0.0]
        for pair in self._figures.pairs:
            found += [pair.estimate, pair.low, pair.high, pair.bound]
        return plots.Axis.around(found, _signed_tick)

    @cached_property
    def pair_labels(self) -> Markup:
        """Tick labels of the paired differences."""
        return _markup(plots.axis_labels(self._pair_axis))

    def pair_plot(self, pair: PairFigure) -> Markup:
        """Draw a paired difference with the gate's margin."""
        return _markup(
            plots.whisker(
                self._pair_axis,
                kind=Arm.CANDIDATE,
                estimate=pair.estimate,
                low=pair.low,
                high=pair.high,
                limit=pair.bound,
                zero=True,
            )
        )

    @cached_property
    def tag_pairs(self) -> tuple[TagPair, ...]:
        """The tags with differences of their own."""
        return self._figures.tag_pairs[:SHOWN_TAGS]

    @cached_property
    def _tag_axis(self) -> plots.Axis:
        ends = [bound for pair in self.tag_pairs for bound in (pair.difference.low, pair.difference.high)]
        return plots.Axis.around([0.0, *ends], _signed_tick)

    @cached_property
    def tag_labels(self) -> Markup:
        """Tick labels of the differences by tag."""
        return _markup(plots.axis_labels(self._tag_axis))

    def tag_plot(self, pair: TagPair) -> Markup:
        """Draw the difference on one tag."""
        found = pair.difference
        return _markup(
            plots.whisker(
                self._tag_axis,
                kind=Arm.CANDIDATE,
                estimate=found.estimate,
                low=found.low,
                high=found.high,
                zero=True,
            )
        )

    @cached_property
    def regressions(self) -> tuple[Regression, ...]:
        """What the gate found below the reference, the least likely first."""
        verdict = self._figures.data.verdict
        return verdict.regressions[:SHOWN_TAGS] if verdict else ()

    @cached_property
    def _regression_axis(self) -> plots.Axis:
        intervals = [one.interval for one in self.regressions if one.interval is not None]
        ends = [bound for interval in intervals for bound in (interval.low, interval.high)]
        return plots.Axis.around([0.0, *ends, *(one.difference for one in self.regressions)], _signed_tick)

    @cached_property
    def regression_labels(self) -> Markup:
        """Tick labels of the regressions."""
        return _markup(plots.axis_labels(self._regression_axis))

    def regression_plot(self, one: Regression) -> Markup:
        """Draw one regression; without an interval both ends are open."""
        drawn = plots.whisker(
            self._regression_axis,
            kind=Arm.CANDIDATE,
            estimate=one.difference,
            low=one.interval.low if one.interval else None,
            high=one.interval.high if one.interval else None,
            zero=True,
        )
        return _markup(drawn)

    def pair_bar(self, pair: PairFigure) -> Markup:
        """Draw which share of the pairs changed."""
        summary = pair.summary
        counts = {
            "both-pass": summary.both_pass,
            "gained": summary.gained,
            "lost": summary.lost,
            "both-fail": summary.both_fail,
        }
        return _markup(plots.shares([plots.Part(kind=kind, label=kind, count=count) for kind, count in counts.items()]))

    @cached_property
    def latency_plot(self) -> Markup | None:
        """The distribution of latencies."""
        title = "Share of answers within a latency, by arm; the table has the quantiles."
        return _curves(self._figures.latencies, milliseconds, title)

    @cached_property
    def cost_plot(self) -> Markup | None:
        """The distribution of costs."""
        title = "Share of answers up to a cost, by arm; the table has the quantiles."
        return _curves(self._figures.costs, usd, title)

    def swatch(self, arm: Arm, *, is_curve: bool = False) -> Markup:
        """By what an arm is told from the others."""
        return _markup(plots.swatch(arm, is_curve=is_curve))

    def quantile(self, spread: Distribution, share: float) -> float:
        """Give the smallest value with at least ``share`` of them at or below it."""
        return _quantile(spread.values, share)


def _markup(drawn: str) -> Markup:
    from markupsafe import Markup  # noqa: PLC0415  # comes with jinja2, which most commands never need

    return Markup(drawn)  # noqa: S704  # plots escape their labels


def _ends(rate: Rate) -> Iterable[float]:
    return (rate.interval.low, rate.interval.high) if rate.interval else ()


def _signed_tick(value: float) -> str:
    return "0" if abs(value) < 1e-9 else f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


def _rule_row(rule: RuleOutcome) -> RuleRow:
    bound = bound_of(rule.rule)
    write = _writer(bound)
    observed = interval = limit = ""
    plot = None
    if rule.estimate is not None:
        low, high = (write(end) if end is not None else "unknown" for end in (rule.low, rule.high))
        observed = write(rule.estimate)
        interval = "interval unknown" if rule.low is None and rule.high is None else f"{low} to {high}"
    if bound is not None:
        words = "more than" if " better_by " in rule.rule else "at least" if bound.is_floor else "at most"
        limit = f"{words} {write(bound.value)}"
        if rule.estimate is not None:
            plot = _rule_plot(rule, bound, write, limit)
    return RuleRow(
        rule=rule,
        mark=RULE_MARKS[rule.outcome],
        tone=RULE_TONES[rule.outcome],
        observed=observed,
        interval=interval,
        limit=limit,
        plot=plot,
    )


def _rule_plot(rule: RuleOutcome, bound: Bound, write: Callable[[float], str], limit: str) -> Markup:
    axis = plots.Axis.around([rule.estimate, rule.low, rule.high, bound.value], write, count=4, pad=0.15)
    drawn = plots.whisker(
        plots.Axis(low=axis.low, high=axis.high, ticks=(), label=write),
        kind=RULE_TONES[rule.outcome],
        estimate=rule.estimate,
        low=rule.low,
        high=rule.high,
        limit=bound.value,
        limit_label=limit,
    )
    return _markup(drawn)


def _writer(bound: Bound | None) -> Callable[[float], str]:
    if bound is None:
        return lambda value: f"{value:.4g}"
    return {
        "share": percent,
        "difference": signed,
        "ratio": lambda value: f"{value:.2f}\N{MULTIPLICATION SIGN}",
        "ms": milliseconds,
        "usd": usd,
    }[bound.unit]


def _curves(spreads: Sequence[Distribution], label: Callable[[float], str], title: str) -> Markup | None:
    if not any(len(spread.values) > 1 for spread in spreads):
        return None
    reach = max(_quantile(spread.values, CURVE_REACH) for spread in spreads) * 1.05
    if not math.isfinite(reach) or reach <= 0:
        return None
    curves = [
        plots.Curve(
            kind=spread.arm,
            label=str(spread.arm),
            values=spread.values,
            marks=tuple((share, _quantile(spread.values, share)) for share in (0.5, 0.95)),
        )
        for spread in reversed(spreads)  # the candidate last, on top
    ]
    return _markup(plots.ecdf(plots.Axis.between(0.0, reach, label, count=4), curves, title))


def _quantile(values: Sequence[float], share: float) -> float:
    return values[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
