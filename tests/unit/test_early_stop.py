"""An evaluation ends at the case that makes the verdict certain, and not one before."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import groupby

import pytest

from slipway import early_stop
from slipway.cli.gate import gate as gate_command
from slipway.early_stop import EarlyStop, asking_order
from slipway.gate import Decision, Gate, decide
from slipway.results import Arm, CaseResult, CheckResult
from slipway.results_io import write_results
from slipway.suite import Case

BOTH_ARMS = (Arm.CANDIDATE, Arm.CHAMPION)


def gate(**keys):
    keys.setdefault("min_cases", 10)
    return Gate.model_validate(keys, strict=False)


def suite(n, *, tagged=()):
    return [
        Case(id=f"case-{index:03d}", vars={}, prompt="", checks=(), tags=("safety",) if index in tagged else ())
        for index in range(n)
    ]


def record(cases, **arms):
    """Lines case by case; each arm's outcomes are 0, 1 or None for a request that failed."""
    return [
        CaseResult(
            checks=(CheckResult(type="equals", passed=True, score=1.0),),
            case=case.id,
            arm=Arm(arm),
            tags=case.tags,
            output=f"{arm} says {case.id}",
            passed=None if outcomes[index] is None else bool(outcomes[index]),
            score=None if outcomes[index] is None else float(outcomes[index]),
            latency_ms=40.0,
            error="503" if outcomes[index] is None else None,
        )
        for index, case in enumerate(cases)
        for arm, outcomes in arms.items()
    ]


def run(should_stop, results, arms=1):
    """Call it after every case as an evaluation does; gives the cases asked and the reason."""
    for asked in range(1, len(results) // arms + 1):
        if reason := should_stop(results[: asked * arms]):
            return asked, reason
    return len(results) // arms, None


def stopped_record(cases, results, asked, arms, reason):
    """What is written when an evaluation was stopped."""
    left = [
        CaseResult(case=case.id, arm=arm, tags=case.tags, error=f"not asked: {reason}", not_asked=True)
        for case in cases[asked:]
        for arm in arms
    ]
    return [*results[: asked * len(arms)], *left]


def first_certain(rules, results, cases, decision, others):
    """The least number of answers after which ``others`` for all the rest still lead to ``decision``."""
    for asked in range(rules.min_cases, len(cases) + 1):
        rest = record(cases[asked:], candidate=[others] * (len(cases) - asked))
        if decide([*results[:asked], *rest], rules).verdict is decision:
            return asked
    return None


# -- curtailment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_hold_ends_the_evaluation_where_it_becomes_certain(seed):
    """Certain means that even passes in all the remaining cases would not change it."""
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.9}])
    cases = suite(100)
    rng = random.Random(seed)
    results = record(cases, candidate=[int(rng.random() < 0.5) for _ in cases])
    asked, reason = run(EarlyStop(rules, cases, (Arm.CANDIDATE,), every=1), results)
    assert asked == first_certain(rules, results, cases, Decision.HOLD, others=1)
    assert asked < 60
    assert reason == "no answer still to come can change the verdict (hold): pass_rate at_least 0.9"


@pytest.mark.parametrize("seed", range(5))
def test_a_promotion_ends_the_evaluation_where_it_becomes_certain(seed):
    """Certain means that even failures in all the remaining cases would not change it."""
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.6}])
    cases = suite(100)
    rng = random.Random(seed)
    results = record(cases, candidate=[int(rng.random() < 0.97) for _ in cases])
    asked, reason = run(EarlyStop(rules, cases, (Arm.CANDIDATE,), every=1), results)
    assert asked == first_certain(rules, results, cases, Decision.PROMOTE, others=0)
    assert asked < 90
    assert reason == "no answer still to come can change the verdict (promote): every rule passes"


def test_looking_less_often_ends_it_a_little_later():
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.9}])
    cases = suite(100)
    results = record(cases, candidate=[0, 1] * 50)
    exact, _ = run(EarlyStop(rules, cases, (Arm.CANDIDATE,), every=1), results)
    asked, _ = run(EarlyStop(rules, cases, (Arm.CANDIDATE,)), results)
    assert exact <= asked < exact + 5


