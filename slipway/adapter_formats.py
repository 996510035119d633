"""Recognise what is often taken for a PEFT adapter and is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from slipway.adapter_config import AdapterConfig

__all__ = ["ForeignFormat", "recognise_format"]


class ForeignFormat(StrEnum):
    """A format of adapters or models that is not PEFT's."""

    MLX = "mlx"
    ADAPTERHUB = "adapterhub"
    DIFFUSION = "diffusion"
    FULL_MODEL = "full-model"


_MLX_KEYS: Final = frozenset({"lora_parameters", "fine_tune_type"})
_ADAPTERHUB_KEYS: Final = (frozenset({"config", "model_class"}), frozenset({"config", "config_id"}))
_MLX: Final = re.compile(r"(?!base_model\.).*\.lora_[ab]")
_ADAPTERHUB: Final = re.compile(r".*\.(?:loras|adapters|prefix_tunings)\..*")
_DIFFUSION: Final = re.compile(
    r"lora_(?:unet|te\d?|transformer)_.*|(?:unet|text_encoder|transformer)\..*lora.*|.*\.lora_(?:down|up)\.weight"
)
_IN_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.\d{1,9}\.")


def recognise_format(config: AdapterConfig, names: Sequence[str]) -> ForeignFormat | None:
    """Tell the formats apart by the config's keys and the tensors' names.

    Args:
        config: Defaults where there is none to be read.
        names: Of all tensors.

    Returns:
        None for PEFT's own and for what nothing is known of.
    """
    if config.peft_type not in {"", "LORA"}:
        return None
    if config.present & _MLX_KEYS or any(_MLX.fullmatch(name) for name in names):
        return ForeignFormat.MLX
    if any(keys <= config.present for keys in _ADAPTERHUB_KEYS) or any(_ADAPTERHUB.fullmatch(name) for name in names):
        return ForeignFormat.ADAPTERHUB
    if any("lora" in name for name in names):
        return ForeignFormat.DIFFUSION if any(_DIFFUSION.fullmatch(name) for name in names) else None
    return ForeignFormat.FULL_MODEL if any(map(_is_model_weight, names)) else None


def _is_model_weight(name: str) -> bool:
    return name.endswith(".weight") and not name.startswith("base_model.") and _IN_LAYER.search(name) is not None
