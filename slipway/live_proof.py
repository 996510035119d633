"""The live proof: is the adapter that we named really what answers?

LoRAX answers 200 with base-model text for an adapter whose tensors match nothing (its ``adapters/lora.py`` skips what
it cannot pair), so a successful request proves nothing. What we compare are log probabilities of the same fixed tokens
under the adapter and under the base, asked for in the same minute of the same server. Pure: the requests are made in
``services.probe``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FIXED_PROMPT", "LiveProof", "Observation", "judge"]

FIXED_PROMPT = "List three facts about ships.\n1."
"""Asked besides the suite's own prompts, so that even a proof without a suite asks something."""

NOISE_FACTOR = 4.0
"""The adapter must move a log probability by this many times what the base differs from itself."""

LEAST_DIFFERENCE = 1e-3
"""Nats. Below this a difference is taken for numerical noise whatever the repeat of the base says: half-precision
kernels differ by some 1e-4 between batches of different shape."""

REFERENCE_TOLERANCE = 2e-2
"""Nats. How far served log probabilities may be from PEFT's own; a wrong scale moves them by tenths and more."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Log probabilities of one prompt's tokens, in nats, each list of equal length.

    Attributes:
        prompt: The text.
        base: Under the base model.
        base_again: The same, asked a second time after the adapter: their difference is the server's own noise.
        adapter: Under the adapter.
        reference: Under PEFT with the same files, where the server offers that.
    """

    prompt: str
    base: Sequence[float]
    base_again: Sequence[float]
    adapter: Sequence[float]
    reference: Sequence[float] | None = None


@dataclass(frozen=True, kw_only=True)
class LiveProof:
    """What was seen, and whether it proves the adapter live.

    Attributes:
        is_live: False means that the adapter must not be promoted; ``reasons`` say why.
        reasons: Sentences; empty when live.
        difference: Largest difference in nats between adapter and base over all observed tokens.
        noise: Largest difference between the base and itself.
        reference_difference: Largest difference to PEFT's own; None where the server has no reference.
        answered_adapter_id: ``x-adapter-id`` of the reply; empty where the server sends none.
        cold_ms: Latency of the first request to the adapter: download and load are in it.
        warm_ms: Latency of the next one.
    """

    is_live: bool
    reasons: tuple[str, ...]
    difference: float
    noise: float
    reference_difference: float | None
    answered_adapter_id: str
    cold_ms: float
    warm_ms: float


def judge(
    observations: Sequence[Observation], *, adapter_id: str, answered_adapter_id: str, cold_ms: float, warm_ms: float
) -> LiveProof:
    """Decide from the observations; no observation, or one without tokens, proves nothing."""
    reasons: list[str] = []
    difference = _largest([(item.base, item.adapter) for item in observations])
    noise = _largest([(item.base, item.base_again) for item in observations])
    with_reference = [(item.reference, item.adapter) for item in observations if item.reference is not None]
    reference_difference = _largest(with_reference) if with_reference else None

    if answered_adapter_id and answered_adapter_id != adapter_id:
        reasons.append(f"the server says that {answered_adapter_id} answered, not {adapter_id}.")
    if not observations or any(not item.adapter for item in observations):
        reasons.append(f"the server gave no log probabilities for {adapter_id}, so nothing could be compared.")
    elif math.isnan(difference):
        reasons.append(f"{adapter_id} answers with log probabilities that are no numbers: its weights hold NaN or Inf.")
    elif difference <= max(LEAST_DIFFERENCE, NOISE_FACTOR * noise):
        reasons.append(
            f"the server answers for {adapter_id} as for the base model (largest difference {difference:.2g} nats, its "
            f"own noise {noise:.2g}): it accepted the adapter and ignored it."
        )
    if reference_difference is not None and not reference_difference <= REFERENCE_TOLERANCE:
        reasons.append(
            f"the server computes something else than PEFT does with the same files (largest difference "
            f"{reference_difference:.2g} nats, allowed {REFERENCE_TOLERANCE:g}): part of the adapter is dropped or "
            "wrongly scaled."
        )
    return LiveProof(
        is_live=not reasons,
        reasons=tuple(reasons),
        difference=difference,
        noise=noise,
        reference_difference=reference_difference,
        answered_adapter_id=answered_adapter_id,
        cold_ms=cold_ms,
        warm_ms=warm_ms,
    )


def _largest(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Largest absolute difference over all pairs; NaN when any is NaN or the lengths differ."""
    largest = 0.0
    for left, right in pairs:
        if len(left) != len(right):
            return math.nan
        for one, other in zip(left, right, strict=True):
            difference = abs(one - other)
            if not math.isfinite(difference):
                return math.nan
            largest = max(largest, difference)
    return largest
