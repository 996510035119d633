"""Reading PEFT adapter files the way LoRAX reads them, its silent losses included.

LoRAX answers 200 for many adapters that it then applies in part, not at all, or at a wrong scale. This module does the
same and logs a warning that names the loss; in strict mode it refuses instead. Rules read from predibase/lorax:
server/lorax_server/adapters/lora.py, utils/adapter.py, utils/sgmv.py, with peft 0.4.0 reading the configuration.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sandbox.lorax.contract import AdapterError
from sandbox.lorax.families import REFUSED_FAMILIES
from sandbox.lorax.lora import StackedPair

__all__ = ["AdapterFiles", "AdapterReader", "LoadedAdapter", "LoraConfig", "padded_rank"]

logger = logging.getLogger(__name__)

CONFIG_NAME = "adapter_config.json"
_DEFAULT_RANK = 8  # peft 0.4.0
_DEFAULT_ALPHA = 8
_RANKS_WITHOUT_KERNEL = frozenset({48, 80, 96, 112})  # padded; above 128 a slower path takes over
_PAIR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_DIGITS = re.compile(r"\.\d+\.")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What LoRAX keeps of ``adapter_config.json``."""

    rank: Any
    alpha: Any
    base_model: str | None
    target_modules: Any


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """One adapter as read from disk: lora_A ``[r, in]`` and lora_B ``[out, r]`` by module, not yet scaled."""

    adapter_id: str
    config: LoraConfig
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class LoadedAdapter:
    """An adapter ready to be copied into slots; ``size_bytes`` is what LoRAX counts, the sum of the file's tensors."""

    name: str
    pairs: Mapping[str, StackedPair] = field(repr=False)
    size_bytes: int


def padded_rank(rank: int) -> int:
    """The rank LoRAX's kernels get on one GPU: 8 up to 8, above that the next multiple of 16."""
    return 8 if rank <= 8 else math.ceil(rank / 16) * 16


