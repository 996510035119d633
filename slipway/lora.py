"""Sort the tensors of an adapter into LoRA pairs.

PEFT saves the two matrices of a module as ``base_model.model.PATH.lora_A.weight``, ``[rank, in]``, and
``base_model.model.PATH.lora_B.weight``, ``[out, rank]``, where PATH is the module's path in the base model
(https://github.com/huggingface/peft, ``src/peft/utils/save_and_load.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from slipway.tensors import Tensor

__all__ = ["LoraPair", "LoraTensors", "layer_of", "module_type", "sort_tensors"]

_LORA: Final = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight")
_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d{1,9})(?=\.|$)")


@dataclass(frozen=True, kw_only=True)
class LoraPair:
    """The two matrices of one module, of which one may be missing.

    Attributes:
        path: The module's path in the base model.
        a: ``[rank, in]``.
        b: ``[out, rank]``.
    """

    path: str
    a: Tensor | None
    b: Tensor | None

    @property
    def rank(self) -> int | None:
        """Rows of A, else columns of B; None where neither has two dimensions."""
        if self.a is not None and len(self.a.shape) == 2:
            return self.a.shape[0]
        if self.b is not None and len(self.b.shape) == 2:
            return self.b.shape[1]
        return None


@dataclass(frozen=True, kw_only=True)
class LoraTensors:
    """All tensors of an adapter, over all its files.

    Attributes:
        pairs: By module path, in the order first met.
        others: Tensors that are not named as LoRA matrices are.
    """

    pairs: Mapping[str, LoraPair]
    others: tuple[Tensor, ...]


def sort_tensors(tensors: Iterable[Tensor]) -> LoraTensors:
    """Pair the tensors up by name."""
    sides: dict[str, dict[str, Tensor]] = {}
    others: list[Tensor] = []
    for tensor in tensors:
        match = _LORA.fullmatch(tensor.name)
        if match is None:
            others.append(tensor)
        else:
            sides.setdefault(match["path"], {})[match["side"]] = tensor
    return LoraTensors(
        pairs={path: LoraPair(path=path, a=side.get("A"), b=side.get("B")) for path, side in sides.items()},
        others=tuple(others),
    )


def module_type(path: str) -> str:
    """Give the last part of a module's path, such as ``q_proj``."""
    return path.rpartition(".")[2]


def layer_of(path: str) -> int | None:
    """Give the number of the layer that a module is in; None for modules outside the layers, such as ``lm_head``."""
    match = _LAYER.search(path)
    return int(match[1]) if match else None
