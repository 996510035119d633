"""What the evidence itself may be wrong with, and the rules on groups, named metrics, sessions and costs."""

from __future__ import annotations

import random

import pytest

from slipway.errors import ConfigFileError, ConfigurationError
from slipway.gate import Decision, Gate, decide, load_gate
from slipway.results import Arm, CaseResult, CheckResult

FLOOR = {"require": [{"metric": "pass_rate", "at_least": 0.5}]}


CHECKS = (CheckResult(type="equals", passed=True, score=1.0),)


def gate(**keys):
    return Gate.model_validate({"min_cases": 1, **keys}, strict=False)


def lines(arm, n, *, score=1.0, **keys):
    """So many answers; a value that is callable is asked for each index."""
    made = []
    for index in range(n):
        values = {key: value(index) if callable(value) else value for key, value in {"score": score, **keys}.items()}
        values.setdefault("passed", values["score"] >= 1)
        made.append(
            CaseResult(
                case=f"case-{index:04d}",
                arm=Arm(arm),
                output=f"{arm} {index}",
                **{"checks": CHECKS, **values},
            )
        )
    return made


def only(verdict):
    (rule,) = verdict.rules
    return rule


# -- coverage -----------------------------------------------------------------------------------------------------

APPLIED = CheckResult(type="contains", passed=True, score=1.0)
UNSUPPORTED = CheckResult(type="python", passed=None, score=0.0)


def half_covered(arm, n=100):
    return lines(arm, n, checks=lambda index: (APPLIED, UNSUPPORTED) if index < n // 2 else (APPLIED, APPLIED))


@pytest.mark.parametrize(("least", "decision"), [(1.0, "inconclusive"), (0.76, "inconclusive"), (0.75, "promote")])
def test_checks_that_could_not_be_applied_lower_the_coverage(least, decision):
    verdict = decide(half_covered("candidate"), gate(min_coverage=least, **FLOOR))
    assert verdict.verdict == decision
    assert verdict.coverage == 0.75
    assert "Only 75.0% of the candidate's checks could be applied." in verdict.reasons
    if decision == "inconclusive":
        assert "python in 50 cases" in verdict.reasons[0]


def test_coverage_of_every_arm_counts():
    results = lines("candidate", 100, checks=(APPLIED,)) + half_covered("champion")
    verdict = decide(results, gate(**FLOOR))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "of the champion's checks" in verdict.reasons[0]


def test_a_check_that_every_arm_lacks_is_one_reason():
    """Three of them would hide all others: a report shows three at the top."""
    results = half_covered("candidate") + half_covered("champion") + lines("base", 100, checks=(UNSUPPORTED,) * 2)
    verdict = decide(results, gate(**FLOOR))
    (named,) = [rule.reason for rule in verdict.rules if rule.rule == "min_coverage 1"]
    assert named == (
        "Only 75.0% of the candidate's, 75.0% of the champion's and 0.0% of the base's checks could be applied, fewer "
        "than 100.0%: python in 100 cases."
    )


def test_full_coverage_is_not_mentioned():
    verdict = decide(lines("candidate", 100, checks=(APPLIED,)), gate(**FLOOR))
    assert verdict.coverage == 1
    assert not any("checks" in reason for reason in verdict.reasons)


# -- degenerate evidence ------------------------------------------------------------------------------------------


def test_candidate_that_is_the_champion_is_a_no_op():
    results = lines("candidate", 100, adapter_id="support/4") + lines("champion", 100, adapter_id="support/4")
    verdict = decide(results, gate(against={"champion": {"metric": "pass_rate", "margin": 0.1}}))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "the same adapter, 'support/4': there is nothing to release" in verdict.reasons[0]
    other = lines("candidate", 100, adapter_id="support/5") + results[100:]
    assert decide(other, gate(against={"champion": {"metric": "pass_rate", "margin": 0.1}})).verdict == "promote"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 2.0])
def test_impossible_named_metric_makes_everything_inconclusive(value):
    results = lines("candidate", 100, metrics=lambda index: {"tone": value if index == 7 else 1.0})
    verdict = decide(results, gate(**FLOOR))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "'case-0007' is not a number in range" in verdict.reasons[0]


def test_infinite_cost_makes_everything_inconclusive():
    results = lines("candidate", 100, cost_usd=lambda index: float("inf") if index == 3 else 0.1)
    assert decide(results, gate(**FLOOR)).verdict is Decision.INCONCLUSIVE


