"""The gate file: which rules a candidate must meet, and at what confidence.

Says what may be written; ``gate_rules`` says what it means.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from slipway.yaml_files import load_model

__all__ = [
    "Against",
    "Approval",
    "CostRule",
    "EarlyStop",
    "FirstRelease",
    "Gate",
    "LatencyRule",
    "Metric",
    "NonInferiority",
    "Requirement",
    "Superiority",
    "load_gate",
]


class Metric(StrEnum):
    """What a requirement bounds."""

    PASS_RATE = "pass_rate"  # noqa: S105  # a metric, no password
    SCORE = "score"
    LATENCY_P50 = "latency_ms.p50"
    LATENCY_P95 = "latency_ms.p95"
    LATENCY_P99 = "latency_ms.p99"
    LATENCY_MEAN = "latency_ms.mean"
    COST_MEAN = "cost_usd.mean"

    @property
    def is_latency(self) -> bool:
        """Whether it is measured in milliseconds, lower being better."""
        return self not in {Metric.PASS_RATE, Metric.SCORE}


class FirstRelease(StrEnum):
    """What to do while there is no champion to compare with."""

    BASE_ONLY = "base-only"
    REFUSE = "refuse"


class Approval(StrEnum):
    """Whether a person must agree after the rules do."""

    NONE = "none"
    HUMAN = "human"


class EarlyStop(StrEnum):
    """When an evaluation may end before every case was asked."""

    CURTAILMENT = "curtailment"
    """When no answer still to come can change the verdict."""
    SEQUENTIAL = "sequential"
    """Also when an always-valid bound has settled it."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Requirement(_Strict):
    """A floor or a ceiling on the candidate alone.

    ``tag`` narrows it to the cases that carry the tag. Rates and scores are in [0, 1], latencies in milliseconds.
    """

    metric: Metric
    tag: str | None = Field(default=None, min_length=1)
    at_least: float | None = Field(default=None, ge=0)
    at_most: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_sensible_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("write exactly one of at_least and at_most")
        if self.metric.is_latency and self.at_most is None:
            raise ValueError(f"{self.metric} is bounded from above: write at_most, in milliseconds")
        if not self.metric.is_latency and self.bound > 1:
            raise ValueError(f"{self.metric} is between 0 and 1: write 0.9 for 90 %")
        return self

    @property
    def bound(self) -> float:
        """The number after ``at_least`` or ``at_most``."""
        return self.at_least if self.at_least is not None else self.at_most or 0.0

    @property
    def name(self) -> str:
        """How results and reasons call this rule: ``pass_rate tag safety at_least 1``."""
        tag = f" tag {self.tag}" if self.tag else ""
        return f"{self.metric}{tag} {'at_least' if self.at_least is not None else 'at_most'} {self.bound:g}"


class NonInferiority(_Strict):
    """The candidate may be worse than the champion by less than ``margin``, case by case."""

    metric: Literal[Metric.PASS_RATE, Metric.SCORE]
    margin: float = Field(ge=0, lt=1)


class Superiority(_Strict):
    """The candidate must be better than the base model by more than ``better_by``, case by case."""

    metric: Literal[Metric.PASS_RATE, Metric.SCORE]
    better_by: float = Field(ge=0, lt=1)


class LatencyRule(_Strict):
    """The candidate's median latency over the other arm's, case by case, may be at most ``ratio_at_most``."""

    of: Literal["champion", "base"]
    ratio_at_most: float = Field(gt=0)


class CostRule(_Strict):
    """The candidate's cost over the other arm's, on the cases that both answered, may be at most ``ratio_at_most``."""

    of: Literal["champion", "base"]
    ratio_at_most: float = Field(gt=0)


class Against(_Strict):
    """Paired comparisons with the other arms."""

    champion: NonInferiority | None = None
    base: Superiority | None = None
    latency: LatencyRule | None = None
    cost: CostRule | None = None


class Gate(_Strict):
    """The rules for one release.

    Attributes:
        confidence: Of every interval, two-sided.
        min_cases: Fewer answered cases, or pairs, decide nothing.
        max_missing: Share of cases that an arm may fail to answer.
        min_coverage: Share of the suite's checks that must have been applied.
        require: Floors and ceilings on the candidate.
        against: Paired comparisons.
        first_release: What to do without a champion.
        approval: Whether a person decides last; for the flow, not for ``decide``.
        early_stop: When not every case has to be asked.
    """

    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    min_cases: int = Field(default=30, ge=1)
    max_missing: float = Field(default=0.02, ge=0, lt=1)
    min_coverage: float = Field(default=1.0, ge=0, le=1)
    require: tuple[Requirement, ...] = ()
    against: Against = Against()
    first_release: FirstRelease = FirstRelease.BASE_ONLY
    approval: Approval = Approval.NONE
    early_stop: EarlyStop = EarlyStop.CURTAILMENT


def load_gate(path: Path | str) -> Gate:
    """Read a gate file.

    Raises:
        ConfigFileError: With file, line, key and what to write.
    """
    return load_model(path, Gate)
