"""First schema: bundles, uploads, deployments, releases, promotions, leases; append-only by trigger."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_UNIQUE_KEYS = {
    "bundles": (("id",), ("digest", "uri", "resolved_revision")),
    "uploads": (("id",),),
    "deployments": (("id",),),
    "releases": (("id",), ("name", "number")),
    "release_steps": (("id",),),
    "release_ends": (("release_id",),),
    "promotions": (("id",), ("name", "target", "sequence")),
}
"""The append-only tables. SQLite's REPLACE deletes the row in a unique key's way without firing delete triggers."""


def upgrade() -> None:
    """Make the tables, then the triggers."""
    _make_tables()
    if op.get_bind().dialect.name == "postgresql":
        _forbid_changes_in_postgresql()
    else:
        _forbid_changes_in_sqlite()


def downgrade() -> None:
    """Refuse: there is nothing before the first schema, and the ledger's facts are not ours to drop."""
    msg = "the ledger is never downgraded"
    raise NotImplementedError(msg)


def _make_tables() -> None:
    op.create_table(
        "bundles",
        _id(),
        _text("digest"),
        _text("uri"),
        _text("resolved_revision"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        _text("base_model"),
        _text("derived_from", nullable=True),
        sa.Column("changes", sa.JSON(), nullable=False),
        _time(),
        sa.PrimaryKeyConstraint("id", name="pk_bundles"),
        sa.UniqueConstraint("digest", "uri", "resolved_revision", name="uq_bundles_digest_uri_resolved_revision"),
    )
    op.create_table(
        "uploads",
        _id(),
        _text("target"),
        _text("digest"),
        _text("repository"),
        _text("attempt_id"),
        _text("stage"),
        _text("upload_token", nullable=True),
        sa.Column("tags_before", sa.JSON(), nullable=True),
        _text("version", nullable=True),
        _time(),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    op.create_index("ix_uploads_target_digest", "uploads", ["target", "digest"])
    op.create_table(
        "deployments",
        _id(),
        _text("target"),
        _text("name"),
        _text("release_id"),
        _text("stage"),
        _text("base_model"),
        _time(),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
    )
    op.create_index("ix_deployments_target_name", "deployments", ["target", "name"])
    op.create_table(
        "releases",
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
        sa.PrimaryKeyConstraint("id", name="pk_releases"),
        sa.UniqueConstraint("name", "number", name="uq_releases_name_number"),
    )
    op.create_table(
        "release_steps",
        _id(),
        _text("release_id"),
        _text("step"),
        _text("status"),
        sa.Column("data", sa.JSON(), nullable=False),
        _time(),
        sa.PrimaryKeyConstraint("id", name="pk_release_steps"),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name="fk_release_steps_release_id"),
    )
    op.create_index("ix_release_steps_release_id", "release_steps", ["release_id"])
    op.create_table(
        "release_ends",
        _text("release_id"),
        _text("outcome"),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        _time(),
        sa.PrimaryKeyConstraint("release_id", name="pk_release_ends"),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name="fk_release_ends_release_id"),
    )
    op.create_table(
        "promotions",
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
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.UniqueConstraint("name", "target", "sequence", name="uq_promotions_name_target_sequence"),
    )
    op.create_table(
        "leases",
        _text("resource"),
        _text("holder"),
        _text("nonce"),
        _time("acquired_at"),
        _time("expires_at"),
        sa.PrimaryKeyConstraint("resource", name="pk_leases"),
    )


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _time(name: str = "recorded_at") -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _forbid_changes_in_sqlite() -> None:
    for table, keys in _UNIQUE_KEYS.items():
        refuse = f"SELECT RAISE(ABORT, '{table} is append-only')"
        for verb in ("UPDATE", "DELETE"):
            op.execute(f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN {refuse}; END")
        for number, columns in enumerate(keys):
            same = " AND ".join(f"{column} = NEW.{column}" for column in columns)
            there = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608  # names from the table above
            op.execute(
                f"CREATE TRIGGER {table}_no_replace_{number} BEFORE INSERT ON {table} WHEN {there} "
                f"BEGIN SELECT RAISE(ABORT, '{table} has this already'); END"
            )


def _forbid_changes_in_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION slipway_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation'; END $$"
    )
    for table in _UNIQUE_KEYS:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION slipway_append_only()"
        )
