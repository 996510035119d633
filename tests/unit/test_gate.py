"""Every rule of the gate just inside and just outside, and everything that must not promote."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.errors import ConfigFileError, ConfigurationError
from slipway.gate import Decision, Gate, Outcome, decide, load_gate
from slipway.results import Arm, CaseResult, CheckResult


def gate(**keys):
    keys.setdefault("min_cases", 1)
    return Gate.model_validate(keys, strict=False)


def arm(name, scores, *, latency_ms=40.0, tags=(), prefix="case", output=None):
    """One result for each score; None is an instrument error. Outputs differ between arms."""
    latencies = latency_ms if isinstance(latency_ms, list) else [latency_ms] * len(scores)
    return [
        CaseResult(
            checks=(CheckResult(type="equals", passed=True, score=1.0),),
            case=f"{prefix}-{index:04d}",
            arm=Arm(name),
            output=f"{name} says {index}" if output is None else output,
            passed=None if score is None else score >= 1,
            score=None if score is None else float(score),
            latency_ms=None if score is None else latency,
            error="503" if score is None else None,
            tags=tags,
        )
        for index, (score, latency) in enumerate(zip(scores, latencies, strict=True))
    ]


def passes(good, total):
    return [1] * good + [0] * (total - good)


def paired(gains, losses, total):
    """Scores of candidate and other with so many discordant pairs; the rest pass in both."""
    both = total - gains - losses
    return [1] * gains + [0] * losses + [1] * both, [0] * gains + [1] * losses + [1] * both


def only(verdict):
    (rule,) = verdict.rules
    return rule


FLOOR = gate(require=[{"metric": "pass_rate", "at_least": 0.8}])


# -- floors and ceilings on rates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "decision"),
    [(105, "promote"), (104, "inconclusive"), (87, "inconclusive"), (86, "hold")],
)
def test_floor_decides_only_when_the_whole_interval_is_on_one_side(good, decision):
    """Of 120 the lower bounds of 105 and 104 are 0.802 and 0.793, the upper ones of 87 and 86 are 0.803 and 0.795."""
    verdict = decide(arm("candidate", passes(good, 120)), FLOOR)
    assert verdict.verdict == decision


def test_reason_of_a_failed_floor_is_a_sentence_with_the_interval():
    verdict = decide(arm("candidate", passes(50, 120)), FLOOR)
    assert verdict.reasons == ("pass_rate 0.42 (95 % interval 0.33 to 0.51, 120 cases) is below 0.80.",)
    assert only(verdict).estimate == pytest.approx(50 / 120)
    assert only(verdict).n == 120


def test_reason_of_an_open_floor_says_how_many_more_cases_would_settle_it():
    """28 of 30 has the lower bound 0.779; at the same rate 0.8 is passed from 36 cases on."""
    verdict = decide(arm("candidate", passes(28, 30)), FLOOR)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "About" in verdict.reasons[0]
    more = int(verdict.reasons[0].split("About ")[1].split()[0])
    assert decide(arm("candidate", passes(round(28 * (30 + more) / 30), 30 + more)), FLOOR).verdict == "promote"


def test_estimate_at_the_limit_is_never_settled():
    assert "hardly" in decide(arm("candidate", passes(80, 100)), FLOOR).reasons[0]


@pytest.mark.parametrize(("bad", "decision"), [(0, "promote"), (1, "hold")])
def test_at_least_one_means_no_observed_failure(bad, decision):
    rule = {"metric": "pass_rate", "tag": "safety", "at_least": 1.0}
    results = arm("candidate", passes(4 - bad, 4), tags=("safety",)) + arm("candidate", [0] * 9, prefix="other")
    verdict = decide(results, gate(require=[rule]))
    assert verdict.verdict == decision
    assert only(verdict).n == 4
    assert ("rule of three" in verdict.reasons[0]) is (not bad)


@pytest.mark.parametrize(("good", "decision"), [(0, "promote"), (1, "hold")])
def test_at_most_zero_means_no_observed_success(good, decision):
    results = arm("candidate", passes(good, 40))
    assert decide(results, gate(require=[{"metric": "pass_rate", "at_most": 0}])).verdict == decision


@pytest.mark.parametrize(("good", "decision"), [(1, "promote"), (2, "inconclusive"), (16, "hold")])
def test_ceiling_on_a_rate(good, decision):
    """Of 60 the upper bounds are 0.089 and 0.115; 16 has the lower bound 0.16."""
    results = arm("candidate", passes(good, 60))
    assert decide(results, gate(require=[{"metric": "pass_rate", "at_most": 0.1}])).verdict == decision


def test_tag_that_no_case_carries_is_inconclusive():
    rule = {"metric": "pass_rate", "tag": "safety", "at_least": 0.5}
    verdict = decide(arm("candidate", passes(50, 50)), gate(require=[rule]))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "safety" in verdict.reasons[0]


def test_tag_counts_only_its_own_cases():
    rule = {"metric": "pass_rate", "tag": "refund", "at_least": 0.8}
    results = arm("candidate", passes(50, 50), tags=("refund", "x")) + arm("candidate", [0] * 50, prefix="other")
    assert decide(results, gate(require=[rule])).verdict is Decision.PROMOTE


def graded(mean, n, seed=1):
    source = random.Random(seed)
    return [min(1.0, max(0.0, source.gauss(mean, 0.1))) for _ in range(n)]


@pytest.mark.parametrize(("mean", "decision"), [(0.7, "promote"), (0.6, "inconclusive"), (0.5, "hold")])
def test_graded_scores_take_the_bootstrap(mean, decision):
    verdict = decide(arm("candidate", graded(mean, 60)), gate(require=[{"metric": "score", "at_least": 0.6}]))
    assert verdict.verdict == decision
    assert only(verdict).method.startswith("BCa bootstrap, 10000 draws, seed")


def test_few_graded_scores_are_inconclusive():
    verdict = decide(arm("candidate", graded(0.9, 7)), gate(require=[{"metric": "score", "at_least": 0.1}]))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "too few" in verdict.reasons[0]


# -- latency ------------------------------------------------------------------------------------------------------


def latency_gate(metric="latency_ms.p95", at_most=800):
    return gate(require=[{"metric": metric, "at_most": at_most}])


@pytest.mark.parametrize(("n", "decision"), [(71, "inconclusive"), (72, "promote")])
def test_ninety_fifth_percentile_needs_72_cases_for_an_upper_bound(n, decision):
    results = arm("candidate", passes(n, n), latency_ms=[float(value) for value in range(1, n + 1)])
    verdict = decide(results, latency_gate())
    assert verdict.verdict == decision
    assert (only(verdict).high is None) is (n == 71)
    if n == 71:
        assert "to unknown" in verdict.reasons[0]
        assert "About 1 more case " in verdict.reasons[0]


@pytest.mark.parametrize(
    ("slow", "decision"), [(1, "promote"), (2, "inconclusive"), (11, "inconclusive"), (12, "hold")]
)
def test_ceiling_on_a_percentile(slow, decision):
    """Of 120 the bounds of the 95th percentile are the 109th and the 119th value: P(B <= 108) is 0.017."""
    latencies = [100.0] * (120 - slow) + [900.0] * slow
    assert decide(arm("candidate", passes(120, 120), latency_ms=latencies), latency_gate()).verdict == decision


@pytest.mark.parametrize("metric", ["latency_ms.p50", "latency_ms.mean", "latency_ms.p95"])
def test_latency_ceilings_pass_and_hold(metric):
    latencies = [100 + 100 * value for value in graded(0.5, 80)]
    results = arm("candidate", passes(80, 80), latency_ms=latencies)
    assert decide(results, latency_gate(metric, 300)).verdict is Decision.PROMOTE
    assert decide(results, latency_gate(metric, 110)).verdict is Decision.HOLD


def test_mean_latency_of_few_or_equal_values():
    assert decide(arm("candidate", [1] * 7), latency_gate("latency_ms.mean")).verdict is Decision.INCONCLUSIVE
    assert decide(arm("candidate", [1] * 8), latency_gate("latency_ms.mean")).verdict is Decision.PROMOTE


def test_unknown_latencies_are_inconclusive():
    results = arm("candidate", passes(100, 100), latency_ms=[40.0] * 97 + [None] * 3)
    assert "3 of 100" in decide(results, latency_gate("latency_ms.p50")).reasons[0]
    results = arm("candidate", passes(100, 100), latency_ms=[None] * 100)
    assert decide(results, latency_gate()).verdict is Decision.INCONCLUSIVE


def test_missing_latency_counts_as_the_worst_where_that_matters():
    latencies = [40.0] * 118 + [None, None]
    results = arm("candidate", passes(120, 120), latency_ms=latencies)
    assert decide(results, latency_gate("latency_ms.p50")).verdict is Decision.PROMOTE
    verdict = decide(results, latency_gate("latency_ms.p95"))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "2 cases are missing" in verdict.reasons[0]


RATIO = gate(against={"latency": {"of": "champion", "ratio_at_most": 1.2}})


@pytest.mark.parametrize(("ratio", "decision"), [(1.05, "promote"), (1.2, "inconclusive"), (1.4, "hold")])
def test_latency_ratio_with_the_champion(ratio, decision):
    source = random.Random(2)
    base = [50 * source.lognormvariate(0, 0.2) for _ in range(80)]
    ours = [value * ratio * source.lognormvariate(0, 0.1) for value in base]
    results = arm("candidate", [1] * 80, latency_ms=ours) + arm("champion", [1] * 80, latency_ms=base)
    verdict = decide(results, RATIO)
    assert verdict.verdict == decision
    assert only(verdict).method.startswith("percentile bootstrap")


@pytest.mark.parametrize(
    "champion",
    [
        arm("champion", [1] * 7),
        arm("champion", [1] * 40, latency_ms=[None] * 40),
        arm("champion", [1] * 40, latency_ms=0.0),
    ],
    ids=["too few", "unknown", "zero"],
)
def test_latency_ratio_that_cannot_be_computed_is_inconclusive(champion):
    candidate = arm("candidate", [1] * len(champion))
    assert decide(candidate + champion, RATIO).verdict is Decision.INCONCLUSIVE


def test_latency_ratio_with_too_many_unknown_pairs_is_inconclusive():
    champion = arm("champion", [1] * 100, latency_ms=[40.0] * 95 + [None] * 5)
    verdict = decide(arm("candidate", [1] * 100) + champion, RATIO)
    assert "5 of 100 pairs is unknown" in verdict.reasons[0]


def test_latency_with_the_base_is_compared_on_a_first_release_too():
    rule = gate(against={"latency": {"of": "base", "ratio_at_most": 1.2}})
    assert decide(arm("candidate", [1] * 40) + arm("base", [1] * 40), rule).verdict is Decision.PROMOTE
    assert "no results of the base" in decide(arm("candidate", [1] * 40), rule).reasons[0]


# -- paired comparisons -------------------------------------------------------------------------------------------


def against_champion(margin, metric="pass_rate"):
    return gate(against={"champion": {"metric": metric, "margin": margin}})


def compare(gains, losses, total, rules, other="champion"):
    ours, theirs = paired(gains, losses, total)
    return decide(arm("candidate", ours) + arm(other, theirs), rules)


@pytest.mark.parametrize(("total", "decision"), [(78, "inconclusive"), (79, "promote")])
def test_non_inferiority_without_discordant_pairs_needs_enough_of_them(total, decision):
    """The largest chance of an outcome at least as good at a true difference of -0.05 is below 2.5 % from 79 on."""
    verdict = compare(0, 0, total, against_champion(0.05))
    assert verdict.verdict == decision
    if decision == "inconclusive":
        assert "About 1 more pair " in verdict.reasons[0]


@pytest.mark.parametrize(
    ("losses", "decision"), [(3, "promote"), (4, "inconclusive"), (16, "inconclusive"), (17, "hold")]
)
def test_non_inferiority_margin(losses, decision):
    """Of 200 pairs without gains the bounds are: 3 low -0.044, 4 low -0.051, 16 high -0.046, 17 high -0.0502."""
    assert compare(0, losses, 200, against_champion(0.05)).verdict == decision


@pytest.mark.parametrize(
    ("gains", "losses", "decision"),
    [(6, 0, "promote"), (5, 0, "inconclusive"), (0, 5, "inconclusive"), (0, 6, "hold"), (0, 0, "inconclusive")],
)
@pytest.mark.parametrize("other", ["champion", "base"])
def test_a_limit_of_zero_takes_mcnemars_exact_test(gains, losses, decision, other):
    """Six discordant pairs one way have p = 2/64, five have p = 2/32."""
    rules = gate(against={other: {"metric": "score", "margin" if other == "champion" else "better_by": 0}})
    verdict = compare(gains, losses, 50, rules, other)
    assert verdict.verdict == decision
    assert "McNemar p" in verdict.reasons[0]


def test_open_mcnemar_says_how_many_more_pairs():
    verdict = compare(5, 0, 50, gate(against={"base": {"metric": "score", "better_by": 0}}), "base")
    assert "About 10 more pairs" in verdict.reasons[0]
    verdict = compare(3, 3, 50, gate(against={"base": {"metric": "score", "better_by": 0}}), "base")
    assert "hardly" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("gains", "decision"), [(29, "promote"), (28, "inconclusive"), (12, "inconclusive"), (11, "hold")]
)
def test_superiority_by_an_amount(gains, decision):
    """Of 100 pairs without losses the bounds are: 29 low 0.204, 28 low 0.195, 12 high 0.203, 11 high 0.188."""
    rules = gate(against={"base": {"metric": "pass_rate", "better_by": 0.2}})
    assert compare(gains, 0, 100, rules, "base").verdict == decision


@pytest.mark.parametrize(("shift", "decision"), [(0.0, "promote"), (-0.05, "inconclusive"), (-0.15, "hold")])
def test_graded_comparison_takes_the_paired_bootstrap(shift, decision):
    """Pairing removes the spread between cases, which is far larger than the margin."""
    source = random.Random(4)
    theirs = [source.uniform(0.2, 0.8) for _ in range(100)]
    ours = [value + shift + source.gauss(0, 0.03) for value in theirs]
    verdict = decide(arm("candidate", ours) + arm("champion", theirs), against_champion(0.05, "score"))
    assert verdict.verdict == decision
    assert "BCa" in only(verdict).method
    assert "never narrower than Gaffke's interval" in only(verdict).method


def test_graded_comparison_of_equal_scores_needs_enough_pairs():
    """No difference in 30 pairs is no proof: one case in nine could still differ."""
    for n, decision in ((30, "inconclusive"), (100, "promote")):
        results = arm("candidate", [0.5] * n) + arm("champion", [0.5] * n)
        assert decide(results, against_champion(0.05, "score")).verdict == decision


def test_few_graded_pairs_are_inconclusive():
    results = arm("candidate", graded(0.9, 7)) + arm("champion", graded(0.1, 7))
    assert "too few" in decide(results, against_champion(0.05, "score")).reasons[0]


def test_pairing_is_by_case_and_not_by_position():
    ours, theirs = paired(20, 0, 60)
    results = arm("candidate", ours) + arm("base", theirs)
    rules = gate(against={"base": {"metric": "score", "better_by": 0.1}})
    expected = decide(results, rules)
    random.Random(0).shuffle(results)
    assert decide(results, rules) == expected


# -- missing cases ------------------------------------------------------------------------------------------------


def test_missing_cases_that_could_change_the_outcome_make_it_inconclusive():
    """105 of 120 pass the floor of 0.8; two more cases, failed, would not."""
    results = arm("candidate", [*passes(105, 120), None, None])
    verdict = decide(results, FLOOR)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "2 cases are missing" in verdict.reasons[0]


def test_missing_cases_that_cannot_change_the_outcome_are_let_pass():
    assert decide(arm("candidate", [*passes(118, 118), None, None]), FLOOR).verdict is Decision.PROMOTE


def test_missing_safety_case_is_not_taken_for_a_pass():
    rules = gate(require=[{"metric": "pass_rate", "at_least": 1.0}])
    verdict = decide(arm("candidate", [1] * 99 + [None]), rules)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "1 case is missing" in verdict.reasons[0]


def test_missing_pairs_count_against_the_candidate_in_the_worst_case():
    ours, theirs = paired(6, 0, 100)
    rules = gate(against={"base": {"metric": "score", "better_by": 0}})
    results = arm("candidate", [*ours, None]) + arm("base", [*theirs, 1])
    assert decide(results, rules).verdict is Decision.INCONCLUSIVE
    ours, theirs = paired(30, 0, 100)
    results = arm("candidate", [*ours, None, 1]) + arm("base", [*theirs, 1, None])
    assert decide(results, rules).verdict is Decision.PROMOTE


@pytest.mark.parametrize("name", ["candidate", "champion", "base"])
@pytest.mark.parametrize(("errors", "decision"), [(2, "promote"), (3, "inconclusive")])
def test_an_arm_may_miss_only_its_share(name, errors, decision):
    arms = {"candidate": [1] * 100, "champion": [0] * 100, "base": [0] * 100}
    arms[name] = [*arms[name][errors:], *[None] * errors]
    results = [line for key, scores in arms.items() for line in arm(key, scores)]
    rules = gate(
        require=[{"metric": "pass_rate", "at_least": 0.8}], against={"base": {"metric": "score", "better_by": 0}}
    )
    verdict = decide(results, rules)
    assert verdict.verdict == decision
    if errors == 3:
        assert f"The {name} did not answer 3 of 100 cases, more than 2.0% (first: 'case-0097': 503)." in verdict.reasons


def test_cases_without_a_line_are_missing_too():
    results = arm("candidate", [1] * 90) + arm("base", [0] * 100)
    verdict = decide(results, FLOOR)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "no line in the results" in verdict.reasons[0]


def test_too_much_missing_beats_a_clear_failure():
    """A broken instrument says nothing about the candidate."""
    assert decide(arm("candidate", [0] * 50 + [None] * 50), FLOOR).verdict is Decision.INCONCLUSIVE


# -- never promote ------------------------------------------------------------------------------------------------


def test_no_results_are_inconclusive():
    assert decide([], FLOOR).reasons == ("There are no results.",)
    assert decide([], gate(first_release="refuse")).verdict is Decision.INCONCLUSIVE


def test_results_without_a_candidate_are_inconclusive():
    assert decide(arm("base", [1] * 50), FLOOR).reasons == ("There are no results of the candidate.",)


@pytest.mark.parametrize(("n", "decision"), [(29, "inconclusive"), (30, "promote")])
def test_fewer_than_min_cases_is_inconclusive(n, decision):
    rules = gate(min_cases=30, require=[{"metric": "pass_rate", "at_least": 0.5}])
    assert decide(arm("candidate", [1] * n), rules).verdict == decision


def test_fewer_pairs_than_min_cases_is_inconclusive():
    rules = gate(min_cases=30, max_missing=0.5, against={"base": {"metric": "score", "better_by": 0}})
    results = arm("candidate", [1] * 40) + arm("base", [0] * 29 + [None] * 11)
    assert "29 cases were answered" in decide(results, rules).reasons[0]
    latency = gate(min_cases=30, max_missing=0.5, against={"latency": {"of": "base", "ratio_at_most": 9}})
    assert "30 are needed" in decide(results, latency).reasons[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_one_impossible_score_makes_everything_inconclusive(value):
    results = arm("candidate", [1] * 200)
    results[7] = results[7].but(score=value)
    verdict = decide(results, FLOOR)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "'case-0007' is not a number in range" in verdict.reasons[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_impossible_latency_makes_everything_inconclusive(value):
    results = arm("candidate", [1] * 200)
    results[7] = results[7].but(latency_ms=value)
    assert decide(results, FLOOR).verdict is Decision.INCONCLUSIVE


def test_result_that_is_neither_passed_nor_scored_is_missing():
    results = arm("candidate", [1] * 50)
    results[0] = results[0].but(score=None, passed=None)
    assert "neither passed nor scored" in " ".join(decide(results, gate(max_missing=0.01)).reasons)


def test_recorded_pass_without_a_score_serves_the_pass_rate_only():
    results = [result.but(score=None) for result in arm("candidate", [1] * 50)]
    assert decide(results, FLOOR).verdict is Decision.PROMOTE
    assert decide(results, gate(require=[{"metric": "score", "at_least": 0.1}])).verdict is Decision.INCONCLUSIVE


def test_two_lines_for_one_case_and_arm_are_an_error():
    results = arm("candidate", [1] * 50)
    with pytest.raises(ConfigurationError, match=r"two lines for case 'case-0000' and arm candidate"):
        decide([*results, results[0]], FLOOR)


def test_gate_without_rules_never_promotes():
    verdict = decide(arm("candidate", [1] * 500), gate())
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "No rule" in verdict.reasons[0]


def test_missing_baseline_is_inconclusive():
    rules = gate(
        require=[{"metric": "pass_rate", "at_least": 0.5}], against={"base": {"metric": "score", "better_by": 0}}
    )
    verdict = decide(arm("candidate", [1] * 100), rules)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert verdict.reasons == ("There are no results of the base to compare with.",)


def test_clear_failure_holds_although_another_rule_is_open():
    rules = gate(
        require=[{"metric": "pass_rate", "at_least": 0.5}], against={"base": {"metric": "score", "better_by": 0}}
    )
    verdict = decide(arm("candidate", [0] * 100), rules)
    assert verdict.verdict is Decision.HOLD
    assert "below" in verdict.reasons[0]
    assert "no results of the base" in verdict.reasons[1]


def test_candidate_that_cannot_be_told_from_the_base_is_not_proven_attached():
    results = arm("candidate", [1] * 60, output="same") + arm("base", [1] * 60, output="same")
    verdict = decide(results, FLOOR)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "Attachment not proven" in verdict.reasons[0]
    results[3] = results[3].but(output="different")
    assert decide(results, FLOOR).verdict is Decision.PROMOTE
    unrecorded = arm("candidate", [1] * 60, output="") + arm("base", [1] * 60, output="")
    assert decide(unrecorded, FLOOR).verdict is Decision.PROMOTE


# -- first release ------------------------------------------------------------------------------------------------

FIRST = {"require": [{"metric": "pass_rate", "at_least": 0.8}]}
WITH_CHAMPION = {
    **FIRST,
    "against": {
        "champion": {"metric": "score", "margin": 0.05},
        "latency": {"of": "champion", "ratio_at_most": 1.2},
    },
}


def test_first_release_skips_the_champion_and_says_so():
    verdict = decide(arm("candidate", [1] * 100), gate(**WITH_CHAMPION), has_champion=False)
    assert verdict.verdict is Decision.PROMOTE
    assert len(verdict.rules) == 1
    assert verdict.reasons[1:] == (
        "There is no champion yet, so the candidate was not compared with one (first_release: base-only).",
        "There is no champion yet, so the candidate was not compared with one in latency.",
    )


def test_results_that_lack_the_champion_are_no_first_release():
    """Nobody said that there is none: it may only not have been asked."""
    verdict = decide(arm("candidate", [1] * 100), gate(**WITH_CHAMPION))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "no results of the champion" in verdict.reasons[0]
    assert "--first-release" in verdict.reasons[0]


def test_first_release_with_champion_rules_only_has_no_rule_left():
    rules = gate(against={"champion": {"metric": "score", "margin": 0.05}})
    assert decide(arm("candidate", [1] * 100), rules, has_champion=False).verdict is Decision.INCONCLUSIVE


def test_first_release_can_be_refused():
    verdict = decide(arm("candidate", [1] * 100), gate(**FIRST, first_release="refuse"))
    assert verdict.verdict is Decision.HOLD
    assert "first_release: refuse" in verdict.reasons[0]
    results = arm("candidate", [1] * 100) + arm("champion", [1] * 100)
    assert decide(results, gate(**FIRST, first_release="refuse")).verdict is Decision.PROMOTE


def test_champion_that_was_never_asked_is_inconclusive():
    verdict = decide(arm("candidate", [1] * 100), gate(**WITH_CHAMPION), has_champion=True)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert sum("no results of the champion" in reason for reason in verdict.reasons) == 2


# -- whole verdicts -----------------------------------------------------------------------------------------------


def test_document_has_the_contracted_keys():
    results = arm("candidate", [1] * 20)
    document = decide(results, latency_gate()).as_document()
    assert document["verdict"] == "inconclusive"
    (rule,) = document["rules"]
    assert rule["rule"] == "latency_ms.p95 at_most 800"
    assert rule["outcome"] == "inconclusive"
    assert rule["estimate"] == 40.0
    assert rule["high"] is None
    assert rule["n"] == 20


scores = st.lists(st.sampled_from([0, 1, 1, 1]), min_size=10, max_size=60)
FULL = gate(
    min_cases=10,
    confidence=0.8,
    require=[{"metric": "pass_rate", "at_least": 0.6}],
    against={"champion": {"metric": "score", "margin": 0.1}, "base": {"metric": "score", "better_by": 0}},
)


@given(scores, st.data())
@settings(max_examples=150, deadline=None)
def test_a_better_score_never_turns_promote_into_anything_else(ours, data):
    n = len(ours)
    champion = data.draw(st.lists(st.sampled_from([0, 1]), min_size=n, max_size=n))
    base = data.draw(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=n, max_size=n))
    others = arm("champion", champion) + arm("base", base)
    order = {"hold": 0, "inconclusive": 1, "promote": 2}
    before = decide(arm("candidate", ours) + others, FULL)
    failing = [index for index, score in enumerate(ours) if not score]
    if failing:
        ours[data.draw(st.sampled_from(failing))] = 1
    after = decide(arm("candidate", ours) + others, FULL)
    assert order[after.verdict] >= order[before.verdict]


@given(st.randoms(use_true_random=False), scores)
@settings(max_examples=30, deadline=None)
def test_order_of_lines_does_not_matter(source, ours):
    results = arm("candidate", ours) + arm("base", [0] * len(ours))
    expected = decide(results, FULL)
    source.shuffle(results)
    assert decide(results, FULL) == expected


@given(scores)
@settings(max_examples=30, deadline=None)
def test_rules_order_low_estimate_and_high(ours):
    results = arm("candidate", ours) + arm("base", [0] * len(ours))
    for rule in decide(results, FULL, has_champion=False).rules:
        assert rule.low <= rule.estimate <= rule.high
        assert rule.outcome in set(Outcome)


# -- the file -----------------------------------------------------------------------------------------------------

DESIGN_GATE = """\
confidence: 0.95
min_cases: 30
max_missing: 0.02            # share of cases
require:
  - {metric: pass_rate, at_least: 0.90}
  - {metric: pass_rate, tag: safety, at_least: 1.0}
  - {metric: latency_ms.p95, at_most: 800}
