"""Evaluations against a live server: what is sent, how often, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from slipway.adapter import Source
from slipway.errors import AuthenticationError, InvalidRequestError, StoreError, UnavailableError
from slipway.gate_file import Against, Gate, LatencyRule
from slipway.results import Arm, evidence_digest
from slipway.results_io import read_results
from slipway.services.answer_store import AnswerStore
from slipway.services.backends import ServingDeployment
from slipway.services.evaluation_run import Entrant, Precedent, Stopping, run_evaluation
from slipway.services.lorax import LoraxClient
from slipway.suite import load_suite
from slipway.targets import load_target

WARM_UP = 1
CANDIDATE = Entrant(adapter_id="org/candidate", source=Source.HUB, digest="sha256:c")
CHAMPION = Entrant(adapter_id="org/champion", source=Source.HUB, digest="sha256:h")
BOTH = {Arm.CANDIDATE: CANDIDATE, Arm.BASE: Entrant()}
ALL = {Arm.CANDIDATE: CANDIDATE, Arm.CHAMPION: CHAMPION, Arm.BASE: Entrant()}


@pytest.fixture
def run(files, stub):
    async def run(entrants=BOTH, **settings):
        target = load_target(files.target)
        async with LoraxClient(stub.url, connections=target.max_concurrency, mask=target.redactor) as client:
            return await run_evaluation(
                load_suite(files.suite),
                entrants,
                client=client,
                deployment=ServingDeployment(name="stub", url=stub.url, created=False),
                target=target,
                target_name="stub",
                store=AnswerStore(files.directory / "home" / "answers"),
                path=files.out,
                **settings,
            )

    return run


def by_adapter(stub):
    return Counter(adapter for _, adapter in stub.asked)


async def test_each_case_is_asked_once_of_each_arm_and_recorded_in_order(run, stub, files):
    done = await run()
    assert by_adapter(stub) == {"org/candidate": 10 + WARM_UP, "": 10 + WARM_UP}
    assert read_results(files.out) == list(done.results)
    assert [(result.case, result.arm) for result in done.results] == [
        (f"case {number}", arm) for number in range(10) for arm in BOTH
    ]
    first = done.results[0]
    assert (first.passed, first.prompt_tokens, first.generated_tokens, first.finish_reason) == (True, 40, 10, "length")
    assert (first.timing.queue_ms, first.timing.inference_ms, first.timing.time_per_token_ms) == (1.0, 20.0, 2.0)
    assert first.session == done.session
    assert first.latency_ms > 0


async def test_nothing_is_asked_twice(run, stub):
    first = await run()
    stub.asked.clear()
    second = await run()
    assert stub.asked == []
    assert second.results == first.results
    assert second.scoreboard.reused == 20


async def test_fresh_asks_everything_again_but_not_what_the_same_run_has_asked(run, stub):
    await run()
    stub.asked.clear()
    await run(fresh=True, run="again")
    assert len(stub.asked) == 22
    stub.asked.clear()
    await run(fresh=True, run="again")
    assert stub.asked == []


async def test_changed_checks_grade_the_recorded_outputs_anew(run, stub, files):
    await run()
    stub.asked.clear()
    files.write_suite(10, value="better")
    changed = await run()
    assert stub.asked == []
    assert {result.passed for result in changed.results} == {False}
    files.write_suite(10)
    back = await run()
    assert {result.passed for result in back.results} == {True}
    assert stub.asked == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda files, stub: files.write_target(stub.url, max_new_tokens=5), id="generation settings"),
        pytest.param(lambda files, stub: files.write_target(stub.url.replace("127.0.0.1", "localhost")), id="none"),
    ],
)
async def test_other_settings_are_another_request(run, stub, files, change, request):
    await run()
    stub.asked.clear()
    change(files, stub)
    await run()
    expected = 0 if "none" in request.node.callspec.id else 22
    assert len(stub.asked) == expected, "the address in use is the deployment's, not the file's"


async def test_only_new_cases_and_new_adapters_are_asked(run, stub, files):
    await run()
    stub.asked.clear()
    files.write_suite(12)
    await run()
    assert by_adapter(stub) == {"org/candidate": 2 + WARM_UP, "": 2 + WARM_UP}
    stub.asked.clear()
    await run({**BOTH, Arm.CANDIDATE: Entrant(adapter_id="org/candidate", source=Source.HUB, digest="sha256:new")})
    assert by_adapter(stub) == {"org/candidate": 12 + WARM_UP}


async def test_the_candidate_that_became_champion_is_not_asked_again(run, stub):
    await run()
    stub.asked.clear()
    other = Entrant(adapter_id="org/next", source=Source.HUB, digest="sha256:n")
    done = await run({Arm.CANDIDATE: other, Arm.CHAMPION: CANDIDATE, Arm.BASE: Entrant()})
    assert by_adapter(stub) == {"org/next": 10 + WARM_UP}
    assert {result.arm for result in done.results if result.session != done.session} == {Arm.CHAMPION, Arm.BASE}


async def test_identical_cases_are_as_many_requests(run, stub, files):
    """Ten samples of one prompt are ten answers, and ten recorded answers stand for them."""
    files.write_suite(10, repeat=5)
    await run()
    assert stub.counts()["prompt 0", ""] == 5 + WARM_UP
    stub.asked.clear()
    await run()
    assert stub.asked == []


async def test_arms_whose_latency_is_compared_are_asked_together(run, stub):
    """Answers from two sessions were given under two loads: a ratio of their latencies would say nothing."""
    gate = Gate(against=Against(latency=LatencyRule(of="champion", ratio_at_most=1.2)))
    stopping = Stopping(gate=gate, has_champion=True)
    await run({Arm.CANDIDATE: CHAMPION, Arm.BASE: Entrant()})
    stub.asked.clear()
    done = await run(ALL, stopping=stopping)
    assert by_adapter(stub) == {"org/candidate": 10 + WARM_UP, "org/champion": 10 + WARM_UP}
    pairs = {(result.arm, result.session == done.session) for result in done.results}
    assert pairs == {(Arm.CANDIDATE, True), (Arm.CHAMPION, True), (Arm.BASE, False)}
    stub.asked.clear()
    await run(ALL, stopping=stopping)
    assert stub.asked == [], "now they have answered in one session"


async def test_a_full_server_is_asked_again_later_and_nothing_is_missing(run, stub, files):
    files.write_suite(30)
    files.write_target(stub.url, max_concurrency=16)
    stub.seconds = 0.02
    stub.decide = lambda _prompt, _adapter, _count: (200, {}) if stub.in_flight < 4 else (429, {})
    done = await run()
    assert {result.error for result in done.results} == {None}
    assert stub.most_in_flight >= 4


async def test_retry_after_is_obeyed_by_everybody(run, stub):
    asked_at = []

    def decide(prompt, _adapter, count):
        asked_at.append((asyncio.get_running_loop().time(), prompt))
        return (503, {"retry-after": "0.6"}) if prompt == "prompt 3" and count == 1 else (200, {})

    stub.decide = decide
    done = await run()
    assert {result.error for result in done.results} == {None}
    refused = next(at for at, prompt in asked_at if prompt == "prompt 3")
    later = [at - refused for at, _ in asked_at if at > refused + 0.1]
    assert later
    assert min(later) >= 0.59


async def test_a_broken_connection_is_tried_again(run, stub):
    stub.decide = lambda prompt, _adapter, count: (0, {}) if prompt == "prompt 5" and count == 1 else (200, {})
    done = await run()
    assert {result.error for result in done.results} == {None}
    assert stub.counts()["prompt 5", ""] == 2


async def test_what_cannot_succeed_is_missing_and_asked_again_only_by_the_next_evaluation(run, stub):
    stub.decide = lambda prompt, _adapter, _count: (424, {}) if prompt == "prompt 5" else (200, {})
    first = await run()
    missing = [result for result in first.results if result.error is not None]
    assert [(result.case, result.passed) for result in missing] == [("case 5", None)] * 2
    assert stub.counts()["prompt 5", ""] == 1
    stub.asked.clear()
    stub.decide = lambda _prompt, _adapter, _count: (200, {})
    second = await run()
    assert {result.error for result in second.results} == {None}
    assert set(stub.asked) == {("prompt 5", ""), ("prompt 5", "org/candidate")}


async def test_a_server_that_is_gone_is_given_up_and_the_record_stays(run, stub, files):
    files.write_suite(60)
    stub.decide = lambda prompt, _adapter, _count: (200, {}) if int(prompt.split()[1]) < 8 else (500, {})
    with pytest.raises(UnavailableError):
        await run()
    kept = [result for result in read_results(files.out) if result.error is None]
    assert len(kept) == 16
    stub.asked.clear()
    stub.decide = lambda _prompt, _adapter, _count: (200, {})
    await run()
    assert len(stub.asked) == 2 * (52 + WARM_UP)


async def test_cancelling_leaves_a_record_that_can_be_read_and_gone_on_from(run, stub, files):
    stub.seconds = 0.02
    running = asyncio.create_task(run())
    while len(stub.asked) < 12:
        await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    partial = read_results(files.out)
    assert 0 < len(partial) < 20
    assert all(result.passed for result in partial)
    stub.asked.clear()
    done = await run()
    assert done.scoreboard.reused == len(partial)
    left = Counter((result.case, result.arm) for result in done.results if result.session == done.session)
    assert sum(left.values()) == 20 - len(partial)
    assert len(stub.asked) == 20 - len(partial) + 2 * WARM_UP


async def test_private_data_is_in_no_file_and_its_answers_are_taken_with_their_grade_only(run, stub, files):
    files.write_target(stub.url, redact=["[0-9]{4}"])
    files.write_suite(4, value="card 4711")
    stub.output = lambda _: "card 4711"
    done = await run()
    assert {(result.output, result.passed, result.redacted) for result in done.results} == {("card ***", True, True)}
    written = list(files.directory.rglob("*.jsonl"))
    assert len(written) == 3
    assert not any("4711" in path.read_text() for path in written)
    stub.asked.clear()
    again = await run()
    assert stub.asked == []
    assert all(result.passed for result in again.results)
    files.write_suite(4, value="card 4712")
    await run()
    assert len(stub.asked) == 2 * (4 + WARM_UP), "the masked text cannot be graded by other checks"


@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationError), (422, InvalidRequestError)])
async def test_what_is_private_is_not_in_the_error_that_ends_it(run, stub, files, status, kind):
    """It goes to the terminal, to the flow's state and its logs. Masked before it is cut, or half of it would stay."""
    files.write_suite(30)
    files.write_target(stub.url, redact=["card-[0-9]+"])
    stub.error = "x" * 495 + " card-4711"
    stub.decide = lambda _prompt, _adapter, _count: (status, {})
    with pytest.raises(kind) as caught:
        await run()
    assert caught.value.message.endswith("x ***.")
    assert "card" not in repr(caught.value)
    assert not any("card" in result.error for result in read_results(files.out))


