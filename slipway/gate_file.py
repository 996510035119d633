"""The gate file: which rules a candidate must meet, and at what confidence.

Says what may be written; ``gate_rules`` says what it means.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from slipway.yaml_files import load_model

__all__ = [
    "NAMED",
    "Against",
    "Approval",
    "CostRule",
    "EarlyStop",
    "FirstRelease",
    "Gate",
    "LatencyRule",
    "Measure",
    "Metric",
    "NonInferiority",
    "Requirement",
    "Superiority",
    "is_cost",
    "is_latency",
    "is_share",
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


NAMED = "metrics."
"""What precedes the name that assertions give to a metric of their own."""

Measure = Metric | str
"""A metric of ours, or ``metrics.NAME``: the weighted mean score of the checks that carry ``metric: NAME``."""


def is_latency(measure: Measure) -> bool:
    """Whether it is measured in milliseconds, lower being better."""
    return measure.startswith("latency_ms.")


def is_cost(measure: Measure) -> bool:
    """Whether it is measured in US dollars, lower being better."""
    return measure.startswith("cost_usd.")


def is_share(measure: Measure) -> bool:
    """Whether it is a rate or a score in [0, 1], higher being better."""
    return not is_latency(measure) and not is_cost(measure)


def _read_measure(value: object, known: tuple[Metric, ...]) -> Measure:
    if isinstance(value, str) and value.startswith(NAMED) and value != NAMED:
        return value
    for metric in known:
        if value == metric:
            return metric
    names = ", ".join(f"'{metric}'" for metric in known)
    raise PydanticCustomError("enum", "Input should be {expected}", {"expected": f"{names} or '{NAMED}NAME'"})


def _any_measure(value: object) -> Measure:
    return _read_measure(value, tuple(Metric))


def _quality(value: object) -> Measure:
    return _read_measure(value, (Metric.PASS_RATE, Metric.SCORE))


_Named = Annotated[str, Field(pattern=r"^metrics\..+$")]
_AnyMeasure = Annotated[Measure, PlainValidator(_any_measure, json_schema_input_type=Metric | _Named)]
_Quality = Annotated[
    Measure,
    PlainValidator(_quality, json_schema_input_type=Literal[Metric.PASS_RATE, Metric.SCORE] | _Named),
]


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

    ``tag`` narrows it to the cases that carry the tag. Rates and scores are in [0, 1], latencies in milliseconds, costs
    in US dollars for one request.
    """

    metric: _AnyMeasure
    tag: str | None = Field(default=None, min_length=1)
    at_least: float | None = Field(default=None, ge=0)
    at_most: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_sensible_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("write exactly one of at_least and at_most")
        if is_latency(self.metric) and self.at_most is None:
            raise ValueError(f"{self.metric} is bounded from above: write at_most, in milliseconds")
        if is_cost(self.metric) and self.at_most is None:
            raise ValueError(f"{self.metric} is bounded from above: write at_most, in US dollars for one request")
        if is_share(self.metric) and self.bound > 1:
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

    metric: _Quality
    margin: float = Field(ge=0, lt=1)

    @property
    def limit(self) -> float:
        """The least difference, candidate minus champion, that is no worse."""
        return 0.0 - self.margin

    @property
    def name(self) -> str:
        """How results and reasons call this rule."""
        return f"{self.metric} against champion margin {self.margin:g}"


class Superiority(_Strict):
    """The candidate must be better than the base model by more than ``better_by``, case by case."""

    metric: _Quality
    better_by: float = Field(ge=0, lt=1)

    @property
    def limit(self) -> float:
        """The difference, candidate minus base, that must be exceeded."""
        return self.better_by

    @property
    def name(self) -> str:
        """How results and reasons call this rule."""
        return f"{self.metric} against base better_by {self.better_by:g}"


class LatencyRule(_Strict):
    """The candidate's latency over the other arm's, case by case, may be at most ``ratio_at_most``."""

    of: Literal["champion", "base"]
    ratio_at_most: float = Field(gt=0)
    quantile: Literal["p50", "p95"] = "p50"
    """Which quantile of the latencies the ratio is of."""

    @property
    def name(self) -> str:
        """How results and reasons call this rule."""
        quantile = "" if self.quantile == "p50" else f".{self.quantile}"
        return f"latency_ms{quantile} against {self.of} ratio_at_most {self.ratio_at_most:g}"


class CostRule(_Strict):
    """The candidate's cost over the other arm's, on the cases that both answered, may be at most ``ratio_at_most``."""

    of: Literal["champion", "base"]
    ratio_at_most: float = Field(gt=0)

    @property
    def name(self) -> str:
        """How results and reasons call this rule."""
        return f"cost_usd against {self.of} ratio_at_most {self.ratio_at_most:g}"


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

    @property
    def is_about_quality(self) -> bool:
        """Whether some rule asks how good the answers are, and not only how fast or dear."""
        against = self.against
        return bool(against.champion or against.base) or any(is_share(rule.metric) for rule in self.require)


def load_gate(path: Path | str) -> Gate:
    """Read a gate file.

    Raises:
        ConfigFileError: With file, line, key and what to write.
    """
    return load_model(path, Gate)
