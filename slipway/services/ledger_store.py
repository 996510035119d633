"""The ledger in its database: facts written down, and read back folded.

Every write is one transaction and is on disk when the call returns, so a fact recorded before an effect survives
whatever the effect does. What the facts mean is ``slipway.ledger``; opening the database is ``ledger_engine``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from slipway.errors import ChampionMovedError, LedgerError
from slipway.ledger import (
    DeploymentStage,
    DeploymentState,
    Json,
    Outcome,
    Promotion,
    PromotionKind,
    ReleaseOpened,
    ReleaseState,
    StepRecorded,
    StepStatus,
    UploadStage,
    UploadState,
    champion,
    fold_deployments,
    fold_release,
    fold_uploads,
)
from slipway.redaction import scrub, scrub_text, secrets_from_environment
from slipway.services import ledger_schema as schema
from slipway.services.leases import DEFAULT_TTL_SECONDS, Lease, hold_lease, process_holder
from slipway.services.ledger_engine import default_url, ledger_errors, make_engine, migrate, writing
from slipway.services.ledger_rows import (
    BundleRecord,
    bundle_of,
    deployment_of,
    end_of,
    finite,
    mappings,
    promotion_of,
    step_of,
    upload_of,
)

__all__ = ["BundleRecord", "Ledger", "utc_now"]

_NUMBERING_ATTEMPTS = 20
"""Tries for a release's running number; each failure means that another release got that number."""


def utc_now() -> datetime:
    """Tell the time, aware, in UTC."""
    return datetime.now(UTC)