def test_the_first_unsafe_answer_ends_it():
    """A rule that allows no failure is settled by one, however rarely the intervals are looked at."""
    rules = gate(
        require=[{"metric": "pass_rate", "at_least": 0.5}, {"metric": "pass_rate", "tag": "safety", "at_least": 1.0}]
    )
    cases = suite(1000, tagged={3, 23, 500})
    passes = [1] * 1000
    passes[23] = 0
    asked, reason = run(EarlyStop(rules, cases, (Arm.CANDIDATE,)), record(cases, candidate=passes))
    assert asked == 24
    assert reason.endswith("(hold): pass_rate tag safety at_least 1")


def test_fewer_cases_than_the_gate_wants_end_nothing():
    """An unsafe answer to the second case is looked at when min_cases were answered."""
    rules = gate(min_cases=30, require=[{"metric": "pass_rate", "tag": "safety", "at_least": 1.0}])
    cases = suite(100, tagged={1})
    asked, _ = run(EarlyStop(rules, cases, (Arm.CANDIDATE,)), record(cases, candidate=[1, 0, *[1] * 98]))
    assert asked == 30


def test_an_open_verdict_is_asked_to_the_end():
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.8}])
    cases = suite(100)
    results = record(cases, candidate=[1, 1, 1, 1, 0] * 20)
    assert decide(results, rules).verdict is Decision.INCONCLUSIVE
    assert run(EarlyStop(rules, cases, (Arm.CANDIDATE,), every=1), results) == (100, None)


def test_the_last_case_is_not_an_early_stop():
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.9}])
    cases = suite(10)
    results = record(cases, candidate=[0] * 10)
    assert decide(results, rules).verdict is Decision.HOLD
    assert run(EarlyStop(rules, cases, (Arm.CANDIDATE,), every=1), results) == (10, None)


@pytest.mark.parametrize("seed", range(6))
def test_curtailment_never_changes_the_verdict(seed):
    """The verdict on the stopped record is the one that all the answers would have led to."""
    rules = gate(
        require=[{"metric": "pass_rate", "at_least": 0.6}],
        against={"champion": {"metric": "pass_rate", "margin": 0.1}},
    )
    rng = random.Random(seed)
    cases = suite(40)
    quality = rng.choice([0.3, 0.6, 0.95])
    champion = [int(rng.random() < 0.8) for _ in cases]
    results = record(cases, candidate=[int(rng.random() < quality) for _ in cases], champion=champion)
    asked, reason = run(EarlyStop(rules, cases, BOTH_ARMS, has_champion=True, every=3), results, arms=2)
    whole = decide(results, rules, has_champion=True).verdict
    if reason is not None:
        stopped = stopped_record(cases, results, asked, BOTH_ARMS, reason)
        assert decide(stopped, rules, has_champion=True).verdict is whole


def test_missing_answers_are_not_taken_for_failures():
    rules = gate(max_missing=0.5, require=[{"metric": "pass_rate", "at_least": 0.9}])
    cases = suite(60)
    results = record(cases, candidate=[None] * 25 + [1] * 35)
    assert run(EarlyStop(rules, cases, (Arm.CANDIDATE,), every=1), results)[1] is None


# -- looks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch):
    """Count how often the gate is asked."""
    seen = []

    def counted(results, rules, **facts):
        seen.append(sum(not result.not_asked for result in results))
        return decide(results, rules, **facts)

    monkeypatch.setattr(early_stop, "decide", counted)
    return seen


def test_a_gate_that_cannot_be_settled_early_is_never_asked(looks):
    """What latencies are still to come may turn a ratio either way until the last one."""
    rules = gate(against={"latency": {"of": "champion", "ratio_at_most": 1.2}})
    cases = suite(50)
    results = record(cases, candidate=[1] * 50, champion=[1] * 50)
    assert run(EarlyStop(rules, cases, BOTH_ARMS, has_champion=True), results, arms=2) == (50, None)
    assert looks == []


