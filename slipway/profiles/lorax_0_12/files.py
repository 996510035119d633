"""Rules about which files there are, whether they can be read, and whether they are PEFT's at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from slipway.adapter_evidence import Evidence
from slipway.adapter_formats import ForeignFormat
from slipway.findings import Fix, Prediction, Severity, listed
from slipway.rules import Hit, Rule, rule
from slipway.tensors import Header, HeaderProblem, HeaderProblemKind, shown

__all__ = ["RULES"]

_ADVICE: Final = {
    HeaderProblemKind.LFS_POINTER: "Run `git lfs pull` where it came from.",
    HeaderProblemKind.PICKLE: "Save the adapter again with save_pretrained(..., safe_serialization=True).",
    HeaderProblemKind.GGUF: "Give the PEFT adapter that it was converted from.",
}
_ANEW: Final = "Save or download it again."
_UNREADABLE: Final = {
    HeaderProblemKind.EMPTY: "A weights file without a byte",
    HeaderProblemKind.LFS_POINTER: "A Git LFS pointer in place of the weights",
    HeaderProblemKind.HTML: "A web page in place of the weights",
    HeaderProblemKind.PICKLE: "A PyTorch pickle named safetensors",
    HeaderProblemKind.GGUF: "A GGUF file named safetensors",
    HeaderProblemKind.TRUNCATED: "A weights file that ends too early",
    HeaderProblemKind.HEADER: "A weights file whose header is none of safetensors",
    HeaderProblemKind.OFFSETS: "A weights file whose tensors overlap, leave gaps, or have not the size of their shape",
}
_FORMATS: Final = {
    ForeignFormat.MLX: ("an MLX adapter", "Convert it: PEFT's lora_A is MLX's lora_a transposed."),
    ForeignFormat.ADAPTERHUB: ("an adapter of AdapterHub's adapters library", "Train it with PEFT."),
    ForeignFormat.DIFFUSION: ("a LoRA of an image model", "LoRAX serves language models only."),
}


@rule("weights.missing", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="utils/sources/local.py")
def weights_missing(evidence: Evidence) -> Iterator[Hit]:
    """No weights at all."""
    if not evidence.weights and not _pickles(evidence) and evidence.foreign_format is None:
        yield Hit(
            where=evidence.bundle.uri,
            message="There are no weights. LoRAX answers 424, `No local weights found`. "
            "Give the directory that has adapter_model.safetensors.",
        )


@rule("weights.pickle", Severity.ERROR, Prediction.REJECT, Fix.FIT, source="utils/weights.py, utils/convert.py")
def weights_pickle(evidence: Evidence) -> Iterator[Hit]:
    """Nothing but a pickle: LoRAX unpickles it and writes safetensors beside it, which fails where it may not write."""
    if not evidence.weights and (pickles := _pickles(evidence)):
        yield Hit(
            where=listed(pickles),
            message="The weights are a pickle, which can run code where it is read. LoRAX unpickles it and fails where "
            "the directory is read-only. `slipway fit` turns it into safetensors, in a process of its own that may "
            "build tensors and nothing else.",
        )


@rule("weights.pickle-beside", Severity.WARNING, Prediction.OK, Fix.NONE, source="utils/sources/source.py")
def weights_pickle_beside(evidence: Evidence) -> Iterator[Hit]:
    """A pickle beside safetensors, which LoRAX does not look at."""
    if evidence.weights and (pickles := _pickles(evidence)):
        yield Hit(
            where=listed(pickles),
            message="A pickle lies beside the safetensors. LoRAX ignores it. Leave it out of what is released.",
        )


@rule("weights.several", Severity.ERROR, Prediction.REJECT, Fix.FIT, source="utils/sources/source.py")
def weights_several(evidence: Evidence) -> Iterator[Hit]:
    """Several safetensors files: LoRAX reads all and adds their sizes up, which must fit its adapter memory."""
    if len(evidence.weights) > 1:
        yield Hit(
            where=listed(weights.file.name for weights in evidence.weights),
            message=f"There are {len(evidence.weights)} safetensors files. LoRAX reads them all as one adapter and "
            "counts all their bytes against its adapter memory. `slipway fit` joins them.",
        )


@rule("weights.duplicate", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def weights_duplicate(evidence: Evidence) -> Iterator[Hit]:
    """One tensor in several files: which one counts depends on the order in which they are read."""
    counts = Counter(tensor.name for tensor in evidence.tensors)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        yield Hit(
            where=listed(twice),
            message=f"{len(twice):,} tensors are in more than one file. LoRAX uses the one it happens to read last. "
            "Leave one adapter in the directory.",
        )


@rule("weights.merged-model", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="utils/sources/source.py")
def weights_merged_model(evidence: Evidence) -> Iterator[Hit]:
    """Weights of a whole model, in place of an adapter or beside one: they do not fit the adapter memory."""
    if evidence.foreign_format is ForeignFormat.FULL_MODEL:
        yield Hit(
            where=listed(weights.file.name for weights in evidence.weights),
            message="These are the weights of a whole model, not of an adapter. LoRAX reserves a tenth of its memory "
            "for adapters and refuses it, or finds no LoRA in it and answers as the base. Give the adapter from before "
            "it was merged.",
        )
        return
    models = [
        weights.file.name
        for weights in evidence.weights
        if len(evidence.weights) > 1
        and isinstance(weights.header, Header)
        and weights.header.tensors
        and not any(tensor.name.startswith("base_model.") or "lora" in tensor.name for tensor in weights.header.tensors)
        and evidence.medusa is None
    ]
    if models:
        yield Hit(
            where=listed(models),
            message=f"{len(models)} of {len(evidence.weights)} files hold no adapter, most likely a merged model. "
            "LoRAX counts their bytes against its adapter memory and refuses. Take them out of the directory.",
        )


def _unreadable(kind: HeaderProblemKind) -> Rule:
    def check(evidence: Evidence) -> Iterator[Hit]:
        for weights in evidence.weights:
            if isinstance(weights.header, HeaderProblem) and weights.header.kind is kind:
                yield Hit(
                    where=shown(weights.file.name),
                    message=f"This is not a readable safetensors file: {weights.header.message}. LoRAX answers 424. "
                    + _ADVICE.get(kind, _ANEW),
                )

    return Rule(
        code=f"weights.{kind}",
        severity=Severity.ERROR,
        prediction=Prediction.REJECT,
        fix=Fix.MANUAL,
        source="adapters/lora.py: safetensors raises",
        summary=f"{_UNREADABLE[kind]}.",
        check=check,
    )


def _format(kind: ForeignFormat) -> Rule:
    what, advice = _FORMATS[kind]

    def check(evidence: Evidence) -> Iterator[Hit]:
        if evidence.foreign_format is kind:
            yield Hit(
                where=evidence.bundle.uri,
                message=f"This is {what}, not PEFT's. LoRAX finds no LoRA matrix under a name it knows and answers 200 "
                f"with the text of the base model. {advice}",
            )

    return Rule(
        code=f"format.{kind}",
        severity=Severity.ERROR,
        prediction=Prediction.DROP,
        fix=Fix.MANUAL,
        source="adapters/lora.py: no name matches",
        summary=f"{what[0].upper()}{what[1:]}.",
        check=check,
    )


def _pickles(evidence: Evidence) -> list[str]:
    return [file.name for file in evidence.bundle.files if file.name.endswith(".bin")]


RULES: Final[tuple[Rule, ...]] = (
    weights_missing,
    weights_pickle,
    weights_pickle_beside,
    weights_several,
    weights_duplicate,
    weights_merged_model,
    *map(_unreadable, HeaderProblemKind),
    *map(_format, _FORMATS),
)