class Ledger:
    """The record of what was uploaded, deployed, released and promoted.

    Opening migrates the database when it is new or old. Threads may share one instance; each process opens its own.
    Every text passes ``slipway.redaction`` on its way in; only a registry's upload token, which makes an upload's last
    step repeatable and opens nothing else, is kept as it is.

    Args:
        url: SQLAlchemy URL; None reads ``SLIPWAY_LEDGER_URL`` or takes ``ledger.db`` in ``SLIPWAY_HOME``.
        clock: Gives the aware time that facts are stamped with.
        secrets: Known secret values to mask, in place of those found in the environment.

    Raises:
        LedgerError: From every method, when the database cannot be opened, read or written.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        secrets: Collection[str] | None = None,
    ) -> None:
        self._engine = make_engine(url or default_url())
        self._clock = clock
        self._secrets = secrets_from_environment(os.environ) if secrets is None else frozenset(secrets)
        try:
            with ledger_errors(self._engine, "being opened"):
                migrate(self._engine)
        except LedgerError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def address(self) -> str:
        """The database's URL without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    # Bundles

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

    # Registry uploads

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

    # Serving deployments that we created

    def record_deployment(
        self,
        *,
        target: str,
        name: str,
        release_id: str,
        stage: DeploymentStage | str,
        base_model: str = "",
    ) -> None:
        """Record what is about to be done to, or was seen of, a serving deployment of ours.

        ``intended`` goes in before the request that creates it, so that a crash in between leaves a name to look for.
        """
        row = {
            "target": target,
            "name": name,
            "release_id": release_id,
            "stage": DeploymentStage(stage).value,
            "base_model": base_model,
            "recorded_at": self._clock(),
        }
        with ledger_errors(self._engine, f"recording the serving deployment {name}"):
            self._insert(schema.deployments, row)

    def created_deployments(self, target: str | None = None) -> tuple[DeploymentState, ...]:
        """List the serving deployments that we created: those that may still exist first, oldest first.

        Args:
            target: Only there; None for all targets.
        """
        wanted = sa.select(schema.deployments)
        if target is not None:
            wanted = wanted.where(schema.deployments.c.target == target)
        with ledger_errors(self._engine, "reading the serving deployments"):
            rows = self._rows(wanted)
        return fold_deployments(deployment_of(row) for row in rows)

    # Releases

    def open_release(
        self, *, name: str, target: str, digest: str, suite_digest: str, gate_digest: str, uri: str, actor: str = ""
    ) -> ReleaseState:
        """Begin a release, or continue the last unfinished one of the same candidate, target, suite and gate.

        Returns:
            The release, with the steps already done when it is continued. Its id is the name and a running number per
            name, such as ``support-3``.
        """
        key = {
            "name": name,
            "target": target,
            "digest": digest,
            "suite_digest": suite_digest,
            "gate_digest": gate_digest,
        }
        with ledger_errors(self._engine, f"opening a release of {name}"):
            for attempt in range(_NUMBERING_ATTEMPTS):
                try:
                    release_id = self._open_release(key, uri=self._text(uri), actor=self._text(actor))
                    break
                except IntegrityError:
                    if attempt + 1 == _NUMBERING_ATTEMPTS:
                        raise
        return self.release(release_id)

    def _open_release(self, key: Mapping[str, str], *, uri: str, actor: str) -> str:
        table, ends = schema.releases, schema.release_ends
        with writing(self._engine) as connection:
            # The number comes first: a release that somebody opens after this has the number that we would insert.
            last = connection.execute(
                sa.select(sa.func.max(table.c.number)).where(table.c.name == key["name"])
            ).scalar()
            same = sa.and_(*(table.c[column] == value for column, value in key.items()))
            open_ = sa.select(table.c.id).outerjoin(ends).where(same & ends.c.release_id.is_(None))
            found: str | None = connection.execute(open_.order_by(table.c.number.desc()).limit(1)).scalar()
            if found is not None:
                return found
            number = (last or 0) + 1
            row = {"id": f"{key['name']}-{number}", "number": number, "uri": uri, "actor": actor, **key}
            connection.execute(sa.insert(table).values(recorded_at=self._clock(), **row))
            return str(row["id"])

    def record_step(
        self, release_id: str, step: str, status: StepStatus | str, data: Mapping[str, Json] | None = None
    ) -> None:
        """Record that a release's step started, finished or failed.

        Args:
            release_id: Such as ``support-3``.
            step: Its name.
            status: ``started`` goes in before the step's effect.
            data: What a continued release needs to know; secrets in it are masked, NaN and infinities become text.
        """
        row = {
            "release_id": release_id,
            "step": step,
            "status": StepStatus(status).value,
            "data": self._json(dict(data or {})),
            "recorded_at": self._clock(),
        }
        with ledger_errors(self._engine, f"recording the step {step} of {release_id}"):
            self._insert(schema.release_steps, row)

    def end_release(
        self,
        release_id: str,
        outcome: Outcome | str,
        *,
        reasons: Sequence[str] = (),
        evidence: Mapping[str, Json] | None = None,
    ) -> None:
        """Record how a release ended; once. Saying the same again changes nothing.

        Raises:
            LedgerError: It has ended otherwise before.
        """
        outcome = Outcome(outcome)
        row = {
            "release_id": release_id,
            "outcome": outcome.value,
            "reasons": self._json(list(reasons)),
            "evidence": self._json(dict(evidence or {})),
            "recorded_at": self._clock(),
        }
        with ledger_errors(self._engine, f"ending the release {release_id}"):
            try:
                self._insert(schema.release_ends, row)
            except IntegrityError:
                before = self.find_release(release_id)
                if before is None or before.outcome is None:
                    raise
                if before.outcome is not outcome:
                    raise LedgerError(
                        f"The release {release_id} has ended as {before.outcome} and cannot end as {outcome}.",
                        fix="Start the release again; it gets a number of its own.",
                    ) from None

    def release(self, release_id: str) -> ReleaseState:
        """Read one release.

        Raises:
            LedgerError: There is no such release.
        """
        state = self.find_release(release_id)
        if state is None:
            raise LedgerError(
                f"There is no release {release_id} in {self.address}.", fix="`slipway history NAME` lists the releases."
            )
        return state

    def find_release(self, release_id: str) -> ReleaseState | None:
        """Read one release, or None."""
        return next(iter(self._releases(schema.releases.c.id == release_id)), None)

    def releases(self, name: str | None = None, target: str | None = None) -> tuple[ReleaseState, ...]:
        """List releases, oldest first.

        Args:
            name: Only of this adapter; None for all.
            target: Only there; None for all.
        """
        conditions: list[sa.ColumnElement[bool]] = [sa.true()]
        if name is not None:
            conditions.append(schema.releases.c.name == name)
        if target is not None:
            conditions.append(schema.releases.c.target == target)
        return self._releases(sa.and_(*conditions))

    def _releases(self, wanted: sa.ColumnElement[bool]) -> tuple[ReleaseState, ...]:
        table, steps, ends = schema.releases, schema.release_steps, schema.release_ends
        ids = sa.select(table.c.id).where(wanted)
        with ledger_errors(self._engine, "reading releases"), self._engine.connect() as connection:
            in_order = sa.select(table).where(wanted).order_by(table.c.recorded_at, table.c.name, table.c.number)
            releases = [ReleaseOpened(**row) for row in mappings(connection.execute(in_order))]
            step_rows = mappings(connection.execute(sa.select(steps).where(steps.c.release_id.in_(ids))))
            end_rows = mappings(connection.execute(sa.select(ends).where(ends.c.release_id.in_(ids))))
        by_release: dict[str, list[StepRecorded]] = {}
        for row in step_rows:
            by_release.setdefault(row["release_id"], []).append(step_of(row))
        ended = {row["release_id"]: end_of(row) for row in end_rows}
        return tuple(fold_release(item, by_release.get(item.id, ()), ended.get(item.id)) for item in releases)

    # Promotions

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

    # Leases

    def lease(
        self, resource: str, holder: str = "", *, ttl_seconds: float = DEFAULT_TTL_SECONDS
    ) -> AbstractContextManager[Lease]:
        """Hold the lease on a piece of work for the length of a ``with`` block; renewed by a thread meanwhile.

        A lease whose holder is a dead process of this host is taken over at once; one from another host when it has run
        out.

        Args:
            resource: The work, such as ``upload:predibase:sha256:...``.
            holder: ``host:pid:starttime``; by default this process.
            ttl_seconds: How long it outlives a holder that cannot renew it.

        Raises:
            LeaseHeldError: On entering, when another live holder has it.
        """
        return hold_lease(
            self._engine, resource, holder or process_holder(), clock=self._clock, ttl_seconds=ttl_seconds
        )

    # Rows

    def _insert(self, table: sa.Table, row: Mapping[str, object]) -> None:
        with writing(self._engine) as connection:
            connection.execute(sa.insert(table).values(row))

    def _rows(self, wanted: sa.Select[Any]) -> Sequence[Mapping[str, Any]]:
        """Read rows in the order in which they were recorded."""
        with self._engine.connect() as connection:
            return mappings(connection.execute(wanted.order_by(wanted.selected_columns.id)))

    def _text(self, value: str) -> str:
        return scrub_text(value, self._secrets)

    def _json(self, value: Json) -> Json:
        return finite(scrub(value, self._secrets))


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
