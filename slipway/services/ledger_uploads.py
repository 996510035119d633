"""Bundles and their way into a registry, as the ledger has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from slipway.errors import LedgerError
from slipway.ledger import UploadStage, UploadState, fold_uploads
from slipway.services import ledger_schema as schema
from slipway.services.ledger_engine import ledger_errors
from slipway.services.ledger_rows import BundleRecord, bundle_of, upload_of
from slipway.services.ledger_tables import LedgerTables

__all__ = ["RecordsUploads"]


class RecordsUploads(LedgerTables):
    """What we know of bundles: where they came from, and which registry versions hold them."""

    def record_bundle(
        self,
        *,
        digest: str,
        uri: str,
        resolved_revision: str,
        size_bytes: int,
        base_model: str,
        derived_from: str | None = None,
        changes: Sequence[str] = (),
    ) -> None:
        """Record a bundle once; the same digest from the same place again is no news.

        Args:
            digest: Of the bundle.
            uri: Where it came from.
            resolved_revision: What the URI resolved to.
            size_bytes: Sum over its files.
            base_model: What its config names; may be empty.
            derived_from: Digest of the bundle that this one was fitted from.
            changes: What fitting changed, one sentence each.
        """
        row = {
            "digest": digest,
            "uri": self._text(uri),
            "resolved_revision": resolved_revision,
            "size_bytes": size_bytes,
            "base_model": base_model,
            "derived_from": derived_from,
            "changes": self._json(list(changes)),
            "recorded_at": self._clock(),
        }
        with ledger_errors(self._engine, f"recording the bundle {digest}"):
            try:
                self._insert(schema.bundles, row)
            except IntegrityError:
                if self._bundle(digest, row["uri"], resolved_revision) is None:
                    raise

    def bundles(self, digest: str) -> tuple[BundleRecord, ...]:
        """List where a bundle came from, oldest first; empty if it was never recorded."""
        with ledger_errors(self._engine, f"reading the bundle {digest}"):
            rows = self._rows(sa.select(schema.bundles).where(schema.bundles.c.digest == digest))
        return tuple(bundle_of(row) for row in rows)

    def _bundle(self, digest: str, uri: object, resolved_revision: str) -> Mapping[str, Any] | None:
        table = schema.bundles
        same = (table.c.digest == digest) & (table.c.uri == uri) & (table.c.resolved_revision == resolved_revision)
        return next(iter(self._rows(sa.select(table).where(same))), None)

    def record_upload(
        self,
        *,
        target: str,
        digest: str,
        repository: str,
        attempt_id: str,
        stage: UploadStage | str,
        upload_token: str | None = None,
        tags_before: Sequence[int] | None = None,
        version: str | None = None,
    ) -> None:
        """Record how far an upload attempt got.

        Args:
            target: Where to.
            digest: Of the servable bundle.
            repository: Adapter repository.
            attempt_id: Made by the caller, the same for all stages of one attempt.
            stage: Record ``intended`` before the first request and each other stage when it is reached.
            upload_token: With ``token``: the registry's handle for the attempt.
            tags_before: With ``intended``: the tags that exist.
            version: With ``committed``: ``repo/tag``.

        Raises:
            LedgerError: ``committed`` without a version.
        """
        stage = UploadStage(stage)
        if stage is UploadStage.COMMITTED and not version:
            raise LedgerError(f"The upload {attempt_id} cannot be committed without its version.")
        row = {
            "target": target,
            "digest": digest,
            "repository": repository,
            "attempt_id": attempt_id,
            "stage": stage.value,
            "upload_token": upload_token,
            "tags_before": None if tags_before is None else list(tags_before),
            "version": version,
            "recorded_at": self._clock(),
        }
        with ledger_errors(self._engine, f"recording the upload of {digest}"):
            self._insert(schema.uploads, row)

    def find_version(self, *, target: str, digest: str) -> str | None:
        """Find the registry version ``repo/tag`` that holds a bundle on a target; the newest if there are several."""
        committed = [state for state in self.uploads(target=target, digest=digest) if state.version]
        return committed[-1].version if committed else None

    def open_upload(self, *, target: str, digest: str) -> UploadState | None:
        """Find the last upload attempt of a bundle, if it was neither committed nor abandoned."""
        attempts = self.uploads(target=target, digest=digest)
        return attempts[-1] if attempts and attempts[-1].is_open else None

    def uploads(self, *, target: str, digest: str) -> tuple[UploadState, ...]:
        """List the upload attempts of a bundle to a target, oldest first."""
        table = schema.uploads
        wanted = sa.select(table).where((table.c.target == target) & (table.c.digest == digest))
        with ledger_errors(self._engine, f"reading the uploads of {digest}"):
            rows = self._rows(wanted)
        return fold_uploads(upload_of(row) for row in rows)
