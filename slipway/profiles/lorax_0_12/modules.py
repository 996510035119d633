"""Rules about which modules of which layers the adapter changes, as LoRAX groups them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed, plainly
from slipway.lora import layer_of
from slipway.profiles.lorax_0_12.families import FAMILIES, group_by_type, served_types, type_of
from slipway.profiles.lorax_0_12.kernels import WIDTHS
from slipway.rules import Hit, Rule, rule

__all__ = ["RULES"]


@rule("modules.outside-family", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="models/*.py: ADAPTER_LAYERS")
def modules_outside_family(evidence: Evidence) -> Iterator[Hit]:
    """Modules that LoRAX does not look for in this family; contrary to its documentation it logs nothing."""
    base = evidence.base
    if base is None or base.model_type not in FAMILIES:
        return
    outside = [
        path
        for path in evidence.lora.pairs
        if (base.modules is None or path in base.modules) and type_of(path, base.model_type) is None
    ]
    if outside:
        yield Hit(
            where=listed(outside),
            message=f"{len(outside):,} of {len(evidence.lora.pairs):,} modules are of types that LoRAX does not look "
            f"for in {base.model_type} models, and stay unused without a word. It takes "
            f"{', '.join(FAMILIES[base.model_type])}. Train without the others.",
        )


@rule("tensors.some-layers", Severity.ERROR, Prediction.DROP, Fix.FIT, source="adapters/lora.py: load_batched_adapter")
def some_layers(evidence: Evidence) -> Iterator[Hit]:
    """A type on some layers only (layers_to_transform, pruning): LoRAX drops the type on every layer."""
    missing = _missing_by_type(evidence)
    if missing:
        lost, kept = sum(map(len, missing.values())), len(evidence.lora.pairs)
        yield Hit(
            where=plainly(missing),
            message=f"{lost:,} modules have no LoRA matrices on some layers while {kept:,} have. LoRAX drops each such "
            f"type on every layer, often without a warning: {plainly(missing)}. `slipway fit` fills the gaps with "
            "zeros, which changes nothing.",
        )


@rule("modules.lm-head", Severity.NOTE, Prediction.OK, Fix.NONE, source="adapters/lora.py")
def modules_lm_head(evidence: Evidence) -> Iterator[Hit]:
    """LoRA on the output layer: served by a loop in PyTorch and not by a kernel."""
    if "lm_head" in evidence.lora.pairs:
        yield Hit(
            where="lm_head",
            message="LoRAX has no kernel for LoRA on lm_head and computes it in a loop over adapters, which is slow.",
        )


@rule(
    "modules.width", Severity.WARNING, Prediction.REJECT, Fix.NONE,
    source="punica_kernels/bgmv/bgmv_config.h, issue 771",
)  # fmt: skip
def modules_width(evidence: Evidence) -> Iterator[Hit]:
    """A width without a kernel for generated tokens; whether it is reached depends on GPU, build and settings."""
    parallel = evidence.server.tensor_parallel
    without = {
        width: path
        for path, pair in evidence.lora.pairs.items()
        if path != "lm_head"
        for width in (pair.inputs, pair.outputs)
        if width is not None and (width % parallel or width // parallel not in WIDTHS)
    }
    if without:
        widths = plainly(sorted(without))
        shared = f", shared by {parallel} GPUs," if parallel > 1 else ""
        yield Hit(
            where=listed(without.values()),
            message=f"LoRAX has no kernel for the widths {widths}{shared} and may fail whole batches with `No suitable "
            "kernel`. Start the server with --disable-sgmv, or try it out before traffic does.",
        )


def _missing_by_type(evidence: Evidence) -> Mapping[str, tuple[str, ...]]:
    """Find what LoRAX misses: by the base's modules where they are known, else by the adapter's own layers."""
    base, pairs = evidence.base, evidence.lora.pairs
    if evidence.readable_config.layer_replication:
        return {}
    is_known = base is not None and base.modules is not None
    groups = served_types(base) if base is not None and is_known else _guessed_types(evidence)
    missing = {
        kind: tuple(path for path in paths if path not in pairs)
        for kind, paths in groups.items()
        if any(path in pairs for path in paths)
    }
    return {kind: paths for kind, paths in missing.items() if paths}


def _guessed_types(evidence: Evidence) -> Mapping[str, tuple[str, ...]]:
    """Assume that every module that is on one layer is on all, from 0 to the last that is known."""
    base, pairs = evidence.base, evidence.lora.pairs
    numbers = {path: layer for path in pairs if (layer := layer_of(path)) is not None}
    if base is not None and base.model_type in FAMILIES:
        groups = group_by_type(numbers, base.model_type)
        numbers = {path: numbers[path] for paths in groups.values() for path in paths}
    layers = max((base.layers or 0) if base is not None else 0, max(numbers.values(), default=-1) + 1)
    templates = {path.replace(f".{layer}.", ".{}.", 1) for path, layer in numbers.items()}
    if layers * len(templates) > _MAX_GUESSED:
        return {}
    return {
        template.rpartition(".")[2]: tuple(template.replace("{}", str(layer), 1) for layer in range(layers))
        for template in sorted(templates)
    }


_MAX_GUESSED: Final = 200_000
"""Numbers of layers come from names that anybody may write."""

RULES: Final[tuple[Rule, ...]] = (modules_outside_family, some_layers, modules_width, modules_lm_head)
