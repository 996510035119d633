"""Which bundles the store keeps, and why; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from slipway.ledger import Promotion, ReleaseState, champion, previous_champion

__all__ = ["reasons_to_keep"]


def reasons_to_keep(
    used_at: Mapping[str, datetime],
    *,
    promotions: Iterable[Promotion],
    releases: Iterable[ReleaseState],
    derived_from: Mapping[str, Iterable[str]],
    now: datetime,
    older_than: timedelta,
) -> Mapping[str, str]:
    """Say of each bundle why it is kept; one without a reason may go.

    What is champion or was before it, on any target, is kept for rollbacks, and the bundle of an open release for its
    next step. What was fitted from a kept bundle, or what a kept bundle was fitted from, is kept with it, since either
    may be the one that is served.

    Args:
        used_at: Digests of the bundles in the store, and when each was last pulled.
        promotions: All of them.
        releases: All of them.
        derived_from: By digest: the digests it was fitted from.
        now: Aware.
        older_than: Younger bundles are kept.
    """
    kept = dict(_recorded(promotions, releases))
    links = [(fitted, origin) for fitted, origins in derived_from.items() for origin in origins]
    while True:
        found = {fitted: f"fitted from {kept[origin]}" for fitted, origin in links if origin in kept}
        found |= {origin: f"origin of {kept[fitted]}" for fitted, origin in links if fitted in kept}
        new = {digest: reason for digest, reason in found.items() if digest not in kept}
        if not new:
            break
        kept |= new
    young = {digest: "pulled lately" for digest, moment in used_at.items() if now - moment < older_than}
    return {digest: reason for digest, reason in (young | kept).items() if digest in used_at}


def _recorded(promotions: Iterable[Promotion], releases: Iterable[ReleaseState]) -> Iterable[tuple[str, str]]:
    groups: dict[tuple[str, str], list[Promotion]] = {}
    for promotion in promotions:
        groups.setdefault((promotion.name, promotion.target), []).append(promotion)
    for release in releases:
        if release.is_open:
            yield release.opened.digest, f"the open release {release.id}"
    for (name, target), group in groups.items():
        if (previous := previous_champion(group)) is not None:
            yield previous.digest, f"the previous champion of {name} on {target}"
    for (name, target), group in groups.items():
        if (now := champion(group)) is not None:
            yield now.digest, f"the champion of {name} on {target}"
