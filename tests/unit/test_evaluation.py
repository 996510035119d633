"""Running a suite: order, concurrency, and what becomes of requests that fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.answers import Recorded
from slipway.checks import Check, prepare
from slipway.concurrency import Limiter, Patience
from slipway.cost import cost_usd
from slipway.errors import (
    AuthenticationError,
    ConfigurationError,
    GenerationError,
    InvalidRequestError,
    RateLimitedError,
    ServiceTimeoutError,
    UnavailableError,
)
from slipway.evaluation import GIVE_UP_AFTER, Answer, Contestant, evaluate, interleave
from slipway.judge_settings import JudgeSettings
from slipway.results import Arm, Timing
from slipway.suite import Case, Suite
from slipway.targets import Prices

ARMS = (Arm.CANDIDATE, Arm.CHAMPION, Arm.BASE)


class Time:
    """A clock that only waiting moves; keeps what was waited."""

    def __init__(self):
        self.now = 0.0
        self.waits = []

    def patience(self, **settings):
        return Patience(sleep=self.sleep, clock=lambda: self.now, fraction=lambda: 0.5, **settings)

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def suite_of(count, check=None):
    cases = tuple(
        Case(
            id=f"c{number}",
            vars={},
            prompt=f"p{number}",
            checks=(check or prepare(Check(type="equals", value="good")),),
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

    service = Service(fails=fails)
    results = await evaluate(
        suite_of(3), service.contestants(), max_concurrency=2, patience=Time().patience(attempts=3)
    )
    (missing,) = [result for result in results if result.error is not None]
    assert (missing.case, missing.arm, missing.error) == ("c1", Arm.BASE, "too fast. Wait. (after 3 attempts)")
    assert service.asked.count(("c1", Arm.BASE)) == 3
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


def error_of(status):
    kinds = {422: InvalidRequestError, 424: GenerationError, 408: ServiceTimeoutError, 429: RateLimitedError}
    return kinds.get(status, UnavailableError)(f"status {status}.", status_code=status)


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (error_of(429), 6),
        (error_of(503), 6),
        (error_of(502), 6),
        (UnavailableError("broke off."), 6),
        (error_of(500), 1),
        (error_of(504), 1),
        (error_of(422), 1),
        (error_of(424), 1),
        (ServiceTimeoutError("no answer in time."), 1),
    ],
)
async def test_only_what_can_succeed_is_asked_again(error, times):
    """After a read timeout the server may still be at it: a repeat would double its load."""
    service = Service(fails=lambda arm, case, _count: error if case.id == "c1" else None)
    results = await evaluate(
        suite_of(3), service.contestants([Arm.BASE]), max_concurrency=1, patience=Time().patience()
    )
    assert service.asked.count(("c1", Arm.BASE)) == times
    assert [result.error is None for result in results] == [True, False, True]


async def test_repeats_wait_longer_each_time_and_then_succeed():
    time = Time()
    service = Service(fails=lambda _arm, case, count: error_of(503) if case.id == "c1" and count <= 6 else None)
    results = await evaluate(suite_of(2), service.contestants([Arm.BASE]), max_concurrency=1, patience=time.patience())
    assert [result.error for result in results] == [None, None]
    assert time.waits == [0.1875, 0.375, 0.75, 1.5]  # three quarters of 0.25, doubled each time


async def test_everybody_waits_as_long_as_the_server_asks():
    time = Time()
    refusal = RateLimitedError("busy.", retry_after_seconds=30.0)
    service = Service(fails=lambda _arm, _case, count: refusal if count == 3 else None)
    sent_at = []
    contestants = service.contestants([Arm.BASE])
    ask = contestants[Arm.BASE].ask

    async def timed(case):
        sent_at.append(time.now)
        return await ask(case)

    results = await evaluate(
        suite_of(6),
        {Arm.BASE: Contestant(adapter_id="", ask=timed)},
        max_concurrency=2,
        patience=time.patience(),
    )
    assert all(result.error is None for result in results)
    assert sent_at[:3] == [0.0, 0.0, 0.0]
    assert min(sent_at[4:]) >= 30.0


async def test_a_wait_beyond_patience_is_not_waited_for():
    time = Time()
    refusal = RateLimitedError("come back tomorrow.", retry_after_seconds=86_400.0)
    service = Service(fails=lambda _arm, case, _count: refusal if case.id == "c1" else None)
    results = await evaluate(suite_of(3), service.contestants([Arm.BASE]), max_concurrency=1, patience=time.patience())
    assert [result.error for result in results] == [None, "come back tomorrow.", None]
    assert time.waits == []


@pytest.mark.parametrize("most", [1, 4, 32])
@pytest.mark.parametrize("asked", [None, 30.0, 119.0])
async def test_a_server_that_only_ever_refuses_is_not_waited_for_all_day(most, asked):
    """Twenty requests, each repeated six times, would be four hours of pauses of two minutes."""
    time = Time()
    refusal = RateLimitedError("busy.", retry_after_seconds=asked)
    service = Service(fails=lambda _arm, _case, _count: refusal)
    with pytest.raises(RateLimitedError):
        await evaluate(suite_of(200), service.contestants(), max_concurrency=most, patience=time.patience())
    patience = Patience()
    assert time.now <= patience.longest_silence_seconds + 2 * patience.longest_pause_seconds


async def test_a_server_that_refuses_much_and_answers_now_and_then_is_waited_for():
    time = Time()
    refusal = RateLimitedError("busy.", retry_after_seconds=119.0)
    service = Service(fails=lambda _arm, _case, count: refusal if count % 5 else None)
    results = await evaluate(suite_of(10), service.contestants([Arm.BASE]), max_concurrency=1, patience=time.patience())
    assert all(result.error is None for result in results)
    assert time.now > Patience().longest_silence_seconds


async def test_it_gives_up_after_so_many_failures_in_a_row():
    """One request is repeated to the end; after that there is nobody to be patient with."""
    service = Service(fails=lambda _arm, _case, count: UnavailableError(f"down {count}"))
    with pytest.raises(UnavailableError, match="down"):
        await evaluate(suite_of(200), service.contestants(), max_concurrency=4, patience=Time().patience())
    warm_up, repeats = 3, 4 * 5
    assert GIVE_UP_AFTER <= len(service.asked) - warm_up <= GIVE_UP_AFTER + repeats + 4


async def test_it_goes_on_while_some_requests_succeed():
    """One fewer than the limit in a row, again and again."""
    service = Service(fails=lambda _arm, _case, count: error_of(424) if count % GIVE_UP_AFTER else None)
    results = await evaluate(suite_of(60), service.contestants(), max_concurrency=1)
    assert len(results) == 180
    assert {result.passed for result in results} == {None, True}


async def test_an_arm_that_always_fails_is_asked_no_more_and_the_others_are():
    service = Service(fails=lambda arm, _case, _count: error_of(424) if arm is Arm.CHAMPION else None)
    results = await evaluate(suite_of(60), service.contestants(), max_concurrency=1)
    champion = [result for result in results if result.arm is Arm.CHAMPION]
    assert sum(arm is Arm.CHAMPION for _, arm in service.asked) == GIVE_UP_AFTER + 1
    assert [result.error for result in champion[:20]] == ["status 424."] * 20
    assert champion[20].error == ("not asked: champion had failed 20 times in a row, the last time so: status 424.")
    assert not any(result.not_asked for result in champion), "not asked, but not because the verdict was certain"
    assert all(result.passed for result in results if result.arm is not Arm.CHAMPION)


async def test_an_arm_that_fails_one_time_less_in_a_row_is_asked_to_the_end():
    failures = 0

    def fails(arm, _case, _count):
        nonlocal failures
        failures += arm is Arm.CHAMPION
        return error_of(424) if arm is Arm.CHAMPION and failures % GIVE_UP_AFTER else None

    service = Service(fails=fails)
    await evaluate(suite_of(60), service.contestants(), max_concurrency=1)
    assert sum(arm is Arm.CHAMPION for _, arm in service.asked) == 61


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


# What is known already


async def recorded(count=4, **settings):
    results = await evaluate(suite_of(count), Service().contestants(), max_concurrency=1, session="first", **settings)
    return {(result.case, result.arm): result for result in results}


async def test_what_is_known_is_not_asked_and_not_told_again():
    earlier = await recorded()
    known = {key: Recorded(result=result, is_graded=True) for key, result in earlier.items() if key[1] is Arm.BASE}
    service, told = Service(), []
    results = await evaluate(
        suite_of(4), service.contestants(), max_concurrency=1, known=known, session="second", on_result=told.append
    )
    assert {arm for _, arm in service.asked} == {Arm.CANDIDATE, Arm.CHAMPION}
    assert {result.arm for result in told} == {Arm.CANDIDATE, Arm.CHAMPION}
    assert {(result.arm, result.session) for result in results} == {
        (Arm.BASE, "first"),
        (Arm.CANDIDATE, "second"),
        (Arm.CHAMPION, "second"),
    }


async def test_a_recorded_output_is_graded_anew_and_keeps_when_and_how_it_was_asked():
    earlier = await recorded()
    known = {key: Recorded(result=result, is_graded=False) for key, result in earlier.items()}
    service, told = Service(), []
    suite = suite_of(4, check=prepare(Check(type="equals", value="better")))
    results = await evaluate(
        suite, service.contestants(), max_concurrency=4, known=known, session="second", on_result=told.append
    )
    assert service.asked == []
    assert {(result.passed, result.session) for result in results} == {(False, "first")}
    assert [result.latency_ms for result in results] == [result.latency_ms for result in earlier.values()]
    assert len(told) == len(results)


# Stopping early


async def test_a_certain_verdict_stops_and_the_rest_is_not_asked():
    seen = []

    def should_stop(results):
        seen.append([(result.case, result.arm) for result in results])
        return "the verdict is certain." if len(results) >= 5 * len(ARMS) else None

    service = Service(seconds=0.002)
    results = await evaluate(suite_of(100), service.contestants(), max_concurrency=3, should_stop=should_stop)
    asked = [result for result in results if not result.not_asked]
    rest = [result for result in results if result.not_asked]
    assert len(results) == 300
    assert 15 <= len(asked) < 100
    assert all(result.passed for result in asked), "what was in flight is recorded"
    assert {result.error for result in rest} == {"not asked: the verdict is certain."}
    whole = [(f"c{number}", arm) for number in range(100) for arm in ARMS]
    assert all(prefix == whole[: len(prefix)] and len(prefix) % 3 == 0 for prefix in seen)
    assert sorted(map(len, seen)) == list(map(len, seen))


async def test_asking_does_not_run_away_from_a_look_that_takes_long():
    """No more requests go out while it looks than are in flight anyway; else all would be asked before it ends."""

    def should_stop(results):
        if len(results) < 5 * len(ARMS):
            return None
        time.sleep(0.3)
        return "the verdict is certain."

    service = Service(seconds=0.001)
    results = await evaluate(suite_of(200), service.contestants(), max_concurrency=4, should_stop=should_stop)
    asked = sum(not result.not_asked for result in results)
    assert 15 <= asked <= 15 + 4 * 4, "what a look sees, what was in flight then, and as much again"


async def test_what_a_look_needs_is_loaded_before_the_first_request_that_counts():
    service, calls = Service(), []

    def should_stop(results):
        calls.append((len(results), len(service.asked)))

    await evaluate(suite_of(3), service.contestants(), max_concurrency=2, should_stop=should_stop)
    assert calls[0][0] == 0
    assert calls[0][1] <= len(ARMS), "while the arms warm up"
    assert all(seen > 0 for seen, _ in calls[1:])


async def test_nothing_is_asked_when_what_is_known_settles_it():
    earlier = await recorded()
    known = {key: Recorded(result=result, is_graded=True) for key, result in earlier.items()}
    service = Service()
    results = await evaluate(
        suite_of(9), service.contestants(), max_concurrency=3, known=known, should_stop=lambda _: "certain."
    )
    assert service.asked == []
    assert sum(result.not_asked for result in results) == 15


async def test_what_was_asked_under_another_name_counts_under_this_one():
    """The same bytes uploaded again have another id; an arm of two ids would decide nothing."""
    earlier = await recorded()
    known = {key: Recorded(result=result.but(adapter_id="old/7"), is_graded=True) for key, result in earlier.items()}
    results = await evaluate(suite_of(9), Service().contestants(), max_concurrency=3, known=known)
    assert {result.adapter_id for result in results} == {f"{arm}/1" for arm in ARMS}


# What is recorded


async def test_timing_cost_and_session_are_recorded():
    timing = Timing(queue_ms=1.0, inference_ms=20.0)

    async def ask(_case):
        return Answer(
            output="good", latency_ms=5.0, prompt_tokens=30, generated_tokens=70, finish_reason="length", timing=timing
        )

    prices = Prices(million_tokens_usd=2.0)
    (result,) = await evaluate(
        suite_of(1),
        {Arm.BASE: Contestant(adapter_id="", ask=ask)},
        max_concurrency=1,
        session="s",
        cost=lambda answer, share: cost_usd(
            prices,
            prompt_tokens=answer.prompt_tokens,
            generated_tokens=answer.generated_tokens,
            share_seconds=share,
        ),
    )
    assert (result.timing, result.finish_reason, result.session) == (timing, "length", "s")
    assert result.cost_usd == pytest.approx(0.0002)


async def test_what_is_private_is_graded_and_then_masked():
    def redact(text):
        return text.replace("4711", "***")

    check = prepare(Check(type="equals", value="4711"))
    told = []
    results = await evaluate(
        suite_of(2, check=check),
        Service(output="card 4711").contestants([Arm.BASE]),
        max_concurrency=1,
        redact=redact,
        on_result=told.append,
    )
    assert all("4711" not in str(result) for result in (*results, *told))
    assert [(result.output, result.redacted, result.passed) for result in results] == [("card ***", True, False)] * 2
    passing = await evaluate(
        suite_of(1, check=check), Service(output="4711").contestants([Arm.BASE]), max_concurrency=1, redact=redact
    )
    assert (passing[0].passed, passing[0].output) == (True, "***")


async def test_errors_are_masked_too():
    service = Service(fails=lambda _arm, _case, _count: InvalidRequestError("bad prompt: card 4711."))
    (result,) = await evaluate(
        suite_of(1),
        service.contestants([Arm.BASE]),
        max_concurrency=1,
        redact=lambda text: text.replace("4711", "***"),
    )
    assert (result.error, result.redacted) == ("bad prompt: card ***.", False)


# Judges


class SlowJudge:
    """Says yes after a while; keeps count of how many wait for it."""

    settings = JudgeSettings(url="http://127.0.0.1:9/v1", model="judge", max_concurrency=2)

    def __init__(self, *, fails=False):
        self.busy = 0
        self.most_busy = 0
        self._fails = fails

    async def complete(self, messages, *, json=False):
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(0.005)
            if self._fails:
                raise UnavailableError("the judge is down.")
            return '{"reason": "fine", "pass": true, "score": 1.0}'
        finally:
            self.busy -= 1

    async def embed(self, texts):
        raise AssertionError(texts)


def judged_suite(count):
    settings = SlowJudge.settings
    return suite_of(count, check=prepare(Check(type="llm-rubric", value="is polite"), judge=settings))


async def test_a_judge_is_asked_beside_the_arms_and_not_more_than_it_takes():
    """Twelve answers take the judge 30 ms at two a time; the arms are done long before."""
    service, judge = Service(), SlowJudge()
    done = []
    results = await evaluate(
        judged_suite(4),
        service.contestants(),
        max_concurrency=1,
        judge=judge,
        on_result=lambda _: done.append(len(service.asked)),
    )
    assert all(result.passed for result in results)
    assert judge.most_busy == 2
    assert done[4] == 15, "all was asked before the judge was half through"


async def test_a_judge_that_fails_makes_the_case_missing_and_keeps_the_answer():
    results = await evaluate(
        judged_suite(2), Service().contestants([Arm.BASE]), max_concurrency=1, judge=SlowJudge(fails=True)
    )
    assert {(result.output, result.passed) for result in results} == {("good", None)}
    assert all("the judge is down" in result.error for result in results)


async def test_a_limiter_given_from_outside_tells_what_is_in_flight():
    limiter, seen = Limiter(4), []
    await evaluate(
        suite_of(8),
        Service(seconds=0.001).contestants(),
        max_concurrency=4,
        limiter=limiter,
        on_result=lambda _: seen.append(limiter.in_flight),
    )
    assert max(seen) == 4
    assert limiter.in_flight == 0


async def test_a_recorded_output_is_judged_anew_without_asking_the_arm():
    earlier = await recorded()
    known = {key: Recorded(result=result, is_graded=False) for key, result in earlier.items()}
    service, judge, told = Service(), SlowJudge(), []
    results = await evaluate(
        judged_suite(4),
        service.contestants(),
        max_concurrency=4,
        known=known,
        judge=judge,
        session="second",
        on_result=told.append,
    )
    assert service.asked == []
    assert [(result.passed, result.session) for result in results] == [(True, "first")] * 12
    assert {check.type for result in results for check in result.checks} == {"llm-rubric"}
    assert len(told) == 12


async def test_each_answer_is_priced_by_its_share_of_the_time():
    """Two requests at a time of 2 s each, on a clock that only they move: each has half of the server."""
    time_ = Time()
    started = asyncio.Event()
    waiting = []

    async def ask(_case):
        waiting.append(None)
        if len(waiting) % 2 == 0:
            time_.now += 2.0
            started.set()
            started.clear()
        else:
            await started.wait()
        return Answer(output="good", latency_ms=5.0)

    shares = []
    await evaluate(
        suite_of(4),
        {arm: Contestant(adapter_id="", ask=ask) for arm in (Arm.CANDIDATE, Arm.BASE)},
        max_concurrency=2,
        patience=time_.patience(),
        cost=lambda _, share: shares.append(share),
    )
    assert shares == [pytest.approx(1.0)] * 8
