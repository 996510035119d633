"""The ledger on SQLite and on PostgreSQL: what is written is read back, folded, and never changed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from slipway.errors import ChampionMovedError, LedgerError
from slipway.ledger import DeploymentStage, Outcome, PromotionKind, StepStatus, UploadStage, previous_champion
from slipway.services.ledger_schema import APPEND_ONLY
from slipway.services.ledger_store import Ledger

KEY = {"name": "support", "target": "sandbox", "digest": "sha256:1", "suite_digest": "s", "gate_digest": "g"}
UPLOAD = {"target": "sandbox", "digest": "sha256:1", "repository": "support"}


def promote(ledger, number, *, expected, digest=None, **more):
    return ledger.promote(
        name="support",
        target="sandbox",
        expected_champion=expected,
        release_id=f"support-{number}",
        adapter_id=f"support/{number}",
        adapter_source="pbase",
        digest=digest or f"sha256:{number}",
        **more,
    )


def everything(ledger):
    """Put a row into every append-only table."""
    ledger.record_bundle(digest="d", uri="file:///a", resolved_revision="d", size_bytes=1, base_model="b")
    ledger.record_upload(**UPLOAD, attempt_id="one", stage="intended")
    release = ledger.open_release(**KEY, uri="file:///a")
    ledger.record_deployment(target="sandbox", name="prod", release_id=release.id, stage="intended")
    ledger.record_step(release.id, "pull", "started")
    ledger.end_release(release.id, "promoted")
    promote(ledger, 1, expected=None)
    return release.id


def test_a_bundle_is_recorded_once_for_each_place_it_came_from(ledger):
    bundle = {"digest": "d", "resolved_revision": "r", "size_bytes": 5_000_000_000, "base_model": "b"}
    for uri in ("hf://o/n", "hf://o/n", "file:///a"):
        ledger.record_bundle(uri=uri, derived_from="e", changes=["padded"], **bundle)
    found = ledger.bundles("d")
    assert [item.uri for item in found] == ["hf://o/n", "file:///a"]
    assert (found[0].size_bytes, found[0].derived_from, found[0].changes) == (5_000_000_000, "e", ("padded",))
    assert ledger.bundles("x") == ()


def test_an_upload_is_found_again_at_every_stage(ledger):
    assert ledger.open_upload(target="sandbox", digest="sha256:1") is None
    ledger.record_upload(**UPLOAD, attempt_id="one", stage="intended", tags_before=[1, 2])
    ledger.record_upload(**UPLOAD, attempt_id="one", stage=UploadStage.TOKEN, upload_token="t")
    ledger.record_upload(**UPLOAD, attempt_id="one", stage="sent")
    found = ledger.open_upload(target="sandbox", digest="sha256:1")
    assert (found.stage, found.upload_token, found.tags_before) == (UploadStage.SENT, "t", (1, 2))
    assert ledger.find_version(target="sandbox", digest="sha256:1") is None
    ledger.record_upload(**UPLOAD, attempt_id="one", stage="committed", version="support/3")
    assert ledger.open_upload(target="sandbox", digest="sha256:1") is None
    assert ledger.find_version(target="sandbox", digest="sha256:1") == "support/3"
    assert ledger.find_version(target="other", digest="sha256:1") is None


def test_an_abandoned_upload_is_not_continued(ledger):
    ledger.record_upload(**UPLOAD, attempt_id="one", stage="intended")
    ledger.record_upload(**UPLOAD, attempt_id="one", stage="abandoned")
    assert ledger.open_upload(target="sandbox", digest="sha256:1") is None
    ledger.record_upload(**UPLOAD, attempt_id="two", stage="intended")
    assert ledger.open_upload(target="sandbox", digest="sha256:1").attempt_id == "two"


def test_a_committed_upload_has_a_version(ledger):
    with pytest.raises(LedgerError, match="without its version"):
        ledger.record_upload(**UPLOAD, attempt_id="one", stage="committed")


def test_deployments_that_may_cost_money_come_first(ledger):
    for name, stages in {"gone": ["intended", "created", "deleting", "deleted"], "up": ["intended"]}.items():
        for stage in stages:
            ledger.record_deployment(target="sandbox", name=name, release_id="r", stage=stage, base_model="b")
    ledger.record_deployment(target="other", name="up", release_id="r", stage="failed")
    states = ledger.created_deployments("sandbox")
    assert [(state.name, state.stage) for state in states] == [
        ("up", DeploymentStage.INTENDED),
        ("gone", DeploymentStage.DELETED),
    ]
    assert [state.is_open for state in ledger.created_deployments()] == [True, True, False]


def test_an_unfinished_release_is_continued_and_an_ended_one_is_not(ledger):
    first = ledger.open_release(**KEY, uri="file:///a", actor="me")
    assert first.id == "support-1"
    ledger.record_step(first.id, "pull", "started")
    ledger.record_step(first.id, "pull", StepStatus.FINISHED, {"digest": "sha256:1", "sizes": [1, 2]})
    again = ledger.open_release(**KEY, uri="file:///elsewhere")
    assert again.id == first.id
    assert again.finished("pull").data == {"digest": "sha256:1", "sizes": [1, 2]}
    assert again.opened.uri == "file:///a"
    ledger.end_release(first.id, "held", reasons=["worse by 0.1"], evidence={"n": 30})
    assert ledger.open_release(**KEY, uri="file:///a").id == "support-2"
    state = ledger.release(first.id)
    assert (state.outcome, state.ended.reasons, state.ended.evidence) == (Outcome.HELD, ("worse by 0.1",), {"n": 30})


@pytest.mark.parametrize("key", ["target", "digest", "suite_digest", "gate_digest"])
def test_another_request_is_another_release_with_the_next_number(ledger, key):
    ledger.open_release(**KEY, uri="u")
    assert ledger.open_release(**{**KEY, key: "another"}, uri="u").id == "support-2"
    assert ledger.open_release(**{**KEY, "name": "sales"}, uri="u").id == "sales-1"


def test_releases_are_listed_oldest_first_by_name_and_target(ledger):
    for name, target in (("a", "x"), ("b", "x"), ("a", "y")):
        ledger.open_release(**{**KEY, "name": name, "target": target}, uri="u")
    assert [state.id for state in ledger.releases()] == ["a-1", "b-1", "a-2"]
    assert [state.id for state in ledger.releases("a")] == ["a-1", "a-2"]
    assert [state.id for state in ledger.releases("a", "y")] == ["a-2"]


def test_a_release_ends_once(ledger):
    release = ledger.open_release(**KEY, uri="u")
    ledger.end_release(release.id, "held", reasons=["a"])
    ledger.end_release(release.id, "held", reasons=["b"])
    with pytest.raises(LedgerError, match="has ended as held and cannot end as promoted"):
        ledger.end_release(release.id, "promoted")
    assert ledger.release(release.id).ended.reasons == ("a",)


def test_a_release_that_was_never_opened_has_no_steps_and_no_end(ledger):
    with pytest.raises(LedgerError):
        ledger.record_step("nope-1", "pull", "started")
    with pytest.raises(LedgerError):
        ledger.end_release("nope-1", "held")
    with pytest.raises(LedgerError, match="no release nope-1"):
        ledger.release("nope-1")


def test_the_champion_moves_only_from_where_it_was_thought_to_be(ledger):
    first = promote(ledger, 1, expected=None, actor="ann", evidence_digest="e")
    assert first.sequence == 1
    with pytest.raises(ChampionMovedError, match=r"thought|taken to be none, but it is number 1: support/1 .* by ann"):
        promote(ledger, 2, expected=None)
    second = promote(ledger, 2, expected=1)
    with pytest.raises(ChampionMovedError, match="taken to be number 1, but it is number 2: support/2"):
        promote(ledger, 3, expected=1)
    with pytest.raises(ChampionMovedError, match="taken to be number 7, but it is number 2"):
        promote(ledger, 3, expected=7)
    assert ledger.promotions("support", "sandbox") == (first, second)


def test_a_champion_that_never_was_cannot_be_succeeded(ledger):
    with pytest.raises(ChampionMovedError, match="there is none"):
        promote(ledger, 1, expected=3)


def test_a_promotion_that_went_through_can_be_repeated(ledger):
    """The process may have died between the ledger's answer and its next step."""
    first = promote(ledger, 1, expected=None)
    assert promote(ledger, 1, expected=None) == first
    assert len(ledger.promotions()) == 1


