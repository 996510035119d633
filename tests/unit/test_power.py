"""What a suite can show before it is run, against the gate's own decisions."""

from __future__ import annotations

import math
import random

import pytest

from slipway.evidence import align
from slipway.gate import Gate, decide
from slipway.paired_rates import EXACT_MAX_N, refutes
from slipway.power import design_notes
from slipway.results import Arm, CaseResult, CheckResult
from slipway.suite import load_suite
from slipway.suite_shape import CaseShape, SuiteShape

CHECKS = (CheckResult(type="equals", passed=True, score=1.0),)


def gate(**keys):
    return Gate.model_validate({"min_cases": 1, **keys}, strict=False)


def shape(n, *, tag=None, groups=None, coverage=1.0, **facts):
    """``n`` cases alike, in as many groups as said."""
    tags = frozenset() if tag is None else frozenset({tag})
    cases = [CaseShape(tags=tags, group=groups and f"g{index % groups}", **facts) for index in range(n)]
    return SuiteShape(cases, coverage=coverage)


def note(n, rules, *, has_champion=True, attempt=1, **facts):
    (only,) = design_notes(shape(n, **facts), rules, has_champion=has_champion, attempt=attempt)
    return only


def results(arm, outcomes):
    return [
        CaseResult(
            case=f"c{index}",
            arm=Arm(arm),
            output=f"{arm}{index}",
            passed=ok,
            score=float(ok),
            latency_ms=10.0,
            checks=CHECKS,
        )
        for index, ok in enumerate(outcomes)
    ]


FLOOR = gate(require=[{"metric": "pass_rate", "at_least": 0.9}])


def against_champion(margin):
    return gate(against={"champion": {"metric": "pass_rate", "margin": margin}})


MARGIN = against_champion(0.05)


@pytest.mark.parametrize(("n", "is_blind"), [(35, True), (36, False)])
def test_floor_is_blind_exactly_where_a_perfect_run_is_inconclusive(n, is_blind):
    made = note(n, FLOOR)
    assert made.is_blind is is_blind
    assert (decide(results("candidate", [True] * n), FLOOR).verdict == "inconclusive") is is_blind
    if is_blind:
        assert "it takes 36 cases" in made.sentence


@pytest.mark.parametrize(("n", "is_blind"), [(78, True), (79, False)])
def test_margin_is_blind_exactly_where_a_run_without_differences_is_inconclusive(n, is_blind):
    made = note(n, MARGIN)
    assert made.is_blind is is_blind
    assert made.margin == 0.05
    both = results("candidate", [True] * n) + results("champion", [True] * n)
    assert (decide(both, MARGIN).verdict == "inconclusive") is is_blind
    if is_blind:
        assert "would be inconclusive; it takes 79 cases" in made.sentence


@pytest.mark.parametrize(("n", "is_blind"), [(71, True), (72, False)])
def test_percentile_is_blind_without_an_upper_bound(n, is_blind):
    made = note(n, gate(require=[{"metric": "latency_ms.p95", "at_most": 800}]))
    assert made.is_blind is is_blind
    if is_blind:
        assert "no upper bound; it takes 72 cases" in made.sentence
    else:
        assert made.detectable == pytest.approx(0.05 - (1 - 0.8 ** (1 / 72)), abs=1e-6)


@pytest.mark.parametrize(("n", "is_blind"), [(5, True), (6, False)])
def test_superiority_is_blind_where_gaining_every_case_is_not_enough(n, is_blind):
    rules = gate(against={"base": {"metric": "pass_rate", "better_by": 0.0}})
    assert note(n, rules).is_blind is is_blind
    both = results("candidate", [True] * n) + results("base", [False] * n)
    assert (decide(both, rules).verdict == "inconclusive") is is_blind


