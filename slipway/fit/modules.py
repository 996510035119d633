"""The values that are rewritten: an adapter as found, and one module of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slipway.adapter_config import AdapterConfig
from slipway.fit.matrices import Matrix

__all__ = ["LoraModule", "Modules", "RawAdapter", "Refused"]


@dataclass(frozen=True, kw_only=True)
class LoraModule:
    """What LoRA adds to one linear layer: ``scale * B @ A @ x``.

    Attributes:
        a: ``[rank, in]``.
        b: ``[out, rank]``.
        scale: As PEFT computes it.
    """

    a: Matrix
    b: Matrix
    scale: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.a.shape[0]


Modules = Mapping[str, LoraModule]
"""By the module's path in the base model."""


@dataclass(frozen=True, kw_only=True)
class RawAdapter:
    """An adapter as its files say.

    Attributes:
        config: As PEFT reads it.
        members: The config's JSON object, for what ``AdapterConfig`` has no field for.
        tensors: By file and name.
        is_pickle: The tensors come from ``adapter_model.bin``.
    """

    config: AdapterConfig
    members: Mapping[str, object]
    tensors: Mapping[str, Mapping[str, Matrix]] = field(repr=False)
    is_pickle: bool = False


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why there is no servable form with the same function: sentences, each with the nearest way out."""

    reasons: tuple[str, ...]
