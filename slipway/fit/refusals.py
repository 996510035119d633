"""What no rewrite can mend: adapters that are not a sum of products on known layers, or that do not say what they are.

Decided by what is in the files, and never by an inspection's codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from slipway.adapter_config import AdapterConfig
from slipway.base_model import BaseModel
from slipway.base_shapes import Shape
from slipway.findings import listed
from slipway.fit.matrices import FLOATS, Matrix
from slipway.fit.modules import RawAdapter
from slipway.fit.naming import NamedTensors
from slipway.lora import OtherKind, kind_of
from slipway.lora_scale import PatternError, module_scales
from slipway.tensors import shown

__all__ = ["all_reasons", "refuse_base", "refuse_config", "refuse_files", "refuse_matrices", "refuse_names"]

_BASE_CHANGING: Final = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Values of ``init_lora_weights`` that take something out of the base's weights (``peft/tuners/lora/layer.py``)."""

_VARIANTS: Final[Mapping[str, str]] = {
    "alora_invocation_tokens": "aLoRA, which applies the adapter from certain tokens on",
    "arrow_config": "Arrow, which mixes several adapters",
    "kasa_config": "KaSA, which changes the base's weights",
    "monteclora_config": "MonteCLoRA, which samples its weights",
    "use_bdlora": "BD-LoRA, whose matrices are block-diagonal",
    "use_qalora": "QALoRA, which pools the inputs",
    "velora_config": "VeLoRA, which compresses the inputs",
}
"""Keys of ``peft.LoraConfig`` whose LoRA is not ``scale * B @ A @ x``."""

_MERGE: Final = "Merge it into the base (`merge_and_unload`) and serve that as a base of its own, or train without it."


def refuse_config(adapter: RawAdapter) -> Iterator[str]:
    """Look at what the config says."""
    config = adapter.config
    for problem in config.problems:
        yield f"the config's {problem.key} cannot be used: {problem.message}. Save the adapter again with PEFT."
    if config.peft_type not in {"", "LORA"}:
        yield (
            f"this is a {shown(config.peft_type)} adapter, and only LoRA can be served this way. "
            "Train with LoRA, or merge it into the base."
        )
    yield from _refuse_variants(adapter)
    yield from _refuse_beside(config)


def _refuse_variants(adapter: RawAdapter) -> Iterator[str]:
    """LoRA that is not ``scale * B @ A @ x`` on top of the base as it is."""
    config = adapter.config
    if config.use_dora:
        yield f"it is a DoRA adapter: its magnitudes go with the base's weights, and no B and A can hold them. {_MERGE}"
    initialisation = config.init_lora_weights.lower() if isinstance(config.init_lora_weights, str) else ""
    if initialisation.startswith(_BASE_CHANGING):
        yield (
            f"it was initialised with {shown(initialisation)} and saved without conversion: it belongs to a base which "
            "that initialisation has changed. Save it again with save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)."
        )
    if initialisation == "mica":
        yield f"it is a MiCA adapter, whose forward pass is not LoRA's. {_MERGE}"
    for key, what in _VARIANTS.items():
        if adapter.members.get(key):
            yield f"its {key} makes it {what}. {_MERGE}"


def _refuse_beside(config: AdapterConfig) -> Iterator[str]:
    """Parts of an adapter beside its LoRA matrices."""
    if config.modules_to_save:
        yield (
            f"modules_to_save keeps full copies of {listed(config.modules_to_save)}, which LoRAX never loads. "
            "Train without them (LoRA on lm_head is served), or merge it into the base."
        )
    if config.trainable_token_indices:
        yield f"trainable_token_indices changes rows of the embedding, which LoRAX never loads. {_MERGE}"
    if config.target_parameters:
        yield f"target_parameters puts LoRA on parameters that are no layers, which LoRAX never loads. {_MERGE}"
    if config.layer_replication:
        yield f"layer_replication makes another base of more layers. {_MERGE}"


def refuse_base(adapter: RawAdapter, base: BaseModel) -> Iterator[str]:
    """Look at the base: names must agree, and layers must be known. A path, or no name, is left to the shapes."""
    name = adapter.config.base_model_name_or_path
    if base.modules is None:
        yield (
            f"the layers of {base.label} are not known, so that names and shapes cannot be checked. "
            "Give --base a model's directory or a file of base facts."
        )
    if name and base.id and not base.answers_to(name) and not _is_path(name):
        yield (
            f"it was trained on {shown(name)}, not on {base.id}, and equal shapes do not make them the same weights. "
            "Release it on its own base, or add the name to the aliases in the base's facts if it is the same."
        )


