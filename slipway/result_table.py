"""The results of an evaluation under way: which there are, and how far the suite is answered without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from slipway.results import Arm, CaseResult
from slipway.suite import Case

__all__ = ["ResultTable"]


class ResultTable:
    """One place for each case and arm.

    Attributes:
        prefix: Results of the first cases that all arms have answered, in the suite's order.
        grew: Set whenever ``prefix`` has grown; whoever looks clears it.
    """

    def __init__(self, cases: Sequence[Case], arms: Sequence[Arm]) -> None:
        self._cases = cases
        self._arms = arms
        self._results: dict[tuple[str, Arm], CaseResult] = {}
        self._lacking = [len(arms)] * len(cases)
        self._answered = 0
        self.prefix: list[CaseResult] = []
        self.grew = asyncio.Event()

    def put(self, index: int, result: CaseResult) -> None:
        """Fill one place; ``index`` is the case's in the suite."""
        self._results[result.case, result.arm] = result
        self._lacking[index] -= 1
        if index != self._answered:
            return
        while self._answered < len(self._cases) and not self._lacking[self._answered]:
            case = self._cases[self._answered]
            self.prefix.extend(self._results[case.id, arm] for arm in self._arms)
            self._answered += 1
            self.grew.set()

    def has(self, case: Case, arm: Arm) -> bool:
        """Whether the place is filled."""
        return (case.id, arm) in self._results

    def results(self) -> list[CaseResult]:
        """All results, in the suite's order; every place must be filled."""
        return [self._results[case.id, arm] for case in self._cases for arm in self._arms]
