"""Promote and roll back: the one place where the champion moves."""

from __future__ import annotations

from prefect import task

from slipway.ledger import Promotion, PromotionKind
from slipway.release import Step
from slipway.services.backends import PublishedAdapter
from slipway.services.workspace import open_workspace
from tasks.journal import journaled
from tasks.ledger import actor
from tasks.options import LOCAL

__all__ = ["promote_candidate", "restore_champion"]


@task(name="promote", task_run_name="promote-{release_id}", **LOCAL)
async def promote_candidate(
    adapter: PublishedAdapter,
    *,
    name: str,
    target_name: str,
    digest: str,
    champion: Promotion | None,
    evidence_digest: str,
    release_id: str,
) -> Promotion:
    """Make the candidate champion, if the champion is still the one that it was compared with.

    Raises:
        ChampionMovedError: Somebody promoted in between.
    """
    ledger = open_workspace().ledger
    with journaled(ledger, release_id, Step.PROMOTE) as note:
        promotion = ledger.promote(
            name=name,
            target=target_name,
            expected_champion=champion.sequence if champion else None,
            release_id=release_id,
            adapter_id=adapter.adapter_id,
            adapter_source=adapter.source,
            digest=digest,
            kind=PromotionKind.PROMOTE,
            evidence_digest=evidence_digest,
            actor=actor(),
        )
        before = f" instead of {champion.adapter_id}" if champion else ", the first"
        note.message = f"{adapter.adapter_id} is champion of {name} on {target_name}{before}"
        note.data = {"sequence": promotion.sequence}
        return promotion


@task(name="restore", task_run_name="restore-{name}", **LOCAL)
async def restore_champion(former: Promotion, *, name: str, expected_champion: int) -> Promotion:
    """Make a former champion champion again.

    Raises:
        ChampionMovedError: Somebody promoted in between.
    """
    return open_workspace().ledger.promote(
        name=name,
        target=former.target,
        expected_champion=expected_champion,
        release_id=former.release_id,
        adapter_id=former.adapter_id,
        adapter_source=former.adapter_source,
        digest=former.digest,
        kind=PromotionKind.ROLLBACK,
        evidence_digest=former.evidence_digest,
        actor=actor(),
    )
