"""Cases that nobody asked, bounds that hold at every look, and attempts that share one budget of error."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.gate import Decision, Gate, Outcome, decide
from slipway.gate_rules import DecidedBy, confidence_of
from slipway.results import Arm, CaseResult, CheckResult


def gate(**keys):
    return Gate.model_validate({"min_cases": 1, **keys}, strict=False)


def lines(arm, outcomes, *, tags=(), group=None, latency_ms=40.0):
    """One line for each outcome: 1 and 0 pass and fail, "?" was not asked, None is the instrument's fault."""
    return [
        CaseResult(
            checks=(CheckResult(type="equals", passed=True, score=1.0),),
            case=f"case-{index:04d}",
            arm=Arm(arm),
            output=f"{arm} {index}",
            passed=bool(outcome) if outcome in {0, 1} else None,
            score=float(outcome) if outcome in {0, 1} else None,
            latency_ms=latency_ms if outcome in {0, 1} else None,
            error=None if outcome in {0, 1} else "not asked: settled" if outcome == "?" else "503",
            not_asked=outcome == "?",
            tags=tags,
            group=group and group(index),
        )
        for index, outcome in enumerate(outcomes)
    ]


FLOOR = gate(require=[{"metric": "pass_rate", "at_least": 0.8}])


# -- curtailment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passed", "failed", "pending", "decision"),
    [
        (105, 0, 15, "promote"),
        (104, 0, 16, "inconclusive"),
        (0, 34, 86, "hold"),
        (0, 33, 87, "inconclusive"),
    ],
)
def test_rule_decides_exactly_when_the_cases_not_asked_cannot_change_it(passed, failed, pending, decision):
    """Of 120 a floor of 0.8 takes 105 passes, and fails with 86."""
    verdict = decide(lines("candidate", [1] * passed + [0] * failed + ["?"] * pending), FLOOR)
    assert verdict.verdict == decision
    assert verdict.not_asked == pending
    (rule,) = verdict.rules
    assert rule.n == passed + failed
    assert rule.estimate == passed / (passed + failed)
    if decision == "inconclusive":
        assert "the rule is not settled without them" in verdict.reasons[0]
        assert "The evaluation ended early" in verdict.reasons[1]
    else:
        assert rule.decided_by == verdict.decided_by == DecidedBy.CURTAILMENT
        side = "against the candidate" if decision == "promote" else "in the candidate's favour"
        assert f"Counting the {pending} cases that were not asked {side}, it would still be" in verdict.reasons[0]
        assert f"Stopped early: {pending} of 120 cases were not asked, since no answer" in verdict.reasons[1]


def test_what_regressed_is_told_before_how_much_was_asked():
    """Three reasons are shown at the top, and that the rest was not asked is none for holding."""
    ours = lines("candidate", [0] * 60 + ["?"] * 20, tags=("refund",))
    verdict = decide(ours + lines("champion", [1] * 60 + ["?"] * 20, tags=("refund",)), FLOOR)
    assert [reason.split(" ")[0] for reason in verdict.reasons] == ["pass_rate", "Regressed", "Stopped"]


outcomes = st.lists(st.sampled_from([0, 1, 1, 1, None]), min_size=30, max_size=60)


