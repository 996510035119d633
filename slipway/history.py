"""One adapter's past as people read it: releases and rollbacks in the order in which they ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from slipway.ledger import Promotion, PromotionKind, ReleaseState
from slipway.release import Step

__all__ = ["Entry", "history_of"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line.

    Attributes:
        at: When it ended, or was opened if it has not ended.
        release_id: The release, or the one restored.
        target: Where.
        outcome: As the ledger says, ``open`` for a release that has not ended, ``rolled back`` for a rollback.
        adapter_id: Empty when nothing was uploaded.
        digest: Of the candidate.
        why: The first reason.
        reasons: All of them.
        actor: Who or what did it.
    """

    at: datetime
    release_id: str
    target: str
    outcome: str
    adapter_id: str
    digest: str
    why: str
    reasons: tuple[str, ...]
    actor: str

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "at": self.at.isoformat(),
            "release": self.release_id,
            "target": self.target,
            "outcome": self.outcome,
            "adapter_id": self.adapter_id or None,
            "digest": self.digest,
            "reasons": list(self.reasons),
            "actor": self.actor,
        }


def history_of(releases: Iterable[ReleaseState], promotions: Iterable[Promotion]) -> list[Entry]:
    """Merge releases and rollbacks, oldest first."""
    entries = [_of_release(release) for release in releases]
    entries += [
        Entry(
            at=promotion.recorded_at,
            release_id=promotion.release_id,
            target=promotion.target,
            outcome="rolled back",
            adapter_id=promotion.adapter_id,
            digest=promotion.digest,
            why=f"{promotion.adapter_id} is champion again",
            reasons=(),
            actor=promotion.actor,
        )
        for promotion in promotions
        if promotion.kind is PromotionKind.ROLLBACK
    ]
    return sorted(entries, key=lambda entry: entry.at)


def _of_release(release: ReleaseState) -> Entry:
    uploaded = release.finished(Step.UPLOAD)
    ended = release.ended
    reasons = tuple(ended.reasons) if ended else (_where_it_stands(release),)
    return Entry(
        at=ended.recorded_at if ended else release.opened.recorded_at,
        release_id=release.id,
        target=release.opened.target,
        outcome=ended.outcome if ended else "open",
        adapter_id=str(uploaded.data.get("adapter_id", "")) if uploaded else "",
        digest=release.opened.digest,
        why=reasons[0] if reasons else "",
        reasons=reasons,
        actor=release.opened.actor,
    )


def _where_it_stands(release: ReleaseState) -> str:
    if not release.steps:
        return "not begun"
    last = list(release.steps.values())[-1]
    error = last.data.get("error")
    return f"{last.step} {last.status}" + (f": {error}" if error and last.status == "failed" else "")
