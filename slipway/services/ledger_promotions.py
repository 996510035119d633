"""Promotions and rollbacks, as the ledger has them: the champion moves by compare-and-swap."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from slipway.errors import ChampionMovedError
from slipway.ledger import Promotion, PromotionKind, champion
from slipway.services import ledger_schema as schema
from slipway.services.ledger_engine import ledger_errors
from slipway.services.ledger_rows import promotion_of
from slipway.services.ledger_tables import LedgerTables

__all__ = ["RecordsPromotions"]


class RecordsPromotions(LedgerTables):
    """Every change of a champion."""

    def promote(
        self,
        *,
        name: str,
        target: str,
        expected_champion: int | None,
        release_id: str,
        adapter_id: str,
        adapter_source: str,
        digest: str,
        kind: PromotionKind | str = PromotionKind.PROMOTE,
        evidence_digest: str = "",
        actor: str = "",
    ) -> Promotion:
        """Move the champion by compare-and-swap. Repeating a promotion that went through returns it.

        Args:
            name: The adapter's name.
            target: Where it is served.
            expected_champion: ``sequence`` of the champion that the evidence speaks of; None if there was none.
            release_id: The release whose adapter becomes champion.
            adapter_id: What requests send.
            adapter_source: What requests send with it.
            digest: Of its bundle.
            kind: Promotion or rollback.
            evidence_digest: SHA-256 of the recorded results.
            actor: Who or what does it.

        Raises:
            ChampionMovedError: Another promotion came first; the message names it.
        """
        mine = Promotion(
            name=name,
            target=target,
            sequence=(expected_champion or 0) + 1,
            release_id=release_id,
            adapter_id=adapter_id,
            adapter_source=adapter_source,
            digest=digest,
            kind=PromotionKind(kind),
            recorded_at=self._clock(),
            evidence_digest=evidence_digest,
            actor=self._text(actor),
        )
        with ledger_errors(self._engine, f"promoting {adapter_id}"):
            now = champion(self.promotions(name, target))
            if (now.sequence if now else None) == expected_champion:
                try:
                    self._insert(schema.promotions, {**vars(mine), "kind": mine.kind.value})
                except IntegrityError:
                    now = champion(self.promotions(name, target))
                    if now is None or now.sequence < mine.sequence:
                        raise
                else:
                    return mine
        if now is not None and _is_same(now, mine):
            return now
        raise _moved(mine, expected_champion, now)

    def promotions(self, name: str | None = None, target: str | None = None) -> tuple[Promotion, ...]:
        """List promotions, oldest first.

        Args:
            name: Only of this adapter; None for all.
            target: Only there; None for all.
        """
        table = schema.promotions
        wanted = sa.select(table)
        if name is not None:
            wanted = wanted.where(table.c.name == name)
        if target is not None:
            wanted = wanted.where(table.c.target == target)
        with ledger_errors(self._engine, "reading promotions"):
            rows = self._rows(wanted)
        return tuple(promotion_of(row) for row in rows)


def _is_same(one: Promotion, other: Promotion) -> bool:
    def identity(item: Promotion) -> tuple[object, ...]:
        return (item.sequence, item.kind, item.release_id, item.adapter_id, item.adapter_source, item.digest)

    return identity(one) == identity(other)


def _moved(mine: Promotion, expected: int | None, now: Promotion | None) -> ChampionMovedError:
    thought = f"number {expected}" if expected else "none"
    if now is None:
        really = "there is none"
    else:
        by = f" by {now.actor}" if now.actor else ""
        really = (
            f"it is number {now.sequence}: {now.adapter_id} ({now.release_id}), {now.kind} at "
            f"{now.recorded_at:%Y-%m-%d %H:%M:%S} UTC{by}"
        )
    return ChampionMovedError(
        f"{mine.adapter_id} was not promoted: the champion of {mine.name} on {mine.target} was taken to be {thought}, "
        f"but {really}.",
        fix="Release it again; it will be compared with the champion of now.",
    )
