"""Rules about the numbers in the tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed
from slipway.lora import LoraPair
from slipway.lora_scale import PatternError
from slipway.rules import Hit, Rule, rule

__all__ = ["RULES"]

_HUGE: Final = 1.0
"""Root mean square of an update's elements. Weights of language models are near 0.02, trained updates below that."""


@rule("weights.nonfinite", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="utils/convert.py")
def weights_nonfinite(evidence: Evidence) -> Iterator[Hit]:
    """NaN or infinity: LoRAX looks for them only when it converts a pickle."""
    names = [name for weights in evidence.weights if weights.scan for name in weights.scan.nonfinite]
    if names:
        yield Hit(
            where=listed(names),
            message=f"{len(names):,} of {len(evidence.tensors):,} tensors have NaN or infinity in them. LoRAX does not "
            "look and generates garbage. The training diverged: take an earlier checkpoint.",
        )


@rule("weights.no-effect", Severity.ERROR, Prediction.OK, Fix.MANUAL, source="adapters/lora.py: unchecked")
def weights_no_effect(evidence: Evidence) -> Iterator[Hit]:
    """All lora_B or all lora_A zero, as before the first step: served faithfully, an adapter that changes nothing."""
    pairs = evidence.lora.pairs.values()
    if pairs and all(_is_zero(pair, evidence.zero) for pair in pairs):
        yield Hit(
            where=listed(pair.b.name for pair in pairs if pair.b is not None),
            message="In every pair one of the matrices is zero throughout, as before the first training step. LoRAX "
            "serves it, and its answers are the base model's. Give the trained checkpoint.",
        )


@rule("weights.huge", Severity.WARNING, Prediction.OK, Fix.MANUAL, source="adapters/lora.py: unchecked")
def weights_huge(evidence: Evidence) -> Iterator[Hit]:
    """An update that may outweigh the base's own weights, by the norms of its matrices."""
    if isinstance(evidence.scales, PatternError):
        return
    huge = [path for path, pair in evidence.lora.pairs.items() if _size(evidence, pair) > _HUGE]
    if huge:
        yield Hit(
            where=listed(huge),
            message=f"In {len(huge):,} of {len(evidence.lora.pairs):,} modules the update may have elements above "
            f"{_HUGE:g} on average, far more than the weights it is added to. LoRAX serves it as it is. Look whether "
            "the training diverged or lora_alpha is too large.",
        )


def _is_zero(pair: LoraPair, zero: frozenset[str]) -> bool:
    return any(side is not None and side.name in zero for side in (pair.a, pair.b))


def _size(evidence: Evidence, pair: LoraPair) -> float:
    """Bound the root mean square of an update from above: the norm of a product is at most the product of the norms."""
    scales, norms = evidence.scales, evidence.norms
    if isinstance(scales, PatternError) or pair.a is None or pair.b is None or not pair.inputs or not pair.outputs:
        return 0.0
    norm = norms.get(pair.a.name, 0.0) * norms.get(pair.b.name, 0.0)
    return abs(scales[pair.path].factor) * norm / math.sqrt(pair.inputs * pair.outputs)


RULES: Final[tuple[Rule, ...]] = (weights_nonfinite, weights_no_effect, weights_huge)
