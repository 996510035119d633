"""What a release is asked to do, how it ends, and who relies on a deployment."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.errors import ConfigurationError
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
from slipway.release import ReleaseOutcome, Step, deployment_users, plan_release, require_name

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["a", "7", "support", "support-bot-2", "a" * 62, "0-0"])
def test_names_that_artifacts_and_repositories_allow(name):
    assert require_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a/b", "a b", "a.b", "ä", "a" * 63, "a\n", "..", "--yes", "a\x00"]
)
def test_other_names_are_refused_with_what_to_write(name):
    with pytest.raises(ConfigurationError) as caught:
        require_name(name)
    assert repr(name) in caught.value.message
    assert "lower-case" in caught.value.fix
    assert caught.value.exit_code == 2


@given(st.text())
def test_an_accepted_name_is_safe_everywhere_it_goes(name):
    try:
        require_name(name)
    except ConfigurationError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 0 < len(name) <= 62


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.PROMOTED, 0),
        (Outcome.UNCHANGED, 0),
        (Outcome.HELD, 1),
        (Outcome.REFUSED, 1),
        (Outcome.INCONCLUSIVE, 3),
        (Outcome.FAILED, 3),
    ],
)
def test_exit_codes(outcome, code):
    ended = ReleaseOutcome(
        release_id="a-1",
        name="a",
        target="t",
        outcome=outcome,
        reasons=(),
        digest="",
        adapter_id="",
        champion="",
        report=None,
        results=None,
        seconds={},
    )
    assert ended.exit_code == code


@pytest.fixture
def files(tmp_path, monkeypatch):
    contents = {
        "targets/here.yaml": "kind: sandbox\nbases: {org/base: {}}\n",
        "suites/any.yaml": "prompts: ['{{x}}']\ntests: [{vars: {x: one}}]\n",
        "gates/any.yaml": "min_cases: 2\n",
    }
    for name, text in contents.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("SLIPWAY_CONFIGS", str(tmp_path / "configs"))
    return tmp_path / "configs"


REQUEST = {"adapter": "a", "name": "support", "target": "here", "suite": "any", "gate": "any"}


def test_a_plan_has_read_every_file(files):
    plan = plan_release(**REQUEST)
    assert (plan.name, plan.adapter, plan.target_name) == ("support", "a", "here")
    assert list(plan.target.bases) == ["org/base"]
    assert len(plan.suite.cases) == 1
    assert plan.gate.min_cases == 2
    assert [source.stem for source in plan.sources] == ["here", "any", "any"]


def test_the_digest_of_the_gate_changes_with_the_file(files):
    before = plan_release(**REQUEST).gate_digest
    assert plan_release(**REQUEST).gate_digest == before
    (files / "gates" / "any.yaml").write_text("min_cases: 3\n")
    assert plan_release(**REQUEST).gate_digest != before


@pytest.mark.parametrize(
    "wrong", [{"name": "Support"}, {"target": "there"}, {"suite": "none"}, {"gate": "none"}, {"suite": "gone.yaml"}]
)
def test_a_wrong_request_has_no_plan(files, wrong):
    with pytest.raises(ConfigurationError):
        plan_release(**REQUEST | wrong)


@pytest.mark.parametrize("kind", ["targets/here", "suites/any", "gates/any"])
def test_a_file_that_is_wrong_is_named_with_its_line(files, kind):
    (files / f"{kind}.yaml").write_text("nonsense: 1\n")
    with pytest.raises(ConfigurationError, match=rf"{kind.partition('/')[2]}\.yaml:1"):
        plan_release(**REQUEST)


# Who relies on a deployment


def release(id_, *, deployment="prod", served=StepStatus.FINISHED, outcome=None):
    name, _, number = id_.rpartition("-")
    opened = ReleaseOpened(
        id=id_,
        name=name,
        number=int(number),
        target="t",
        digest="",
        suite_digest="",
        gate_digest="",
        uri="",
        actor="",
        recorded_at=NOON,
    )
    step = StepRecorded(
        release_id=id_,
        sequence=1,
        step=Step.SERVE,
        status=served,
        data={"deployment": deployment} if served is StepStatus.FINISHED else {},
        recorded_at=NOON,
    )
    ended = outcome and ReleaseEnded(release_id=id_, outcome=outcome, recorded_at=NOON)
    return fold_release(opened, [step], ended)


def promoted(*release_ids, kind=PromotionKind.PROMOTE):
    return [
        Promotion(
            name=release_id.rpartition("-")[0],
            target="t",
            sequence=sequence,
            release_id=release_id,
            adapter_id="",
            adapter_source="",
            digest="",
            kind=kind,
            recorded_at=NOON,
        )
        for sequence, release_id in enumerate(release_ids, start=1)
    ]


def users(*releases, promotions=(), besides="me-1"):
    return deployment_users("prod", releases=releases, promotions=promotions, besides=besides)


def test_nobody_relies_on_a_deployment_that_nobody_used():
    assert users() == []
    assert users(release("me-1")) == []


def test_an_unfinished_release_that_attached_relies_on_it():
    assert users(release("me-1"), release("other-1")) == ["other-1"]


def test_an_unfinished_release_elsewhere_or_still_waiting_does_not():
    assert users(release("other-1", deployment="canary"), release("other-2", served=StepStatus.STARTED)) == []


def test_a_champion_proved_on_it_relies_on_it():
    """Its applications are served by it: taking it down would cut them off."""
    champion = release("other-1", outcome=Outcome.PROMOTED)
    assert users(champion, promotions=promoted("other-1")) == ["other-1"]


def test_a_release_that_is_cut_after_it_promoted_its_adapter_relies_on_its_own_deployment():
    """Its adapter is champion already, and taking the deployment down would cut its applications off."""
    assert users(release("me-1"), promotions=promoted("me-1")) == ["me-1"]
    assert users(release("me-1"), promotions=promoted("me-1", "me-2")) == []


def test_a_former_champion_and_a_held_candidate_do_not():
    releases = [release("other-1", outcome=Outcome.PROMOTED), release("other-2", outcome=Outcome.HELD)]
    elsewhere = release("other-3", deployment="canary", outcome=Outcome.PROMOTED)
    assert users(*releases, elsewhere, promotions=promoted("other-1", "other-3")) == []


def test_champions_of_several_names_count_each():
    releases = [release(f"{name}-1", outcome=Outcome.PROMOTED) for name in ("a", "b")]
    assert users(*releases, promotions=[*promoted("a-1"), *promoted("b-1")]) == ["a-1", "b-1"]
