"""Between the ledger's rows and the facts that they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from slipway.ledger import (
    DeploymentFact,
    DeploymentStage,
    Json,
    Outcome,
    Promotion,
    PromotionKind,
    ReleaseEnded,
    StepRecorded,
    StepStatus,
    UploadFact,
    UploadStage,
)

__all__ = [
    "BundleRecord",
    "bundle_of",
    "deployment_of",
    "end_of",
    "finite",
    "mappings",
    "promotion_of",
    "step_of",
    "upload_of",
]


@dataclass(frozen=True, kw_only=True)
class BundleRecord:
    """A bundle that was pulled or fitted: where from, what of, and what was changed."""

    digest: str
    uri: str
    resolved_revision: str
    size_bytes: int
    base_model: str
    derived_from: str | None
    changes: tuple[str, ...]
    recorded_at: datetime


def finite(value: Json) -> Json:
    """Write NaN and infinities as text: JSON has no word for them, and null would say something else."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value


def mappings(result: sa.Result[Any]) -> list[Mapping[str, Any]]:
    """Read all rows, each with its columns by name."""
    return [dict(row) for row in result.mappings()]


def bundle_of(row: Mapping[str, Any]) -> BundleRecord:
    """Read a row of ``bundles``."""
    return BundleRecord(**{**_without_id(row), "changes": tuple(row["changes"])})


def upload_of(row: Mapping[str, Any]) -> UploadFact:
    """Read a row of ``uploads``."""
    tags = row["tags_before"]
    values = {"stage": UploadStage(row["stage"]), "tags_before": None if tags is None else tuple(tags)}
    return UploadFact(sequence=row["id"], **{**_without_id(row), **values})


def deployment_of(row: Mapping[str, Any]) -> DeploymentFact:
    """Read a row of ``deployments``."""
    return DeploymentFact(sequence=row["id"], **{**_without_id(row), "stage": DeploymentStage(row["stage"])})


def step_of(row: Mapping[str, Any]) -> StepRecorded:
    """Read a row of ``release_steps``."""
    return StepRecorded(sequence=row["id"], **{**_without_id(row), "status": StepStatus(row["status"])})


def end_of(row: Mapping[str, Any]) -> ReleaseEnded:
    """Read a row of ``release_ends``."""
    return ReleaseEnded(**{**row, "outcome": Outcome(row["outcome"]), "reasons": tuple(row["reasons"])})


def promotion_of(row: Mapping[str, Any]) -> Promotion:
    """Read a row of ``promotions``."""
    return Promotion(**{**_without_id(row), "kind": PromotionKind(row["kind"])})


def _without_id(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "id"}