def test_detectable_rate_passes_in_four_runs_of_five():
    made = note(200, FLOOR)
    rate = 0.9 + made.detectable
    enough = next(
        k
        for k in range(201)
        if decide(results("candidate", [True] * k + [False] * (200 - k)), FLOOR).verdict == "promote"
    )
    chance = math.fsum(math.comb(200, k) * rate**k * (1 - rate) ** (200 - k) for k in range(enough, 201))
    assert chance == pytest.approx(0.8, abs=1e-4)
    assert f"{rate:.3f}" in made.sentence


def test_ceiling_is_a_floor_on_what_fails():
    made = note(200, gate(require=[{"metric": "pass_rate", "at_most": 0.1}]))
    assert made.detectable == pytest.approx(note(200, FLOOR).detectable)
    assert "at most 0.0" in made.sentence


def test_power_at_a_margin_is_the_share_of_runs_that_pass():
    """Simulated: a candidate as good as the champion that answers every tenth case differently."""
    made = note(200, MARGIN)
    source, passed = random.Random(1), 0
    for _ in range(3000):
        draws = [source.random() for _ in range(200)]
        gains, losses = sum(draw < 0.05 for draw in draws), sum(0.05 <= draw < 0.1 for draw in draws)
        passed += refutes(gains, losses, 200, -0.05, 0.025)
    assert made.power == pytest.approx(passed / 3000, abs=0.03)
    assert made.power < 0.8


@pytest.mark.parametrize(("n", "margin"), [(50, 0.1), (120, 0.05), (120, 0.1), (200, 0.03), (900, 0.05)])
def test_smallest_margin_is_the_one_under_which_four_of_five_as_good_pass(n, margin):
    """Whatever the gate's own margin is."""
    made = note(n, against_champion(margin))
    shown = float(made.sentence.rpartition(" ")[2].rstrip("."))
    assert note(n, against_champion(shown)).power >= 0.8
    assert note(n, against_champion(shown - 0.001)).power < 0.8


def test_detectable_difference_agrees_with_the_formula():
    """(1.96 + 0.84) sqrt(w2 / n), which is about right for the exact test as well."""
    made = note(1000, MARGIN)
    assert made.detectable == pytest.approx(2.8 * math.sqrt(0.1 / 1000), rel=0.06)
    assert made.power > 0.99


def test_smallest_margin_of_thousands_goes_by_the_formula():
    exact, formula = (note(n, MARGIN).sentence.rpartition(" ")[2] for n in (1000, 1001))
    assert (exact, formula) == ("0.029.", "0.028.")


def test_detectable_gain_over_the_base():
    rules = gate(against={"base": {"metric": "score", "better_by": 0.1}})
    made = note(400, rules)
    assert 0.03 < made.detectable < 0.06
    assert made.power is None
    assert "where the candidate is better by 0.1" in made.sentence


def test_thousands_of_cases_take_the_formula():
    few, many = note(EXACT_MAX_N, MARGIN), note(EXACT_MAX_N + 1, MARGIN)
    assert many.detectable == pytest.approx(few.detectable, rel=0.02)


def test_no_failure_observed_says_what_would_be_seen():
    made = note(20, gate(require=[{"metric": "pass_rate", "tag": "safety", "at_least": 1.0}]), tag="safety")
    assert not made.is_blind
    assert made.detectable == pytest.approx(1 - 0.2 ** (1 / 20))


def test_tag_without_cases_is_blind():
    rules = gate(require=[{"metric": "pass_rate", "tag": "safety", "at_least": 0.5}])
    (made,) = design_notes(shape(100), rules, has_champion=True)
    assert made.is_blind
    assert "no case carries the tag 'safety'" in made.sentence
    assert all(made.is_blind for made in design_notes(shape(0), FLOOR, has_champion=True))


def test_suite_below_min_cases_is_blind_as_a_whole():
    first, *_ = design_notes(shape(29), gate(min_cases=30, require=FLOOR.require), has_champion=True)
    assert first.is_blind
    assert "inconclusive by design" in first.sentence
    assert not any(
        made.rule.startswith("min_cases")
        for made in design_notes(shape(30), gate(min_cases=30, require=FLOOR.require), has_champion=True)
    )


