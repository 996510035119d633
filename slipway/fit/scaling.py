"""Scales: all modules under one.

What a module's scale is, is for ``lora_scale``: PEFT has rsLoRA and patterns, LoRAX knows one ``alpha / r`` for all.
Over a rank that is a power of two, any scale can be written like that exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from slipway.fit.matrices import round_to
from slipway.fit.modules import LoraModule, Modules

__all__ = ["common_scale", "fold_scales", "is_power_of_two"]


def common_scale(modules: Modules) -> float:
    """Choose the scale under which most modules keep exact numbers.

    A module's B is multiplied by its own scale over the common one. That is exact where the quotient is a power of two,
    so the scales are counted by mantissa; the smallest of the winners makes those quotients at least 1, where no number
    can get too small for its format.
    """
    scales = sorted(abs(module.scale) for module in modules.values() if module.scale)
    if not scales:
        return 0.0
    mantissas = Counter(math.frexp(scale)[0] for scale in scales)
    most = max(mantissas.values())
    return next(scale for scale in scales if mantissas[math.frexp(scale)[0]] == most)


def fold_scales(modules: Modules, scale: float) -> dict[str, LoraModule]:
    """Bring all modules under one scale, multiplying B where it was another; rounded once, to B's own format."""
    return {
        path: module
        if module.scale == scale
        else replace(module, b=round_to(module.b.values() * (module.scale / scale), module.b.dtype), scale=scale)
        for path, module in modules.items()
    }


def is_power_of_two(number: float) -> bool:
    """Whether a float has a single significant bit, of either sign."""
    return abs(math.frexp(number)[0]) == 0.5
