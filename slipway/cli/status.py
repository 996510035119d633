"""`slipway status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from slipway.cli.output import ago, print_json, print_table
from slipway.ledger import Promotion, champion
from slipway.services.workspace import open_workspace

__all__ = ["status"]


def status(
    name: str | None = None,
    /,
    *,
    target: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Show who is champion where, since when, on what evidence.

    Args:
        name: Only this adapter.
        target: Only there.
        as_json: Print one JSON document.
    """
    champions = _champions(open_workspace().ledger.promotions(name, target))
    if as_json:
        print_json(
            [
                {
                    "name": item.name,
                    "target": item.target,
                    "adapter_id": item.adapter_id,
                    "adapter_source": item.adapter_source,
                    "digest": item.digest,
                    "release": item.release_id,
                    "kind": item.kind,
                    "since": item.recorded_at.isoformat(),
                    "evidence_digest": item.evidence_digest,
                    "actor": item.actor,
                }
                for item in champions
            ]
        )
        return 0
    now = datetime.now(UTC)
    print_table(
        ("name", "target", "champion", "release", "since", "evidence", "by"),
        [
            (
                item.name,
                item.target,
                item.adapter_id,
                item.release_id + (" (rollback)" if item.kind == "rollback" else ""),
                ago(item.recorded_at, now),
                item.evidence_digest[:12] or "none",
                item.actor,
            )
            for item in champions
        ],
        empty=f"{name or 'Nothing'} has no champion{f' on {target}' if target else ''} yet."
        if name
        else "There is no champion yet. `slipway release` makes one.",
    )
    return 0


def _champions(promotions: tuple[Promotion, ...]) -> list[Promotion]:
    groups: dict[tuple[str, str], list[Promotion]] = {}
    for promotion in promotions:
        groups.setdefault((promotion.name, promotion.target), []).append(promotion)
    leaders = [champion(group) for _, group in sorted(groups.items())]
    return [leader for leader in leaders if leader is not None]