@given(outcomes, st.data())
@settings(max_examples=40, deadline=None)
def test_a_curtailed_verdict_is_the_verdict_of_every_completion(ours, data):
    """The whole point: stopping early never decides what asking on would not have."""
    rules = gate(
        confidence=0.8,
        max_missing=0.2,
        require=[{"metric": "pass_rate", "at_least": 0.5}, {"metric": "latency_ms.p50", "at_most": 100}],
        against={"champion": {"metric": "pass_rate", "margin": 0.2}},
    )
    theirs = data.draw(st.lists(st.sampled_from([0, 1]), min_size=len(ours), max_size=len(ours)))
    known = data.draw(st.integers(len(ours) // 2, len(ours) - 1))

    def at(first, rest):
        return lines("candidate", [*ours[:known], *first]) + lines("champion", [*theirs[:known], *rest])

    pending = len(ours) - known
    early = decide(at(["?"] * pending, ["?"] * pending), rules)
    if early.verdict is not Decision.INCONCLUSIVE:
        ours_then = data.draw(st.lists(st.sampled_from([0, 1]), min_size=pending, max_size=pending))
        theirs_then = data.draw(st.lists(st.sampled_from([0, 1]), min_size=pending, max_size=pending))
        assert decide(at(ours_then, theirs_then), rules).verdict is early.verdict


def test_paired_rule_is_curtailed():
    """Sixty losses among 100 of 120 cannot be made good by twenty gains."""
    rules = gate(against={"champion": {"metric": "pass_rate", "margin": 0.05}})
    candidate = lines("candidate", [0] * 60 + [1] * 40 + ["?"] * 20)
    champion = lines("champion", [1] * 100 + ["?"] * 20)
    verdict = decide(candidate + champion, rules)
    assert verdict.verdict is Decision.HOLD
    assert verdict.decided_by is DecidedBy.CURTAILMENT
    level = lines("candidate", [1] * 100 + ["?"] * 20) + champion
    assert decide(level, rules).verdict is Decision.INCONCLUSIVE
    nearly = lines("candidate", [1] * 199 + ["?"]) + lines("champion", [1] * 199 + ["?"])
    assert decide(nearly, rules).verdict is Decision.PROMOTE


def test_one_failed_safety_case_holds_and_no_pass_promotes_before_all_are_asked():
    rules = gate(require=[{"metric": "score", "at_least": 1.0}])
    assert decide(lines("candidate", [1, 0, "?", "?"]), rules).verdict is Decision.HOLD
    assert decide(lines("candidate", [1, 1, "?", "?"]), rules).verdict is Decision.INCONCLUSIVE


def test_percentile_of_latency_is_curtailed():
    """At most one of 120 may be slower for the 95th percentile to pass, and twelve make it fail."""
    rules = gate(require=[{"metric": "latency_ms.p95", "at_most": 800}])
    assert decide(lines("candidate", [1] * 119 + ["?"]), rules).verdict is Decision.PROMOTE
    assert decide(lines("candidate", [1] * 118 + ["?"] * 2), rules).verdict is Decision.INCONCLUSIVE
    assert decide(lines("candidate", [1] * 12 + ["?"] * 108, latency_ms=900), rules).verdict is Decision.HOLD
    assert decide(lines("candidate", [1] * 11 + ["?"] * 109, latency_ms=900), rules).verdict is Decision.INCONCLUSIVE


@pytest.mark.parametrize(
    "rules",
    [
        gate(require=[{"metric": "score", "at_least": 0.5}]),
        gate(require=[{"metric": "latency_ms.mean", "at_most": 800}]),
        gate(against={"champion": {"metric": "score", "margin": 0.5}}),
        gate(against={"latency": {"of": "champion", "ratio_at_most": 2}}),
    ],
    ids=["score", "mean", "paired score", "latency ratio"],
)
def test_rules_that_a_bootstrap_may_decide_wait_for_the_last_answer(rules):
    """Scores that were all 0 or 1 so far may be graded yet."""
    both = lines("candidate", [1] * 199 + ["?"]) + lines("champion", [1] * 199 + ["?"])
    assert decide(both, rules).verdict is Decision.INCONCLUSIVE
    assert decide(lines("candidate", [1] * 200) + lines("champion", [1] * 200), rules).verdict is Decision.PROMOTE


def test_case_not_asked_is_neither_missing_nor_answered():
    few = gate(min_cases=90, require=[{"metric": "pass_rate", "at_least": 0.1}])
    verdict = decide(lines("candidate", [1] * 89 + ["?"] * 11), few)
    assert verdict.reasons[0] == "The candidate answered 89 cases; the gate asks for at least 90."
    assert not any("did not answer" in reason for reason in verdict.reasons)
    assert decide(lines("candidate", [1] * 90 + ["?"] * 10), few).verdict is Decision.PROMOTE


def test_share_of_missing_cases_is_of_those_asked():
    results = lines("candidate", [1] * 48 + [None] * 2 + ["?"] * 50)
    verdict = decide(results, gate(require=[{"metric": "pass_rate", "at_least": 0.1}]))
    assert "did not answer 2 of 50 cases" in verdict.reasons[0]


def test_answers_that_several_arms_lack_are_one_reason():
    """A service that is down takes those of all arms, and its error would be each of the three reasons shown."""
    floor = gate(require=[{"metric": "pass_rate", "at_least": 0.1}])
    arms = [
        line
        for arm, lost in (("candidate", 5), ("champion", 0), ("base", 9))
        for line in lines(arm, [None] * lost + [1] * (50 - lost))
    ]
    verdict = decide(arms, floor)
    assert verdict.reasons[0] == (
        "The candidate did not answer 5 of 50 cases, the base 9 of 50, more than 2.0% (first: 'case-0000': 503)."
    )
    assert [rule.rule for rule in verdict.rules] == ["max_missing 0.02", "pass_rate at_least 0.1"]


def test_missing_and_not_asked_together_count_both_ways():
    """Of 122, 105 passed and 15 not asked: with the two missing ones failed it is 105 of 122, too few."""
    rules = gate(max_missing=0.5, require=[{"metric": "pass_rate", "at_least": 0.8}])
    results = lines("candidate", [1] * 105 + [None] * 2 + ["?"] * 15)
    assert decide(results, rules).verdict is Decision.INCONCLUSIVE
    assert decide(lines("candidate", [1] * 107 + [None] * 2 + ["?"] * 13), rules).verdict is Decision.PROMOTE


def test_grouped_cases_are_not_curtailed():
    """Their interval is a bootstrap's, which promises nothing about completions."""
    results = lines("candidate", [1] * 115 + ["?"] * 5, group=lambda index: f"document {index // 2}")
    assert decide(results, FLOOR).verdict is Decision.INCONCLUSIVE


# -- sequential ---------------------------------------------------------------------------------------------------

SEQUENTIAL = gate(early_stop="sequential", require=[{"metric": "pass_rate", "at_least": 0.8}])


def test_sequential_bound_settles_what_certainty_does_not():
    results = lines("candidate", [0] * 40 + ["?"] * 960)
    assert decide(results, FLOOR).verdict is Decision.INCONCLUSIVE
    verdict = decide(results, SEQUENTIAL)
    assert verdict.verdict is Decision.HOLD
    assert verdict.decided_by is DecidedBy.SEQUENTIAL
    assert "960 of 1000 cases were not asked, since a bound that holds at every number of cases" in verdict.reasons[1]
    promoted = decide(lines("candidate", [1] * 100 + ["?"] * 900), SEQUENTIAL)
    assert (promoted.verdict, promoted.decided_by) == (Decision.PROMOTE, DecidedBy.SEQUENTIAL)


def test_sequential_gate_gives_half_of_the_error_to_each_way_of_promoting():
    assert decide(lines("candidate", [1] * 200), SEQUENTIAL).confidence == pytest.approx(0.975)
    assert decide(lines("candidate", [1] * 200), FLOOR).confidence == 0.95


def test_sequential_bound_reads_only_the_cases_before_the_first_that_was_not_asked():
    """What comes later was not chosen by the order; here it would turn a clear failure round."""
    results = lines("candidate", [0] * 40 + ["?"] + [1] * 60 + ["?"] * 899)
    verdict = decide(results, SEQUENTIAL)
    assert verdict.verdict is Decision.HOLD
    assert verdict.rules[0].n < 40


def test_answers_that_were_on_their_way_do_not_unsettle_a_sequential_verdict():
    """It had held at its number of cases, and such bounds hold at all of them."""
    fewest = next(
        failed
        for failed in range(1, 60)
        if decide(lines("candidate", [0] * failed + ["?"] * 900), SEQUENTIAL).verdict is Decision.HOLD
    )
    late = decide(lines("candidate", [0] * fewest + [1] * 30 + ["?"] * 900), SEQUENTIAL)
    assert late.verdict is Decision.HOLD
    assert late.rules[0].n == fewest
    other_way_round = lines("candidate", [1] * 15 + [0] * fewest + ["?"] * 900)
    assert decide(other_way_round, SEQUENTIAL).verdict is Decision.INCONCLUSIVE


def test_sequential_bound_follows_the_order_of_the_lines_and_not_of_the_names():
    results = lines("candidate", [0] * 40 + ["?"] * 960)
    shifted = [line for line in results if line.not_asked][:1] + [line for line in results if not line.not_asked]
    assert decide(shifted + results[41:], SEQUENTIAL).verdict is Decision.INCONCLUSIVE


def test_sequential_bound_of_pairs_and_of_latencies():
    rules = gate(
        early_stop="sequential",
        require=[{"metric": "latency_ms.p50", "at_most": 100}],
        against={"base": {"metric": "score", "better_by": 0.0}},
    )
    candidate, base = lines("candidate", [1] * 60 + ["?"] * 900), lines("base", [0] * 60 + ["?"] * 900)
    verdict = decide(candidate + base, rules)
    assert verdict.verdict is Decision.PROMOTE
    assert {rule.decided_by for rule in verdict.rules} == {DecidedBy.SEQUENTIAL}


def test_missing_cases_count_twice_under_a_sequential_bound_too():
    rules = gate(early_stop="sequential", max_missing=0.5, require=[{"metric": "pass_rate", "at_least": 0.8}])

    def at(passed, missing):
        return decide(lines("candidate", [1] * passed + [None] * missing + ["?"] * 200), rules).verdict

    fewest = next(passed for passed in range(1, 60) if at(passed, 0) is Decision.PROMOTE)
    assert at(fewest, 1) is Decision.INCONCLUSIVE
    assert at(fewest + 20, 1) is Decision.PROMOTE


def test_complete_results_take_the_analysis_at_the_end():
    verdict = decide(lines("candidate", [1] * 120), SEQUENTIAL)
    assert verdict.decided_by is DecidedBy.ANALYSIS
    assert "Clopper-Pearson" in verdict.rules[0].method


# -- attempts -----------------------------------------------------------------------------------------------------


def test_every_attempt_halves_the_error_so_that_all_together_stay_within_the_budget():
    rules = gate(confidence=0.95)
    errors = [(1 - confidence_of(rules, attempt)) / 2 for attempt in range(1, 60)]
    assert errors[0] == pytest.approx(0.025)
    assert all(later == pytest.approx(former / 2) for former, later in itertools.pairwise(errors))
    assert math.fsum(errors) <= 0.05 + 1e-12
    sequential = gate(confidence=0.95, early_stop="sequential")
    assert confidence_of(sequential, 3) == confidence_of(rules, 4)


RULES_OF_EVERY_KIND = gate(
    require=[
        {"metric": "score", "at_least": 0.1},
        {"metric": "latency_ms.p50", "at_most": 1e6},
        {"metric": "latency_ms.mean", "at_most": 1e6},
    ],
    against={
        "champion": {"metric": "score", "margin": 0.9},
        "latency": {"of": "champion", "ratio_at_most": 100},
        "cost": {"of": "champion", "ratio_at_most": 100},
    },
    early_stop="sequential",
)


@pytest.mark.parametrize("attempt", [10, 60, 1100, 10**6])
def test_so_many_attempts_end_soon_and_promote_nothing(attempt):
    """Draws would double with each: the tenth takes half a million, the twentieth would take hours."""
    source = random.Random(1)
    graded = [
        line.but(score=source.random(), latency_ms=source.uniform(1, 9), cost_usd=source.uniform(1, 9))
        for arm in ("candidate", "champion")
        for line in lines(arm, [1] * 100)
    ]
    verdict = decide(graded, RULES_OF_EVERY_KIND, attempt=attempt)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert {rule.outcome for rule in verdict.rules if "p50" not in rule.rule} == {Outcome.INCONCLUSIVE}
    assert verdict.confidence < 1


@pytest.mark.parametrize(("attempt", "decision"), [(1, "promote"), (2, "inconclusive")])
def test_a_second_attempt_needs_clearer_evidence(attempt, decision):
    """105 of 120 has the lower bound 0.802 at 95 % and 0.792 at 97.5 %."""
    verdict = decide(lines("candidate", [1] * 105 + [0] * 15), FLOOR, attempt=attempt)
    assert verdict.verdict == decision
    assert verdict.attempt == attempt
    told = [reason for reason in verdict.reasons if "attempt 2" in reason]
    assert bool(told) is (attempt == 2)
    assert verdict.as_document()["confidence"] == verdict.confidence == pytest.approx(1 - 0.05 / attempt)


def test_attempts_count_from_one():
    with pytest.raises(ValueError, match="from 1"):
        decide(lines("candidate", [1] * 40), FLOOR, attempt=0)


def test_document_tells_what_stopped_it():
    document = decide(lines("candidate", [1] * 105 + ["?"] * 15), FLOOR).as_document()
    assert document["decided_by"] == "curtailment"
    assert document["not_asked"] == 15
    assert document["rules"][0]["outcome"] == Outcome.PASS