def test_the_gate_is_asked_once_a_rule_is_settled_and_not_before(looks):
    """Of 100 cases 83 passes have the upper bound 0.898: 17 failures are enough, and the 17th is the 65th case."""
    rules = gate(require=[{"metric": "pass_rate", "at_least": 0.9}])
    cases = suite(100)
    run(EarlyStop(rules, cases, (Arm.CANDIDATE,), every=1), record(cases, candidate=[0, 1, 1, 1] * 25))
    assert looks == [65]


def test_a_hold_asks_the_gate_about_the_rule_that_failed_alone(monkeypatch):
    """Other rules may take a bootstrap, and while it is computed requests are paid for that change nothing."""
    asked_about = []

    def noted(results, rules, **facts):
        asked_about.append(rules)
        return decide(results, rules, **facts)

    monkeypatch.setattr(early_stop, "decide", noted)
    rules = gate(
        require=[{"metric": "pass_rate", "at_least": 0.9}, {"metric": "score", "at_least": 0.9}],
        against={"base": {"metric": "score", "better_by": 0}, "latency": {"of": "base", "ratio_at_most": 1.2}},
    )
    cases = suite(100)
    results = record(cases, candidate=[0, 1] * 50, base=[0] * 100)
    asked, reason = run(EarlyStop(rules, cases, (Arm.CANDIDATE, Arm.BASE)), results, arms=2)
    assert asked < 50
    assert reason.endswith("(hold): pass_rate at_least 0.9")
    assert [rule.metric for rule in asked_about[-1].require] == ["pass_rate"]
    assert asked_about[-1].against.base is asked_about[-1].against.latency is None


def test_a_promotion_asks_the_gate_about_every_rule(looks):
    rules = gate(
        require=[{"metric": "pass_rate", "at_least": 0.5}], against={"base": {"metric": "pass_rate", "better_by": 0}}
    )
    cases = suite(60)
    results = record(cases, candidate=[1] * 60, base=[0] * 60)
    asked, reason = run(EarlyStop(rules, cases, (Arm.CANDIDATE, Arm.BASE)), results, arms=2)
    assert reason.endswith("(promote): every rule passes")
    assert looks == [2 * asked]


def test_an_open_bound_asks_nothing_of_the_gate(looks):
    """The bounds themselves are cheap; the gate's tests and bootstraps wait until one of them has settled a rule."""
    rules = gate(early_stop="sequential", require=[{"metric": "pass_rate", "at_least": 0.8}])
    cases = suite(400)
    results = record(cases, candidate=[1, 1, 1, 1, 0] * 80)
    assert run(EarlyStop(rules, cases, (Arm.CANDIDATE,)), results)[1] is None
    assert len(looks) <= 2


def test_looks_are_few_whatever_the_size(looks):
    """A rule that all but the missing answers have settled: a look every 5 %."""
    rules = gate(max_missing=0.5, require=[{"metric": "pass_rate", "tag": "hard", "at_least": 0.5}])
    cases = [replace(case, tags=("hard",) if index < 40 else ()) for index, case in enumerate(suite(400))]
    results = record(cases, candidate=[1] * 20 + [None] * 20 + [1] * 360)
    assert run(EarlyStop(rules, cases, (Arm.CANDIDATE,)), results)[1] is None
    assert 10 < len(looks) < 25


# -- the always-valid bound -----------------------------------------------------------------------------------------


def test_the_always_valid_bound_ends_it_long_before_certainty():
    against = {"base": {"metric": "pass_rate", "better_by": 0}}
    rules, sequential = gate(against=against), gate(against=against, early_stop="sequential")
    cases = suite(80)
    arms = (Arm.CANDIDATE, Arm.BASE)
    results = record(cases, candidate=[1] * 80, base=[1, 0] * 40)
    late, _ = run(EarlyStop(rules, cases, arms, every=1), results, arms=2)
    asked, reason = run(EarlyStop(sequential, cases, arms, every=1), results, arms=2)
    assert asked <= 25
    assert late > 40
    assert reason == "settled early by the always-valid bound (promote): every rule passes"
    assert decide(stopped_record(cases, results, asked, arms, reason), sequential).verdict is Decision.PROMOTE