def test_each_name_and_target_has_a_champion_of_its_own(ledger):
    values = {
        "expected_champion": None,
        "release_id": "r",
        "adapter_id": "a/1",
        "adapter_source": "pbase",
        "digest": "d",
    }
    for name, target in (("a", "x"), ("a", "y"), ("b", "x")):
        assert ledger.promote(name=name, target=target, **values).sequence == 1
    assert [(item.name, item.target) for item in ledger.promotions(name="a")] == [("a", "x"), ("a", "y")]
    assert [item.name for item in ledger.promotions(target="x")] == ["a", "b"]


def test_a_rollback_is_one_more_promotion(ledger):
    promote(ledger, 1, expected=None)
    promote(ledger, 2, expected=1)
    back = previous_champion(ledger.promotions("support", "sandbox"))
    promote(ledger, 1, expected=2, kind="rollback")
    now = ledger.promotions("support", "sandbox")
    assert (back.adapter_id, now[-1].kind, now[-1].sequence) == ("support/1", PromotionKind.ROLLBACK, 3)
    assert previous_champion(now) is None


def test_times_are_the_clocks_in_utc(url):
    when = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=UTC)
    with Ledger(url, clock=lambda: when) as ledger:
        release_id = everything(ledger)
        release = ledger.release(release_id)
        assert release.opened.recorded_at == release.ended.recorded_at == when
        assert release.opened.recorded_at.tzinfo is UTC
        assert ledger.promotions()[0].recorded_at == ledger.bundles("d")[0].recorded_at == when


