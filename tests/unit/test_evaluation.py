"""Running a suite: order, concurrency, and what becomes of requests that fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.checks import Check, prepare
from slipway.errors import AuthenticationError, ConfigurationError, RateLimitedError, UnavailableError
from slipway.evaluation import GIVE_UP_AFTER, Answer, Contestant, evaluate, interleave
from slipway.results import Arm
from slipway.suite import Case, Suite

ARMS = (Arm.CANDIDATE, Arm.CHAMPION, Arm.BASE)


def suite_of(count):
    cases = tuple(
        Case(
            id=f"c{number}",
            vars={},
            prompt=f"p{number}",
            checks=(prepare(Check(type="equals", value="good")),),
            tags=("tag",),
            group=f"g{number // 2}",
        )
        for number in range(count)
    )
    return Suite(path=Path("suite.yaml"), description="", cases=cases, digest="sha256:0")


class Service:
    """Answers what it is told to; keeps count of who asks."""

    def __init__(self, *, fails=lambda _arm, _case, _count: None, output="good", seconds=0.0):
        self.asked = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._fails = fails
        self._output = output
        self._seconds = seconds

    def contestants(self, arms=ARMS):
        return {arm: Contestant(adapter_id=f"{arm}/1", ask=self._asking(arm)) for arm in arms}

    def _asking(self, arm):
        async def ask(case):
            self.asked.append((case.id, arm))
            count = len(self.asked)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            try:
                await asyncio.sleep(self._seconds)
                if (error := self._fails(arm, case, count)) is not None:
                    raise error
                return Answer(output=self._output, latency_ms=float(count), prompt_tokens=3, generated_tokens=2)
            finally:
                self.in_flight -= 1

        return ask


def test_order_flips_from_case_to_case():
    """Latency drifts; asked A-B-B-A, each arm meets the same drift."""
    cases = suite_of(3).cases
    order = [(case.id, arm) for case, arm in interleave(cases, [Arm.CANDIDATE, Arm.BASE])]
    assert order == [
        ("c0", Arm.CANDIDATE),
        ("c0", Arm.BASE),
        ("c1", Arm.BASE),
        ("c1", Arm.CANDIDATE),
        ("c2", Arm.CANDIDATE),
        ("c2", Arm.BASE),
    ]


@given(count=st.integers(0, 30), arms=st.lists(st.sampled_from(ARMS), unique=True))
def test_every_case_is_asked_once_of_every_arm(count, arms):
    cases = suite_of(count).cases
    order = Counter((case.id, arm) for case, arm in interleave(cases, arms))
    assert order == Counter((case.id, arm) for case in cases for arm in arms)


def test_arms_share_the_mean_position_in_the_order():
    cases = suite_of(40).cases
    places = {arm: [] for arm in ARMS}
    for place, (_, arm) in enumerate(interleave(cases, ARMS)):
        places[arm].append(place)
    means = {sum(of_arm) / len(of_arm) for of_arm in places.values()}
    assert len(means) == 1


async def test_results_are_in_the_suites_order_whatever_the_order_of_answers():
    service = Service()
    results = await evaluate(suite_of(5), service.contestants(), max_concurrency=4)
    assert [(result.case, result.arm) for result in results] == [(f"c{n}", arm) for n in range(5) for arm in ARMS]
    first = results[0]
    assert (first.passed, first.score, first.adapter_id) == (True, 1.0, "candidate/1")
    assert (first.tags, first.group, first.prompt_tokens, first.generated_tokens) == (("tag",), "g0", 3, 2)


async def test_first_case_is_asked_beforehand_and_that_answer_thrown_away():
    """Loading the adapter must be in nobody's latency."""
    service = Service()
    results = await evaluate(suite_of(2), service.contestants(), max_concurrency=1)
    assert service.asked[:3] == [("c0", arm) for arm in ARMS]
    assert len(service.asked) == 3 + 2 * 3
    assert min(result.latency_ms for result in results) == 4.0


