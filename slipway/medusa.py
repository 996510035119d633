"""Read the config of Medusa heads (arXiv 2401.10774), ``config.json`` beside their weights.

Keys and defaults are those of LoRAX's ``adapters/medusa.py`` (https://github.com/predibase/lorax).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from slipway.adapter_config import ConfigProblem
from slipway.errors import StoreError
from slipway.tensors import shown

__all__ = ["MEDUSA_CONFIG_NAME", "MedusaConfig", "read_medusa_config"]

MEDUSA_CONFIG_NAME: Final = "config.json"
_MAX_CONFIG_BYTES: Final = 4 << 20
_MAX_DIGITS: Final = 10


@dataclass(frozen=True, kw_only=True)
class MedusaConfig:
    """Heads, residual layers in each, the base model, and the version of the weights' layout."""

    heads: int
    layers: int
    base_model_name_or_path: str
    version: int = 1


def read_medusa_config(path: Path) -> MedusaConfig | ConfigProblem | None:
    """Read a ``config.json``.

    Returns:
        The config; what it lacks; or None if it does not speak of Medusa at all, as a base model's does not.

    Raises:
        StoreError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, dict) or not any(str(key).startswith("medusa") for key in members):
        return None
    counts: dict[str, int] = {}
    for key, default in (("medusa_num_heads", None), ("medusa_num_layers", None), ("version", 1)):
        count = _count(members.get(key, default))
        if count is None:
            return ConfigProblem(key=key, message=f"{_excerpt(members.get(key))} is not a whole number from 1 up")
        counts[key] = count
    base = members.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        return ConfigProblem(key="base_model_name_or_path", message=f"{_excerpt(base)} is not the name of a model")
    return MedusaConfig(
        heads=counts["medusa_num_heads"],
        layers=counts["medusa_num_layers"],
        base_model_name_or_path=base,
        version=counts["version"],
    )


def _count(value: object) -> int | None:
    """Read a count; the version is written as a number or as a text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < _MAX_DIGITS:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _excerpt(value: object) -> str:
    if isinstance(value, list | dict):  # printing one could recurse too deeply
        return "a list" if isinstance(value, list) else "an object"
    return "nothing" if value is None else shown(str(value))
