"""How many requests are in flight, against servers whose behaviour is a formula."""

from __future__ import annotations

import asyncio
import heapq
from itertools import pairwise

import pytest

from slipway.concurrency import Limiter, Patience, Window


class Server:
    """Simulated: answers a request after ``seconds(in_flight)``, refuses at once beyond ``most``, never errs."""

    def __init__(self, seconds, *, most=10**9):
        self._seconds = seconds
        self._most = most

    def run(self, window, requests):
        """Keep the window full until ``requests`` are answered; gives the time, and the window at every answer."""
        now, events, in_flight, answered, order, limits, refusals = 0.0, [], 0, 0, 0, [], 0
        while answered < requests:
            while in_flight < window.limit and answered + in_flight < requests:
                ticket, order = window.sent(now), order + 1
                refused = in_flight >= self._most
                in_flight += 1
                delay = 0.001 if refused else self._seconds(in_flight)
                heapq.heappush(events, (now + delay, order, ticket, refused))
            now, _, ticket, refused = heapq.heappop(events)
            if refused:
                window.refused(ticket, now)
                refusals += 1
            else:
                window.answered(ticket, now, in_flight=in_flight)
                answered += 1
                limits.append(window.limit)
            in_flight -= 1
        return now, limits, refusals


def constant(seconds):
    return lambda _in_flight: seconds


@pytest.mark.parametrize("maximum", [1, 2, 3, 256])
def test_it_begins_with_all_that_the_owner_allows(maximum):
    assert Window(maximum).limit == maximum


def test_nothing_in_flight_is_no_window():
    with pytest.raises(ValueError, match="at least one"):
        Window(0)


def test_a_suite_of_usual_length_is_asked_in_the_least_time_where_the_server_takes_all():
    """1,000 cases of three arms, 256 allowed: 12 round trips."""
    window = Window(256)
    seconds, limits, _ = Server(constant(0.05)).run(window, 3000)
    assert set(limits) == {256}
    assert seconds == pytest.approx(12 * 0.05)


@pytest.mark.parametrize(("rounds", "looks"), [(15, 0), (40, 1), (400, 1)])
def test_half_is_tried_once_after_sixteen_round_trips_and_left_where_it_serves_less(rounds, looks):
    window = Window(64)
    seconds, limits, _ = Server(constant(0.05)).run(window, rounds * 64)
    changes = [now for before, now in pairwise(limits) if now != before]
    assert changes == [32, 64] * looks
    assert limits.index(32) == 16 * 64 - 1 if looks else 32 not in limits
    assert seconds <= (rounds + 2 * looks) * 0.05 * 1.001


def test_it_never_exceeds_the_maximum():
    for maximum in (1, 2, 3, 5, 100):
        _, limits, _ = Server(constant(0.05)).run(Window(maximum), 2000)
        assert max(limits) == maximum


def test_half_is_enough_where_more_brings_nothing():
    """A server that works on 16 at a time: at 128 in flight 112 wait, and nobody is served sooner."""
    window = Window(128)
    server = Server(lambda in_flight: 0.05 * max(1.0, in_flight / 16))
    seconds, limits, _ = server.run(window, 20_000)
    assert limits.count(128) <= 16 * 128
    assert limits[16 * 128] == 64
    assert sum(limits[-10_000:]) / 10_000 < 80, "growth that brings nothing is taken back"
    assert seconds <= 20_000 / (16 / 0.05) * 1.1


def test_it_goes_on_growing_while_throughput_does():
    """Twice the batch in 1.5 times the time is a third more throughput."""
    window = Window(64)
    Server(lambda in_flight: 0.05 * in_flight**0.58).run(window, 4000)
    assert window.limit == 64


def test_one_volley_of_refusals_halves_once():
    window = Window(64)
    tickets = [window.sent(0.0) for _ in range(32)]
    for ticket in tickets:
        window.refused(ticket, 0.1)
    assert window.limit == 32
    later = window.sent(0.2)
    window.refused(later, 0.3)
    assert window.limit == 16


def test_it_never_falls_below_one():
    window = Window(8)
    for now in range(20):
        window.refused(window.sent(now), now)
    assert window.limit == 1


def test_it_settles_below_what_the_server_refuses():
    """40 allowed of 256: few are refused, and throughput stays near what 40 give."""
    window = Window(256)
    seconds, limits, refusals = Server(constant(0.05), most=40).run(window, 6000)
    assert refusals < 0.1 * 6000
    assert seconds <= 6000 / 40 * 0.05 * 1.35
    assert 20 <= sum(limits[-2000:]) / 2000 <= 41


