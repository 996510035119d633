"""Which recorded answers stand for requests that would be sent again."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from slipway.answers import StoredAnswer, answer_of, case_keys, paired_arms, recall, recall_exactly
from slipway.checks import Check, prepare
from slipway.gate_file import Against, CostRule, Gate, LatencyRule, NonInferiority
from slipway.judge_settings import JudgeSettings
from slipway.results import Arm, CaseResult, Timing
from slipway.suite import Case, GenerationSettings

JUDGE = JudgeSettings(url="http://127.0.0.1:9/v1", model="judge", embeddings_model="embedder")


def case(name="a", *, prompt="hello", value="good", **settings):
    check = prepare(Check(type="equals", value=value, where=settings.pop("where", "")), judge=JUDGE)
    return Case(id=name, vars={}, prompt=prompt, checks=(check,), **settings)


def key(one, **settings):
    return case_keys([one], max_new_tokens=64, **settings)[0]


def stored(one, *, session="s1", grading=None, redacted=False, output="good", arm=Arm.CANDIDATE, ordinal=0):
    identity = key(one)
    result = CaseResult(
        case="then", arm=arm, output=output, passed=True, score=1.0, latency_ms=5.0, session=session, redacted=redacted
    )
    return StoredAnswer(
        request=identity.request,
        ordinal=ordinal,
        grading=identity.grading if grading is None else grading,
        result=result,
    )


def recalled(cases, answers, **settings):
    return recall(cases, case_keys(cases, max_new_tokens=64), answers, **settings)


@pytest.mark.parametrize(
    "other",
    [
        case(prompt="hello "),
        case(prompt=({"role": "user", "content": "hello"},)),
        case(generation=GenerationSettings(seed=1)),
        case(generation=GenerationSettings(temperature=0.5)),
        case(generation=GenerationSettings(max_tokens=65)),
    ],
)
def test_prompt_and_generation_settings_make_a_request(other):
    assert key(other).request != key(case()).request


def test_the_targets_limit_counts_where_the_case_has_none():
    own = case(generation=GenerationSettings(max_tokens=64))
    assert key(own).request == key(case()).request
    assert case_keys([own], max_new_tokens=9) == case_keys([own], max_new_tokens=64)
    assert case_keys([case()], max_new_tokens=9) != case_keys([case()], max_new_tokens=64)


def test_names_tags_and_places_make_no_request_and_no_grade():
    other = case("b", tags=("x",), group="g", metadata={"k": 1}, where="suite.yaml:9")
    assert key(other) == key(case())


@pytest.mark.parametrize("other", [case(value="bad"), case(threshold=0.5), case(transform="output.trim()")])
def test_checks_make_a_grade_and_no_request(other):
    assert key(other).request == key(case()).request
    assert key(other).grading != key(case()).grading


def test_the_judge_counts_only_where_it_is_asked():
    judged = replace(case(), checks=(prepare(Check(type="llm-rubric", value="is polite"), judge=JUDGE),))
    other = JUDGE.model_copy(update={"model": "another"})
    patient = JUDGE.model_copy(update={"timeout_seconds": 1.0})
    assert key(case(), judge=JUDGE) == key(case(), judge=other) == key(case())
    assert key(judged, judge=JUDGE) != key(judged, judge=other)
    assert key(judged, judge=JUDGE) == key(judged, judge=patient)


def test_repeats_are_told_apart_by_their_number():
    keys = case_keys([case("a"), case("b"), case("c", prompt="x"), case("d")], max_new_tokens=64)
    assert [item.ordinal for item in keys] == [0, 1, 0, 2]


def test_an_answer_is_taken_under_the_present_name():
    now = case("now", tags=("t",), group="g")
    found = recalled([now], {Arm.CHAMPION: [stored(now)]})
    result = found["now", Arm.CHAMPION].result
    assert (result.case, result.arm, result.tags, result.group) == ("now", Arm.CHAMPION, ("t",), "g")
    assert found["now", Arm.CHAMPION].is_graded


def test_other_checks_leave_the_output_to_be_graded():
    found = recalled([case()], {Arm.CANDIDATE: [stored(case(), grading="of other checks")]})
    assert not found["a", Arm.CANDIDATE].is_graded


def test_a_masked_output_is_taken_with_its_grade_or_not_at_all():
    assert recalled([case()], {Arm.CANDIDATE: [stored(case(), redacted=True)]})
    assert not recalled([case()], {Arm.CANDIDATE: [stored(case(), redacted=True, grading="of other checks")]})


def test_what_is_not_recorded_cannot_be_graded_anew():
    """Log probabilities are not: a line would be many times as long."""
    measured = replace(case(), checks=(prepare(Check(type="perplexity", threshold=5.0)),))
    plain = stored(measured, grading="of other checks")
    assert not recalled([measured], {Arm.CANDIDATE: [plain]})
    assert recalled([measured], {Arm.CANDIDATE: [stored(measured)]})


def test_the_newest_usable_answer_is_taken():
    answers = [stored(case(), session="s1"), stored(case(), session="s2", output="later")]
    masked = stored(case(), session="s3", redacted=True, grading="of other checks")
    found = recalled([case()], {Arm.CANDIDATE: [*answers, masked]})
    assert found["a", Arm.CANDIDATE].result.output == "later"


def test_a_repeat_needs_an_answer_of_its_own():
    cases = [case("a"), case("b")]
    assert set(recalled(cases, {Arm.BASE: [stored(case())]})) == {("a", Arm.BASE)}
    both = [stored(case()), stored(case(), ordinal=1)]
    assert set(recalled(cases, {Arm.BASE: both})) == {("a", Arm.BASE), ("b", Arm.BASE)}


PAIR = frozenset({Arm.CANDIDATE, Arm.CHAMPION})


def test_paired_arms_are_taken_from_one_session():
    answers = {
        Arm.CANDIDATE: [stored(case(), session="s1"), stored(case(), session="s3")],
        Arm.CHAMPION: [stored(case(), session="s1"), stored(case(), session="s2")],
        Arm.BASE: [stored(case(), session="s0")],
    }
    found = recalled([case()], answers, paired=PAIR)
    assert {arm: item.result.session for (_, arm), item in found.items()} == {
        Arm.CANDIDATE: "s1",
        Arm.CHAMPION: "s1",
        Arm.BASE: "s0",
    }


def test_paired_arms_without_a_common_session_are_asked_together():
    answers = {Arm.CANDIDATE: [stored(case(), session="s1")], Arm.CHAMPION: [stored(case(), session="s2")]}
    assert recalled([case()], answers, paired=PAIR) == {}
    assert len(recalled([case()], answers)) == 2
    assert recalled([case()], {Arm.CANDIDATE: [stored(case())], Arm.CHAMPION: []}, paired=PAIR) == {}


def test_an_arm_whose_partner_is_not_in_the_evaluation_stands_alone():
    assert recalled([case()], {Arm.CANDIDATE: [stored(case())]}, paired=PAIR)


def test_the_gate_says_which_arms_are_paired():
    latency = LatencyRule(of="champion", ratio_at_most=1.2)
    cost = CostRule(of="base", ratio_at_most=1.2)
    assert paired_arms(None) == frozenset()
    assert paired_arms(Gate(against=Against(champion=NonInferiority(metric="score", margin=0.1)))) == frozenset()
    assert paired_arms(Gate(against=Against(latency=latency))) == PAIR
    assert paired_arms(Gate(against=Against(latency=latency, cost=cost))) == frozenset(Arm)


def test_an_answer_comes_back_out_of_its_result():
    timing = Timing(queue_ms=1.0)
    result = stored(case()).result.but(timing=timing, prompt_tokens=3, finish_reason="length")
    answer = answer_of(result)
    assert (answer.output, answer.latency_ms, answer.timing) == ("good", 5.0, timing)
    assert (answer.prompt_tokens, answer.generated_tokens, answer.finish_reason) == (3, None, "length")


RUBRIC = Check(type="llm-rubric", value="is polite")
PLAIN = Check(type="equals", value="good")


@pytest.mark.parametrize(
    "checks",
    [(PLAIN, RUBRIC), (RUBRIC, PLAIN), (Check(type="assert-set", checks=(PLAIN, RUBRIC)), PLAIN)],
    ids=["last", "first", "in a set"],
)
def test_the_judge_counts_where_one_check_of_several_asks_it(checks):
    judged = replace(case(), checks=tuple(prepare(check, judge=JUDGE) for check in checks))
    assert key(judged, judge=JUDGE) != key(judged, judge=JUDGE.model_copy(update={"model": "another"}))


def test_one_check_of_several_that_needs_log_probabilities_takes_only_a_grade():
    """They are not recorded: graded anew, the check would find nothing to look at."""
    perplexity = prepare(Check(type="perplexity", threshold=3.0))
    for checks in ((*case().checks, perplexity), (prepare(Check(type="assert-set", checks=(PLAIN, perplexity))),)):
        mixed = replace(case(), checks=checks)
        assert recalled([mixed], {Arm.CANDIDATE: [stored(mixed, grading="other checks")]}) == {}
        assert recalled([mixed], {Arm.CANDIDATE: [stored(mixed)]})["a", Arm.CANDIDATE].is_graded


def test_variables_count_by_name_and_value_and_not_by_their_order():
    one = replace(case(), vars={"day": date(2026, 1, 2), "name": "a"})
    assert key(one) == key(replace(one, vars={"name": "a", "day": date(2026, 1, 2)}))
    assert key(one).grading != key(replace(one, vars={"day": date(2026, 1, 3), "name": "a"})).grading


def test_an_evaluation_is_had_again_exactly_and_nothing_beside_it():
    cases = [case("a", prompt="one"), case("b", prompt="two")]
    known = recalled(cases, {Arm.CANDIDATE: [stored(one) for one in cases]})
    record = [known["a", Arm.CANDIDATE].result, CaseResult(case="b", arm=Arm.CANDIDATE, error="", not_asked=True)]
    assert recall_exactly(record, known) == {("a", Arm.CANDIDATE): known["a", Arm.CANDIDATE]}


@pytest.mark.parametrize(
    "change",
    [{"session": "s2"}, {"output": "other"}, {"passed": False}, {"score": 0.5}, {"error": "no answer"}, {"case": "z"}],
)
def test_an_evaluation_of_which_one_answer_differs_is_not_had_again(change):
    one = case("a")
    known = recalled([one], {Arm.CANDIDATE: [stored(one)]})
    line = known["a", Arm.CANDIDATE].result
    assert recall_exactly([line], known) is not None
    assert recall_exactly([line.but(**change)], known) is None


def test_an_evaluation_that_would_be_graded_anew_is_not_had_again():
    one = case("a")
    known = recalled([one], {Arm.CANDIDATE: [stored(one, grading="other")]})
    assert recall_exactly([known["a", Arm.CANDIDATE].result], known) is None
