"""Rules about whether the adapter belongs to the base model, by name and by shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import CONFIG_NAME
from slipway.base_model import BaseModel
from slipway.findings import Evidence, Finding, Fix, Prediction, Rule, Severity, listed
from slipway.lora import LoraPair
from slipway.tensors import shown

__all__ = ["RULES"]

_KEY: Final = f"{CONFIG_NAME}: base_model_name_or_path"


def base_unnamed(evidence: Evidence) -> Iterator[Finding]:
    """No base in the config: utils/adapter.py skips its check, after asking the Hub for nothing (issue 430)."""
    config = evidence.readable_config
    if evidence.config is not None and not config.base_model_name_or_path and not config.problems:
        yield Finding(
            code="base.unnamed",
            severity=Severity.WARNING,
            prediction=Prediction.OK,
            where=_KEY,
            message="The config names no base model. LoRAX checks nothing then, and may wait ten seconds for a model "
            "without a name. Fill in the name that the deployment serves.",
            fix=Fix.MANUAL,
        )


def base_unverified(evidence: Evidence) -> Iterator[Finding]:
    """Nothing to compare with: LoRAX does not compare shapes either (adapters/lora.py)."""
    base = evidence.base
    if base is not None and base.modules is not None:
        return
    missing = "No base model was given" if base is None else f"The layers of {base.label} are not known"
    yield Finding(
        code="base.unverified",
        severity=Severity.NOTE,
        prediction=Prediction.OK,
        where="",
        message=f"{missing}, so that shapes and module names were not compared with it. "
        "Give --base a model's directory or a file of base facts.",
        fix=Fix.NONE,
    )


def base_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Another base by name: utils/adapter.py compares texts, then only the architecture lists of the two configs."""
    base, name = evidence.base, evidence.readable_config.base_model_name_or_path
    if base is None or not base.id or not name or base.answers_to(name):
        return
    if _is_path(name):
        yield Finding(
            code="base.path",
            severity=Severity.WARNING,
            prediction=Prediction.OK,
            where=_KEY,
            message=f"The adapter was trained on {shown(name)}, a path on another machine. LoRAX cannot look there and "
            f"takes the adapter unverified. Write {base.id} there if that is what it was.",
            fix=Fix.MANUAL,
        )
        return
    yield Finding(
        code="base.mismatch",
        severity=Severity.ERROR,
        prediction=Prediction.WRONG,
        where=_KEY,
        message=f"The adapter was trained on {shown(name)}, not on {base.id}. LoRAX refuses it with 424 if the "
        "architectures differ, and else applies it to the wrong weights. Release it on its own base; if both names "
        f"mean the same weights, add {shown(name)} to the aliases in the base's facts.",
        fix=Fix.MANUAL,
    )


def base_shape(evidence: Evidence) -> Iterator[Finding]:
    """Matrices that do not fit the base's: adapters/lora.py does not look; the kernel fails or reads other memory."""
    base = evidence.base
    if base is None or base.modules is None:
        return
    misfits = [pair for pair in evidence.lora.pairs.values() if not _fits(pair, base)]
    if misfits:
        rows, columns = base.modules[misfits[0].path]
        yield Finding(
            code="base.shape",
            severity=Severity.ERROR,
            prediction=Prediction.WRONG,
            where=listed(pair.path for pair in misfits),
            message=f"{len(misfits):,} of {len(evidence.lora.pairs):,} modules do not have the size of {base.label}: "
            f"the first is for {_described(misfits[0])}, where the base has {columns} inputs and {rows} outputs. LoRAX "
            "does not look, and then fails whole batches or computes nonsense. Release it on its own base.",
            fix=Fix.MANUAL,
        )


def _is_path(name: str) -> bool:
    """Whether this is no Hub id: those have at most one slash, and not in front."""
    return name.startswith(("/", "./", "../", "~")) or "\\" in name or name.count("/") > 1


def _fits(pair: LoraPair, base: BaseModel) -> bool:
    if base.modules is None or pair.path not in base.modules:
        return True
    rows, columns = base.modules[pair.path]
    a_fits = pair.a is None or len(pair.a.shape) != 2 or pair.a.shape[1] == columns
    b_fits = pair.b is None or len(pair.b.shape) != 2 or pair.b.shape[0] == rows
    return a_fits and b_fits


def _described(pair: LoraPair) -> str:
    inputs = pair.a.shape[1] if pair.a is not None and len(pair.a.shape) == 2 else "unknown"
    outputs = pair.b.shape[0] if pair.b is not None and len(pair.b.shape) == 2 else "unknown"
    return f"{inputs} inputs and {outputs} outputs"


RULES: Final[tuple[Rule, ...]] = (base_mismatch, base_shape, base_unnamed, base_unverified)
