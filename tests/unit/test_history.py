"""An adapter's past as people read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from slipway.history import history_of
from slipway.ledger import (
    Outcome,
    Promotion,
    PromotionKind,
    ReleaseEnded,
    ReleaseOpened,
    StepRecorded,
    StepStatus,
    fold_release,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def release(number, *steps, outcome=None, reasons=(), opened=0, ended=None):
    """A release opened so many minutes after noon; ``steps`` are name, status and data."""
    name = f"support-{number}"
    events = [
        StepRecorded(release_id=name, sequence=at, step=step, status=status, data=data, recorded_at=NOON)
        for at, (step, status, data) in enumerate(steps)
    ]
    return fold_release(
        ReleaseOpened(
            id=name,
            name="support",
            number=number,
            target="sandbox",
            digest=f"sha256:{number}",
            suite_digest="",
            gate_digest="",
            uri="file:///a",
            actor="me@here",
            recorded_at=NOON + timedelta(minutes=opened),
        ),
        events,
        outcome
        and ReleaseEnded(
            release_id=name,
            outcome=outcome,
            reasons=reasons,
            recorded_at=NOON + timedelta(minutes=opened if ended is None else ended),
        ),
    )


def promotion(sequence, *, kind, minutes, to=1):
    return Promotion(
        name="support",
        target="sandbox",
        sequence=sequence,
        release_id=f"support-{to}",
        adapter_id=f"support/{to}",
        adapter_source="pbase",
        digest=f"sha256:{to}",
        kind=kind,
        recorded_at=NOON + timedelta(minutes=minutes),
        actor="you@there",
    )


UPLOADED = ("upload", StepStatus.FINISHED, {"adapter_id": "support/4"})


def test_no_past_is_no_entries():
    assert history_of([], []) == []


def test_entries_stand_in_the_order_in_which_they_ended():
    """A long release that was opened first and held last stands after the short one in between."""
    entries = history_of(
        [
            release(1, outcome=Outcome.PROMOTED, opened=0, ended=1),
            release(2, outcome=Outcome.HELD, opened=2, ended=9),
            release(3, outcome=Outcome.PROMOTED, opened=3, ended=4),
        ],
        [promotion(3, kind=PromotionKind.ROLLBACK, minutes=6)],
    )
    assert [(entry.release_id, entry.outcome) for entry in entries] == [
        ("support-1", "promoted"),
        ("support-3", "promoted"),
        ("support-1", "rolled back"),
        ("support-2", "held"),
    ]


def test_a_promotion_is_told_once_by_its_release():
    entries = history_of([release(1, outcome=Outcome.PROMOTED)], [promotion(1, kind=PromotionKind.PROMOTE, minutes=1)])
    assert [entry.outcome for entry in entries] == ["promoted"]


def test_a_rollback_names_the_champion_it_restored():
    (entry,) = history_of([], [promotion(4, kind=PromotionKind.ROLLBACK, minutes=1)])
    assert (entry.adapter_id, entry.digest, entry.actor) == ("support/1", "sha256:1", "you@there")
    assert entry.why == "support/1 is champion again"


def test_an_ended_release_gives_its_reasons_the_first_in_short():
    (entry,) = history_of([release(4, UPLOADED, outcome=Outcome.HELD, reasons=("worse.", "slower."))], [])
    assert (entry.why, entry.reasons, entry.adapter_id) == ("worse.", ("worse.", "slower."), "support/4")


def test_a_release_without_reasons_has_an_empty_why():
    (entry,) = history_of([release(4, outcome=Outcome.PROMOTED)], [])
    assert (entry.why, entry.reasons, entry.adapter_id) == ("", (), "")


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((), "not begun"),
        ((("pull", StepStatus.FINISHED, {}), ("upload", StepStatus.STARTED, {})), "upload started"),
        ((("upload", StepStatus.FAILED, {"error": "503. Wait."}),), "upload failed: 503. Wait."),
        ((UPLOADED, ("upload", StepStatus.STARTED, {})), "upload started"),
        ((("upload", StepStatus.FAILED, {"error": "503"}), ("upload", StepStatus.STARTED, {})), "upload started"),
    ],
)
def test_an_open_release_says_where_it_stands(steps, why):
    (entry,) = history_of([release(4, *steps)], [])
    assert (entry.outcome, entry.why) == ("open", why)
    assert entry.at == NOON


def test_as_json_says_null_where_nothing_was_uploaded():
    (entry,) = history_of([release(4, outcome=Outcome.REFUSED, reasons=("NaN.",))], [])
    assert entry.as_json() == {
        "at": "2026-01-01T12:00:00+00:00",
        "release": "support-4",
        "target": "sandbox",
        "outcome": "refused",
        "adapter_id": None,
        "digest": "sha256:4",
        "reasons": ["NaN."],
        "actor": "me@here",
    }