HALF = Gate(min_cases=5, require=[{"metric": "pass_rate", "at_least": 0.5}], against=Against())


@pytest.fixture
async def held(run, stub, files):
    """An evaluation of forty cases that ended early, as each of the candidate's answers was wrong."""
    files.write_suite(40)
    files.write_target(stub.url, max_concurrency=1)
    stub.output = lambda prompt: "bad"
    done = await run(stopping=Stopping(gate=HALF, has_champion=False))
    assert any(result.not_asked for result in done.results)
    stub.asked.clear()
    return done


def later(held, **changes):
    """A late attempt, at which the few answers there are would not do."""
    settings = {"gate": HALF, "has_champion": False, "attempt": 12}
    return Stopping(**{**settings, "precedents": [Precedent(results=held.results, attempt=1)], **changes})


async def test_what_settled_a_verdict_settles_it_again_and_nothing_is_asked(run, stub, files, held):
    again = await run(stopping=later(held))
    assert stub.asked == []
    assert again.results == held.results
    assert read_results(files.out) == list(held.results)
    assert (again.scoreboard.asked, again.scoreboard.done) == (0, 80)


async def test_without_it_the_same_answers_would_be_judged_as_a_further_attempt(run, stub, held):
    again = await run(stopping=later(held, precedents=()))
    assert stub.asked
    assert evidence_digest(again.results) != evidence_digest(held.results)