def test_one_case_decides_nothing_but_a_clear_failure_of_all():
    assert decide(lines("candidate", 1), gate(**FLOOR)).verdict is Decision.INCONCLUSIVE
    assert decide(
        lines("candidate", 1, score=0.0), gate(require=[{"metric": "pass_rate", "at_least": 1.0}])
    ).verdict == ("hold")


def test_what_is_said_of_one_case_is_in_the_singular():
    rules = [{"metric": "pass_rate", "at_least": 0.8}, {"metric": "latency_ms.p95", "at_most": 800}]
    against = {"champion": {"metric": "pass_rate", "margin": 0.1}, "base": {"metric": "pass_rate", "better_by": 0}}
    results = [line for arm in ("candidate", "champion", "base") for line in lines(arm, 1, latency_ms=90.0)]
    floor, slow, champion, base = [rule.reason for rule in decide(results, gate(require=rules, against=against)).rules]
    assert "(95 % interval 0.03 to 1.00, 1 case)" in floor
    assert "(95 % interval unknown, 1 case)" in slow
    assert "(0 cases gained, 0 lost) 0.00 (95 % interval -0.98 to 0.98, 1 pair)" in champion
    assert "1 pair) may be above or below 0" in base
    (every,) = decide(results, gate(require=[{"metric": "pass_rate", "at_least": 1.0}])).rules
    assert every.reason.startswith("pass_rate is 1 on the only case; by the rule of three")
    (few,) = decide(results, gate(against={"latency": {"of": "champion", "ratio_at_most": 2}})).rules
    assert few.reason == "1 case was answered and measured by both the candidate and the champion; 8 are needed."


def test_all_fail_in_both_arms_is_a_hold_by_the_floor_although_no_pair_differs():
    rules = gate(**FLOOR, against={"champion": {"metric": "pass_rate", "margin": 0.1}})
    results = lines("candidate", 100, score=0.0) + lines("champion", 100, score=0.0)
    assert [rule.outcome for rule in decide(results, rules).rules] == ["fail", "pass"]
    assert decide(results, rules).verdict is Decision.HOLD


def test_two_groups_for_one_case_are_an_error():
    results = lines("candidate", 10, group="a") + lines("base", 10, group="b")
    with pytest.raises(ConfigurationError, match="into two groups, 'a' and 'b'"):
        decide(results, gate(**FLOOR))


# -- groups -------------------------------------------------------------------------------------------------------


def by(size):
    return lambda index: f"document {index // size}"


def test_groups_widen_what_copies_would_narrow():
    """96 of 120 cases pass, but in blocks: twelve documents of ten, and of them whole ones fail."""
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.7}])
    scores = {"score": lambda index: float(index % 120 >= 24)}
    alone, grouped = (decide(lines("candidate", 120, group=group, **scores), rules) for group in (None, by(12)))
    assert alone.verdict is Decision.PROMOTE
    assert grouped.verdict is Decision.INCONCLUSIVE
    assert only(grouped).low < only(alone).low - 0.1
    assert only(grouped).method.startswith("cluster percentile bootstrap")
    assert "10 groups" in only(grouped).method


def test_groups_of_one_case_are_no_groups():
    rules = gate(**FLOOR)
    assert decide(lines("candidate", 60, group=by(1)), rules) == decide(lines("candidate", 60), rules)


def test_cases_without_a_group_are_their_own():
    group = lambda index: "document" if index < 5 else None  # noqa: E731  # read as a table
    verdict = decide(lines("candidate", 60, group=group, score=lambda index: float(index % 6 > 0)), gate(**FLOOR))
    assert "56 groups" in only(verdict).method
    assert "cluster BCa" in only(verdict).method


@pytest.mark.parametrize(("groups", "decision"), [(7, "inconclusive"), (8, "promote")])
def test_too_few_groups_are_inconclusive(groups, decision):
    verdict = decide(lines("candidate", groups * 20, group=by(20)), gate(**FLOOR))
    assert verdict.verdict == decision
    if groups == 7:
        assert "7 groups are too few" in verdict.reasons[0]


