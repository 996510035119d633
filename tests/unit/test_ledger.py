"""Folds of the ledger: the same facts give the same answer, whoever reads them in whatever order."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.ledger import (
    DeploymentFact,
    DeploymentStage,
    Outcome,
    Promotion,
    PromotionKind,
    ReleaseEnded,
    ReleaseOpened,
    StepRecorded,
    StepStatus,
    Trial,
    UploadFact,
    UploadStage,
    attempt_number,
    champion,
    champion_stack,
    fold_deployments,
    fold_release,
    fold_uploads,
    previous_champion,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(sequence):
    return NOON + timedelta(minutes=sequence)


def history(words):
    """Promotions from words such as ``a b -a``: promote a, promote b, roll back to a."""
    return [
        Promotion(
            name="support",
            target="sandbox",
            sequence=number,
            release_id=f"support-{number}",
            adapter_id=f"support/{word.lstrip('-')}",
            adapter_source="pbase",
            digest=word.lstrip("-"),
            kind=PromotionKind.ROLLBACK if word.startswith("-") else PromotionKind.PROMOTE,
            recorded_at=at(number),
        )
        for number, word in enumerate(words.split(), start=1)
    ]


@pytest.mark.parametrize(
    ("words", "now", "before"),
    [
        ("", None, None),
        ("a", "a", None),
        ("a b", "b", "a"),
        ("a b c", "c", "b"),
        ("a b -a", "a", None),
        ("a b c -b", "b", "a"),
        ("a b c -b -a", "a", None),
        ("a b -a c", "c", "a"),
        ("a b -a b", "b", "a"),
        ("a a", "a", None),
        ("a b b", "b", "a"),
        ("a b b -a", "a", None),
        ("a b a", "a", "b"),
        ("a b a -b", "b", "a"),
        ("a b c -a", "a", None),
        ("a b c -a -c", "c", "a"),
        ("a -a", "a", None),
    ],
)
def test_a_rollback_restores_the_last_different_champion_not_rolled_away_from(words, now, before):
    promotions = history(words)
    found, earlier = champion(promotions), previous_champion(promotions)
    assert (found.digest if found else None) == now
    assert (earlier.digest if earlier else None) == before


@given(st.lists(st.sampled_from(["a", "b", "c", "-a", "-b", "-c"]), max_size=12), st.randoms())
def test_the_champion_does_not_depend_on_the_order_of_reading(words, shuffler):
    promotions = history(" ".join(words))
    shuffled = promotions.copy()
    shuffler.shuffle(shuffled)
    assert champion(shuffled) == champion(promotions)
    assert champion_stack(shuffled) == champion_stack(promotions)


@given(st.lists(st.sampled_from(["a", "b", "c", "-a", "-b", "-c"]), min_size=1, max_size=12))
def test_rolling_back_again_and_again_ends_and_always_changes_what_is_served(words):
    promotions = history(" ".join(words))
    assert champion_stack(promotions)[-1].digest == champion(promotions).digest
    for _ in range(len(words) + 1):
        before = previous_champion(promotions)
        if before is None:
            return
        assert before.digest != champion(promotions).digest
        number = promotions[-1].sequence + 1
        promotions.append(replace(before, sequence=number, kind=PromotionKind.ROLLBACK, recorded_at=at(number)))
    pytest.fail("rolling back never came to an end")


OPENED = ReleaseOpened(
    id="support-3",
    name="support",
    number=3,
    target="sandbox",
    digest="sha256:1",
    suite_digest="s",
    gate_digest="g",
    uri="file:///a",
    actor="",
    recorded_at=NOON,
)


def steps(*words):
    """Step records from words such as ``pull:started``."""
    return [
        StepRecorded(
            release_id="support-3",
            sequence=number,
            step=word.partition(":")[0],
            status=StepStatus(word.partition(":")[2]),
            data={"n": number} if not word.endswith("started") else {},
            recorded_at=at(number),
        )
        for number, word in enumerate(words)
    ]


def test_a_new_release_is_open_and_has_done_nothing():
    state = fold_release(OPENED)
    assert state.is_open
    assert state.outcome is None
    assert state.id == "support-3"
    assert state.finished("pull") is None


def test_only_a_finished_step_need_not_be_done_again():
    state = fold_release(OPENED, steps("pull:started", "pull:finished", "upload:started"))
    assert state.finished("pull").data == {"n": 1}
    assert (state.finished("pull").started_at, state.finished("pull").ended_at) == (at(0), at(1))
    assert state.finished("upload") is None
    assert state.steps["upload"].ended_at is None


def test_a_step_begun_again_counts_its_attempts_and_forgets_the_end():
    state = fold_release(OPENED, steps("pull:started", "pull:failed", "pull:started"))
    assert state.steps["pull"].attempts == 2
    assert state.steps["pull"].status is StepStatus.STARTED
    assert state.steps["pull"].ended_at is None
    assert state.steps["pull"].data == {"n": 1}, "what the failure said stays until there is news"


def test_an_end_without_a_start_is_taken_as_it_is():
    state = fold_release(OPENED, steps("pull:finished"))
    assert (state.steps["pull"].attempts, state.steps["pull"].started_at) == (0, None)


def test_an_ended_release_is_not_continued():
    ended = ReleaseEnded(release_id="support-3", outcome=Outcome.HELD, reasons=("worse",), recorded_at=at(9))
    state = fold_release(OPENED, ended=ended)
    assert not state.is_open
    assert state.outcome is Outcome.HELD


@given(
    st.lists(st.tuples(st.sampled_from(["pull", "upload"]), st.sampled_from(list(StepStatus))), max_size=8),
    st.randoms(),
)
def test_folding_a_release_does_not_depend_on_the_order_of_reading(words, shuffler):
    records = steps(*(f"{step}:{status}" for step, status in words))
    shuffled = records.copy()
    shuffler.shuffle(shuffled)
    assert fold_release(OPENED, shuffled) == fold_release(OPENED, records)


def upload(sequence, stage, attempt="one", **more):
    return UploadFact(
        sequence=sequence,
        target="sandbox",
        digest="d",
        repository="support",
        attempt_id=attempt,
        stage=UploadStage(stage),
        recorded_at=at(sequence),
        **more,
    )


def test_an_attempt_keeps_what_later_stages_do_not_repeat():
    facts = [
        upload(1, "intended", tags_before=()),
        upload(2, "token", upload_token="canary"),
        upload(3, "sent"),
    ]
    random.Random(0).shuffle(facts)
    (state,) = fold_uploads(facts)
    assert (state.stage, state.upload_token, state.tags_before) == (UploadStage.SENT, "canary", ())
    assert state.is_open
    assert "canary" not in repr(state) + repr(facts)


@pytest.mark.parametrize("stage", ["committed", "abandoned"])
def test_an_attempt_ends_committed_or_abandoned(stage):
    states = fold_uploads([upload(1, "intended"), upload(2, stage), upload(3, "intended", "two")])
    assert [state.is_open for state in states] == [False, True]


def deployment(sequence, stage, name="prod", base="qwen", target="sandbox"):
    return DeploymentFact(
        sequence=sequence,
        target=target,
        name=name,
        release_id="support-1",
        stage=DeploymentStage(stage),
        base_model=base,
        recorded_at=at(sequence),
    )


@pytest.mark.parametrize("stage", [stage for stage in DeploymentStage if stage is not DeploymentStage.DELETED])
def test_a_deployment_may_cost_money_until_its_deletion_is_recorded(stage):
    (state,) = fold_deployments([deployment(1, "intended"), deployment(2, stage)])
    assert state.is_open
    assert state.since == at(1)


def test_open_deployments_come_first_and_oldest_first():
    facts = [
        deployment(1, "intended", "gone"),
        deployment(2, "deleted", "gone", base=""),
        deployment(3, "intended", "old"),
        deployment(4, "intended", "new"),
        deployment(5, "ready", "old"),
    ]
    states = fold_deployments(reversed(facts))
    assert [state.name for state in states] == ["old", "new", "gone"]
    assert states[-1].base_model == "qwen"


def test_a_name_used_again_begins_a_new_life():
    (state,) = fold_deployments([deployment(1, "intended"), deployment(2, "deleted"), deployment(3, "intended")])
    assert state.since == at(3)


def test_only_evidence_that_could_have_promoted_counts_as_an_attempt():
    held, broken, again = (
        Trial(evidence="a", spends=True),
        Trial(evidence="b", spends=False),
        Trial(evidence="c", spends=True),
    )
    assert attempt_number([], "a") == 1
    assert attempt_number([held], "b") == 2
    assert attempt_number([held, broken], "c") == 2
    assert attempt_number([held, broken, again], "d") == 3


def test_the_same_evidence_is_the_same_attempt():
    """A repeated release decides as it did, and no gate file can be shopped for at a price."""
    trials = [Trial(evidence="a", spends=True), Trial(evidence="a", spends=True), Trial(evidence="c", spends=True)]
    assert attempt_number(trials, "a") == 1
    assert attempt_number(trials, "c") == 2
    assert attempt_number(trials, "d") == 3