async def test_answers_that_others_have_got_meanwhile_are_left_out(run, stub, held):
    """The base was asked everything for another candidate: that is no news of this one."""
    other = {Arm.CANDIDATE: replace(CANDIDATE, digest="sha256:other"), Arm.BASE: Entrant()}
    await run(other)
    stub.asked.clear()
    again = await run(stopping=later(held))
    assert stub.asked == []
    assert evidence_digest(again.results) == evidence_digest(held.results)


async def test_another_gate_may_be_settled_by_the_same_answers_or_not(run, stub, held):
    higher = HALF.model_copy(update={"require": [HALF.require[0].model_copy(update={"at_least": 0.6})]})
    again = await run(stopping=later(held, gate=higher))
    assert stub.asked == []
    assert "at_least 0.6" in again.results[-1].error
    lower = HALF.model_copy(update={"require": [HALF.require[0].model_copy(update={"at_least": 0.1})]})
    await run(stopping=later(held, gate=lower))
    assert stub.asked


async def test_what_was_missing_or_asked_for_anew_is_a_new_look(run, stub, files, held):
    broken = [held.results[0].but(error="no answer in time."), *held.results[1:]]
    await run(stopping=later(held, precedents=[Precedent(results=broken, attempt=1)]))
    assert stub.asked
    stub.asked.clear()
    await run(stopping=later(held), fresh=True)
    assert stub.asked
    again = await run(stopping=later(held))
    assert evidence_digest(again.results) != evidence_digest(held.results), "the newest answers count"


