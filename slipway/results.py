"""The recorded results of an evaluation: one line per case and arm, as read and written in JSONL.

The contract between running (``evaluation``), grading (``checks``), deciding (``gate``) and showing (``report``).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Arm", "CaseResult", "CheckResult"]


class Arm(StrEnum):
    """Who answered."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    BASE = "base"


class CheckResult(BaseModel):
    """What one check said of one output. ``score`` is in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    passed: bool
    score: float
    reason: str = ""


class CaseResult(BaseModel):
    """One case answered by one arm.

    ``error`` set means that the instrument failed: the case is missing for this arm, neither passed nor failed, and
    ``passed`` and ``score`` are null.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    case: str
    arm: Arm
    adapter_id: str = ""
    output: str = ""
    passed: bool | None = None
    score: float | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    checks: tuple[CheckResult, ...] = ()
    latency_ms: float | None = Field(default=None, ge=0)
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    error: str | None = None
