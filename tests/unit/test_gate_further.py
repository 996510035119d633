"""The number of further cases that would settle an open rule: the gate itself, asked about so many, decides."""

from __future__ import annotations

import random
import re

import pytest

from slipway.gate import Decision, Gate, decide
from slipway.results import Arm, CaseResult, CheckResult
from slipway.statistics import more_to_decide, two_digits


def gate(**keys):
    return Gate.model_validate({"min_cases": 1, **keys}, strict=False)


def lines(arm, scores, *, groups=None, latency_ms=None):
    return [
        CaseResult(
            checks=(CheckResult(type="equals", passed=True, score=1.0),),
            case=f"c{index:05d}",
            arm=Arm(arm),
            output=f"{arm}{index}",
            passed=score == 1,
            score=float(score),
            latency_ms=None if latency_ms is None else latency_ms[index],
            group=None if groups is None else groups[index],
        )
        for index, score in enumerate(scores)
    ]


def more_of(verdict):
    (reason,) = [rule.reason for rule in verdict.rules]
    assert verdict.verdict is Decision.INCONCLUSIVE
    found = re.search(r"About (\d+) more (cases?|pairs?) like these would settle it", reason)
    assert found is not None, reason
    return int(found[1])


def paired(gains, losses, n, *, other="champion"):
    ours = [1] * gains + [0] * losses + [1] * (n - gains - losses)
    theirs = [0] * gains + [1] * losses + [1] * (n - gains - losses)
    return lines("candidate", ours) + lines(other, theirs)


MARGIN = gate(against={"champion": {"metric": "pass_rate", "margin": 0.05}})
BETTER = gate(against={"base": {"metric": "pass_rate", "better_by": 0.1}})
ABOVE = gate(against={"base": {"metric": "pass_rate", "better_by": 0.0}})


@pytest.mark.parametrize(
    ("gains", "losses", "n", "rules", "decision"),
    [
        (0, 8, 120, MARGIN, Decision.HOLD),
        (0, 3, 60, MARGIN, None),
        (2, 3, 100, MARGIN, Decision.PROMOTE),
        (0, 7, 200, MARGIN, Decision.PROMOTE),
        (1, 8, 100, MARGIN, Decision.HOLD),
        (20, 5, 100, BETTER, Decision.PROMOTE),
        (6, 2, 100, BETTER, Decision.HOLD),
        (5, 0, 50, ABOVE, Decision.PROMOTE),
        (4, 7, 90, ABOVE, Decision.HOLD),
    ],
)
def test_so_many_more_pairs_settle_it(gains, losses, n, rules, decision):
    """With the same shares, and with up to a tenth more pairs than said."""
    other = "champion" if rules is MARGIN else "base"
    verdict = decide(paired(gains, losses, n, other=other), rules)
    if decision is None:
        assert "hardly settle it" in verdict.reasons[0]
        return
    total = n + more_of(verdict)
    for size in (total, total + total // 30, total + total // 10):
        counts = [round(count * size / n) for count in (gains, losses)]
        assert decide(paired(*counts, size, other=other), rules).verdict is decision


def test_far_fewer_would_not():
    """The number is near the least one, and not only large enough."""
    more = more_of(decide(paired(0, 8, 120), MARGIN))
    size = 120 + round(0.8 * more)
    assert decide(paired(0, round(8 * size / 120), size), MARGIN).verdict is Decision.INCONCLUSIVE


@pytest.mark.parametrize(("good", "n", "limit"), [(28, 30, 0.8), (21, 30, 0.8), (50, 60, 0.8), (99, 100, 0.95)])
def test_so_many_more_cases_settle_a_floor(good, n, limit):
    rules = gate(require=[{"metric": "pass_rate", "at_least": limit}])
    expected = Decision.PROMOTE if good / n > limit else Decision.HOLD
    total = n + more_of(decide(lines("candidate", [1] * good + [0] * (n - good)), rules))
    for size in (total, total + total // 30, total + total // 10):
        passed = round(good * size / n)
        assert decide(lines("candidate", [1] * passed + [0] * (size - passed)), rules).verdict is expected


@pytest.mark.parametrize("seed", [0, 1, 3])
@pytest.mark.parametrize("is_grouped", [False, True])
def test_so_many_more_graded_scores_settle_it(seed, is_grouped):
    """Copies of the same values decide: a bootstrap has no closed form, so it is asked."""
    source = random.Random(seed)
    scores = [min(1.0, max(0.0, source.gauss(0.62, 0.2))) for _ in range(60)]
    rules = gate(require=[{"metric": "score", "at_least": 0.6}])
    groups = [f"g{index // 3}" for index in range(60)] if is_grouped else None
    verdict = decide(lines("candidate", scores, groups=groups), rules)
    total = 60 + more_of(verdict)
    copies = -(-total // 60)
    again = [f"{group}-{copy}" for copy in range(copies) for group in groups] if groups else None
    assert decide(lines("candidate", scores * copies, groups=again), rules).verdict is not Decision.INCONCLUSIVE


def test_a_ratio_of_latencies_says_how_many_too():
    source = random.Random(5)
    theirs = [100 * source.lognormvariate(0, 0.3) for _ in range(60)]
    ours = [value * 1.15 * source.lognormvariate(0, 0.3) for value in theirs]
    rules = gate(against={"latency": {"of": "champion", "ratio_at_most": 1.25}})
    verdict = decide(
        lines("candidate", [1] * 60, latency_ms=ours) + lines("champion", [1] * 60, latency_ms=theirs), rules
    )
    assert "roughly 100 more pairs" in verdict.reasons[0]
    assert "Hodges-Lehmann" in verdict.reasons[0]


def test_no_number_while_cases_are_still_to_be_asked():
    """A look at an evaluation under way need not search for it."""
    results = [
        *lines("candidate", [1] * 20),
        CaseResult(case="z", arm=Arm.CANDIDATE, error="not asked", not_asked=True),
    ]
    reason = decide(results, gate(require=[{"metric": "pass_rate", "at_least": 0.9}])).reasons[0]
    assert "not settled without" in reason
    assert "more" not in reason


def test_a_decision_that_comes_and_goes_is_not_trusted():
    """It decides at 150 by luck, and from 190 on for good."""
    assert more_to_decide(lambda n: n == 150 or n >= 190, n=100) in range(90, 105)


@pytest.mark.parametrize(("count", "rounded"), [(1, 1), (99, 99), (100, 100), (101, 110), (537, 540), (12_345, 13_000)])
def test_two_digits(count, rounded):
    assert two_digits(count) == rounded
