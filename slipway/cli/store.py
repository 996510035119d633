"""`slipway store`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import App, Parameter

from slipway.adapter import Digest
from slipway.cli.output import ago, print_json, print_table, stdout
from slipway.errors import ConfigurationError, StoreError
from slipway.retention import reasons_to_keep
from slipway.services.staging import KEPT_SECONDS
from slipway.services.store import BundleStore, StoredBundle
from slipway.services.workspace import open_store, open_workspace

__all__ = ["store"]

store = App(name="store", help="Show, check and clear the local store of adapters.")

SPAN = re.compile(r"(\d+)\s*(min|h|d|w)?")
UNITS = {"min": 60, "h": 3600, "d": 86400, "w": 604800}
SHORTEST_DIGEST = 6
"""Hexadecimal digits that may stand for a whole digest."""


@store.command
def ls(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """List the bundles, the one pulled last first.

    Args:
        as_json: Print one JSON document.
    """
    contents = open_store().contents()
    if as_json:
        print_json([_document(item) for item in contents])
        return 0
    now = datetime.now(UTC)
    print_table(
        ("digest", "size", "files", "pulled", "from"),
        [
            (
                item.digest[:19],
                f"{item.bundle.size_bytes / 1e6:.1f} MB" if item.bundle else "",
                str(len(item.bundle.files)) if item.bundle else "",
                ago(item.used_at, now),
                f"{item.bundle.uri}" if item.bundle else f"damaged: {item.damage}",
            )
            for item in contents
        ],
        empty="The store is empty.",
    )
    return 0


@store.command
def verify(*digests: str, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Read bundles again and compare them with what was pulled. Exits 1 when one is damaged.

    Args:
        digests: Which, or their first digits; all without any.
        as_json: Print one JSON document.
    """
    bundles = open_store()
    damage = {item.digest: _damage(bundles, item) for item in _chosen(bundles, digests)}
    if as_json:
        print_json({"damaged": {digest: text for digest, text in damage.items() if text}, "verified": len(damage)})
    else:
        console = stdout()
        for digest, text in damage.items():
            console.print(f"{digest[:19]} {text or 'sound'}", markup=False)
            if text:
                console.print(f"  delete {bundles.root / digest[7:]} and pull it again", markup=False, soft_wrap=True)
    return int(any(damage.values()))


@store.command
def gc(
    *,
    older_than: str = "30d",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Delete bundles that nothing needs any more.

    Kept are champions and those before them on every target, bundles of open releases, whatever was fitted from these
    or they from it, and everything pulled lately. Without the ledger nothing is deleted.

    Args:
        older_than: What is younger is kept, such as `12h`, `30d` or `8w`.
        dry_run: Only say what would be deleted.
        as_json: Print one JSON document.
    """
    span = _span(older_than)
    workspace = open_workspace()
    contents = workspace.store.contents()
    ledger = workspace.ledger
    kept = reasons_to_keep(
        {item.digest: item.used_at for item in contents},
        promotions=ledger.promotions(),
        releases=ledger.releases(),
        derived_from={
            item.digest: [record.derived_from for record in ledger.bundles(item.digest) if record.derived_from]
            for item in contents
        },
        now=datetime.now(UTC),
        older_than=span,
    )
    gone = [item for item in contents if item.digest not in kept]
    if not dry_run:
        for item in gone:
            workspace.store.delete(item.digest)
        workspace.store.tidy(kept_seconds=min(span.total_seconds(), KEPT_SECONDS))
    freed = sum(item.bundle.size_bytes for item in gone if item.bundle)
    if as_json:
        print_json(
            {
                "deleted": [item.digest for item in gone],
                "freed_bytes": freed,
                "kept": dict(kept),
                "dry_run": dry_run,
            }
        )
        return 0
    console = stdout()
    for item in contents:
        fate = f"kept: {kept[item.digest]}" if item.digest in kept else "would be deleted" if dry_run else "deleted"
        console.print(f"{item.digest[:19]} {fate}", markup=False, soft_wrap=True)
    console.print(f"{len(gone)} of {len(contents)} bundles, {freed / 1e6:.1f} MB", markup=False)
    return 0


def _span(text: str) -> timedelta:
    match = SPAN.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is no span of time.", fix="Write such as 12h, 30d or 8w.")
    return timedelta(seconds=int(match[1]) * UNITS[match[2] or "d"])


def _chosen(bundles: BundleStore, digests: Iterable[str]) -> list[StoredBundle]:
    contents = bundles.contents()
    if not digests:
        return list(contents)
    chosen = []
    for text in digests:
        start = text.removeprefix("sha256:")
        found = [item for item in contents if item.digest.removeprefix("sha256:").startswith(start)]
        if len(found) != 1 or len(start) < SHORTEST_DIGEST:
            raise ConfigurationError(
                f"{text!r} names {len(found) or 'no'} bundles in {bundles.root}.", fix="`slipway store ls` lists them."
            )
        chosen += found
    return chosen


def _damage(bundles: BundleStore, item: StoredBundle) -> str:
    if item.damage:
        return item.damage
    try:
        changed = bundles.verify(Digest(item.digest))
    except StoreError as error:
        return error.message
    return f"changed: {', '.join(changed)}" if changed else ""


def _document(item: StoredBundle) -> dict[str, object]:
    bundle = item.bundle
    return {
        "digest": item.digest,
        "used_at": item.used_at.isoformat(),
        "damage": item.damage,
        "uri": bundle.uri if bundle else None,
        "resolved_revision": bundle.resolved_revision if bundle else None,
        "size_bytes": bundle.size_bytes if bundle else None,
        "files": [file.name for file in bundle.files] if bundle else [],
    }