@pytest.mark.parametrize(
    ("rule", "needed"),
    [
        ({"latency": {"of": "champion", "ratio_at_most": 1.2}}, 8),
        ({"latency": {"of": "champion", "ratio_at_most": 1.2, "quantile": "p95"}}, 72),
        ({"cost": {"of": "champion", "ratio_at_most": 1.2}}, 8),
    ],
)
def test_ratios_depend_on_a_spread_that_is_not_known(rule, needed):
    assert note(needed - 1, gate(against=rule)).is_blind
    made = note(needed, gate(against=rule))
    assert not made.is_blind
    assert made.detectable is None


def test_mean_latency_needs_enough_for_a_bootstrap():
    rules = gate(require=[{"metric": "latency_ms.mean", "at_most": 800}])
    assert note(7, rules).is_blind
    assert not note(8, rules).is_blind


def test_rules_about_a_champion_are_left_out_without_one():
    rules = gate(
        against={
            "champion": {"metric": "score", "margin": 0.02},
            "latency": {"of": "champion", "ratio_at_most": 1.2},
            "cost": {"of": "base", "ratio_at_most": 1.2},
        }
    )
    assert len(design_notes(shape(300), rules, has_champion=True)) == 3
    (cost,) = design_notes(shape(300), rules, has_champion=False)
    assert cost.rule == "cost_usd against base ratio_at_most 1.2"


def test_later_attempts_and_sequential_gates_see_less():
    first, second = (note(300, MARGIN, attempt=attempt) for attempt in (1, 2))
    assert second.detectable > first.detectable
    assert second.power < first.power
    sequential = gate(early_stop="sequential", against={"champion": {"metric": "pass_rate", "margin": 0.05}})
    assert note(300, sequential).detectable == second.detectable


def test_names_are_those_of_the_verdict():
    rules = gate(require=FLOOR.require, against={"champion": {"metric": "pass_rate", "margin": 0.05}})
    verdict = decide(results("candidate", [True] * 100) + results("champion", [True] * 100), rules)
    notes = design_notes(shape(100), rules, has_champion=True)
    assert [made.rule for made in notes] == [rule.rule for rule in verdict.rules]


# -- what keeps a rule, or the whole gate, from passing ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "least"),
    [
        ({"require": [{"metric": "pass_rate", "at_least": 0.8}]}, 17),
        ({"require": [{"metric": "latency_ms.p50", "at_most": 800}]}, 6),
        ({"against": {"champion": {"metric": "score", "margin": 0.3}}}, 13),
        ({"against": {"base": {"metric": "score", "better_by": 0}}}, 6),
        ({"against": {"latency": {"of": "champion", "ratio_at_most": 3}}}, 8),
        ({"against": {"cost": {"of": "champion", "ratio_at_most": 3}}}, 8),
    ],
)
def test_a_rule_needs_no_fewer_cases_than_the_whole_gate(rules, least):
    few, made = design_notes(shape(5), gate(min_cases=30, **rules), has_champion=True)
    assert few.rule == "min_cases 30"
    assert made.is_blind
    assert "it takes 30" in made.sentence
    assert f"it takes {least}" in note(5, gate(**rules)).sentence


def test_a_tag_needs_cases_of_its_own():
    rules = gate(min_cases=30, require=[{"metric": "pass_rate", "tag": "safety", "at_least": 0.8}])
    cases = [CaseShape(tags=frozenset({"safety"} if index < 5 else ())) for index in range(40)]
    (made,) = design_notes(SuiteShape(cases), rules, has_champion=True)
    assert "it takes 17 cases with the tag" in made.sentence


def test_a_margin_that_no_suite_shows_says_so():
    made = note(100, gate(against={"champion": {"metric": "pass_rate", "margin": 1e-7}}))
    assert made.is_blind
    assert "not even 1000000 cases would do" in made.sentence
    assert "None" not in made.sentence


