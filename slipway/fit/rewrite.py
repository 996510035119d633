"""All rewrites in order: names, scale, rank, layers, number format, config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from slipway.adapter_config import AdapterConfig
from slipway.base_model import BaseModel
from slipway.base_shapes import Shape
from slipway.fit.layers import choose_targets, fill_layers
from slipway.fit.matrices import Matrix, round_to, unit_roundoff
from slipway.fit.modules import LoraModule, Modules, RawAdapter, Refused
from slipway.fit.naming import NamedTensors, canonical_name, name_tensors
from slipway.fit.ranks import is_safe_rank, pad_ranks, safe_rank
from slipway.fit.refusals import all_reasons, refuse_base, refuse_config, refuse_files, refuse_matrices, refuse_names
from slipway.fit.scaling import common_scale, fold_scales, is_power_of_two
from slipway.lora import module_type
from slipway.lora_scale import module_scales
from slipway.tensors import shown

__all__ = ["Change", "ChangeKind", "Rewritten", "rewrite_adapter"]


class ChangeKind(StrEnum):
    """What was rewritten."""

    PICKLE = "pickle"
    FILES = "files"
    NAMES = "names"
    BIAS = "bias"
    SCALE = "scale"
    RANK = "rank"
    LAYERS = "layers"
    DTYPE = "dtype"
    CONFIG = "config"
    BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change, and a sentence about it."""

    kind: ChangeKind
    message: str


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """A servable form, not yet proven.

    Attributes:
        config: Members of the new ``adapter_config.json``.
        tensors: By name, as PEFT names them, in the order in which they are written.
        original: What the adapter was, as PEFT reads it, by module.
        changes: What was changed; empty if nothing was.
    """

    config: Mapping[str, object]
    tensors: Mapping[str, Matrix] = field(repr=False)
    original: Modules = field(repr=False)
    changes: tuple[Change, ...]


def rewrite_adapter(
    adapter: RawAdapter, base: BaseModel, *, tensor_parallel: int = 1, dtype: str | None = None
) -> Rewritten | Refused:
    """Bring an adapter into the form that LoRAX serves as trained.

    Args:
        adapter: As found.
        base: What it is to be served on; its layers must be known.
        tensor_parallel: GPUs that share one replica.
        dtype: ``BF16`` or ``F16`` to give up precision for size; None keeps every matrix's own.
    """
    tensors = {name: matrix for file in adapter.tensors.values() for name, matrix in file.items()}
    base_modules = base.modules or {}
    named = name_tensors(tensors, base_modules)
    if reasons := all_reasons(
        refuse_config(adapter),
        refuse_base(adapter, base),
        refuse_files(adapter),
        refuse_names(named, tensors),
        refuse_matrices(adapter.config, named, tensors, base_modules),
    ):
        return Refused(reasons=reasons)
    scales = module_scales(adapter.config, named.a)
    original = {
        path: LoraModule(a=tensors[name], b=tensors[named.b[path]], scale=scales[path].factor)
        for path, name in named.a.items()
    }
    scaled = _unify_scales(original)
    padded, rank, alpha, rank_changes = _unify_ranks(scaled, adapter.config, tensor_parallel)
    filled = fill_layers(padded, base_modules)
    converted = _convert(filled, dtype)
    if not math.isfinite(alpha):
        return Refused(reasons=(f"no lora_alpha can give a scale of {next(iter(scaled.values())).scale:g}.",))
    config = _config(adapter.config, base, filled, base_modules, rank=rank, alpha=alpha)
    return Rewritten(
        config=config,
        tensors={
            canonical_name(path, side): matrix
            for path, module in sorted(converted.items())
            for side, matrix in (("A", module.a), ("B", module.b))
        },
        original=original,
        changes=(
            *_file_changes(adapter, named),
            *_scale_changes(original, scaled, adapter.config, alpha),
            *rank_changes,
            *_layer_changes(original, filled),
            *_dtype_changes(filled, dtype),
            *_config_changes(adapter.config, config),
        ),
    )


def _unify_scales(modules: Modules) -> dict[str, LoraModule]:
    scales = {module.scale for module in modules.values()}
    return fold_scales(modules, scales.pop() if len(scales) == 1 else common_scale(modules))


def _unify_ranks(
    modules: Modules, config: AdapterConfig, tensor_parallel: int
) -> tuple[dict[str, LoraModule], int, float, list[Change]]:
    """Pad to one safe rank, and find the alpha that gives the scale again, exactly."""
    ranks = sorted({module.rank for module in modules.values()})
    scale = next(iter(modules.values())).scale
    rank = ranks[-1] if is_safe_rank(ranks[-1], tensor_parallel) else safe_rank(ranks[-1], tensor_parallel)
    alpha = float(config.lora_alpha if config.lora_alpha / rank == scale else scale * rank)
    if alpha / rank != scale:  # no power of two, and the product was rounded
        rank = safe_rank(rank, tensor_parallel)
        alpha = scale * rank
    changes = []
    if ranks != [rank]:
        smaller = ", ".join(str(found) for found in ranks if found != rank)
        changes.append(
            Change(
                kind=ChangeKind.RANK,
                message=f"rank {smaller} is padded with zeros to {rank}; lora_alpha is {alpha:g}, so that "
                f"the scale stays {scale:.6g}",
            )
        )
    return pad_ranks(modules, rank), rank, alpha, changes


