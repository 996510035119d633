"""Layers: every type on every layer of the base, as LoRAX wants it.

LoRAX drops a projection type on all layers when one layer of it has no pair (``server/lorax_server/adapters/lora.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from slipway.base_shapes import Shape
from slipway.fit.matrices import zeros
from slipway.fit.modules import LoraModule, Modules

__all__ = ["choose_targets", "fill_layers", "place_of"]

_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


def place_of(path: str) -> str:
    """Say where a module is on any layer: its path with ``*`` for every number."""
    return _NUMBER.sub("*", path)


def fill_layers(modules: Modules, base_modules: Mapping[str, Shape]) -> dict[str, LoraModule]:
    """Add zero matrices for the modules of the base that are of an adapted kind and have none.

    Args:
        modules: At least one, all of one rank and scale.
        base_modules: Shapes ``(out, in)`` by path, in the base's order, which is the order of the result.
    """
    patterns = {place_of(path): module for path, module in modules.items()}
    filled: dict[str, LoraModule] = {}
    for path, (rows, columns) in base_modules.items():
        like = patterns.get(place_of(path))
        if path in modules:
            filled[path] = modules[path]
        elif like is not None:
            filled[path] = LoraModule(
                a=zeros(like.rank, columns, like.a.dtype), b=zeros(rows, like.rank, like.b.dtype), scale=like.scale
            )
    return filled


def choose_targets(paths: Iterable[str], base_modules: Iterable[str]) -> tuple[str, ...]:
    """Name modules for ``target_modules``: by the shortest endings that fit them and no others of the base."""
    wanted = set(paths)
    foreign = {ending for path in base_modules if path not in wanted for ending in _endings(path)}
    return tuple(sorted({next(ending for ending in _endings(path) if ending not in foreign) for path in wanted}))


def _endings(path: str) -> Iterator[str]:
    """The shortest first; PEFT matches whole parts."""
    parts = path.split(".")
    return (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
