"""Which files of a directory, prefix or repository belong to an adapter."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from slipway.adapter_config import CONFIG_NAME
from slipway.medusa import MEDUSA_CONFIG_NAME

__all__ = ["LOOKED_FOR", "is_adapter_file", "is_safe_name", "looks_like_whole_model"]

LOOKED_FOR: Final = f"{CONFIG_NAME}, *.safetensors and adapter_model.bin"

_WHOLE_MODEL: Final = re.compile(r"(model|pytorch_model|consolidated)([.-].*)?\.(safetensors|bin|index\.json|pth)")
_WANTED: Final = frozenset({CONFIG_NAME, MEDUSA_CONFIG_NAME, "adapter_model.bin"})
_SAFE: Final = re.compile(r"[^\x00-\x1f\x7f/\\]{1,255}")


def is_adapter_file(name: str) -> bool:
    """Whether a file is part of an adapter, by its name: never checkpoints, optimizer state or READMEs.

    A pickle is kept so that it can be reported; it is never opened. A ``config.json`` is what makes LoRAX take a
    directory for a Medusa adapter.
    """
    return is_safe_name(name) and (name in _WANTED or name.endswith(".safetensors"))


def is_safe_name(name: str) -> bool:
    """Whether a name from outside stays in the directory that it is put into, and is visible there."""
    return _SAFE.fullmatch(name) is not None and not name.startswith(".")


def looks_like_whole_model(names: Collection[str]) -> bool:
    """Whether a place holds a model's own weights and no adapter: many gigabytes that nobody meant to pull."""
    if CONFIG_NAME in names or any(name.startswith("adapter_model") for name in names):
        return False
    return any(_WHOLE_MODEL.fullmatch(name) for name in names)
