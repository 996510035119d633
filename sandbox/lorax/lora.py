"""Per-row LoRA inside one batch: every slot of the batch has its own A and B.

For one linear layer and ``n`` rows the update is ``y += bmm(bmm(x, A), B)`` with A ``[n, in, rank]`` and B
``[n, rank, out]``, whatever adapters the rows use. An adapter is copied into its row's slot once, at admission, so a
decode step pays for the rows and never for the number of adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

__all__ = ["LoraBank", "StackedPair", "linear_shape"]


@dataclass(frozen=True, kw_only=True)
class StackedPair:
    """One projection type of one adapter, over all layers; the scale is already in ``b``.

    ``a`` is ``[layers, rank, in_features]``, ``b`` is ``[layers, rank, out_features]`` (lora_B transposed).
    """

    a: torch.Tensor
    b: torch.Tensor

    @property
    def rank(self) -> int:
        """Rows of lora_A."""
        return self.a.shape[1]


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(in_features, out_features) of a layer that LoRA can wrap, else None. Conv1D keeps its weight transposed."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D) and isinstance(weight := module.weight, torch.Tensor):
        return weight.shape[0], weight.shape[1]
    return None


class _LoraLayer:
    """Stands in for the ``forward`` of one linear layer; ``a`` and ``b`` are views of the rows about to be computed."""

    __slots__ = ("a", "b", "base")

    def __init__(self, module: nn.Module) -> None:
        self.base: Callable[[torch.Tensor], torch.Tensor] = module.forward
        self.a: torch.Tensor | None = None
        self.b: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        if self.a is None or self.b is None:
            return y
        if x.dim() == 3:
            # In place: the base layer's output is fresh, and nothing else holds it.
            return y.baddbmm_(torch.bmm(x, self.a), self.b)
        rows = self.a.shape[0]
        update = torch.bmm(torch.bmm(x.reshape(rows, -1, x.shape[-1]), self.a), self.b)
        return y + update.view(y.shape)


class _TypeBank:
    """A and B of every slot for one projection type; allocated when the first adapter uses the type."""

    def __init__(self, layers: list[_LoraLayer], shape: tuple[int, int]) -> None:
        self.layers = layers
        self.in_features, self.out_features = shape
        self.a = torch.empty(0)
        self.b = torch.empty(0)
        self.ranks: list[int] = []

    def fit(self, slots: int, rank: int, like: torch.Tensor) -> None:
        """Grow to at least ``slots`` and ``rank``, keeping what is there."""
        have_slots, have_rank = (self.a.shape[1], self.a.shape[2]) if self.a.dim() == 4 else (0, 0)
        if slots <= have_slots and rank <= have_rank:
            return
        new_slots, new_rank = max(slots, have_slots), max(rank, have_rank)
        a = like.new_zeros(len(self.layers), new_slots, new_rank, self.in_features)
        b = like.new_zeros(len(self.layers), new_slots, new_rank, self.out_features)
        if have_slots:
            a[:, :have_slots, :have_rank] = self.a
            b[:, :have_slots, :have_rank] = self.b
        self.a, self.b = a, b
        self.ranks += [0] * (new_slots - len(self.ranks))

    def clear(self, slot: int) -> None:
        """Make a slot add nothing. A is zeroed too, because an infinite A times a zero B is NaN."""
        if slot < len(self.ranks) and (rank := self.ranks[slot]):
            self.a[:, slot, :rank].zero_()
            self.b[:, slot, :rank].zero_()
            self.ranks[slot] = 0

    def write(self, slot: int, pair: StackedPair) -> None:
        """Copy one adapter's matrices into a slot."""
        old, new = self.ranks[slot], pair.rank
        self.a[:, slot, :new] = pair.a
        self.b[:, slot, :new] = pair.b
        if new < old:
            self.a[:, slot, new:old].zero_()
            self.b[:, slot, new:old].zero_()
        self.ranks[slot] = new

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another and clear it."""
        if source >= len(self.ranks):
            return
        rank = max(self.ranks[source], self.ranks[target])
        if rank:
            self.a[:, target, :rank] = self.a[:, source, :rank]
            self.b[:, target, :rank] = self.b[:, source, :rank]
        self.ranks[target] = self.ranks[source]
        self.clear(source)

    def select(self, first: int, count: int) -> None:
        """Point the layers at the slots ``first`` to ``first + count``; layers without LoRA there are left bare."""
        rank = max(self.ranks[first : first + count], default=0)
        for index, layer in enumerate(self.layers):
            if rank:
                layer.a = self.a[index, first : first + count, :rank].transpose(1, 2)
                layer.b = self.b[index, first : first + count, :rank]
            else:
                layer.a = layer.b = None


class LoraBank:
    """The LoRA slots of a whole model. Only the scheduler's thread may use it."""

    def __init__(self, model: nn.Module, types: Mapping[str, tuple[str, ...]], parameter: torch.Tensor) -> None:
        """Wrap the named layers of ``model``; slots take dtype and device from ``parameter``."""
        self._like = parameter
        self._slots = 0
        self._types: dict[str, _TypeBank] = {}
        for kind, names in types.items():
            modules = [model.get_submodule(name) for name in names]
            shape = linear_shape(modules[0])
            if shape is None:
                raise TypeError(f"{names[0]} is not a linear layer")
            layers = [_LoraLayer(module) for module in modules]
            for module, layer in zip(modules, layers, strict=True):
                _replace_forward(module, layer.forward)
            self._types[kind] = _TypeBank(layers, shape)

    def reserve(self, slots: int) -> None:
        """Have room for at least ``slots`` rows."""
        if slots <= self._slots:
            return
        self._slots = max(slots, 2 * self._slots, 4)
        for bank in self._types.values():
            if bank.ranks:
                bank.fit(self._slots, 0, self._like)

    def write(self, slot: int, pairs: Mapping[str, StackedPair]) -> None:
        """Put an adapter into a slot; an empty mapping is the base model."""
        for kind, bank in self._types.items():
            pair = pairs.get(kind)
            if pair is None:
                bank.clear(slot)
            else:
                bank.fit(self._slots, pair.rank, self._like)
                bank.write(slot, pair)

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another and clear it."""
        for bank in self._types.values():
            bank.move(source, target)

    def clear(self, slot: int) -> None:
        """Make a slot the base model."""
        for bank in self._types.values():
            bank.clear(slot)

    def select(self, first: int, count: int) -> None:
        """Choose the rows that the next forward pass computes."""
        for bank in self._types.values():
            bank.select(first, count)


def _replace_forward(module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
    # On the instance, so that the module keeps its class, name and weight for code that looks at them.
    replaceable: Any = module
    replaceable.forward = forward
