"""Rules about which files there are and whether they can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.findings import Evidence, Finding, Fix, Prediction, Rule, Severity, listed
from slipway.tensors import HeaderProblem, HeaderProblemKind, shown

__all__ = ["RULES"]

_ADVICE: Final = {
    HeaderProblemKind.LFS_POINTER: "Run `git lfs pull` where it came from.",
    HeaderProblemKind.PICKLE: "Save the adapter again with save_pretrained(..., safe_serialization=True).",
    HeaderProblemKind.GGUF: "Give the PEFT adapter that it was converted from.",
}
_ANEW: Final = "Save or download it again."


def weights_missing(evidence: Evidence) -> Iterator[Finding]:
    """No weights at all: utils/sources/local.py raises for every extension it knows."""
    if not evidence.weights and not _pickles(evidence):
        yield Finding(
            code="weights.missing",
            severity=Severity.ERROR,
            prediction=Prediction.REJECT,
            where=evidence.bundle.uri,
            message="There are no weights. LoRAX answers 424, `No local weights found`. "
            "Give the directory that has adapter_model.safetensors.",
            fix=Fix.MANUAL,
        )


def weights_pickle(evidence: Evidence) -> Iterator[Finding]:
    """Only a pickle: utils/weights.py unpickles it and writes safetensors next to it, which may fail or run code."""
    if not evidence.weights and (pickles := _pickles(evidence)):
        yield Finding(
            code="weights.pickle",
            severity=Severity.ERROR,
            prediction=Prediction.OK,
            where=listed(pickles),
            message="The weights are a pickle, which can run code where it is read. LoRAX unpickles it and fails where "
            "the directory is read-only. Save the adapter again with save_pretrained(..., safe_serialization=True).",
            fix=Fix.MANUAL,
        )


def weights_pickle_beside(evidence: Evidence) -> Iterator[Finding]:
    """A pickle beside safetensors: utils/sources/source.py looks for .bin only where there are no safetensors."""
    if evidence.weights and (pickles := _pickles(evidence)):
        yield Finding(
            code="weights.pickle-beside",
            severity=Severity.WARNING,
            prediction=Prediction.OK,
            where=listed(pickles),
            message="A pickle lies beside the safetensors. LoRAX ignores it. Leave it out of what is released.",
            fix=Fix.NONE,
        )


def weights_several(evidence: Evidence) -> Iterator[Finding]:
    """Several files: utils/sources/source.py reads all and adds their sizes up against the adapter memory."""
    if len(evidence.weights) > 1:
        yield Finding(
            code="weights.several",
            severity=Severity.ERROR,
            prediction=Prediction.REJECT,
            where=listed(weights.file.name for weights in evidence.weights),
            message=f"There are {len(evidence.weights)} safetensors files. LoRAX reads them all as one adapter and "
            "counts all their bytes against its adapter memory, so that a merged model left there is refused. "
            "Leave only adapter_model.safetensors.",
            fix=Fix.MANUAL,
        )


def weights_unreadable(evidence: Evidence) -> Iterator[Finding]:
    """Not readable as safetensors: adapters/lora.py opens every file with safetensors, which raises."""
    for weights in evidence.weights:
        if isinstance(weights.header, HeaderProblem):
            kind = weights.header.kind
            yield Finding(
                code=f"weights.{kind}",
                severity=Severity.ERROR,
                prediction=Prediction.REJECT,
                where=shown(weights.file.name),
                message=f"This is not a readable safetensors file: {weights.header.message}. LoRAX answers 424. "
                + _ADVICE.get(kind, _ANEW),
                fix=Fix.MANUAL,
            )


def _pickles(evidence: Evidence) -> list[str]:
    return [file.name for file in evidence.bundle.files if file.name.endswith(".bin")]


RULES: Final[tuple[Rule, ...]] = (
    weights_missing,
    weights_pickle,
    weights_pickle_beside,
    weights_several,
    weights_unreadable,
)