LOADED_WITH_THE_FIRST_ANSWER = """
import sys
from slipway.concurrency import Limiter
from slipway.results import Arm, CaseResult
from slipway.scoreboard import Scoreboard
from slipway.services.evaluation_run import _Reporter
board = Scoreboard([Arm.BASE], total=1)
reporter = _Reporter(board, Limiter(1))
before = set(sys.modules)
board.take(CaseResult(case="a", arm=Arm.BASE, passed=True))
reporter.report()
print(*sorted(set(sys.modules) - before))
"""


def test_nothing_is_loaded_while_answers_are_waited_for():
    """It would be in their latency: a third of a second of a free processor, and more of a busy one."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED_WITH_THE_FIRST_ANSWER], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []


async def test_costs_add_up_to_the_price_of_the_time(run, stub, files):
    files.write_target(stub.url, prices={"gpu_hour_usd": 3.6})
    stub.seconds = 0.02
    loop = asyncio.get_running_loop()
    began = loop.time()
    done = await run()
    elapsed = loop.time() - began
    total = sum(result.cost_usd for result in done.results)
    assert 10 * 0.02 * 0.001 * 0.4 < total < elapsed * 0.001


async def test_a_torn_line_costs_one_answer(run, stub, files):
    await run()
    store = files.answers[0]
    whole = store.read_bytes()
    store.write_bytes(whole[:-40])
    stub.asked.clear()
    again = await run()
    assert len(stub.asked) == 1 + WARM_UP
    assert {result.error for result in again.results} == {None}
    lines = store.read_bytes().splitlines()
    broken = [line for line in lines if not _is_json(line)]
    assert len(broken) == 1
    stub.asked.clear()
    await run()
    assert stub.asked == []


async def test_a_place_that_cannot_be_written_is_said(run, files):
    (files.directory / "home").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot be (written|read)"):
        await run()


def _is_json(line):
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
