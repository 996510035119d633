"""Corners of the gate at which a small slip would promote, or tell the wrong ground."""

from __future__ import annotations

import itertools

import pytest

from slipway.gate import Decision, Gate, Outcome, decide
from slipway.gate_rules import DecidedBy
from slipway.results import Arm, CaseResult, CheckResult

CHECKS = (CheckResult(type="equals", passed=True, score=1.0),)
UNSUPPORTED = CheckResult(type="python", passed=None, score=0.0)


def gate(**keys):
    return Gate.model_validate({"min_cases": 1, **keys}, strict=False)


def lines(arm, outcomes, **keys):
    """One line for each outcome: a score, "?" for what was not asked, None for the instrument's fault."""
    made = []
    for index, outcome in enumerate(outcomes):
        is_answered = isinstance(outcome, int | float)
        values = {
            "output": f"{arm} {index}" if is_answered else "",
            "passed": outcome >= 1 if is_answered else None,
            "score": float(outcome) if is_answered else None,
            "latency_ms": 40.0 + index % 7 if is_answered else None,
            "checks": CHECKS if is_answered else (),
            "error": None if is_answered else "not asked: settled" if outcome == "?" else "503",
            "not_asked": outcome == "?",
            **{key: value(index) if callable(value) else value for key, value in keys.items()},
        }
        made.append(CaseResult(case=f"case-{index:04d}", arm=Arm(arm), **values))
    return made


FLOOR = {"require": [{"metric": "pass_rate", "at_least": 0.8}]}


# -- never promoted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["candidate", "base"])
def test_one_failed_request_does_not_prove_that_the_adapter_is_attached(broken):
    """The text of a failed request is empty and differs from every answer."""
    ours, base = (
        lines(
            arm, [1] * 59 + [None if arm == broken else 1], output=lambda index: f"same {index}" if index < 59 else ""
        )
        for arm in ("candidate", "base")
    )
    whole = [line.but(output="same 59") if line.error is None else line for line in ours + base]
    verdict = decide(whole, gate(max_missing=0.1, **FLOOR))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "Attachment not proven" in verdict.reasons[0]


def test_costs_of_cases_not_asked_decide_nothing():
    """Nothing bounds what an answer could still cost, on either side."""
    rules = gate(against={"cost": {"of": "champion", "ratio_at_most": 1.2}})

    def both(outcomes):
        costs = {"cost_usd": lambda index: 1e-4 * (1 + index % 5) if outcomes[index] != "?" else None}
        return lines("candidate", outcomes, **costs) + lines("champion", outcomes, **costs)

    verdict = decide(both([1] * 99 + ["?"]), rules)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "the rule is not settled without them" in verdict.reasons[0]
    assert decide(both([1] * 100), rules).verdict is Decision.PROMOTE


@pytest.mark.parametrize(
    "rules",
    [
        FLOOR,
        {"require": [{"metric": "latency_ms.p50", "at_most": 100}]},
        {"against": {"base": {"metric": "pass_rate", "better_by": 0.1}}},
    ],
    ids=["rate", "latency", "pairs"],
)
def test_the_sequential_bound_does_not_count_cases_of_one_group_as_many(rules):
    """It assumes independent values; copies of one case would settle it after a few of them."""
    outcomes = {"candidate": [1] * 60 + ["?"] * 900, "base": [0] * 60 + ["?"] * 900}

    def decided(**keys):
        results = list(itertools.chain(*(lines(arm, values, **keys) for arm, values in outcomes.items())))
        return decide(results, gate(early_stop="sequential", **rules)).verdict

    assert decided() is Decision.PROMOTE
    assert decided(group=lambda index: f"g{index}") is Decision.PROMOTE
    assert decided(group=lambda index: f"g{index // 30}") is Decision.INCONCLUSIVE


def test_pairs_are_exact_only_where_both_arms_have_nothing_but_0_and_1():
    """Half a point less on every case is no discordant pair of an exact test."""
    rules = gate(against={"champion": {"metric": "score", "margin": 0.05}})
    for ours, theirs in ((1, 0.5), (0.5, 1)):
        results = lines("candidate", [ours] * 100) + lines("champion", [theirs] * 100)
        (rule,) = decide(results, rules).rules
        assert rule.estimate == ours - theirs
        assert "Tango" not in rule.method
        assert "gained" not in rule.reason
    (rule,) = decide(lines("candidate", [1] * 100) + lines("champion", [0] * 100), rules).rules
    assert "Tango" in rule.method


@pytest.mark.parametrize(
    ("n", "priced", "decision"), [(8, 8, "promote"), (7, 7, "inconclusive"), (12, 7, "inconclusive")]
)
def test_eight_costs_above_zero_are_the_fewest_for_a_ratio(n, priced, decision):
    rules = gate(against={"cost": {"of": "champion", "ratio_at_most": 2.0}})
    costs = {"cost_usd": lambda index: 1e-4 * (20 + index % 3) if index < priced else 0.0}
    assert decide(lines("candidate", [1] * n, **costs) + lines("champion", [1] * n, **costs), rules).verdict == decision