async def test_a_failed_warm_up_costs_nothing():
    service = Service(fails=lambda _arm, _case, count: UnavailableError("cold") if count <= 3 else None)
    results = await evaluate(suite_of(2), service.contestants(), max_concurrency=1)
    assert all(result.passed for result in results)


async def test_a_failed_request_is_missing_and_not_failed():
    def fails(arm, case, _count):
        return RateLimitedError("too fast.", fix="Wait.") if (arm, case.id) == (Arm.BASE, "c1") else None

    results = await evaluate(suite_of(3), Service(fails=fails).contestants(), max_concurrency=2)
    (missing,) = [result for result in results if result.error is not None]
    assert (missing.case, missing.arm, missing.error) == ("c1", Arm.BASE, "too fast. Wait.")
    assert (missing.passed, missing.score, missing.latency_ms, missing.checks) == (None, None, None, ())
    assert (missing.tags, missing.group) == (("tag",), "g0")
    assert sum(result.passed is True for result in results) == 8


async def test_a_wrong_answer_is_failed_with_the_reason():
    results = await evaluate(suite_of(1), Service(output="bad").contestants([Arm.CANDIDATE]), max_concurrency=1)
    assert (results[0].passed, results[0].score) == (False, 0.0)
    assert "good" in results[0].checks[0].reason


@pytest.mark.parametrize("at", [1, 8])
async def test_a_refused_token_stops_everything_at_once(at):
    """Every further answer would be missing; also while warming up."""
    service = Service(fails=lambda _arm, _case, count: AuthenticationError("401") if count >= at else None)
    with pytest.raises(AuthenticationError):
        await evaluate(suite_of(50), service.contestants(), max_concurrency=2)
    assert len(service.asked) <= at + 2


async def test_it_gives_up_after_so_many_failures_in_a_row():
    service = Service(fails=lambda _arm, _case, count: UnavailableError(f"down {count}"))
    with pytest.raises(UnavailableError, match="down"):
        await evaluate(suite_of(200), service.contestants(), max_concurrency=4)
    warm_up = 3
    assert GIVE_UP_AFTER <= len(service.asked) - warm_up <= GIVE_UP_AFTER + 4


async def test_it_goes_on_while_some_requests_succeed():
    """One fewer than the limit in a row, again and again."""
    service = Service(fails=lambda _arm, _case, count: UnavailableError("shaky") if count % GIVE_UP_AFTER else None)
    results = await evaluate(suite_of(60), service.contestants(), max_concurrency=1)
    assert len(results) == 180
    assert {result.passed for result in results} == {None, True}


async def test_a_defect_is_raised_and_not_recorded_as_missing():
    service = Service(fails=lambda _arm, _case, count: ConfigurationError("nonsense") if count > 5 else None)
    with pytest.raises(ConfigurationError):
        await evaluate(suite_of(20), service.contestants(), max_concurrency=3)
    assert service.in_flight == 0


@pytest.mark.parametrize("limit", [1, 3, 16])
async def test_no_more_requests_in_flight_than_allowed_and_no_fewer_than_possible(limit):
    service = Service(seconds=0.001)
    await evaluate(suite_of(20), service.contestants(), max_concurrency=limit)
    assert service.most_in_flight == limit


async def test_each_result_is_told_as_it_comes():
    told = []
    results = await evaluate(suite_of(4), Service().contestants(), max_concurrency=3, on_result=told.append)
    assert sorted(told, key=repr) == sorted(results, key=repr)


async def test_an_empty_suite_asks_nothing():
    service = Service()
    assert await evaluate(suite_of(0), service.contestants(), max_concurrency=4) == []
    assert service.asked == []


async def test_cancelling_leaves_no_request_running():
    service = Service(seconds=30)
    running = asyncio.create_task(evaluate(suite_of(10), service.contestants(), max_concurrency=4))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert service.in_flight == 0
