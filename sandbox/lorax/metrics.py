"""LoRAX's metrics of one server, as Prometheus text and as a JSON map.

Own instruments and not prometheus_client's: LoRAX exports counters without the suffix ``_total`` that prometheus_client
always appends, and dashboards are written for those names. Names, labels and buckets are those of LoRAX's
router/src/server.rs; durations are in seconds. All calls come from the event loop's thread.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Counter", "Histogram", "Metrics", "Summary"]

DURATION_BUCKETS = tuple(0.0001 * 1.5**power for power in range(1, 36))
"""35 upper bounds in seconds, from 0.00015, each 1.5 times the one before."""

LINEAR_BUCKET_COUNT = 100

Series = tuple[str, Mapping[str, str], float]
"""One exported line: name, labels, value."""


@dataclass(kw_only=True)
class Counter:
    """A count that only grows, by value of at most one label."""

    name: str
    label: str | None = None
    kind: str = field(default="counter", init=False)
    _values: dict[str, float] = field(default_factory=dict)

    def increment(self, value: str = "") -> None:
        """Add one under a value of the label."""
        self._values[value] = self._values.get(value, 0.0) + 1.0

    def series(self) -> Iterator[Series]:
        """All values; a counter without label starts at 0, one with label has no series before its first event."""
        if self.label is None:
            yield self.name, {}, self._values.get("", 0.0)
            return
        for value, count in sorted(self._values.items()):
            yield self.name, {self.label: value}, count


@dataclass(kw_only=True)
class Histogram:
    """Observations counted by upper bound."""

    name: str
    bounds: tuple[float, ...]
    kind: str = field(default="histogram", init=False)
    _sum: float = 0.0
    _counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def series(self) -> Iterator[Series]:
        """Cumulated buckets, sum and count."""
        seen = 0
        for bound, count in zip((*self.bounds, math.inf), self._counts, strict=True):
            seen += count
            yield f"{self.name}_bucket", {"le": _number(bound)}, float(seen)
        yield f"{self.name}_sum", {}, self._sum
        yield f"{self.name}_count", {}, float(seen)


@dataclass(kw_only=True)
class Summary:
    """Sum and number of observations."""

    name: str
    kind: str = field(default="summary", init=False)
    _sum: float = 0.0
    _count: int = 0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._sum += value
        self._count += 1

    def series(self) -> Iterator[Series]:
        """Sum and count."""
        yield f"{self.name}_sum", {}, self._sum
        yield f"{self.name}_count", {}, float(self._count)


class Metrics:
    """Every instrument of one server.

    Args:
        max_input_length: Tokens; the last bucket of the input length.
        max_total_tokens: Tokens; the last bucket of generated and requested tokens.
    """

    def __init__(self, *, max_input_length: int, max_total_tokens: int) -> None:
        self.request_count = Counter(name="lorax_request_count")
        self.request_success = Counter(name="lorax_request_success")
        self.request_failure = Counter(name="lorax_request_failure", label="err")
        self.request_duration = Histogram(name="lorax_request_duration", bounds=DURATION_BUCKETS)
        self.validation_duration = Histogram(name="lorax_request_validation_duration", bounds=DURATION_BUCKETS)
        self.queue_duration = Histogram(name="lorax_request_queue_duration", bounds=DURATION_BUCKETS)
        self.inference_duration = Histogram(name="lorax_request_inference_duration", bounds=DURATION_BUCKETS)
        self.time_per_token = Histogram(name="lorax_request_mean_time_per_token_duration", bounds=DURATION_BUCKETS)
        self.generated_tokens = Histogram(name="lorax_request_generated_tokens", bounds=_linear(max_total_tokens))
        self.input_length = Histogram(name="lorax_request_input_length", bounds=_linear(max_input_length))
        self.max_new_tokens = Histogram(name="lorax_request_max_new_tokens", bounds=_linear(max_total_tokens))
        self.skipped_tokens = Summary(name="lorax_request_skipped_tokens")

    def text(self, gauges: Mapping[str, float]) -> str:
        """Render the Prometheus text format, version 0.0.4; ``gauges`` are values of now by exported name."""
        lines: list[str] = []
        for instrument in self._instruments():
            lines.append(f"# TYPE {instrument.name} {instrument.kind}")
            lines.extend(f"{_key(name, labels)} {_number(value)}" for name, labels, value in instrument.series())
            lines.append("")
        for name, value in gauges.items():
            lines.extend((f"# TYPE {name} gauge", f"{name} {_number(value)}", ""))
        return "\n".join(lines)

    def values(self, gauges: Mapping[str, float]) -> dict[str, float]:
        """Every series with its value, keyed as in the text."""
        series = {
            _key(name, labels): value
            for instrument in self._instruments()
            for name, labels, value in instrument.series()
        }
        return {**series, **gauges}

    def _instruments(self) -> tuple[Counter | Histogram | Summary, ...]:
        return tuple(item for item in vars(self).values() if isinstance(item, Counter | Histogram | Summary))


def _linear(top: int) -> tuple[float, ...]:
    return tuple(top / LINEAR_BUCKET_COUNT * (step + 1) for step in range(LINEAR_BUCKET_COUNT))


def _key(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    # Label values come from closed sets of this package, so nothing needs escaping.
    pairs = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{pairs}}}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