def test_paired_comparisons_are_clustered_too():
    """Twelve losses of 200 in one document are one accident, in twelve documents they are twelve."""
    rules = gate(against={"champion": {"metric": "pass_rate", "margin": 0.0}})
    champion = lines("champion", 200, group=by(2))

    def losing(which):
        return lines("candidate", 200, group=by(2), score=lambda index: float(index not in which))

    spread = decide(losing(set(range(0, 192, 8))) + champion, rules)
    assert only(spread).method.startswith("cluster BCa bootstrap")
    assert "sign-flip permutation test" in only(spread).method
    assert spread.verdict is Decision.HOLD
    few = decide(losing({0, 1, 2, 3}) + champion, rules)
    assert few.verdict is Decision.INCONCLUSIVE


def test_clustered_interval_is_never_narrower_than_the_exact_one():
    """Two failures in a hundred pairs of cases: no draw shows what was not seen, the exact interval does."""
    ours = lines("candidate", 200, group=by(2), score=lambda index: float(index not in {3, 90}))
    grouped, alone = (
        only(decide(results, gate(require=[{"metric": "pass_rate", "at_least": 0.9}])))
        for results in (ours, [line.but(group=None) for line in ours])
    )
    assert grouped.low <= alone.low
    assert grouped.high >= alone.high
    assert "never narrower than Gaffke's interval at" in grouped.method


def test_clustered_scores_need_groups_in_comparisons_too():
    rules = gate(against={"champion": {"metric": "score", "margin": 0.1}})
    results = lines("candidate", 60, group=by(10)) + lines("champion", 60, group=by(10))
    assert "6 groups are too few" in decide(results, rules).reasons[0]


def test_a_sign_flip_test_is_made_as_well():
    rules = gate(against={"base": {"metric": "score", "better_by": 0.0}})
    source = random.Random(3)
    differences = [0.0] * 30 + [source.uniform(0.2, 0.3) for _ in range(29)] + [-0.25]
    candidate = lines("candidate", 60, score=lambda index: 0.5 + differences[index])
    verdict = decide(candidate + lines("base", 60, score=0.5), rules)
    assert "sign-flip permutation test p = " in only(verdict).method
    assert verdict.verdict is Decision.PROMOTE


# -- named metrics ------------------------------------------------------------------------------------------------


def toned(arm, n, value, **keys):
    return lines(arm, n, metrics=lambda index: {"tone": value} if index % 2 else {}, **keys)


@pytest.mark.parametrize(("value", "decision"), [(0.9, "promote"), (0.8, "inconclusive"), (0.3, "hold")])
def test_floor_on_a_named_metric_counts_the_cases_that_have_it(value, decision):
    source = random.Random(1)
    results = lines(
        "candidate", 120, metrics=lambda index: {"tone": value + source.uniform(-0.1, 0.1)} if index % 2 else {}
    )
    verdict = decide(results, gate(require=[{"metric": "metrics.tone", "at_least": 0.8}]))
    assert verdict.verdict == decision
    assert only(verdict).n == 60
    assert only(verdict).rule == "metrics.tone at_least 0.8"


def test_named_metric_that_no_case_has_is_inconclusive():
    verdict = decide(lines("candidate", 60), gate(require=[{"metric": "metrics.tone", "at_least": 0.1}]))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "No case has the metric 'tone'" in verdict.reasons[0]
    rules = gate(against={"base": {"metric": "metrics.tone", "better_by": 0.0}})
    assert (
        "No case has a value for metrics.tone" in decide(lines("candidate", 60) + lines("base", 60), rules).reasons[0]
    )


def test_named_metrics_are_compared_on_the_cases_that_have_them():
    rules = gate(against={"base": {"metric": "metrics.tone", "better_by": 0.1}})
    verdict = decide(toned("candidate", 120, 1.0) + toned("base", 120, 0.0), rules)
    assert verdict.verdict is Decision.PROMOTE
    assert only(verdict).n == 60


def test_answer_without_the_metric_that_another_arm_has_is_missing():
    """A safety metric that the candidate's line lacks must not count as passed."""
    candidate = toned("candidate", 120, 1.0)
    candidate[1] = candidate[1].but(metrics={})
    rules = gate(require=[{"metric": "metrics.tone", "at_least": 1.0}])
    assert decide(candidate + toned("base", 120, 0.0), rules).verdict is Decision.INCONCLUSIVE
    failed = candidate[1].but(error="503", passed=None, score=None)
    assert decide([candidate[0], failed, *candidate[2:]], rules).verdict is Decision.INCONCLUSIVE


