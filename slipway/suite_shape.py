"""How many cases a suite has for each rule that a gate may have, as far as that is known before they are asked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

__all__ = ["CaseShape", "Extent", "SuiteShape"]


class Extent(NamedTuple):
    """How much there is of something.

    Attributes:
        cases: Cases.
        units: Those that are independent: groups, and cases without one.
    """

    cases: int
    units: int


@dataclass(frozen=True, kw_only=True)
class CaseShape:
    """What rules want to know of one case.

    Attributes:
        tags: Its tags.
        group: Whom it shares its source with; None for nobody.
        metrics: Names of the metrics that its checks feed.
        may_have_any_metric: It has a check that names its metrics when it runs.
        is_checked: Whether it has a check at all.
    """

    tags: frozenset[str] = frozenset()
    group: Hashable | None = None
    metrics: frozenset[str] = frozenset()
    may_have_any_metric: bool = False
    is_checked: bool = True


@dataclass(frozen=True)
class SuiteShape:
    """The cases of a suite, in order.

    Attributes:
        cases: One shape for each.
        coverage: Share of the checks that can be applied.
    """

    cases: Sequence[CaseShape]
    coverage: float = 1.0

    def extent(self, *, tag: str | None = None, metric: str = "") -> Extent:
        """Count the cases with a tag, or all for None, that may have a named metric, or anything for none."""
        found = [case for case in self._tagged(tag) if not metric or metric in case.metrics or case.may_have_any_metric]
        return Extent(len(found), _units(found))

    @cached_property
    def is_clustered(self) -> bool:
        """Whether some group holds more than one case."""
        return _units(self.cases) < len(self.cases)

    @cached_property
    def unchecked(self) -> int:
        """How many cases have no check."""
        return sum(not case.is_checked for case in self.cases)

    def _tagged(self, tag: str | None) -> Iterable[CaseShape]:
        return self.cases if tag is None else (case for case in self.cases if tag in case.tags)


def _units(cases: Sequence[CaseShape]) -> int:
    groups = {case.group for case in cases if case.group is not None}
    return len(groups) + sum(case.group is None for case in cases)
