"""Prices, and each answer's share of the server's time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.cost import ShareClock, cost_usd
from slipway.targets import Prices


def cost(prices, *, prompt=400, generated=100, share=2.0, gpus=1):
    return cost_usd(prices, prompt_tokens=prompt, generated_tokens=generated, share_seconds=share, gpus=gpus)


def test_without_a_price_nothing_is_known():
    assert cost(Prices()) is None


def test_tokens_cost_in_and_out_alike():
    assert cost(Prices(million_tokens_usd=2.0)) == pytest.approx(500 * 2 / 1e6)


def test_time_costs_for_every_gpu():
    assert cost(Prices(gpu_hour_usd=3.6), gpus=4) == pytest.approx(2.0 * 4 * 0.001)


def test_a_replica_has_one_gpu_unless_told():
    prices = Prices(gpu_hour_usd=3.6)
    assert cost_usd(prices, prompt_tokens=1, generated_tokens=1, share_seconds=2.0) == pytest.approx(0.002)


def test_both_prices_add_up():
    both = Prices(million_tokens_usd=2.0, gpu_hour_usd=3.6)
    assert cost(both) == pytest.approx(0.001 + 0.002)


@pytest.mark.parametrize(
    ("prices", "unknown"),
    [
        (Prices(million_tokens_usd=2.0), {"prompt": None}),
        (Prices(million_tokens_usd=2.0), {"generated": None}),
        (Prices(gpu_hour_usd=2.0), {"share": None}),
    ],
)
def test_what_cannot_be_multiplied_is_unknown(prices, unknown):
    assert cost(prices, **unknown) is None


def test_a_price_of_nothing_is_a_price():
    assert cost(Prices(million_tokens_usd=0.0)) == 0.0


def test_requests_in_flight_share_the_time_evenly():
    clock = ShareClock()
    first = clock.start(10.0)
    second = clock.start(11.0)
    assert clock.stop(first, 13.0) == pytest.approx(1.0 + 2.0 / 2)
    assert clock.stop(second, 14.0) == pytest.approx(2.0 / 2 + 1.0)


def test_idle_time_is_nobodys():
    clock = ShareClock()
    assert clock.stop(clock.start(0.0), 1.0) == 1.0
    assert clock.stop(clock.start(100.0), 101.0) == 1.0


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 50)), min_size=1, max_size=30))
def test_shares_add_up_to_the_time_in_use(spans):
    clock = ShareClock()
    events = sorted(
        [(start, 1, number) for number, (start, _) in enumerate(spans)]
        + [(start + length, 2, number) for number, (start, length) in enumerate(spans)]
    )
    readings, shares, busy, in_flight, last = {}, 0.0, 0.0, 0, 0.0
    for at, kind, number in events:
        busy += (at - last) if in_flight else 0.0
        last = at
        if kind == 1:
            readings[number] = clock.start(at)
            in_flight += 1
        else:
            shares += clock.stop(readings[number], at)
            in_flight -= 1
    assert shares == pytest.approx(busy, abs=1e-6)
