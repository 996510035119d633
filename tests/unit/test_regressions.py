"""The list of what got worse: Holm over all tags and metrics, and nothing that luck alone would show."""

from __future__ import annotations

import gc
import random

import pytest
from statsmodels.stats.multitest import multipletests

from slipway.comparison import pass_difference
from slipway.evidence import align
from slipway.gate import Gate, decide
from slipway.regressions import _holm, regressions
from slipway.results import Arm, CaseResult, CheckResult
from slipway.statistics import mcnemar

GATE = Gate(min_cases=1)
FLOOR = Gate.model_validate({"min_cases": 1, "require": [{"metric": "pass_rate", "at_least": 0.01}]}, strict=False)


CHECKS = (CheckResult(type="equals", passed=True, score=1.0),)


def line(arm, case, passed, *tags, **keys):
    return CaseResult(
        case=case, arm=Arm(arm), output=arm, passed=passed, score=float(passed), tags=tags, checks=CHECKS, **keys
    )


def tagged(tag, gains, losses, ties, *, other="champion", **keys):
    results = []
    for index in range(gains + losses + ties):
        case = f"{tag}-{index}"
        ours, theirs = (True, False) if index < gains else (False, True) if index < gains + losses else (True, True)
        results += [line("candidate", case, ours, tag, **keys), line(other, case, theirs, tag, **keys)]
    return results


def test_p_is_mcnemars_and_holm_multiplies_the_smallest_by_the_number_asked():
    results = tagged("refund", 0, 10, 20) + tagged("greeting", 3, 4, 20) + tagged("escalation", 6, 0, 20)
    found = regressions(align(results), GATE)
    assert [(one.name, one.kind, one.against, one.n) for one in found] == [
        ("refund", "tag", "champion", 30),
        ("greeting", "tag", "champion", 27),
    ]
    assert found[0].p == pytest.approx(2**-10)
    assert found[0].p_holm == pytest.approx(3 * 2**-10)
    assert found[0].is_beyond_chance
    assert found[0].difference == pytest.approx(-1 / 3)
    assert found[0].interval.low < -1 / 3 < found[0].interval.high < 0
    assert found[1].p == pytest.approx(mcnemar(3, 4, alternative="loss"))
    assert not found[1].is_beyond_chance


@pytest.mark.parametrize(("tags", "is_beyond_chance"), [(3, True), (4, False)])
def test_the_more_is_asked_the_clearer_it_has_to_be(tags, is_beyond_chance):
    """Six losses have p = 1/64: times three it is below 5 %, times four it is not."""
    results = tagged("refund", 0, 6, 20)
    for index in range(1, tags):
        results += tagged(f"other {index}", 2, 2, 20)
    assert regressions(align(results), GATE)[0].is_beyond_chance is is_beyond_chance


@pytest.mark.parametrize("gains", [0, 3])
def test_a_tag_has_one_interval_in_the_list_and_in_the_table_of_tags(gains):
    evidence = align(tagged("refund", gains, 8, 40))
    (found,) = regressions(evidence, GATE)
    assert found.interval == pass_difference(evidence, Arm.CHAMPION, GATE.confidence, tag="refund")


def test_named_metrics_take_the_sign_flip_test():
    source = random.Random(2)
    results = []
    for index in range(60):
        theirs = source.uniform(0.4, 0.6)
        for arm, tone in (("candidate", theirs - 0.1 + source.uniform(-0.05, 0.05)), ("champion", theirs)):
            results.append(line(arm, f"c{index}", True, metrics={"tone": tone, "length": 0.5}))
    (found,) = regressions(align(results), GATE)
    assert (found.name, found.kind, found.is_beyond_chance) == ("tone", "metric", True)
    assert found.interval.method.startswith("normal theory")


def test_few_graded_pairs_have_a_p_and_no_interval():
    results = []
    for index in range(6):
        results += [line("candidate", f"c{index}", True, metrics={"tone": 0.1 + index / 100})]
        results += [line("champion", f"c{index}", True, metrics={"tone": 0.6})]
    (found,) = regressions(align(results), GATE)
    assert found.interval is None
    assert found.p == 1 / 64
    assert found.as_document()["low"] is None


def test_groups_count_once():
    """Ten losses in one document are one coin."""
    results = tagged("refund", 0, 10, 20)
    grouped = [result.but(group="document" if int(result.case.split("-")[1]) < 10 else None) for result in results]
    assert regressions(align(grouped), GATE)[0].p == 1 / 2


def test_the_base_stands_in_for_a_champion_and_nobody_for_both():
    assert regressions(align(tagged("refund", 0, 10, 20, other="base")), GATE)[0].against is Arm.BASE
    assert regressions(align([line("candidate", "c", True, "refund")]), GATE) == ()
    assert regressions(align([line("candidate", "c", True), line("base", "c", True)]), GATE) == ()


def test_verdict_names_what_regressed_and_decides_without_it():
    results = tagged("refund", 0, 10, 20) + tagged("greeting", 0, 0, 100)
    verdict = decide(results, FLOOR)
    assert verdict.verdict == "promote"
    assert verdict.reasons[-1] == "Regressed beyond chance (Holm) against the champion: tag refund -0.33 (p = 0.002)."
    document = verdict.as_document()["regressions"]
    assert document[0]["name"] == "refund"
    assert document[0]["is_beyond_chance"] is True


def test_long_lists_are_cut_in_the_sentence_only():
    results = [one for index in range(7) for one in tagged(f"tag {index}", 0, 12, 5)]
    verdict = decide(results, FLOOR)
    assert verdict.reasons[-1].endswith(" and 2 more.")
    assert len(verdict.regressions) == 7


def test_false_entries_are_rare():
    """Twenty tags of a candidate that is no worse: the list is empty in about 19 of 20 suites, at least."""
    source = random.Random(7)
    false_lists = 0
    for _ in range(40):
        results = []
        for tag in range(20):
            gains = sum(source.random() < 0.5 for _ in range(12))
            results += tagged(f"tag {tag}", gains, 12 - gains, 0)
        false_lists += any(one.is_beyond_chance for one in regressions(align(results), GATE))
    assert false_lists <= 6


def test_holm_is_that_of_statsmodels_to_the_last_bit(monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: None)  # it collects the whole heap at every call: minutes, late in a run
    source = random.Random(7)
    for _ in range(500):
        chosen = [source.choice((0.0, 1.0, 0.5, source.random(), source.random() ** 9)) for _ in range(30)]
        ps = chosen[: source.randint(1, 30)]
        assert _holm(ps) == [float(p) for p in multipletests(ps, method="holm")[1]]