def test_a_champion_that_was_not_asked_is_not_refused_as_a_first_release():
    """There is one: the comparison is open, and nothing is held for want of it."""
    verdict = decide(lines("candidate", [1] * 100), gate(**FLOOR, first_release="refuse"), has_champion=True)
    assert verdict.verdict is Decision.PROMOTE, "no rule of this gate is about the champion"
    for unknown in (None, False):
        refused = decide(lines("candidate", [1] * 100), gate(**FLOOR, first_release="refuse"), has_champion=unknown)
        assert refused.verdict is Decision.HOLD


@pytest.mark.parametrize(
    "rules",
    [
        {"require": [{"metric": "latency_ms.p50", "at_most": 100}, {"metric": "pass_rate", "at_least": 0.5}]},
        {"against": {"champion": {"metric": "score", "margin": 0.5}}},
        {"against": {"base": {"metric": "score", "better_by": 0.1}}},
    ],
    ids=["one of two", "champion", "base"],
)
def test_one_rule_on_quality_is_enough_to_want_a_check(rules):
    arms = (lines(arm, [score] * 100, checks=()) for arm, score in (("candidate", 1), ("champion", 1), ("base", 0)))
    results = list(itertools.chain(*arms))
    verdict = decide(results, gate(**rules))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "without a check everything passes" in verdict.reasons[0]
    assert decide([line.but(checks=CHECKS) for line in results], gate(**rules)).verdict is Decision.PROMOTE


def test_a_sequential_rule_on_a_tag_counts_only_its_own_cases():
    """Every second case carries the tag and fails; the others pass, and settle nothing for it."""
    results = lines(
        "candidate",
        [index % 2 for index in range(40)] + ["?"] * 960,
        tags=lambda index: () if index % 2 else ("safety",),
    )
    rule = {"metric": "pass_rate", "tag": "safety", "at_least": 0.6}
    verdict = decide(results, gate(early_stop="sequential", require=[rule]))
    assert (verdict.verdict, verdict.decided_by) == (Decision.HOLD, DecidedBy.SEQUENTIAL)
    assert verdict.rules[0].estimate == 0.0
    passing = [
        line.but(passed=not line.passed, score=1 - line.score) if line.score is not None else line for line in results
    ]
    assert decide(passing, gate(early_stop="sequential", require=[rule])).rules[0].outcome is not Outcome.FAIL


def test_missing_pairs_count_against_the_candidate_under_a_sequential_bound_too():
    rules = gate(early_stop="sequential", max_missing=0.5, against={"base": {"metric": "pass_rate", "better_by": 0.0}})

    def at(gained, missing):
        candidate = lines("candidate", [None] * missing + [1] * gained + ["?"] * 500)
        base = lines("base", [1] * missing + [0] * gained + ["?"] * 500)
        return decide(candidate + base, rules).verdict

    fewest = next(gained for gained in range(1, 40) if at(gained, 0) is Decision.PROMOTE)
    assert at(fewest, 1) is Decision.INCONCLUSIVE
    assert at(fewest + 10, 1) is Decision.PROMOTE


def test_grouped_pairs_are_not_curtailed():
    """Their interval is a bootstrap's, which promises nothing about completions."""
    rules = gate(against={"champion": {"metric": "pass_rate", "margin": 0.2}})

    def decided(**keys):
        both = (lines(arm, [1] * 199 + ["?"], **keys) for arm in ("candidate", "champion"))
        return decide(list(itertools.chain(*both)), rules).verdict

    assert decided() is Decision.PROMOTE
    assert decided(group=lambda index: f"g{index // 2}") is Decision.INCONCLUSIVE


@pytest.mark.parametrize(("unknown", "decision"), [(4, "promote"), (5, "inconclusive")])
@pytest.mark.parametrize("what", ["latency", "cost"])
def test_ratios_bear_as_many_unknown_pairs_as_two_arms_may_miss(what, unknown, decision):
    """Each may miss 2 % of its answers: 4 pairs of 100."""
    rules = gate(max_missing=0.02, against={what: {"of": "champion", "ratio_at_most": 1.5}})
    key = {"latency": "latency_ms", "cost": "cost_usd"}[what]
    values = {key: lambda index: 40.0 + index % 7 if index >= unknown else None}
    results = lines("candidate", [1] * 100) + lines("champion", [1] * 100, **values)
    known = [
        line.but(cost_usd=40.0 + index % 7) if line.arm is Arm.CANDIDATE else line for index, line in enumerate(results)
    ]
    assert decide(known, rules).verdict == decision


