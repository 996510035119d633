"""Sort the tensors of an adapter into LoRA pairs.

PEFT saves the two matrices of a module as ``base_model.model.PATH.lora_A.weight``, ``[rank, in]``, and
``base_model.model.PATH.lora_B.weight``, ``[out, rank]``, where PATH is the module's path in the base model
(https://github.com/huggingface/peft, ``src/peft/utils/save_and_load.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from slipway.lora_names import find_renamings
from slipway.tensors import Tensor

__all__ = ["LoraPair", "LoraTensors", "OtherKind", "kind_of", "layer_of", "module_type", "sort_tensors"]

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
    def inputs(self) -> int | None:
        """Columns of A; None without a matrix."""
        return self.a.shape[1] if self.a is not None and len(self.a.shape) == 2 else None

    @property
    def outputs(self) -> int | None:
        """Rows of B; None without a matrix."""
        return self.b.shape[0] if self.b is not None and len(self.b.shape) == 2 else None

    @property
    def multiplies(self) -> bool:
        """Whether what is there are matrices, and BA can be computed if both are."""
        if any(side is not None and len(side.shape) != 2 for side in (self.a, self.b)):
            return False
        return self.a is None or self.b is None or self.a.shape[0] == self.b.shape[1]

    @property
    def rank(self) -> int | None:
        """Rows of A, else columns of B; None where neither has two dimensions."""
        if self.a is not None and len(self.a.shape) == 2:
            return self.a.shape[0]
        if self.b is not None and len(self.b.shape) == 2:
            return self.b.shape[1]
        return None


class OtherKind(StrEnum):
    """What a tensor of an adapter is that is no LoRA matrix of a linear layer."""

    DORA_MAGNITUDE = "dora-magnitude"
    EMBEDDING_LORA = "embedding-lora"
    LORA_BIAS = "lora-bias"
    BIAS = "bias"
    TOKEN_DELTAS = "token-deltas"  # noqa: S105  # tokens of a vocabulary
    EMBEDDING = "embedding"
    MEDUSA = "medusa"
    SAVED_MODULE = "saved-module"
    UNKNOWN = "unknown"


_OTHER_KINDS: Final = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (OtherKind.DORA_MAGNITUDE, r".*\.lora_magnitude_vector(?:\..*)?"),
        (OtherKind.EMBEDDING_LORA, r".*\.lora_embedding_[AB](?:\..*)?"),
        (OtherKind.LORA_BIAS, r".*\.lora_B\.bias"),
        (OtherKind.TOKEN_DELTAS, r".*trainable_tokens_(?:delta|original).*"),
        (OtherKind.UNKNOWN, r".*lora_.*"),
        (OtherKind.BIAS, r"base_model\.model\..*\.bias"),
        (
            OtherKind.EMBEDDING,
            (
                r"base_model\.model\.(?:.*\.)?(?:embed_tokens|lm_head|wte|wpe|embed_in|embed_out|word_embeddings)"
                r"(?:\.modules_to_save(?:\.\w+)?)?\.weight"
            ),
        ),
        (OtherKind.MEDUSA, r"(?:medusa_head\.)?\d{1,4}\.\d{1,4}\.(?:linear\.)?(?:weight|bias)"),
        (OtherKind.SAVED_MODULE, r"base_model\.model\..*\.(?:weight|bias)"),
    )
)
"""The first that matches a whole name says what it is."""


def kind_of(name: str) -> OtherKind:
    """Say what a tensor is that is no LoRA matrix of a linear layer."""
    return next((kind for kind, pattern in _OTHER_KINDS if pattern.fullmatch(name)), OtherKind.UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class LoraTensors:
    """All tensors of an adapter, over all its files.

    Attributes:
        pairs: By module path, in the order first met.
        others: Tensors that are no LoRA matrices of linear layers.
        renamed: Right names of LoRA matrices that have another, by the name found; they are among the pairs.
    """

    pairs: Mapping[str, LoraPair]
    others: tuple[Tensor, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)


def sort_tensors(tensors: Iterable[Tensor], modules: Iterable[str] | None = None) -> LoraTensors:
    """Pair the tensors up by name, also those whose names were changed in a way that is known.

    Args:
        tensors: Of all files.
        modules: Paths of the base's linear layers, where they are known.
    """
    tensors = list(tensors)
    renamed = find_renamings((tensor.name for tensor in tensors), modules)
    sides: dict[str, dict[str, Tensor]] = {}
    others: list[Tensor] = []
    for tensor in tensors:
        match = _LORA.fullmatch(renamed.get(tensor.name, tensor.name))
        if match is None:
            others.append(tensor)
        else:
            sides.setdefault(match["path"], {})[match["side"]] = tensor
    return LoraTensors(
        pairs={path: LoraPair(path=path, a=side.get("A"), b=side.get("B")) for path, side in sides.items()},
        others=tuple(others),
        renamed=renamed,
    )


def module_type(path: str) -> str:
    """Give the last part of a module's path, such as ``q_proj``."""
    return path.rpartition(".")[2]


def layer_of(path: str) -> int | None:
    """Give the number of the layer that a module is in; None for modules outside the layers, such as ``lm_head``."""
    match = _LAYER.search(path)
    return int(match[1]) if match else None