class AdapterReader:
    """Reads adapters for one base model. Thread safe: it holds no state but its settings."""

    def __init__(
        self,
        *,
        model_id: str,
        config: Any,  # noqa: ANN401  # transformers is untyped here
        types: Mapping[str, tuple[str, ...]],
        shapes: Mapping[str, tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        strict: bool,
        base_architectures: Callable[[str], list[str] | None],
    ) -> None:
        """``base_architectures`` gives the ``architectures`` of another base model, None when they cannot be had."""
        self._model_id = model_id
        self._model_type = str(config.model_type)
        self._architectures = list(config.architectures or [])
        self._types = types
        self._type_of = {name: kind for kind, names in types.items() for name in names}
        self._shapes = shapes
        self._dtype = dtype
        self._device = device
        self._strict = strict
        self._base_architectures = base_architectures

    def read(self, adapter_id: str, directory: Path) -> AdapterFiles:
        """Read configuration and weights. Raises AdapterError with LoRAX's text where it refuses."""
        if refusal := REFUSED_FAMILIES.get(self._model_type):
            raise AdapterError(refusal)
        if not directory.is_dir():
            raise AdapterError(f"No local weights found in {adapter_id} with extension .safetensors")
        raw = self._read_config(directory)
        config = LoraConfig(
            rank=raw.get("r", _DEFAULT_RANK),
            alpha=raw.get("lora_alpha", _DEFAULT_ALPHA),
            base_model=raw.get("base_model_name_or_path"),
            target_modules=raw.get("target_modules"),
        )
        self._check_base(adapter_id, config.base_model)
        self._note_ignored_settings(adapter_id, raw)
        tensors = self._read_tensors(adapter_id, directory)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return AdapterFiles(
            adapter_id=adapter_id, config=config, pairs=self._pairs(adapter_id, tensors), size_bytes=size
        )

    def fit(self, name: str, files: AdapterFiles) -> LoadedAdapter:
        """Stack the pairs by projection type, scaled as LoRAX scales them.

        LoRAX overwrites the configured rank with the padded one after the first type, so every later type is divided by
        the padded rank.
        """
        pairs: dict[str, StackedPair] = {}
        rank = files.config.rank
        for kind, names in self._types.items():
            present = [module for module in names if module in files.pairs]
            if not present:
                continue
            if len(present) < len(names):
                self._lose(
                    name,
                    f"projection type {_label(kind)} is dropped: {len(names) - len(present)} of {len(names)} layers "
                    "have no pair",
                )
                continue
            try:
                scale = files.config.alpha / rank
            except (TypeError, ZeroDivisionError) as error:
                raise AdapterError(f"{name}: lora_alpha / r cannot be computed: {error}") from error
            if rank != files.config.rank:
                self._lose(
                    name,
                    f"projection type {_label(kind)} is scaled by alpha / {rank} (padded) instead of alpha / "
                    f"{files.config.rank}",
                )
            pairs[kind] = self._stack(name, kind, [files.pairs[module] for module in names], scale)
            rank = padded_rank(pairs[kind].rank)
        if not pairs:
            self._lose(name, "no weight name matches the model; answers are those of the base model")
        return LoadedAdapter(name=name, pairs=pairs, size_bytes=files.size_bytes)

    def _stack(self, name: str, kind: str, pairs: list[tuple[torch.Tensor, torch.Tensor]], scale: float) -> StackedPair:
        inside, outside = self._shapes[self._types[kind][0]]
        ranks = [a.shape[0] for a, _ in pairs]
        for module, (a, b) in zip(self._types[kind], pairs, strict=True):
            if (
                a.dim() != 2
                or b.dim() != 2
                or a.shape[0] != b.shape[1]
                or a.shape[1] != inside
                or b.shape[0] != outside
            ):
                raise AdapterError(
                    f"{name}: {module} has lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}, "
                    f"the model needs (r, {inside}) and ({outside}, r)"
                )
        padded = [padded_rank(rank) for rank in ranks]
        if len(set(padded)) > 1:
            odd = next(index for index, rank in enumerate(padded) if rank != padded[0])
            raise AdapterError(
                f"stack expects each tensor to be equal size, but got [{inside}, {padded[0]}] at entry 0 and "
                f"[{inside}, {padded[odd]}] at entry {odd}"
            )
        rank = max(ranks)
        if len(set(ranks)) > 1:
            self._lose(name, f"projection type {_label(kind)} mixes ranks {sorted(set(ranks))} under one scale")
        if padded_rank(rank) in _RANKS_WITHOUT_KERNEL:
            self._lose(name, f"rank {rank} of {_label(kind)} has no GPU kernel in LoRAX; there its batch would fail")
        stacked_a = torch.zeros(len(pairs), rank, inside, dtype=self._dtype)
        stacked_b = torch.zeros(len(pairs), rank, outside, dtype=self._dtype)
        for index, (a, b) in enumerate(pairs):
            stacked_a[index, : a.shape[0]] = a
            stacked_b[index, : a.shape[0]] = b.T
        stacked_b *= scale
        if not (torch.isfinite(stacked_a).all() and torch.isfinite(stacked_b).all()):
            self._lose(name, f"projection type {_label(kind)} holds NaN or infinite weights")
        return StackedPair(a=stacked_a.to(self._device), b=stacked_b.to(self._device))

    def _read_config(self, directory: Path) -> dict[str, Any]:
        path, other = directory / CONFIG_NAME, directory / "config.json"
        if not path.is_file():
            if other.is_file():
                raise AdapterError(f"{other} is no LoRA configuration; Medusa adapters need a server started with one")
            raise AdapterError("No valid adapter config file found: tried None and None")
        try:
            raw = json.loads(path.read_bytes())
        except ValueError as error:
            raise AdapterError(f"{path} is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise AdapterError(f"{path} is not a JSON object")
        return raw

    def _check_base(self, adapter_id: str, base_model: str | None) -> None:
        if not base_model:
            self._lose(adapter_id, "base_model_name_or_path is empty, so the base model is not checked")
            return
        if base_model == self._model_id:
            return
        architectures = self._base_architectures(base_model)
        if architectures is None:
            self._lose(
                adapter_id,
                f"trained on {base_model!r}, whose configuration is out of reach; assumed compatible with "
                f"{self._model_id!r}",
            )
        elif architectures == self._architectures:
            self._lose(adapter_id, f"trained on {base_model!r}, not on {self._model_id!r}; same architecture, accepted")
        else:
            raise AdapterError(
                f"Adapter '{adapter_id}' is not compatible with model '{self._model_id}'. "
                f"Architectures differ: {architectures} != {self._architectures}. "
                f"Use --model-id '{base_model}' instead."
            )

    def _note_ignored_settings(self, adapter_id: str, raw: Mapping[str, Any]) -> None:
        for key, default in (("r", _DEFAULT_RANK), ("lora_alpha", _DEFAULT_ALPHA)):
            if key not in raw:
                self._lose(adapter_id, f"{key} is missing; {default} is used")
        if str(raw.get("peft_type", "LORA")).upper() != "LORA":
            self._lose(adapter_id, f"peft_type {raw['peft_type']} is read as LORA")
        if raw.get("use_rslora"):
            self._lose(adapter_id, "use_rslora is ignored; the scale is alpha / r")
        if raw.get("use_dora"):
            self._lose(adapter_id, "use_dora is ignored; the magnitudes are dropped")
        if (bias := raw.get("bias", "none")) not in {None, "none"}:
            self._lose(adapter_id, f"bias={bias!r} is ignored")
        for key in (
            "alpha_pattern",
            "rank_pattern",
            "modules_to_save",
            "layers_to_transform",
            "layer_replication",
            "trainable_token_indices",
            "target_parameters",
        ):
            if raw.get(key):
                self._lose(adapter_id, f"{key} is ignored")

    def _read_tensors(self, adapter_id: str, directory: Path) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        files = sorted(directory.glob("*.safetensors"))
        pickles = sorted(directory.glob("*.bin"))
        if not files and not pickles:
            raise AdapterError(f"No local weights found in {adapter_id} with extension .safetensors")
        for path in files:
            try:
                tensors.update(load_file(path))
            except Exception as error:
                raise AdapterError(f"Error while deserializing {path.name} of {adapter_id}: {error}") from error
        if not files:
            self._lose(
                adapter_id, "only .bin weights; LoRAX would unpickle and convert them, here only tensors are read"
            )
            for path in pickles:
                tensors.update(_read_pickle(adapter_id, path))
        return tensors

    def _pairs(
        self, adapter_id: str, tensors: Mapping[str, torch.Tensor]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        unused = set(tensors)
        for module in self._type_of:
            names = [f"base_model.model.{module}.lora_{side}.weight" for side in "AB"]
            if all(name in tensors for name in names):
                pairs[module] = (tensors[names[0]], tensors[names[1]])
                unused.difference_update(names)
        if unused:
            kinds = sorted({_DIGITS.sub(".*.", name) for name in unused})
            shown = ", ".join(kinds[:4]) + (", ..." if len(kinds) > 4 else "")
            self._lose(adapter_id, f"{len(unused)} tensors match nothing and are ignored: {shown}")
        return pairs

    def _lose(self, name: str, what: str) -> None:
        """Report something that LoRAX would lose without a word; refuse in strict mode."""
        if self._strict:
            raise AdapterError(f"Adapter {name} refused (strict): {what}")
        logger.warning("adapter %s: %s", name, what)


def _read_pickle(adapter_id: str, path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise AdapterError(f"{path.name} of {adapter_id} holds more than tensors and is not unpickled") from error
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise AdapterError(f"Weights contain NaN or infinite values: {key} of {adapter_id}")
    return tensors


def _label(kind: str) -> str:
    return kind.rsplit("*.", 1)[-1]