@pytest.mark.parametrize(("unknown", "decision"), [(2, "promote"), (3, "inconclusive")])
@pytest.mark.parametrize("metric", ["latency_ms.mean", "latency_ms.p50", "cost_usd.mean"])
def test_a_ceiling_bears_as_many_unknown_values_as_an_arm_may_miss(metric, unknown, decision):
    values = dict.fromkeys(("latency_ms", "cost_usd"), lambda index: 40.0 + index % 7 if index >= unknown else None)
    verdict = decide(
        lines("candidate", [1] * 100, **values), gate(max_missing=0.02, require=[{"metric": metric, "at_most": 100}])
    )
    assert verdict.verdict == decision
    if decision == "inconclusive":
        what = "cost" if metric.startswith("cost") else "latency"
        assert f"The {what} of 3 of 100 cases is unknown." in verdict.reasons[0]


# -- what is told -------------------------------------------------------------------------------------------------


def test_the_coverage_of_a_verdict_is_that_of_the_arm_with_the_least():
    half = lines("champion", [1] * 100, checks=(*CHECKS, UNSUPPORTED))
    verdict = decide(lines("candidate", [1] * 100) + half, gate(min_coverage=0.5, **FLOOR))
    assert (verdict.verdict, verdict.coverage) == (Decision.PROMOTE, 0.5)
    unchecked = decide(
        lines("candidate", [1] * 100, checks=()), gate(require=[{"metric": "latency_ms.p50", "at_most": 100}])
    )
    assert (unchecked.verdict, unchecked.coverage) == (Decision.PROMOTE, 1.0)


def test_a_hold_tells_the_firmest_ground_and_no_rule_that_is_open_for_want_of_asking():
    rules = [{"metric": "pass_rate", "at_least": 0.8}, {"metric": "score", "at_least": 0.8}]
    verdict = decide(lines("candidate", [0] * 40 + ["?"] * 60), gate(require=rules))
    assert [rule.outcome for rule in verdict.rules] == [Outcome.FAIL, Outcome.INCONCLUSIVE]
    assert (verdict.verdict, verdict.decided_by) == (Decision.HOLD, DecidedBy.CURTAILMENT)
    assert not any("not settled" in reason for reason in verdict.reasons)
    tagged = [{"metric": "pass_rate", "tag": "safety", "at_least": 0.8}, *rules]
    asked_first = lines("candidate", [0] * 40 + ["?"] * 60, tags=lambda index: ("safety",) if index < 40 else ())
    assert decide(asked_first, gate(require=tagged)).decided_by is DecidedBy.ANALYSIS


def test_a_promotion_tells_what_was_compared_first():
    rules = gate(**FLOOR, against={"champion": {"metric": "pass_rate", "margin": 0.05}})
    verdict = decide(lines("candidate", [1] * 200) + lines("champion", [1] * 200), rules)
    assert verdict.verdict is Decision.PROMOTE
    assert verdict.rules[0].rule.startswith("pass_rate at_least"), "rules keep the gate file's order"
    assert "minus the champion's" in verdict.reasons[0]
    assert verdict.reasons[1].startswith("pass_rate 1.00")


@pytest.mark.parametrize(("bound", "good"), [({"at_least": 1.0}, 1), ({"at_most": 0.0}, 0)])
def test_a_rule_on_every_case_tells_the_share_and_its_exact_bounds(bound, good):
    """Of 60 without an exception the exact 95 % interval leaves 6 % open, and the rule of three 5 %."""
    for exceptions, estimate in ((0, float(good)), (15, abs(good - 0.25))):
        outcomes = [1 - good] * exceptions + [good] * (60 - exceptions)
        (rule,) = decide(lines("candidate", outcomes), gate(require=[{"metric": "pass_rate", **bound}])).rules
        assert rule.estimate == estimate
        assert rule.low <= estimate <= rule.high
        assert rule.high - rule.low == pytest.approx(0.0596 if not exceptions else 0.2314, abs=0.001)
        assert ("up to 4.9%" in rule.reason) is (not exceptions)


@pytest.mark.parametrize(
    ("results", "is_obstructed"),
    [
        ([], True),
        (lines("base", [1] * 60), True),
        (lines("candidate", [1] * 29), True),
        (lines("candidate", [1] * 30), False),
        (lines("candidate", [0] * 60), False),
    ],
    ids=["nothing", "no candidate", "too few", "open", "failed"],
)
def test_evidence_that_could_not_carry_a_decision_is_told_apart_from_a_decision(results, is_obstructed):
    """Such a verdict spends no attempt."""
    verdict = decide(results, gate(min_cases=30, **FLOOR), attempt=2)
    assert verdict.is_obstructed is is_obstructed
    if verdict.verdict is Decision.INCONCLUSIVE:
        assert verdict.decided_by is DecidedBy.ANALYSIS
