"""How many of a suite's checks could be applied: those whose types are not supported neither pass nor fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from slipway.results import ASSERT_SET, CaseResult

__all__ = ["Coverage", "measure_coverage"]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Counts of checks, one for each answer that a check belongs to.

    Attributes:
        applied: Checks that said yes or no.
        total: All checks of answers that are recorded; a missing answer has none.
        not_applied: By type, how many were not applied; the most first.
    """

    applied: int
    total: int
    not_applied: Mapping[str, int]

    @property
    def share(self) -> float:
        """In [0, 1]; 1 where there are no checks."""
        return self.applied / self.total if self.total else 1.0


def measure_coverage(results: Iterable[CaseResult]) -> Coverage:
    """Count the checks of results; a set counts through the assertions in it, which are recorded beside it."""
    checks = [check for result in results for check in result.checks if check.type != ASSERT_SET]
    lacking = Counter(check.type for check in checks if check.passed is None)
    return Coverage(applied=len(checks) - lacking.total(), total=len(checks), not_applied=dict(lacking.most_common()))