@pytest.mark.parametrize(("metric", "says"), [("metrics.", "metrics.NAME"), ("tone", "metrics.NAME")])
def test_misspelt_metric_is_refused_with_what_to_write(tmp_path, metric, says):
    path = tmp_path / "gate.yaml"
    path.write_text(f"require:\n  - {{metric: {metric}, at_least: 0.5}}\n")
    with pytest.raises(ConfigFileError, match=says):
        load_gate(path)
    path.write_text(f"against:\n  base: {{metric: {metric}, better_by: 0}}\n")
    with pytest.raises(ConfigFileError, match=says) as caught:
        load_gate(path)
    assert (caught.value.line, caught.value.key) == (2, "against.base.metric")


# -- sessions and quantiles of latency ----------------------------------------------------------------------------


def timed(arm, n, factor=1.0, *, session="one", seed=2, slow_from=None):
    source = random.Random(seed)
    base = [50 * source.lognormvariate(0, 0.2) for _ in range(n)]
    slow = sorted(base)[slow_from] if slow_from is not None else float("inf")
    return lines(arm, n, latency_ms=lambda index: base[index] * (factor if base[index] < slow else 3), session=session)


def test_latencies_of_different_sessions_are_not_compared():
    rules = gate(against={"latency": {"of": "champion", "ratio_at_most": 1.2}})
    apart = timed("candidate", 80, session="yesterday") + timed("champion", 80)
    verdict = decide(apart, rules)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert "80 more were asked in different sessions" in verdict.reasons[0]
    mixed = timed("candidate", 80, session=lambda index: "one" if index < 60 else "two") + timed("champion", 80)
    verdict = decide(mixed, rules)
    assert verdict.verdict is Decision.PROMOTE
    assert only(verdict).n == 60


def test_reason_of_a_latency_ratio_has_the_robust_shift():
    rules = gate(against={"latency": {"of": "champion", "ratio_at_most": 1.5}})
    candidate = lines("candidate", 80, latency_ms=lambda index: 60.0 + index)
    champion = lines("champion", 80, latency_ms=lambda index: 50.0 + index)
    assert "The typical shift is +10.0 ms (Hodges-Lehmann)." in decide(candidate + champion, rules).reasons[0]


def test_ratio_of_95th_percentiles_sees_a_slow_tail_that_the_median_does_not():
    median, tail = (
        gate(against={"latency": {"of": "champion", "ratio_at_most": 1.2, "quantile": quantile}})
        for quantile in ("p50", "p95")
    )
    results = timed("candidate", 200, slow_from=180) + timed("champion", 200)
    assert decide(results, median).verdict is Decision.PROMOTE
    verdict = decide(results, tail)
    assert verdict.verdict is Decision.HOLD
    assert only(verdict).rule == "latency_ms.p95 against champion ratio_at_most 1.2"


@pytest.mark.parametrize(("n", "decision"), [(71, "inconclusive"), (72, "promote")])
def test_ratio_of_95th_percentiles_takes_as_many_pairs_as_their_bound(n, decision):
    rules = gate(against={"latency": {"of": "champion", "ratio_at_most": 1.2, "quantile": "p95"}})
    assert decide(timed("candidate", n) + timed("champion", n), rules).verdict == decision


# -- costs --------------------------------------------------------------------------------------------------------


def priced(arm, n, factor=1.0, seed=4):
    source = random.Random(seed)
    return lines(arm, n, cost_usd=lambda _: factor * 1e-4 * source.lognormvariate(0, 0.3))


COST = {"against": {"cost": {"of": "champion", "ratio_at_most": 1.2}}}


@pytest.mark.parametrize(("factor", "decision"), [(1.0, "promote"), (1.2, "inconclusive"), (1.5, "hold")])
def test_ratio_of_costs(factor, decision):
    verdict = decide(priced("candidate", 100, factor, seed=5) + priced("champion", 100), gate(**COST))
    assert verdict.verdict == decision
    assert only(verdict).rule == "cost_usd against champion ratio_at_most 1.2"
    assert "BCa bootstrap" in only(verdict).method


