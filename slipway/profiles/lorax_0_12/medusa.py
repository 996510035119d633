"""Rules about Medusa heads, alone or with LoRA in one directory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import AdapterConfig, ConfigProblem
from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed
from slipway.lora import OtherKind
from slipway.medusa import MEDUSA_CONFIG_NAME, MedusaConfig
from slipway.rules import Hit, Rule, rule
from slipway.tensors import shown

__all__ = ["RULES"]

_FIRST_PER_REQUEST: Final = 2


@rule("medusa.config", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/medusa.py")
def medusa_config(evidence: Evidence) -> Iterator[Hit]:
    """Medusa heads without a config.json, or with one that lacks heads, layers or the base's name."""
    if evidence.medusa is None and (heads := evidence.others.get(OtherKind.MEDUSA, ())):
        yield Hit(
            where=listed(tensor.name for tensor in heads),
            message=f"These are names of Medusa heads, and there is no {MEDUSA_CONFIG_NAME} that says how many. LoRAX "
            "needs it to load them. Give the directory that the heads were saved to, with its config.",
        )
    if isinstance(evidence.medusa, ConfigProblem):
        yield Hit(
            where=f"{MEDUSA_CONFIG_NAME}: {evidence.medusa.key}",
            message=f"{evidence.medusa.message}. LoRAX needs it to load Medusa heads, and answers 424.",
        )


@rule("medusa.version", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/medusa.py")
def medusa_version(evidence: Evidence) -> Iterator[Hit]:
    """Version 1 of the layout, which LoRAX takes only as the adapter that it is started with."""
    if isinstance(evidence.medusa, MedusaConfig) and evidence.medusa.version < _FIRST_PER_REQUEST:
        yield Hit(
            where=f"{MEDUSA_CONFIG_NAME}: version",
            message="These are Medusa heads of version 1. LoRAX takes them as its start-up --adapter-id and refuses "
            "them in a request. Train version 2, or start the server with them.",
        )


@rule("medusa.layers", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/medusa.py")
def medusa_layers(evidence: Evidence) -> Iterator[Hit]:
    """Version 2 with another number of layers than 1."""
    medusa = evidence.medusa
    if isinstance(medusa, MedusaConfig) and medusa.version >= _FIRST_PER_REQUEST and medusa.layers != 1:
        yield Hit(
            where=f"{MEDUSA_CONFIG_NAME}: medusa_num_layers",
            message=f"medusa_num_layers is {medusa.layers}, and version 2 has 1. LoRAX answers 424. Train with one "
            "layer.",
        )


@rule("medusa.weights", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/medusa.py")
def medusa_weights(evidence: Evidence) -> Iterator[Hit]:
    """Heads without their weights, or with those of version 1 under the name of version 2."""
    medusa = evidence.medusa
    if not isinstance(medusa, MedusaConfig) or medusa.version < _FIRST_PER_REQUEST or not evidence.tensors:
        return
    names = {tensor.name for tensor in evidence.tensors}
    missing = [
        name
        for head in range(min(medusa.heads, len(names) + 1))
        for name in (f"{head}.0.linear.weight", f"{head}.0.linear.bias")
        if name not in names
    ]
    if missing or f"0.{medusa.layers}.weight" in names:
        problem = f"{shown(missing[0])} is not there" if missing else "its heads have the layout of version 1"
        yield Hit(
            where=MEDUSA_CONFIG_NAME,
            message=f"The config has {medusa.heads} Medusa heads, and {problem}. LoRAX answers 424. Save the heads "
            "again.",
        )


@rule("medusa.default", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/medusa.py, adapters/utils.py")
def medusa_default(evidence: Evidence) -> Iterator[Hit]:
    """A server that was not started with Medusa heads, or with another number of them."""
    medusa, heads = evidence.medusa, evidence.server.medusa_heads
    if isinstance(medusa, MedusaConfig) and medusa.version >= _FIRST_PER_REQUEST and medusa.heads != heads:
        started = "without Medusa heads" if heads is None else f"with {heads} Medusa heads"
        yield Hit(
            where=MEDUSA_CONFIG_NAME,
            message=f"The adapter has {medusa.heads} Medusa heads, and the server was started {started}. LoRAX takes "
            "Medusa heads in a request only if it was started with as many (--medusa-heads says so here).",
        )


@rule("medusa.base", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/medusa.py")
def medusa_base(evidence: Evidence) -> Iterator[Hit]:
    """Heads of another base; with LoRA in the same directory the name in LoRA's config counts instead."""
    medusa, base = evidence.medusa, evidence.base
    if (
        not isinstance(medusa, MedusaConfig)
        or base is None
        or not base.id
        or isinstance(evidence.config, AdapterConfig)
    ):
        return
    if not base.answers_to(medusa.base_model_name_or_path):
        yield Hit(
            where=f"{MEDUSA_CONFIG_NAME}: base_model_name_or_path",
            message=f"The heads were trained on {shown(medusa.base_model_name_or_path)}, not on {base.id}. LoRAX "
            "accepts them if the architectures agree, and guesses badly. Release them on their own base.",
        )


@rule("medusa.unchecked", Severity.NOTE, Prediction.OK, Fix.NONE, source="adapters/medusa.py, adapters/medusa_lora.py")
def medusa_unchecked(evidence: Evidence) -> Iterator[Hit]:
    """Medusa tensors: LoRAX compares neither their names nor their shapes with anything when it loads them."""
    if isinstance(evidence.medusa, MedusaConfig):
        yield Hit(
            where=MEDUSA_CONFIG_NAME,
            message="LoRAX does not check names and shapes of Medusa heads, and keeps quiet about tensors that it does "
            "not use. Try it out before traffic does.",
        )


RULES: Final[tuple[Rule, ...]] = (
    medusa_config,
    medusa_version,
    medusa_layers,
    medusa_weights,
    medusa_default,
    medusa_base,
    medusa_unchecked,
)