def refuse_files(adapter: RawAdapter) -> Iterator[str]:
    """Look at several files together: equal copies of a tensor are one, different ones are not."""
    seen: dict[str, Matrix] = {}
    unequal = []
    for tensors in adapter.tensors.values():
        for name, matrix in tensors.items():
            other = seen.setdefault(name, matrix)
            if other is not matrix and not other.has_bits_of(matrix):
                unequal.append(name)
    if unequal:
        yield (
            f"{listed(unequal)} are in several files with different numbers: these are not the parts of one adapter. "
            "Leave only the file that is to be served."
        )


def refuse_names(named: NamedTensors, tensors: Mapping[str, Matrix]) -> Iterator[str]:
    """Look at the tensors' names. LoRA biases of zeros matter to nobody and are let pass."""
    foreign: dict[OtherKind, list[str]] = {}
    for name in named.others:
        kind = kind_of(name)
        if kind is not OtherKind.LORA_BIAS or not tensors[name].is_zero:
            foreign.setdefault(kind, []).append(name)
    for kind, names in foreign.items():
        yield _FOREIGN.get(kind, _UNKNOWN).format(names=listed(names))
    if not foreign and not named.a and not named.b:
        yield "there is no LoRA matrix for any module of the base. Give the adapter as PEFT's save_pretrained wrote it."
    unpaired = sorted(named.a.keys() ^ named.b.keys())
    if unpaired:
        yield f"{listed(unpaired)} have only one of lora_A and lora_B. Save the adapter again."


def refuse_matrices(
    config: AdapterConfig, named: NamedTensors, tensors: Mapping[str, Matrix], base_modules: Mapping[str, Shape]
) -> Iterator[str]:
    """Look at the matrices: plain floats, of the base's size and the config's rank."""
    sides = [name for paths in (named.a, named.b) for name in paths.values()]
    coded = [name for name in sides if tensors[name].dtype not in FLOATS or len(tensors[name].shape) != 2]
    if coded:
        yield f"{listed(coded)} are no matrices of floats of 16 bits or more. Save the adapter unquantised."
        return
    misfits = [
        path
        for path in named.a
        if (tensors[named.a[path]].shape[1], tensors[named.b[path]].shape[0]) != base_modules[path][::-1]
        or tensors[named.a[path]].shape[0] != tensors[named.b[path]].shape[1]
    ]
    if misfits:
        yield f"{listed(misfits)} do not have the size of the base's modules. Release it on its own base."
        return
    try:
        scales = module_scales(config, named.a)
    except PatternError as error:
        yield f"{error}. Write the modules' names into the pattern, or save the adapter without it."
        return
    wrong = [path for path, name in named.a.items() if tensors[name].shape[0] != scales[path].rank]
    if wrong:
        said, found = scales[wrong[0]].rank, tensors[named.a[wrong[0]]].shape[0]
        yield (
            f"the config gives {shown(wrong[0])} rank {said} and its tensors have rank {found}, so that its scale is "
            "not known. Correct the config after finding out what was trained."
        )


def all_reasons(*parts: Iterable[str]) -> tuple[str, ...]:
    """Collect the reasons of the first part that has any: later parts build on its having none."""
    return next((found for part in parts if (found := tuple(part))), ())


def _is_path(name: str) -> bool:
    """Whether this is no Hub id: those have at most one slash, and not in front."""
    return name.startswith(("/", "./", "../", "~")) or "\\" in name or name.count("/") > 1


_FOREIGN: Final[Mapping[OtherKind, str]] = {
    OtherKind.DORA_MAGNITUDE: f"it has DoRA's magnitudes, {{names}}, which no B and A can hold. {_MERGE}",
    **dict.fromkeys(
        (OtherKind.EMBEDDING_LORA, OtherKind.EMBEDDING, OtherKind.TOKEN_DELTAS),
        f"it changes the embedding or the output layer: {{names}}. LoRAX never loads that. {_MERGE}",
    ),
    **dict.fromkeys(
        (OtherKind.LORA_BIAS, OtherKind.BIAS),
        "it has biases: {names}. LoRAX never loads them. Train with bias='none' and lora_bias=False.",
    ),
    OtherKind.SAVED_MODULE: f"it has full copies of modules: {{names}}. LoRAX never loads them. {_MERGE}",
    OtherKind.MEDUSA: "it has Medusa heads: {names}. They are not rewritten; serve them apart from it.",
}
_UNKNOWN: Final = (
    "{names} are LoRA matrices of no module of the base, or nothing of LoRA's. Leave out what does not belong to the "
    "adapter, or release it on the base that it was trained on."
)