def _convert(modules: Modules, dtype: str | None) -> Modules:
    if dtype is None:
        return modules
    return {path: replace(module, a=_as(module.a, dtype), b=_as(module.b, dtype)) for path, module in modules.items()}


def _as(matrix: Matrix, dtype: str) -> Matrix:
    return matrix if matrix.dtype == dtype else round_to(matrix.values(), dtype)


def _config(
    config: AdapterConfig,
    base: BaseModel,
    modules: Modules,
    base_modules: Mapping[str, Shape],
    *,
    rank: int,
    alpha: float,
) -> dict[str, object]:
    """The keys that peft 0.4.0, which LoRAX pins, and today's PEFT both know and read alike."""
    return {
        "base_model_name_or_path": base.id or config.base_model_name_or_path,
        "bias": "none",
        "fan_in_fan_out": config.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": list(choose_targets(modules, base_modules)),
        "task_type": config.task_type,
    }


def _file_changes(adapter: RawAdapter, named: NamedTensors) -> list[Change]:
    changes = []
    if adapter.is_pickle:
        changes.append(Change(kind=ChangeKind.PICKLE, message="the pickle's tensors are written as safetensors"))
    elif len(adapter.tensors) > 1:
        message = f"{len(adapter.tensors)} safetensors files are joined to one"
        changes.append(Change(kind=ChangeKind.FILES, message=message))
    if named.renamed:
        message = f"{len(named.renamed)} tensors are renamed to PEFT's keys, among them {shown(min(named.renamed))}"
        changes.append(Change(kind=ChangeKind.NAMES, message=message))
    if named.others:
        message = f"{len(named.others)} LoRA biases, all zero, are left out"
        changes.append(Change(kind=ChangeKind.BIAS, message=message))
    return changes


def _scale_changes(original: Modules, scaled: Modules, config: AdapterConfig, alpha: float) -> list[Change]:
    scale = next(iter(scaled.values())).scale
    touched = [module for path, module in original.items() if module.scale != scaled[path].scale]
    rounded = [module for module in touched if module.scale and not is_power_of_two(module.scale / scale)]
    messages = []
    if config.use_rslora:
        messages.append(
            f"the rank-stabilised scale alpha / sqrt(r) is written as alpha / r: lora_alpha is {alpha:g}, and was "
            f"{config.lora_alpha:g}"
        )
    if config.alpha_pattern:
        messages.append(f"alpha_pattern is dropped: every module has the scale {scale:.6g}")
    if touched:
        worst = max((unit_roundoff(module.b.dtype) for module in rounded), default=0.0)
        how = f"rounded once in {len(rounded)} (relative error up to {worst:.2g})" if rounded else "exactly"
        messages.append(
            f"lora_B of {len(touched)} of {len(original)} modules is multiplied by its scale over {scale:.6g}, {how}"
        )
    return [Change(kind=ChangeKind.SCALE, message=message) for message in messages]


def _layer_changes(original: Modules, filled: Modules) -> list[Change]:
    added = filled.keys() - original.keys()
    if not added:
        return []
    kinds = ", ".join(sorted({module_type(path) for path in added}))
    message = f"zeros stand in for {len(added)} modules on layers that had no matrices: {kinds}"
    return [Change(kind=ChangeKind.LAYERS, message=message)]


def _dtype_changes(modules: Modules, dtype: str | None) -> list[Change]:
    found = sorted({side.dtype for module in modules.values() for side in (module.a, module.b)} - {dtype})
    if dtype is None or not found:
        return []
    return [
        Change(
            kind=ChangeKind.DTYPE,
            message=f"{', '.join(found)} is rounded to {dtype}, as was asked: this is lossy, with a relative "
            f"error of up to {unit_roundoff(dtype):.2g} in each number",
        )
    ]


def _config_changes(before: AdapterConfig, after: Mapping[str, object]) -> list[Change]:
    changes = []
    if before.base_model_name_or_path != after["base_model_name_or_path"]:
        was = before.base_model_name_or_path
        note = "" if was else ", whose shapes it has"
        message = f"base_model_name_or_path is {after['base_model_name_or_path']}{note}, and was {was or 'empty'}"
        changes.append(Change(kind=ChangeKind.BASE, message=message))
    gone = [
        key
        for key in ("layers_to_transform", "layers_pattern", "rank_pattern", "exclude_modules", "lora_bias")
        if getattr(before, key)
    ]
    if before.bias != "none":
        gone.append("bias")
    if not before.peft_type:
        changes.append(Change(kind=ChangeKind.CONFIG, message="peft_type is LORA, and was missing"))
    if gone:
        message = f"{', '.join(gone)} dropped from the config: the tensors say it all"
        changes.append(Change(kind=ChangeKind.CONFIG, message=message))
    return changes