def test_the_always_valid_bound_ends_a_clear_hold():
    rules = gate(early_stop="sequential", against={"champion": {"metric": "pass_rate", "margin": 0.05}})
    cases = suite(200)
    results = record(cases, candidate=[1, 0, 1, 1] * 50, champion=[1] * 200)
    asked, reason = run(EarlyStop(rules, cases, BOTH_ARMS, has_champion=True, every=1), results, arms=2)
    assert asked < 80
    assert reason.startswith("settled early by the always-valid bound (hold): pass_rate against champion")


@pytest.mark.parametrize("seed", range(3))
def test_the_quick_look_misses_no_stop(seed):
    """Wherever the gate itself would have decided first, there the evaluation ends."""
    rules = gate(
        early_stop="sequential",
        require=[{"metric": "pass_rate", "at_least": 0.6}],
        against={"champion": {"metric": "pass_rate", "margin": 0.2}},
    )
    rng = random.Random(seed)
    cases = suite(40)
    quality = rng.choice([0.3, 0.6, 0.95])
    champion = [int(rng.random() < 0.8) for _ in cases]
    results = record(cases, candidate=[int(rng.random() < quality) for _ in cases], champion=champion)
    looked = (
        (asked, decide(stopped_record(cases, results, asked, BOTH_ARMS, ""), rules, has_champion=True).verdict)
        for asked in range(rules.min_cases, len(cases))
    )  # lazily, up to the first
    first = next((asked for asked, verdict in looked if verdict is not Decision.INCONCLUSIVE), len(cases))
    assert run(EarlyStop(rules, cases, BOTH_ARMS, has_champion=True, every=1), results, arms=2)[0] == first


def test_a_later_attempt_needs_more_evidence():
    rules = gate(early_stop="sequential", against={"base": {"metric": "pass_rate", "better_by": 0}})
    cases = suite(60)
    arms = (Arm.CANDIDATE, Arm.BASE)
    results = record(cases, candidate=[1] * 60, base=[1, 0] * 30)
    asked = [run(EarlyStop(rules, cases, arms, attempt=k, every=1), results, arms=2)[0] for k in (1, 2, 4)]
    assert asked == sorted(set(asked))


def test_cases_are_asked_in_an_order_that_has_nothing_to_do_with_the_suite():
    """A suite whose hard cases stand last would look good to every bound that stops before them."""
    cases = suite(300, tagged=range(200, 300))
    asked = asking_order(cases)
    assert sorted(case.id for case in asked) == [case.id for case in cases]
    assert asking_order(cases[::-1]) == asked
    assert sum("safety" in case.tags for case in asked[:150]) == pytest.approx(50, abs=12)


def test_cases_of_a_group_are_asked_together_in_their_order():
    cases = [replace(case, group=f"document {index % 7}") for index, case in enumerate(suite(70))]
    groups = [[case.id for case in members] for _, members in groupby(asking_order(cases), key=lambda case: case.group)]
    assert len(groups) == 7
    assert all(ids == sorted(ids) for ids in groups)


# -- offline ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "candidate", "code"), [("curtailment", [0, 1], 1), ("sequential", [1, 1], 0)])
def test_a_stopped_record_decides_the_same_offline(tmp_path, capsys, mode, candidate, code):
    rules = gate(early_stop=mode, require=[{"metric": "pass_rate", "at_least": 0.8}])
    file = tmp_path / "gate.yaml"
    file.write_text(
        f"min_cases: 10\nearly_stop: {mode}\nrequire:\n  - {{metric: pass_rate, at_least: 0.8}}\n", encoding="utf-8"
    )
    cases = suite(200)
    results = record(cases, candidate=candidate * 100)
    asked, reason = run(EarlyStop(rules, cases, (Arm.CANDIDATE,)), results)
    assert asked < 150
    lines = tmp_path / "results.jsonl"
    write_results(lines, stopped_record(cases, results, asked, (Arm.CANDIDATE,), reason))
    assert gate_command(lines, gate=str(file)) == code
    assert ("hold" if code else "promote") in capsys.readouterr().out