def test_a_server_that_recovers_is_used_again():
    window = Window(64)
    for now in range(6):
        window.refused(window.sent(now), float(now))
    assert window.limit == 1
    Server(constant(0.01)).run(window, 6000)
    assert window.limit >= 48


def test_a_server_that_refused_everything_for_a_while_is_soon_used_again():
    """As while it restarts: it takes no less than before, and a suite of usual length must not be asked one by one."""
    window = Window(64)
    for _ in range(6):
        window.refused(window.sent(0.0), 0.0)
    assert window.limit == 1
    seconds, limits, _ = Server(constant(0.01)).run(window, 300)
    assert limits[-1] >= 48
    assert seconds <= 300 * 0.01 / 3


def test_answers_say_nothing_while_nobody_wanted_more():
    """A suite's last answers come one by one: that is no drop of throughput."""
    window = Window(64)
    for number in range(2000):
        window.answered(window.sent(number), number + 0.5, in_flight=1)
    assert window.limit == 64


class Time:
    def __init__(self):
        self.now = 0.0

    def patience(self):
        return Patience(sleep=self.sleep, clock=lambda: self.now)

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 0.125, 0.25), (3, 0.5, 1.0), (6, 4.0, 8.0), (9, 4.0, 8.0)])
def test_waits_double_up_to_a_limit_with_jitter(attempt, low, high):
    assert Patience(fraction=lambda: 0.0).wait_seconds(attempt) == low
    assert Patience(fraction=lambda: 0.999999).wait_seconds(attempt) == pytest.approx(high, rel=1e-5)


async def test_a_slot_is_waited_for():
    limiter = Limiter(1, Time().patience())
    await limiter.enter()
    second = asyncio.create_task(limiter.enter())
    await asyncio.sleep(0)
    assert not second.done()
    limiter.leave()
    await second
    assert limiter.in_flight == 1


async def test_one_who_stops_waiting_passes_the_turn_on():
    limiter = Limiter(1, Time().patience())
    await limiter.enter()
    second, third = asyncio.create_task(limiter.enter()), asyncio.create_task(limiter.enter())
    await asyncio.sleep(0)
    limiter.leave()
    second.cancel()
    await third
    assert limiter.in_flight == 1
    assert second.cancelled() or second.done()


async def test_a_pause_holds_everybody():
    time = Time()
    limiter = Limiter(4, time.patience())
    await limiter.enter()
    limiter.refused(limiter.sent(0.0), 0.0, 5.0)
    assert limiter.must_yield
    limiter.leave()
    await limiter.enter()
    assert time.now == 5.0
    assert not limiter.must_yield


async def test_a_smaller_window_takes_slots_back():
    limiter = Limiter(4, Time().patience())
    for _ in range(4):
        await limiter.enter()
    tickets = [limiter.sent(0.0) for _ in range(4)]
    assert not limiter.must_yield
    limiter.refused(tickets[0], 0.1)
    assert limiter.limit == 2
    assert limiter.must_yield
    limiter.leave()
    limiter.leave()
    assert not limiter.must_yield


def test_answers_to_what_was_sent_before_a_refusal_do_not_grow_the_window():
    """They were served by the window that was too large, and tell nothing of the halved one."""
    window = Window(64)
    *earlier, last = [window.sent(0.0) for _ in range(64)]
    window.refused(last, 0.1)
    for ticket in earlier:
        window.answered(ticket, 0.2, in_flight=63)
    assert window.limit == 32
    later = [window.sent(0.2) for _ in range(32)]
    for ticket in later:
        window.answered(ticket, 0.3, in_flight=32)
    assert window.limit > 32


async def test_a_window_that_grows_lets_one_who_waits_in_at_once():
    """Before anybody else gives a slot back: else what was gained is used one answer late."""
    limiter = Limiter(4, Patience(clock=lambda: 0.0))
    limiter.refused(limiter.sent(0.0), 0.0)
    for _ in range(2):
        await limiter.enter()
    waiting = asyncio.create_task(limiter.enter())
    for number in range(1, 100):
        limiter.answered(limiter.sent(float(number)), number + 0.5)
        await asyncio.sleep(0)
        assert waiting.done() is (limiter.limit > 2)
    await waiting
    assert (limiter.limit, limiter.in_flight) == (3, 3)
