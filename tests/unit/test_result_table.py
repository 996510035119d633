"""How far a suite is answered without a gap, whatever the order of the answers."""

from __future__ import annotations

import itertools

from slipway.result_table import ResultTable
from slipway.results import Arm, CaseResult
from slipway.suite import Case

ARMS = (Arm.CANDIDATE, Arm.BASE)
CASES = tuple(Case(id=name, vars={}, prompt=name, checks=()) for name in "abc")


def test_the_prefix_grows_with_the_answer_that_closes_a_gap_and_no_later():
    places = [(index, arm) for index in range(len(CASES)) for arm in ARMS]
    for order in itertools.permutations(places):
        table, filled = ResultTable(CASES, ARMS), set()
        for index, arm in order:
            table.grew.clear()
            before = len(table.prefix)
            table.put(index, CaseResult(case=CASES[index].id, arm=arm))
            filled.add((index, arm))
            whole = next((place for place in range(3) if not {(place, one) for one in ARMS} <= filled), 3)
            assert [(line.case, line.arm) for line in table.prefix] == [
                (case.id, one) for case in CASES[:whole] for one in ARMS
            ]
            assert table.grew.is_set() is (len(table.prefix) > before)
