"""Rules about the numbers in the tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.findings import Evidence, Finding, Fix, Prediction, Rule, Severity, listed

__all__ = ["RULES"]


def weights_nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """NaN or infinity: utils/convert.py looks for them only when it converts a pickle."""
    names = [name for weights in evidence.weights if weights.scan for name in weights.scan.nonfinite]
    if names:
        yield Finding(
            code="weights.nonfinite",
            severity=Severity.ERROR,
            prediction=Prediction.WRONG,
            where=listed(names),
            message=f"{len(names):,} of {len(evidence.tensors):,} tensors have NaN or infinity in them. LoRAX does not "
            "look and generates garbage. The training diverged: take an earlier checkpoint.",
            fix=Fix.MANUAL,
        )


def weights_no_effect(evidence: Evidence) -> Iterator[Finding]:
    """All lora_B zero, as PEFT initialises them: served faithfully, an adapter that changes nothing."""
    zero = {name for weights in evidence.weights if weights.scan for name in weights.scan.zero}
    pairs = evidence.lora.pairs.values()
    if pairs and all(side is not None and side.name in zero for side in (pair.b for pair in pairs)):
        yield Finding(
            code="weights.no-effect",
            severity=Severity.ERROR,
            prediction=Prediction.OK,
            where=listed(pair.b.name for pair in pairs if pair.b is not None),
            message="Every lora_B is zero, as before the first training step. LoRAX serves it, and its answers are the "
            "base model's. Give the trained checkpoint.",
            fix=Fix.MANUAL,
        )


RULES: Final[tuple[Rule, ...]] = (weights_nonfinite, weights_no_effect)
