"""Releases, their steps and how they ended, as the ledger has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from slipway.errors import LedgerError
from slipway.ledger import Json, Outcome, ReleaseOpened, ReleaseState, StepRecorded, StepStatus, fold_release
from slipway.services import ledger_schema as schema
from slipway.services.ledger_engine import ledger_errors, writing
from slipway.services.ledger_rows import end_of, mappings, step_of
from slipway.services.ledger_tables import LedgerTables

__all__ = ["RecordsReleases"]

_NUMBERING_ATTEMPTS = 20
"""Tries for a release's running number; each failure means that another release got that number."""


class RecordsReleases(LedgerTables):
    """What happened in every release."""

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
