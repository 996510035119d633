"""Names: which tensor is which matrix of which module of the base.

Which changed names are recognised is for ``lora_names``; here they are held against the base, and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from slipway.lora_names import find_renamings

__all__ = ["NamedTensors", "canonical_name", "name_tensors"]

_LORA: Final = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, kw_only=True)
class NamedTensors:
    """Tensors by what they are.

    Attributes:
        a: Name of the tensor by module path.
        b: As ``a``.
        others: Names that are no LoRA matrix of a module of the base.
        renamed: Right names by the name found, where that is another.
    """

    a: Mapping[str, str]
    b: Mapping[str, str]
    others: tuple[str, ...]
    renamed: Mapping[str, str]


def canonical_name(path: str, side: str) -> str:
    """The key under which PEFT saves a module's A or B."""
    return f"base_model.model.{path}.lora_{side}.weight"


def name_tensors(names: Iterable[str], base_modules: Collection[str]) -> NamedTensors:
    """Find the module of the base that each tensor belongs to."""
    names = list(names)
    renamed = find_renamings(names, base_modules)
    sides: dict[str, dict[str, str]] = {"A": {}, "B": {}}
    others: list[str] = []
    for name in names:
        match = _LORA.fullmatch(renamed.get(name, name))
        if match is None or match["path"] not in base_modules:
            others.append(name)
        else:
            sides[match["side"]][match["path"]] = name
    return NamedTensors(a=sides["A"], b=sides["B"], others=tuple(others), renamed=renamed)
