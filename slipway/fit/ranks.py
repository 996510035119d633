"""Ranks: which LoRAX serves rightly, and padding to one of them.

LoRAX pads A and B to ``8 * TP`` up to that rank, and else to a multiple of 16 (``server/lorax_server/utils/sgmv.py``);
after the first projection type it divides alpha by the padded rank (``adapters/lora.py``). Its kernels take 8, 16, 32,
64 and 128 per GPU (``punica_kernels/bgmv/bgmv_config.h``), and above 128 a loop in PyTorch takes over. A rank that is
not padded and has a kernel has neither fault.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from slipway.fit.matrices import Matrix
from slipway.fit.modules import LoraModule, Modules

__all__ = ["is_safe_rank", "pad_ranks", "safe_rank"]

_KERNEL_RANKS: Final = frozenset({8, 16, 32, 64, 128})


def is_safe_rank(rank: int, tensor_parallel: int = 1) -> bool:
    """Whether LoRAX serves a rank unpadded and with a kernel, on ``tensor_parallel`` GPUs."""
    if rank < 8 * tensor_parallel or (rank > 8 * tensor_parallel and rank % 16):
        return False
    return (
        rank in _KERNEL_RANKS
        or rank / tensor_parallel > max(_KERNEL_RANKS)
        or (rank > max(_KERNEL_RANKS) and rank / tensor_parallel in _KERNEL_RANKS)
    )


def safe_rank(rank: int, tensor_parallel: int = 1) -> int:
    """The smallest power of two that is safe and not below ``rank``; see ``scaling`` for why a power of two."""
    safe = 8
    while safe < rank or not is_safe_rank(safe, tensor_parallel):
        safe *= 2
    return safe


def pad_ranks(modules: Modules, rank: int) -> dict[str, LoraModule]:
    """Add rows of zeros to A and columns of zeros to B up to ``rank``: the product stays the same, bit for bit."""
    return {
        path: module
        if module.rank == rank
        else replace(module, a=_padded(module.a, rank, axis=0), b=_padded(module.b, rank, axis=1))
        for path, module in modules.items()
    }


def _padded(matrix: Matrix, rank: int, *, axis: int) -> Matrix:
    missing = [(0, 0), (0, 0)]
    missing[axis] = (0, rank - matrix.shape[axis])
    return replace(matrix, data=np.pad(matrix.data, missing))
