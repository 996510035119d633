"""The recorded results of an evaluation: one line per case and arm, as read and written in JSONL.

The contract between running (``evaluation``), grading (``checks``), deciding (``gate``) and showing (``report``).

Nobody changes these values, though they are not frozen: that would make them thrice as slow to make, one for each
answer. ``results_io`` reads, verifies and writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

__all__ = ["ASSERT_SET", "Arm", "CaseResult", "CheckResult", "Timing", "evidence_digest"]


_RECORDED = ConfigDict(extra="ignore", ser_json_inf_nan="constants")
"""NaN is written as NaN, not as null: the gate must see it, or a broken grader would look like a missing answer."""


ASSERT_SET = "assert-set"
"""The one type that is no check of its own: several, with a threshold and a weight together. Recorded beside them."""


class Arm(StrEnum):
    """Who answered."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    BASE = "base"

    __hash__ = str.__hash__
    """As of any text; an enum's own is a function in Python, called some ten times for each answer."""


@dataclass(kw_only=True)
class CheckResult:
    """What one check said of one output.

    ``passed`` is None, and ``score`` 0, for a check that could not be applied for want of support (a program in another
    language, a judged check without a judge): it neither passes nor fails, and lowers the coverage.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _RECORDED

    type: str
    passed: bool | None
    score: float
    """In [0, 1]."""
    reason: str = ""
    metric: str = ""
    weight: float = 1.0

    def but(self, **changes: Any) -> CheckResult:  # noqa: ANN401  # of any field
        """Give the same with other values."""
        return replace(self, **changes)


@dataclass(kw_only=True)
class Timing:
    """What the server told of its own time, in milliseconds; None where it, or a front end, told nothing."""

    __pydantic_config__: ClassVar[ConfigDict] = _RECORDED

    queue_ms: float | None = None
    inference_ms: float | None = None
    time_per_token_ms: float | None = None
    total_ms: float | None = None


@dataclass(kw_only=True)
class CaseResult:
    """One case answered by one arm.

    ``error`` set means that the instrument failed: the case is missing for this arm, neither passed nor failed, and
    ``passed`` and ``score`` are null. ``not_asked`` says besides that nobody asked, because the verdict was certain.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _RECORDED

    case: str
    arm: Arm
    adapter_id: str = ""
    output: str = ""
    passed: bool | None = None
    score: float | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    checks: tuple[CheckResult, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    """Weighted mean score of the checks that share a metric's name."""
    latency_ms: Annotated[float | None, Field(ge=0)] = None
    timing: Timing | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    finish_reason: str | None = None
    cost_usd: Annotated[float | None, Field(ge=0)] = None
    session: str = ""
    """The evaluation that asked. Latencies compare only within one: under the same load."""
    redacted: bool = False
    """The output recorded here is not what was graded: patterns of the target were masked in it."""
    error: str | None = None
    not_asked: bool = False

    def but(self, **changes: Any) -> CaseResult:  # noqa: ANN401  # of any field
        """Give the same with other values."""
        return replace(self, **changes)


def evidence_digest(results: Iterable[CaseResult]) -> str:
    """Name what was observed, whatever the order of the lines and of what was not asked: SHA-256 in hexadecimal.

    An answer is known by the evaluation that asked for it, so the same answers taken from the record again are the same
    evidence, and answers asked for anew are not.
    """
    seen = sorted(
        f"{result.case!r} {result.arm} {result.session!r} {result.passed} {result.score}"
        for result in results
        if not result.not_asked
    )
    return hashlib.sha256("\n".join(seen).encode("utf-8", "surrogatepass")).hexdigest()
