"""How an evaluation under way stands: counts per arm, and what they say so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slipway.results import Arm, CaseResult
from slipway.statistics import clopper_pearson
from slipway.wording import counted

__all__ = ["Scoreboard", "Standing"]

CONFIDENCE = 0.95
"""Of the interval shown while it runs: each look alone. The verdict has the gate's confidence, and minds the looks."""


@dataclass(kw_only=True)
class Standing:
    """Counts of one arm. ``reused`` are among the answered; ``not_asked`` are not among the missing."""

    answered: int = 0
    passed: int = 0
    missing: int = 0
    not_asked: int = 0
    reused: int = 0

    @property
    def rate(self) -> float | None:
        """Share of the answered that passed; None before the first."""
        return self.passed / self.answered if self.answered else None

    def bounds(self) -> tuple[float, float] | None:
        """Exact two-sided 95 % interval of the pass rate; None before the first answer."""
        if not self.answered:
            return None
        return clopper_pearson(self.passed, self.answered, confidence=CONFIDENCE)

    def describe(self) -> str:
        """In words for people: ``93 % (85 to 97)``, and what is missing."""
        bounds = self.bounds()
        if self.rate is None or bounds is None:
            return f"no answers, {self.missing} missing" if self.missing else "no answers"
        missing = f", {self.missing} missing" if self.missing else ""
        return f"{100 * self.rate:.0f} % ({100 * bounds[0]:.0f} to {100 * bounds[1]:.0f}){missing}"


class Scoreboard:
    """Counts results as they come.

    Args:
        arms: Who is asked.
        total: Results there will be.

    Attributes:
        total: As given.
        done: Results so far, reused ones included.
        asked: Answers of this session.
        standings: By arm.
    """

    def __init__(self, arms: Iterable[Arm], *, total: int) -> None:
        self.total = total
        self.done = 0
        self.asked = 0
        self.standings: Mapping[Arm, Standing] = {arm: Standing() for arm in arms}

    def take(self, result: CaseResult, *, is_reused: bool = False) -> None:
        """Count one result."""
        standing = self.standings[result.arm]
        self.done += 1
        if result.error is None:
            standing.answered += 1
            standing.passed += result.passed is True
            standing.reused += is_reused
            self.asked += not is_reused
        elif result.not_asked:
            standing.not_asked += 1
        else:
            standing.missing += 1

    @property
    def reused(self) -> int:
        """Answers taken from the record."""
        return sum(standing.reused for standing in self.standings.values())

    def describe(self) -> str:
        """Every arm in one line."""
        return ", ".join(f"{arm} {standing.describe()}" for arm, standing in self.standings.items())

    def rates(self) -> str:
        """The pass rates alone, of the arms that have answered."""
        return ", ".join(
            f"{arm} {standing.rate:.0%}" for arm, standing in self.standings.items() if standing.rate is not None
        )

    def summary(self) -> str:
        """How it ended, in one line."""
        parts = []
        for arm, standing in self.standings.items():
            missing = f" ({standing.missing} missing)" if standing.missing else ""
            parts.append(f"{arm} {standing.passed}/{standing.answered}{missing}")
        not_asked = sum(standing.not_asked for standing in self.standings.values())
        extra = [f"{counted(self.reused, 'answer')} reused"] if self.reused else []
        extra += [f"{not_asked} not asked, as the verdict was certain"] if not_asked else []
        return "; ".join([", ".join(parts), *extra])