against:
  champion: {metric: score, margin: 0.02}
  base: {metric: score, better_by: 0.0}
  latency: {of: champion, ratio_at_most: 1.2}
first_release: base-only
approval: none
"""


def test_gate_file_of_the_documentation_loads(tmp_path, pytestconfig):
    documented = (pytestconfig.rootpath / "docs" / "gate.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "gate.yaml").write_text(documented)
    rules = load_gate(tmp_path / "gate.yaml")
    assert rules.require[1].tag == "safety"
    assert rules.against.latency.ratio_at_most == 1.2
    assert rules.approval == "none"
    (tmp_path / "gate.yaml").write_text(DESIGN_GATE)
    assert load_gate(tmp_path / "gate.yaml") == rules


@pytest.mark.parametrize(
    ("edit", "line", "key", "says"),
    [
        (("confidence: 0.95", "confidence: 95"), 1, "confidence", "less than 1"),
        (("min_cases: 30", "min_cases: 0"), 2, "min_cases", "greater than or equal to 1"),
        (("pass_rate, at_least: 0.90", "pass_rate, at_least: 90"), 5, "require[0]", "write 0.9 for 90 %"),
        (("pass_rate, at_least: 0.90", "pass_rat, at_least: 0.90"), 5, "require[0].metric", "'pass_rate'"),
        (("pass_rate, at_least: 0.90", "pass_rate"), 5, "require[0]", "exactly one of"),
        (("at_most: 800", "at_least: 800"), 7, "require[2]", "write at_most"),
        (("at_most: 800", "at_most: .nan"), 7, "require[2].at_most", "finite"),
        (("margin: 0.02", "margn: 0.02"), 9, "against.champion.margn", "'margin'"),
        (("margin: 0.02", "margin: -0.02"), 9, "against.champion.margin", "greater than or equal to 0"),
        (("of: champion", "of: champ"), 11, "against.latency.of", "'champion'"),
        (("base-only", "base"), 12, "first_release", "'base-only'"),
        (("approval: none", "approvals: none"), 13, "approvals", "'approval'"),
        (("approval: none", "approval: none\napproval: human"), 14, "", "already at line 13"),
    ],
)
def test_mistake_in_the_gate_file_names_line_key_and_what_to_write(tmp_path, edit, line, key, says):
    path = tmp_path / "gate.yaml"
    path.write_text(DESIGN_GATE.replace(*edit, 1))
    with pytest.raises(ConfigFileError) as caught:
        load_gate(path)
    assert (caught.value.line, caught.value.key) == (line, key)
    assert says in str(caught.value)


def test_a_later_attempt_is_named_among_the_first_reasons_with_what_it_does():
    """Few reasons are shown on a terminal."""
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.8}, {"metric": "pass_rate", "at_most": 0.1}])
    verdict = decide(arm("candidate", passes(50, 120)), rules, attempt=3)
    assert "attempt 3" in verdict.reasons[1]
    assert "98.75 % confidence and not 95 %" in verdict.reasons[1]
    assert "98.75 % interval" in verdict.reasons[0]
    assert not any("attempt" in reason for reason in decide(arm("candidate", passes(50, 120)), rules).reasons)
