"""Inspect a bundle: read what is there, ask a server profile's rules, and say what the server would do.

Leaves to others: reading (``adapter_evidence``), the rules (``profiles``) and showing (``inspection_view``, ``sarif``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from slipway.adapter import Bundle
from slipway.adapter_config import AdapterConfig
from slipway.adapter_evidence import Evidence, read_evidence
from slipway.base_model import BaseModel
from slipway.findings import Finding, Fix, InspectionVerdict, Prediction, Severity, judge, predict
from slipway.lora import layer_of, module_type
from slipway.rules import ServerProfile
from slipway.server_facts import ServerFacts

__all__ = [
    "AdapterFacts",
    "Finding",
    "Fix",
    "Inspection",
    "InspectionVerdict",
    "Prediction",
    "Severity",
    "inspect_bundle",
    "read_evidence",
]

_DTYPE_NAMES: Final[Mapping[str, str]] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_SEVERITIES: Final = tuple(Severity)


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """What an adapter is, as far as its files say. None and empty mean that they do not.

    Attributes:
        peft_type: As in the config.
        rank: Of the tensors where they agree, else the config's.
        alpha: The config's ``lora_alpha``.
        target_modules: Types of the modules that have LoRA matrices, sorted; else what the config names.
        parameters: Elements of all tensors.
        dtype: As torch names it; ``mixed`` where tensors differ.
        layers: Number of layers that have LoRA matrices.
        base_model: The config's ``base_model_name_or_path``.
    """

    peft_type: str
    rank: int | None
    alpha: float | None
    target_modules: tuple[str, ...]
    parameters: int
    dtype: str
    layers: int
    base_model: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The outcome.

    Attributes:
        bundle: What was inspected.
        facts: What it is.
        profile: Name of the server profile.
        prediction: What the server would do with it as it is.
        verdict: Whether it may be uploaded.
        findings: Most severe first.
    """

    bundle: Bundle
    facts: AdapterFacts
    profile: str
    prediction: Prediction
    verdict: InspectionVerdict
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it may not be uploaded: the errors' messages with their places; empty for a servable adapter."""
        errors = (finding for finding in self.findings if finding.severity is Severity.ERROR)
        return tuple(f"{error.where}: {error.message}" if error.where else error.message for error in errors)

    def to_dict(self) -> dict[str, Any]:
        """Give the document that ``slipway inspect --json`` prints."""
        return {
            "adapter": {
                "uri": self.bundle.uri,
                "resolved_revision": self.bundle.resolved_revision,
                "digest": self.bundle.digest,
                "size_bytes": self.bundle.size_bytes,
                "files": [asdict(file) for file in self.bundle.files],
            },
            "facts": asdict(self.facts),
            "profile": self.profile,
            "prediction": self.prediction,
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_json(self) -> str:
        """Give that document as one line of text."""
        return json.dumps(self.to_dict(), allow_nan=False)


def inspect_bundle(
    bundle: Bundle, base: BaseModel | None, profile: ServerProfile, server: ServerFacts | None = None
) -> Inspection:
    """Inspect an adapter.

    Args:
        bundle: From the store.
        base: The base model it is to be served on; without one, nothing is compared with a base.
        profile: The server version, see ``profiles.find_profile``.
        server: The deployment; LoRAX's defaults on one GPU of unknown memory if None.

    Raises:
        StoreError: The bundle's files cannot be read, or are no longer what was pulled.
    """
    evidence = read_evidence(bundle, base, server)
    findings = [finding for rule in profile.rules for finding in rule(evidence)]
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return Inspection(
        bundle=bundle,
        facts=_facts(evidence),
        profile=profile.name,
        prediction=predict(findings),
        verdict=judge(findings),
        findings=tuple(findings),
    )


def _facts(evidence: Evidence) -> AdapterFacts:
    config, pairs = evidence.readable_config, evidence.lora.pairs
    named = config.target_modules
    ranks = {pair.rank for pair in pairs.values() if pair.rank is not None}
    dtypes = {tensor.dtype for tensor in evidence.tensors}
    dtype = dtypes.pop() if len(dtypes) == 1 else "mixed" if dtypes else ""
    is_config = isinstance(evidence.config, AdapterConfig)
    return AdapterFacts(
        peft_type=config.peft_type,
        rank=ranks.pop() if len(ranks) == 1 else config.r if is_config else None,
        alpha=config.lora_alpha if is_config else None,
        target_modules=tuple(sorted({module_type(path) for path in pairs}))
        or ((named,) if isinstance(named, str) else named or ()),
        parameters=sum(tensor.elements for tensor in evidence.tensors),
        dtype=_DTYPE_NAMES.get(dtype, dtype.lower()),
        layers=len({layer for path in pairs if (layer := layer_of(path)) is not None}),
        base_model=config.base_model_name_or_path or "",
    )
