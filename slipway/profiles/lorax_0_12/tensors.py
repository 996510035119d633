"""Rules about names, pairs, shapes and formats of the LoRA matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed, plainly
from slipway.lora import LoraPair, OtherKind, layer_of, module_type
from slipway.rules import Hit, Rule, rule
from slipway.tensors import Header, Tensor, shown

__all__ = ["RULES"]

_FLOATS: Final = frozenset({"BF16", "F16", "F32", "F64"})


@rule("tensors.none", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def tensors_none(evidence: Evidence) -> Iterator[Hit]:
    """No LoRA matrix in a readable file: LoRAX finds no pair and goes on with nothing."""
    is_readable = any(isinstance(weights.header, Header) for weights in evidence.weights)
    if is_readable and evidence.is_lora and not evidence.lora.pairs and evidence.medusa is None:
        yield Hit(
            where=listed(weights.file.name for weights in evidence.weights),
            message="There is no LoRA matrix in the weights. LoRAX answers 200 with the text of the base model. "
            "Give the adapter as PEFT's save_pretrained wrote it.",
        )


@rule("tensors.empty", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/lora.py")
def tensors_empty(evidence: Evidence) -> Iterator[Hit]:
    """Matrices without elements, as DeepSpeed ZeRO-3 leaves behind when they are not gathered before saving."""
    empty = [tensor for tensor in _matrices(evidence) if not tensor.elements]
    if empty:
        yield Hit(
            where=listed(tensor.name for tensor in empty),
            message=f"{len(empty):,} of {len(evidence.tensors):,} tensors have no elements: the weights were spread "
            "over several GPUs and not gathered. LoRAX cannot stack them. Save again with "
            "stage3_gather_16bit_weights_on_model_save, or under zero.GatheredParameters.",
        )


@rule("tensors.foreign", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py, models/model.py")
def tensors_foreign(evidence: Evidence) -> Iterator[Hit]:
    """Tensors of no known meaning: LoRAX asks for none but its own names, and does not say that some are left."""
    if foreign := evidence.others.get(OtherKind.UNKNOWN, ()):
        yield Hit(
            where=listed(tensor.name for tensor in foreign),
            message=f"{len(foreign):,} of {len(evidence.tensors):,} tensors are not named "
            "`base_model.model.PATH.lora_A.weight` or `.lora_B.weight`, nor anything else that PEFT writes for LoRA. "
            "LoRAX leaves them unused. Save the adapter again with PEFT's save_pretrained.",
        )


@rule("tensors.renamed", Severity.ERROR, Prediction.DROP, Fix.FIT, source="adapters/lora.py")
def tensors_renamed(evidence: Evidence) -> Iterator[Hit]:
    """Keys with a prefix or infix that the base's modules have not, such as `.default.` or `language_model.`."""
    if renamed := evidence.lora.renamed:
        right = next(iter(renamed.values()))
        yield Hit(
            where=listed(renamed),
            message=f"{len(renamed):,} of {len(evidence.tensors):,} tensors have another name than LoRAX looks for, "
            f"and stay unused. `slipway fit` names them as the base does; the first would be {shown(right)}.",
        )


@rule("tensors.unmatched", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def tensors_unmatched(evidence: Evidence) -> Iterator[Hit]:
    """Modules that the base has not: LoRAX looks up the base's own modules and ignores all others."""
    base = evidence.base
    if base is None or base.modules is None:
        return
    layers = base.layers or 0
    unmatched = [
        path
        for path in evidence.lora.pairs
        if path not in base.modules and not (layers and (layer_of(path) or 0) >= layers)
    ]
    if unmatched and len(unmatched) < len(evidence.lora.pairs):
        yield Hit(
            where=listed(unmatched),
            message=f"{len(unmatched):,} of {len(evidence.lora.pairs):,} modules do not exist in {base.label}. LoRAX "
            "leaves them unused. Release it on its own base.",
        )


@rule("tensors.unpaired", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def tensors_unpaired(evidence: Evidence) -> Iterator[Hit]:
    """A matrix without its partner: LoRAX drops that module's type on every layer."""
    unpaired = [pair for pair in evidence.lora.pairs.values() if pair.a is None or pair.b is None]
    if unpaired:
        types = plainly(sorted({module_type(pair.path) for pair in unpaired}))
        yield Hit(
            where=listed(pair.path for pair in unpaired),
            message=f"{len(unpaired):,} modules have only one of lora_A and lora_B. LoRAX drops their whole type, on "
            f"every layer, often without a warning: {types}. Save the adapter again.",
        )


@rule("tensors.shape", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def tensors_shape(evidence: Evidence) -> Iterator[Hit]:
    """Matrices that do not multiply: LoRAX stacks A and B apart and never compares them."""
    broken = [pair for pair in evidence.lora.pairs.values() if not _is_empty(pair) and not pair.multiplies]
    if broken:
        yield Hit(
            where=listed(pair.path for pair in broken),
            message=f"In {len(broken):,} modules lora_A is not [rank, in] or lora_B not [out, rank] with one rank. "
            "LoRAX does not compare them, and then fails whole batches or computes nonsense. Save the adapter again.",
        )


@rule("tensors.dtype", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def tensors_dtype(evidence: Evidence) -> Iterator[Hit]:
    """Numbers that are no plain floats: LoRAX casts whatever there is, so that codes become weights."""
    packed = [tensor for tensor in _matrices(evidence) if tensor.dtype not in _FLOATS]
    if packed:
        yield Hit(
            where=listed(tensor.name for tensor in packed),
            message=f"{len(packed):,} matrices are {', '.join(sorted({tensor.dtype for tensor in packed}))}, not "
            "floats of 16 bits or more. LoRAX casts them as if they were. Save the adapter unquantised.",
        )


def _matrices(evidence: Evidence) -> Iterator[Tensor]:
    for pair in evidence.lora.pairs.values():
        yield from (side for side in (pair.a, pair.b) if side is not None)


def _is_empty(pair: LoraPair) -> bool:
    return any(side is not None and not side.elements for side in (pair.a, pair.b))


RULES: Final[tuple[Rule, ...]] = (
    tensors_none,
    tensors_empty,
    tensors_foreign,
    tensors_renamed,
    tensors_unmatched,
    tensors_unpaired,
    tensors_shape,
    tensors_dtype,
)