def test_a_clock_without_a_zone_is_refused(url):
    with Ledger(url, clock=lambda: datetime(2026, 1, 1)) as ledger, pytest.raises(LedgerError, match="time zone"):  # noqa: DTZ001
        ledger.record_deployment(target="t", name="n", release_id="r", stage="intended")


def test_odd_text_and_numbers_are_kept(ledger):
    """A model may say anything, and a broken one computes NaN; a held release must still be recordable."""
    release = ledger.open_release(**KEY, uri="u")
    data = {"nul": "a\x00b", "half": "\ud800", "letters": "äöü 🚢", "nan": float("nan"), "inf": [float("-inf")]}
    ledger.record_step(release.id, "evaluate", "finished", data)
    expected = {**data, "nan": "nan", "inf": ["-inf"]}
    assert ledger.release(release.id).steps["evaluate"].data == expected


def test_secrets_do_not_get_in(ledger):
    canary = "s3cret-canary"
    ledger.record_bundle(digest="d", uri=f"s3://b/{canary}", resolved_revision="r", size_bytes=1, base_model="b")
    release = ledger.open_release(**KEY, uri=f"hf://{canary}@x", actor=canary)
    ledger.record_step(release.id, "pull", "failed", {"error": f"Bearer {canary}", canary: [canary]})
    ledger.end_release(release.id, "failed", reasons=[canary], evidence={"token": canary})
    promote(ledger, 1, expected=None, actor=canary)
    with ledger._engine.connect() as connection:
        for table in APPEND_ONLY:
            assert canary not in repr(connection.execute(sa.text(f"SELECT * FROM {table}")).all())


def test_tokens_of_the_environment_do_not_get_in(url, monkeypatch):
    monkeypatch.setenv("PREDIBASE_API_TOKEN", "pb_env-canary")
    with Ledger(url) as ledger:
        release = ledger.open_release(**KEY, uri="pb_env-canary")
        assert release.opened.uri == "***"


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET recorded_at = recorded_at", "DELETE FROM {}"])
def test_no_fact_is_ever_changed_or_deleted(ledger, table, statement):
    everything(ledger)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), ledger._engine.begin() as connection:
        connection.execute(sa.text(statement.format(table)))
    assert ledger.promotions()


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_no_fact_is_replaced_or_truncated(ledger, table):
    everything(ledger)
    is_sqlite = ledger._engine.dialect.name == "sqlite"
    statement = f"REPLACE INTO {table} SELECT * FROM {table}" if is_sqlite else f"TRUNCATE {table} CASCADE"
    with pytest.raises(sa.exc.DBAPIError, match=r"append-only|has this already"), ledger._engine.begin() as connection:
        connection.execute(sa.text(statement))


def test_a_second_ledger_sees_what_the_first_wrote(url):
    with Ledger(url) as one, Ledger(url) as other:
        release_id = everything(one)
        assert other.release(release_id) == one.release(release_id)
        assert other.promotions() == one.promotions()
