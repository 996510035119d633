"""The ledger's tables, as its queries see them.

The database itself is made by the migrations beside this module; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

__all__ = [
    "APPEND_ONLY",
    "bundles",
    "deployments",
    "leases",
    "metadata",
    "promotions",
    "release_ends",
    "release_steps",
    "releases",
    "uploads",
]

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class _UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware UTC in Python; SQLite keeps no time zone, so there it is stored without one."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            msg = "the ledger takes times with a time zone"
            raise ValueError(msg)
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _id() -> sa.Column[int]:
    # SQLite numbers rows by itself only when the type is exactly INTEGER.
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _json(name: str, *, nullable: bool = False) -> sa.Column[object]:
    # PostgreSQL's json, not jsonb: it keeps the text as written, and takes the NUL that a model may say.
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=nullable)


def _time(name: str = "recorded_at") -> sa.Column[datetime]:
    return sa.Column(name, _UtcDateTime(), nullable=False)


bundles = sa.Table(
    "bundles",
    metadata,
    _id(),
    _text("digest"),
    _text("uri"),
    _text("resolved_revision"),
    sa.Column("size_bytes", sa.BigInteger(), nullable=False),
    _text("base_model"),
    _text("derived_from", nullable=True),
    _json("changes"),
    _time(),
    sa.UniqueConstraint("digest", "uri", "resolved_revision"),
)

uploads = sa.Table(
    "uploads",
    metadata,
    _id(),
    _text("target"),
    _text("digest"),
    _text("repository"),
    _text("attempt_id"),
    _text("stage"),
    _text("upload_token", nullable=True),
    _json("tags_before", nullable=True),
    _text("version", nullable=True),
    _time(),
    sa.Index(None, "target", "digest"),
)

deployments = sa.Table(
    "deployments",
    metadata,
    _id(),
    _text("target"),
    _text("name"),
    _text("release_id"),
    _text("stage"),
    _text("base_model"),
    _time(),
    sa.Index(None, "target", "name"),
)

releases = sa.Table(
    "releases",
    metadata,
    _text("id"),
    _text("name"),
    sa.Column("number", sa.Integer(), nullable=False),
    _text("target"),
    _text("digest"),
    _text("suite_digest"),
    _text("gate_digest"),
    _text("uri"),
    _text("actor"),
    _time(),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("name", "number"),
)

release_steps = sa.Table(
    "release_steps",
    metadata,
    _id(),
    sa.Column("release_id", sa.Text(), sa.ForeignKey("releases.id"), nullable=False),
    _text("step"),
    _text("status"),
    _json("data"),
    _time(),
    sa.Index(None, "release_id"),
)

release_ends = sa.Table(
    "release_ends",
    metadata,
    sa.Column("release_id", sa.Text(), sa.ForeignKey("releases.id"), primary_key=True),
    _text("outcome"),
    _json("reasons"),
    _json("evidence"),
    _time(),
)

promotions = sa.Table(
    "promotions",
    metadata,
    _id(),
    _text("name"),
    _text("target"),
    sa.Column("sequence", sa.Integer(), nullable=False),
    _text("release_id"),
    _text("adapter_id"),
    _text("adapter_source"),
    _text("digest"),
    _text("kind"),
    _text("evidence_digest"),
    _text("actor"),
    _time(),
    sa.UniqueConstraint("name", "target", "sequence"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("resource", sa.Text(), primary_key=True),
    _text("holder"),
    _text("nonce"),
    _time("acquired_at"),
    _time("expires_at"),
)

APPEND_ONLY = ("bundles", "uploads", "deployments", "releases", "release_steps", "release_ends", "promotions")
"""Tables whose rows nobody may change or delete; triggers refuse it. ``leases`` is the one that lives."""
