"""Rules about what ``adapter_config.json`` says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import CONFIG_NAME, AdapterConfig, ConfigProblem
from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed
from slipway.lora import OtherKind
from slipway.rules import Hit, Rule, rule
from slipway.tensors import shown

__all__ = ["RULES"]

_READ_BY_LORAX: Final = frozenset({"r", "lora_alpha", "base_model_name_or_path"})
_RESIDUAL_INITIALISATIONS: Final = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Those that take something out of the base's weights before training (PEFT: tuners/lora/layer.py)."""
_PROMPT_LEARNING: Final = frozenset(
    {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "ADAPTION_PROMPT"}
)


@rule("config.missing", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/__init__.py")
def config_missing(evidence: Evidence) -> Iterator[Hit]:
    """No adapter_config.json."""
    if evidence.config is None and evidence.medusa is None and not evidence.others.get(OtherKind.MEDUSA):
        yield Hit(
            where=evidence.bundle.uri,
            message=f"There is no {CONFIG_NAME}. LoRAX answers 424, `No valid adapter config file found`. "
            "Give the directory that PEFT's save_pretrained wrote.",
        )


@rule("config.unreadable", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/lora.py: peft raises")
def config_unreadable(evidence: Evidence) -> Iterator[Hit]:
    """A config that is no JSON object."""
    if isinstance(evidence.config, ConfigProblem):
        yield Hit(
            where=CONFIG_NAME,
            message=f"The config cannot be read: {evidence.config.message}. LoRAX answers 424. "
            "Save or download the adapter again.",
        )


@rule("config.value", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="adapters/lora.py", also=(Prediction.OK,))
def config_value(evidence: Evidence) -> Iterator[Hit]:
    """A value of the wrong type: LoRAX fails on those it computes with, and never reads the others."""
    for problem in evidence.readable_config.problems:
        is_read = problem.key in _READ_BY_LORAX
        yield Hit(
            prediction=Prediction.REJECT if is_read else Prediction.OK,
            where=f"{CONFIG_NAME}: {problem.key}",
            message=f"{problem.message}. "
            + ("LoRAX answers 424. " if is_read else "LoRAX does not read it, but what was trained is not known. ")
            + "Save the adapter again with PEFT.",
        )


@rule("config.peft-type", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py, peft 0.4.0")
def config_peft_type(evidence: Evidence) -> Iterator[Hit]:
    """Another method than LoRA: LoRAX takes any type for LoRA, and no weight matches."""
    kind = evidence.readable_config.peft_type
    if kind not in {"", "LORA"}:
        advice = (
            "A learnt prompt cannot be merged: train with LoRA."
            if kind in _PROMPT_LEARNING
            else "Train with LoRA, or merge it into the base and serve that."
        )
        yield Hit(
            where=f"{CONFIG_NAME}: peft_type",
            message=f"This is a {shown(kind)} adapter. LoRAX takes it for LoRA, finds no LoRA weights in it and "
            f"answers as the base model. {advice}",
        )


@rule("config.peft-type-unnamed", Severity.WARNING, Prediction.OK, Fix.FIT, source="adapters/lora.py, peft 0.4.0")
def config_peft_type_unnamed(evidence: Evidence) -> Iterator[Hit]:
    """No method named: LoRAX takes it for LoRA, PEFT cannot load it."""
    config = evidence.config
    if (
        isinstance(config, AdapterConfig)
        and not config.peft_type
        and evidence.foreign_format is None
        and all(problem.key != "peft_type" for problem in config.problems)
    ):
        yield Hit(
            where=f"{CONFIG_NAME}: peft_type",
            message="The config does not name its method. LoRAX takes it for LoRA; PEFT itself cannot load it. "
            'Add "peft_type": "LORA" if that is what it is.',
        )


@rule("config.alpha-missing", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="peft 0.4.0: LoraConfig")
def config_alpha_missing(evidence: Evidence) -> Iterator[Hit]:
    """No lora_alpha, which PEFT always writes: LoRAX takes 8, whatever was trained."""
    config = evidence.config
    if isinstance(config, AdapterConfig) and evidence.lora.pairs and "lora_alpha" not in config.present:
        yield Hit(
            where=f"{CONFIG_NAME}: lora_alpha",
            message="The config does not say lora_alpha. LoRAX takes 8, so that the adapter is too strong or too weak. "
            "Write down what was trained.",
        )


@rule("config.dora", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def config_dora(evidence: Evidence) -> Iterator[Hit]:
    """DoRA (arXiv 2402.09353): LoRAX ignores the magnitudes and adds the update as if it were LoRA."""
    magnitudes = evidence.others.get(OtherKind.DORA_MAGNITUDE, ())
    if evidence.is_lora and (evidence.readable_config.use_dora or magnitudes):
        yield Hit(
            where=listed(tensor.name for tensor in magnitudes) or f"{CONFIG_NAME}: use_dora",
            message="The adapter was trained with DoRA. LoRAX ignores its magnitudes and computes something else, "
            "without a word. Merge it into the base and serve that, or train with LoRA.",
        )


@rule("config.variant", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def config_variant(evidence: Evidence) -> Iterator[Hit]:
    """A variant of LoRA that computes something else (aLoRA, Arrow, KaSA, BD-LoRA, QALoRA): LoRAX takes it for LoRA."""
    if evidence.is_lora and evidence.readable_config.variants:
        yield Hit(
            where=f"{CONFIG_NAME}: {', '.join(evidence.readable_config.variants)}",
            message="The config asks for more than LoRA's sum. LoRAX does not read that and adds the plain update at "
            "every token. Train with plain LoRA.",
        )


@rule("init.residual", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def init_residual(evidence: Evidence) -> Iterator[Hit]:
    """PiSSA, OLoRA, CorDA, LoftQ or LoRA-GA, not converted: the matrices belong to a base with other weights."""
    name = evidence.readable_config.init_lora_weights
    if evidence.is_lora and isinstance(name, str) and name.lower().startswith(_RESIDUAL_INITIALISATIONS):
        yield Hit(
            where=f"{CONFIG_NAME}: init_lora_weights",
            message=f"The adapter was initialised with {shown(name)}, which changes the base's weights, and was saved "
            "without converting it back. LoRAX adds it to the unchanged base. Save it again with save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...), as PEFT's guide to initialisation shows.",
        )


@rule("config.layer-replication", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def config_layer_replication(evidence: Evidence) -> Iterator[Hit]:
    """Layers of the base used several times: LoRAX serves the base as it is and ignores the layers beyond."""
    if evidence.is_lora and evidence.readable_config.layer_replication:
        yield Hit(
            where=f"{CONFIG_NAME}: layer_replication",
            message="The adapter was trained on a base with replicated layers. LoRAX serves the base without them and "
            "ignores what belongs to the others. Save base and adapter as a model of their own.",
        )


@rule("config.target-parameters", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def config_target_parameters(evidence: Evidence) -> Iterator[Hit]:
    """LoRA on bare parameters, as in fused experts: LoRAX looks up modules only."""
    if evidence.is_lora and evidence.readable_config.target_parameters:
        yield Hit(
            where=f"{CONFIG_NAME}: target_parameters",
            message=f"The adapter changes bare parameters: {listed(evidence.readable_config.target_parameters)}. LoRAX "
            "never looks for them. Train linear layers only.",
        )


@rule("config.target-modules", Severity.WARNING, Prediction.OK, Fix.MANUAL, source="adapters/lora.py")
def config_target_modules(evidence: Evidence) -> Iterator[Hit]:
    """A target module without any weights: LoRAX goes by the weights, and some may have been lost."""
    named = evidence.readable_config.target_modules
    if not isinstance(named, tuple) or not evidence.lora.pairs:
        return
    endings = {
        ".".join(parts[start:])
        for path in evidence.lora.pairs
        for parts in [path.split(".")]
        for start in range(len(parts))
    }
    lost = [name for name in named if name not in endings]
    if lost and not evidence.others.get(OtherKind.EMBEDDING_LORA):
        yield Hit(
            where=f"{CONFIG_NAME}: target_modules",
            message=f"There are no weights for {listed(lost)}. LoRAX goes by the weights alone. "
            "Look whether the adapter was saved completely.",
        )


RULES: Final[tuple[Rule, ...]] = (
    config_missing,
    config_unreadable,
    config_value,
    config_peft_type,
    config_alpha_missing,
    config_dora,
    config_variant,
    init_residual,
    config_layer_replication,
    config_target_parameters,
    config_peft_type_unnamed,
    config_target_modules,
)
