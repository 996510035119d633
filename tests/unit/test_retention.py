"""What the store keeps: each reason, and a bundle just outside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from slipway.ledger import Outcome, Promotion, PromotionKind, ReleaseEnded, ReleaseOpened, ReleaseState
from slipway.retention import reasons_to_keep

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=400)


def promoted(sequence, digest, kind=PromotionKind.PROMOTE, *, name="support", target="prod"):
    return Promotion(
        name=name,
        target=target,
        sequence=sequence,
        release_id=f"{name}-{sequence}",
        adapter_id=f"{name}/{sequence}",
        adapter_source="pbase",
        digest=digest,
        kind=kind,
        recorded_at=LONG_AGO,
    )


def release(digest, *, is_open):
    opened = ReleaseOpened(
        id="support-9",
        name="support",
        number=9,
        target="prod",
        digest=digest,
        suite_digest="s",
        gate_digest="g",
        uri="u",
        actor="",
        recorded_at=LONG_AGO,
    )
    ended = None if is_open else ReleaseEnded(release_id="support-9", outcome=Outcome.HELD, recorded_at=LONG_AGO)
    return ReleaseState(opened=opened, steps={}, ended=ended)


def kept(digests, *, promotions=(), releases=(), derived_from=None, days=30, used_at=LONG_AGO):
    return reasons_to_keep(
        dict.fromkeys(digests, used_at),
        promotions=promotions,
        releases=releases,
        derived_from=derived_from or {},
        now=NOW,
        older_than=timedelta(days=days),
    )


def test_champion_and_the_one_before_are_kept_and_the_one_before_that_is_not():
    found = kept("abc", promotions=[promoted(1, "a"), promoted(2, "b"), promoted(3, "c")])
    assert found == {"c": "the champion of support on prod", "b": "the previous champion of support on prod"}


def test_what_a_rollback_would_restore_next_is_kept():
    """After a rollback from c to b, the next one restores a."""
    history = [promoted(1, "a"), promoted(2, "b"), promoted(3, "c"), promoted(4, "b", PromotionKind.ROLLBACK)]
    assert set(kept("abc", promotions=history)) == {"a", "b"}


def test_each_name_and_target_has_its_own_champion():
    history = [promoted(1, "a"), promoted(1, "b", target="lab"), promoted(1, "c", name="sales")]
    assert set(kept("abcd", promotions=history)) == {"a", "b", "c"}


@pytest.mark.parametrize("is_open", [True, False])
def test_bundle_of_an_open_release_is_kept(is_open):
    assert bool(kept("a", releases=[release("a", is_open=is_open)])) is is_open


def test_what_was_fitted_from_a_champion_is_kept_with_it_and_the_other_way_round():
    history = [promoted(1, "origin"), promoted(1, "fitted-2", name="sales")]
    links = {"fitted": ["origin"], "again": ["fitted"], "fitted-2": ["origin-2"], "other": ["nobody"]}
    found = kept(["origin", "fitted", "again", "origin-2", "fitted-2", "other"], promotions=history, derived_from=links)
    assert set(found) == {"origin", "fitted", "again", "origin-2", "fitted-2"}
    assert found["fitted"] == "fitted from the champion of support on prod"


@pytest.mark.parametrize(("age", "is_kept"), [(timedelta(days=30), False), (timedelta(days=30, seconds=-1), True)])
def test_what_was_pulled_lately_is_kept(age, is_kept):
    assert bool(kept("a", used_at=NOW - age)) is is_kept


def test_bundle_that_is_not_in_the_store_needs_no_reason():
    assert kept("", promotions=[promoted(1, "a")]) == {}
