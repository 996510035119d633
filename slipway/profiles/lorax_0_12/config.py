"""Rules about what ``adapter_config.json`` says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import CONFIG_NAME, AdapterConfig, ConfigProblem
from slipway.findings import Evidence, Finding, Fix, Prediction, Rule, Severity
from slipway.tensors import shown

__all__ = ["RULES"]

_READ_BY_LORAX: Final = frozenset({"r", "lora_alpha", "base_model_name_or_path"})


def config_missing(evidence: Evidence) -> Iterator[Finding]:
    """No config: adapters/__init__.py raises ``No valid adapter config file found``."""
    if evidence.config is None:
        yield Finding(
            code="config.missing",
            severity=Severity.ERROR,
            prediction=Prediction.REJECT,
            where=evidence.bundle.uri,
            message=f"There is no {CONFIG_NAME}. LoRAX answers 424, `No valid adapter config file found`. "
            "Give the directory that PEFT's save_pretrained wrote.",
            fix=Fix.MANUAL,
        )


def config_unreadable(evidence: Evidence) -> Iterator[Finding]:
    """Not a JSON object: peft's from_pretrained raises inside adapters/lora.py."""
    if isinstance(evidence.config, ConfigProblem):
        yield Finding(
            code="config.unreadable",
            severity=Severity.ERROR,
            prediction=Prediction.REJECT,
            where=CONFIG_NAME,
            message=f"The config cannot be read: {evidence.config.message}. LoRAX answers 424. "
            "Save or download the adapter again.",
            fix=Fix.MANUAL,
        )


def config_value(evidence: Evidence) -> Iterator[Finding]:
    """A value of the wrong type: what adapters/lora.py computes with raises, the rest it never reads."""
    for problem in evidence.readable_config.problems:
        is_read = problem.key in _READ_BY_LORAX
        yield Finding(
            code="config.value",
            severity=Severity.ERROR,
            prediction=Prediction.REJECT if is_read else Prediction.OK,
            where=f"{CONFIG_NAME}: {problem.key}",
            message=f"{problem.message}. "
            + ("LoRAX answers 424. " if is_read else "LoRAX does not read it, but what was trained is not known. ")
            + "Save the adapter again with PEFT.",
            fix=Fix.MANUAL,
        )


def config_peft_type(evidence: Evidence) -> Iterator[Finding]:
    """Another method than LoRA: peft 0.4.0, which LoRAX pins, takes any type for LoRA; then no weight matches."""
    if not isinstance(evidence.config, AdapterConfig) or evidence.config.peft_type == "LORA":
        return
    if evidence.config.peft_type:
        yield Finding(
            code="config.peft-type",
            severity=Severity.ERROR,
            prediction=Prediction.DROP,
            where=f"{CONFIG_NAME}: peft_type",
            message=f"This is a {shown(evidence.config.peft_type)} adapter. LoRAX takes it for LoRA, finds no LoRA "
            "weights in it and answers as the base model. Train with LoRA, or merge it into the base.",
            fix=Fix.MANUAL,
        )
    elif not any(problem.key == "peft_type" for problem in evidence.config.problems):
        yield Finding(
            code="config.peft-type-unnamed",
            severity=Severity.WARNING,
            prediction=Prediction.OK,
            where=f"{CONFIG_NAME}: peft_type",
            message="The config does not name its method. LoRAX takes it for LoRA; PEFT itself cannot load it. "
            'Add "peft_type": "LORA" if that is what it is.',
            fix=Fix.MANUAL,
        )


RULES: Final[tuple[Rule, ...]] = (config_missing, config_unreadable, config_value, config_peft_type)
