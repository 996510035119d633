"""Rules about names, pairs, shapes and ranks of the tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.findings import Evidence, Finding, Fix, Prediction, Rule, Severity, listed
from slipway.lora import LoraPair, module_type
from slipway.tensors import Header

__all__ = ["RULES"]

_FLOATS: Final = frozenset({"BF16", "F16", "F32", "F64"})


def tensors_none(evidence: Evidence) -> Iterator[Finding]:
    """No LoRA matrix in a readable file: adapters/lora.py finds no pair and goes on with nothing."""
    is_readable = any(isinstance(weights.header, Header) for weights in evidence.weights)
    if is_readable and _says_lora(evidence) and not evidence.lora.pairs:
        yield Finding(
            code="tensors.none",
            severity=Severity.ERROR,
            prediction=Prediction.DROP,
            where=listed(weights.file.name for weights in evidence.weights),
            message="There is no LoRA matrix in the weights. LoRAX answers 200 with the text of the base model. "
            "Give the adapter as PEFT's save_pretrained wrote it.",
            fix=Fix.MANUAL,
        )


def tensors_foreign(evidence: Evidence) -> Iterator[Finding]:
    """Names other than ``base_model.model.PATH.lora_A.weight`` or ``lora_B``: adapters/lora.py never asks for them."""
    if evidence.lora.others:
        yield Finding(
            code="tensors.foreign",
            severity=Severity.ERROR,
            prediction=Prediction.DROP,
            where=listed(tensor.name for tensor in evidence.lora.others),
            message=f"{len(evidence.lora.others):,} of {len(evidence.tensors):,} tensors are not named "
            "`base_model.model.PATH.lora_A.weight` or `.lora_B.weight`. LoRAX leaves them unused. Train without them "
            "(modules_to_save, embeddings, biases, DoRA), or save again with PEFT if only the names differ.",
            fix=Fix.MANUAL,
        )


def tensors_unmatched(evidence: Evidence) -> Iterator[Finding]:
    """Modules that the base has not: adapters/lora.py looks up the base's own modules and ignores all others."""
    base = evidence.base
    if base is None or base.modules is None:
        return
    unmatched = [path for path in evidence.lora.pairs if path not in base.modules]
    if unmatched:
        yield Finding(
            code="tensors.unmatched",
            severity=Severity.ERROR,
            prediction=Prediction.DROP,
            where=listed(unmatched),
            message=f"{len(unmatched):,} of {len(evidence.lora.pairs):,} modules do not exist in {base.label}. LoRAX "
            "leaves them unused. Release it on its own base.",
            fix=Fix.MANUAL,
        )


def tensors_unpaired(evidence: Evidence) -> Iterator[Finding]:
    """A matrix without its partner: adapters/lora.py then drops that module's type on every layer."""
    unpaired = [pair for pair in evidence.lora.pairs.values() if pair.a is None or pair.b is None]
    if unpaired:
        types = ", ".join(sorted({module_type(pair.path) for pair in unpaired}))
        yield Finding(
            code="tensors.unpaired",
            severity=Severity.ERROR,
            prediction=Prediction.DROP,
            where=listed(pair.path for pair in unpaired),
            message=f"{len(unpaired):,} modules have only one of lora_A and lora_B. LoRAX drops their whole type, on "
            f"every layer, often without a warning: {types}. Save the adapter again.",
            fix=Fix.MANUAL,
        )


def tensors_shape(evidence: Evidence) -> Iterator[Finding]:
    """Matrices that do not multiply: adapters/lora.py stacks A and B apart and never compares them."""
    broken = [pair for pair in evidence.lora.pairs.values() if not _multiplies(pair)]
    if broken:
        yield Finding(
            code="tensors.shape",
            severity=Severity.ERROR,
            prediction=Prediction.WRONG,
            where=listed(pair.path for pair in broken),
            message=f"In {len(broken):,} modules lora_A is not [rank, in] or lora_B not [out, rank] with one rank. "
            "LoRAX does not compare them, and then fails whole batches or computes nonsense. Save the adapter again.",
            fix=Fix.MANUAL,
        )


def tensors_dtype(evidence: Evidence) -> Iterator[Finding]:
    """Numbers that are not plain floats: adapters/lora.py casts whatever there is, so codes become weights."""
    tensors = [side for pair in evidence.lora.pairs.values() for side in (pair.a, pair.b) if side is not None]
    packed = [tensor for tensor in tensors if tensor.dtype not in _FLOATS]
    if packed:
        yield Finding(
            code="tensors.dtype",
            severity=Severity.ERROR,
            prediction=Prediction.WRONG,
            where=listed(tensor.name for tensor in packed),
            message=f"{len(packed):,} matrices are {', '.join(sorted({tensor.dtype for tensor in packed}))}, not "
            "floats of 16 bits or more. LoRAX casts them as if they were. Save the adapter unquantised.",
            fix=Fix.MANUAL,
        )


def rank_inconsistent(evidence: Evidence) -> Iterator[Finding]:
    """Several ranks: adapters/lora.py stacks the layers of a type, which raises, and has one rank for all types."""
    by_type: dict[str, set[int]] = {}
    for pair in evidence.lora.pairs.values():
        if pair.rank is not None:
            by_type.setdefault(module_type(pair.path), set()).add(pair.rank)
    ranks = set[int]().union(*by_type.values())
    mixed = sorted(kind for kind, found in by_type.items() if len(found) > 1)
    if len(ranks) > 1:
        yield Finding(
            code="rank.inconsistent",
            severity=Severity.ERROR,
            prediction=Prediction.REJECT if mixed else Prediction.WRONG,
            where=", ".join(mixed or sorted(by_type)),
            message=f"There are {len(ranks)} ranks, from {min(ranks)} to {max(ranks)}. "
            + (
                "LoRAX cannot stack the layers of one type and answers 424. "
                if mixed
                else "LoRAX scales all of them by the one rank in the config. "
            )
            + "Train with one rank.",
            fix=Fix.MANUAL,
        )


def rank_config(evidence: Evidence) -> Iterator[Finding]:
    """Another rank than the config's: adapters/lora.py scales by lora_alpha over the r of the config."""
    ranks = {pair.rank for pair in evidence.lora.pairs.values() if pair.rank is not None}
    stated = evidence.readable_config.r
    if evidence.config is not None and len(ranks) == 1 and stated not in ranks:
        yield Finding(
            code="rank.config",
            severity=Severity.ERROR,
            prediction=Prediction.WRONG,
            where="adapter_config.json: r",
            message=f"The config says rank {stated} and the tensors have rank {ranks.pop()}. LoRAX scales by "
            "lora_alpha over the config's rank, so that the adapter is too strong or too weak. Correct r, after "
            "finding out what was trained.",
            fix=Fix.MANUAL,
        )


def _says_lora(evidence: Evidence) -> bool:
    return evidence.readable_config.peft_type in {"", "LORA"}


def _multiplies(pair: LoraPair) -> bool:
    sides = [side for side in (pair.a, pair.b) if side is not None]
    if any(len(side.shape) != 2 or 0 in side.shape for side in sides):
        return False
    return pair.a is None or pair.b is None or pair.a.shape[0] == pair.b.shape[1]


RULES: Final[tuple[Rule, ...]] = (
    tensors_none,
    tensors_foreign,
    tensors_unmatched,
    tensors_unpaired,
    tensors_shape,
    tensors_dtype,
    rank_inconsistent,
    rank_config,
)