@pytest.mark.parametrize(
    ("champion", "says"),
    [
        (lines("champion", 100), "give the target its prices"),
        (lines("champion", 100, cost_usd=0.0), "a cost above 0 on fewer than 8 cases"),
        (lines("champion", 100, cost_usd=lambda index: 0.1 if index < 5 else None), "5 cases were answered"),
        (lines("champion", 100, cost_usd=lambda index: 0.1 if index < 90 else None), "cost of 10 of 100 pairs"),
        ([], "no results of the champion"),
    ],
    ids=["unknown", "zero", "few", "too many unknown", "nobody"],
)
def test_ratio_of_costs_that_cannot_be_computed_is_inconclusive(champion, says):
    verdict = decide(priced("candidate", 100) + champion, gate(**COST), has_champion=True)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert says in verdict.reasons[0]


def test_ratio_of_costs_in_too_few_groups_is_inconclusive():
    results = [line.but(group="one") for line in priced("candidate", 50) + priced("champion", 50)]
    assert "1 group is too few" in decide(results, gate(**COST)).reasons[0]


def test_cost_with_a_champion_is_left_out_on_a_first_release():
    verdict = decide(priced("candidate", 100), gate(**FLOOR, **COST), has_champion=False)
    assert verdict.verdict is Decision.PROMOTE
    assert verdict.reasons[-1] == "There is no champion yet, so the candidate was not compared with one in cost."


@pytest.mark.parametrize(("ceiling", "decision"), [(2e-4, "promote"), (1.05e-4, "inconclusive"), (5e-5, "hold")])
def test_ceiling_on_the_mean_cost(ceiling, decision):
    verdict = decide(priced("candidate", 100), gate(require=[{"metric": "cost_usd.mean", "at_most": ceiling}]))
    assert verdict.verdict == decision
    assert "USD" in verdict.reasons[0]


def test_mean_cost_of_unknown_costs_is_inconclusive():
    rules = gate(require=[{"metric": "cost_usd.mean", "at_most": 1.0}])
    assert decide(lines("candidate", 100), rules).verdict is Decision.INCONCLUSIVE
    some = lines("candidate", 100, cost_usd=lambda index: 0.1 if index < 97 else None)
    assert "The cost of 3 of 100 cases is unknown." in decide(some, rules).reasons[0]
    assert decide(lines("candidate", 100, cost_usd=0.1), rules).verdict is Decision.PROMOTE


def test_cost_is_bounded_from_above_only(tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("require:\n  - {metric: cost_usd.mean, at_least: 0.5}\n")
    with pytest.raises(ConfigFileError, match="write at_most, in US dollars"):
        load_gate(path)


def test_answers_that_nobody_checked_promote_nothing():
    """Without a check everything passes; a gate on latency alone does not ask."""
    unchecked = lines("candidate", 50, checks=())
    verdict = decide(unchecked, gate(require=[{"metric": "pass_rate", "at_least": 0.5}]))
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert verdict.is_obstructed
    assert "No answer of the candidate was checked" in verdict.reasons[0]
    unsupported = lines("candidate", 50, checks=(CheckResult(type="python", passed=None, score=0.0),))
    lenient = gate(require=[{"metric": "pass_rate", "at_least": 0.5}], min_coverage=0.0)
    assert "No answer of the candidate was checked" in decide(unsupported, lenient).reasons[0]
    fast = gate(require=[{"metric": "latency_ms.p50", "at_most": 1e6}])
    assert decide(lines("candidate", 50, checks=(), latency_ms=5.0), fast).verdict is Decision.PROMOTE


def test_some_answers_without_a_check_are_told():
    results = lines("candidate", 50)
    results[3] = results[3].but(checks=())
    verdict = decide(results, gate(require=[{"metric": "pass_rate", "at_least": 0.5}]))
    assert verdict.verdict is Decision.PROMOTE
    assert "1 of 50 cases have no check: they pass whatever is answered." in verdict.reasons


@pytest.mark.parametrize("mixed", ["candidate", "champion", "base"])
def test_an_arm_of_two_adapters_decides_nothing(mixed):
    results = [line for who in ("candidate", "champion", "base") for line in lines(who, 50, adapter_id=f"{who}/1")]
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.5}])
    assert decide(results, rules).verdict is Decision.PROMOTE
    results = [
        line.but(adapter_id="x/2") if line.arm == mixed and line.case.endswith("7") else line for line in results
    ]
    verdict = decide(results, rules)
    assert verdict.is_obstructed
    assert f"The {mixed}'s results are those of 2 adapters, '{mixed}/1' and 'x/2'" in verdict.reasons[0]