@pytest.mark.parametrize(
    "rules",
    [
        gate(require=[{"metric": "pass_rate", "at_least": 0.5}]),
        gate(against={"champion": {"metric": "pass_rate", "margin": 0.1}}),
        gate(against={"base": {"metric": "score", "better_by": 0.2}}),
    ],
)
def test_groups_are_blind_where_a_perfect_run_is_inconclusive(rules):
    """Fewer than 8 groups are never enough, and of those that are as few as the note says."""

    def decision(groups):
        ours, theirs = [True] * 200, [bool(rules.against.champion)] * 200
        lines = results("candidate", ours) + results("champion", theirs) + results("base", theirs)
        grouped = [line.but(group=f"g{int(line.case[1:]) % groups}") for line in lines]
        return decide(grouped, rules).verdict

    few = note(200, rules, groups=7)
    assert few.is_blind
    assert "200 cases in 7 groups" in few.sentence
    needed = int(few.sentence.split("it takes ")[1].split()[0])
    assert [decision(groups) for groups in (needed - 1, needed)] == ["inconclusive", "promote"]
    assert note(200, rules, groups=needed - 1).is_blind
    enough = note(200, rules, groups=needed)
    assert not enough.is_blind
    assert "how alike" in enough.sentence


def test_a_metric_that_no_check_feeds_is_blind():
    rules = gate(require=[{"metric": "metrics.tone", "at_least": 0.5}])
    assert "no case has the metric 'tone'" in note(50, rules).sentence
    assert not note(50, rules, metrics=frozenset({"tone"})).is_blind
    assert not note(50, rules, may_have_any_metric=True).is_blind
    compared = gate(against={"base": {"metric": "metrics.tone", "better_by": 0}})
    assert "no case has the metric 'tone'" in note(50, compared).sentence


def test_what_keeps_the_whole_gate_from_promoting_is_told_first():
    for made, reason in [
        (design_notes(shape(50, coverage=0.9), FLOOR, has_champion=True)[0], "90.0% of the suite's checks"),
        (design_notes(shape(50, is_checked=False), FLOOR, has_champion=True)[0], "No case of the suite has a check"),
        (design_notes(shape(50), gate(first_release="refuse"), has_champion=False)[0], "held by design"),
    ]:
        assert made.is_blind
        assert reason in made.sentence


def test_cases_without_a_check_are_told():
    cases = [CaseShape(is_checked=index > 2) for index in range(50)]
    told, _ = design_notes(SuiteShape(cases), FLOOR, has_champion=True)
    assert not told.is_blind
    assert "3 of 50 cases have no check" in told.sentence


def test_the_shape_of_a_suite_and_of_its_results(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        """
prompts: ["{{q}}"]
tests:
  - {vars: {q: a}, metadata: {tags: [x], group: d}, assert: [{type: contains, value: a, metric: tone}]}
  - {vars: {q: b}, metadata: {group: d}, assert: [{type: assert-set, assert: [{type: contains, value: a, metric: m}]}]}
  - {vars: {q: c}, assert: [{type: javascript, value: "true"}]}
  - {vars: {q: d}}
""",
        encoding="utf-8",
    )
    found = load_suite(path).shape
    assert found.extent() == (4, 3)
    assert found.extent(tag="x") == (1, 1)
    assert found.extent(metric="tone") == found.extent(metric="m") == (2, 2)
    assert (found.is_clustered, found.unchecked, found.coverage) == (True, 1, 1.0)
    line = CaseResult(case="a", arm=Arm.CANDIDATE, passed=True, score=1.0, tags=("x",), metrics={"tone": 1.0})
    recorded = align([line, line.but(case="b", tags=())]).shape
    assert recorded.extent(tag="x", metric="tone") == (1, 1)
    assert recorded.extent() == (2, 2)
