"""Ranks and widths that LoRAX's CUDA kernels can handle.

Padding: ``utils/punica.py`` (``pad_rank``). Ranks: ``punica_kernels/sgmv_flashinfer/sgmv_config.h`` for prompts and
``punica_kernels/bgmv/bgmv_config.h`` for generated tokens. Widths: the list in the latter.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LARGEST_GRAPH_RANK", "LARGEST_KERNEL_RANK", "WIDTHS", "has_rank_kernel", "padded_rank"]

_SMALLEST: Final = 8
_STEP: Final = 16
_RANKS: Final = frozenset({8, 16, 32, 64, 128})
"""Per GPU. The kernel for prompts also has 96."""

LARGEST_KERNEL_RANK: Final = 128
"""Per GPU; above it a loop in PyTorch takes over, which is slow and has no gaps."""

LARGEST_GRAPH_RANK: Final = 64
"""``compile_max_rank``: CUDA graphs are not used above."""

WIDTHS: Final = frozenset(
    {
        256, 512, 640, 768, 1024, 1152, 1280, 1536, 1728, 1792, 2048, 2304, 2560, 2752, 2816, 3072, 3456, 3584, 4096,
        4480, 4608, 5120, 5504, 5632, 6144, 6848, 6912, 7168, 7680, 8192, 8960, 9216, 9472, 10240, 11008, 12288,
        13696, 13824, 14336, 15360, 16384, 17920, 18944, 20480, 22016, 24576, 27392, 27648, 28672, 32000, 32256,
        32512, 32768, 33024, 35840, 36864, 43264, 49152, 64000, 64256, 64512, 102400, 102656, 102912, 128000, 128256,
        128512,
    }
)  # fmt: skip


def padded_rank(rank: int, tensor_parallel: int = 1) -> int:
    """Give the rank that LoRAX fills up to with zeros, over all GPUs."""
    smallest = _SMALLEST * tensor_parallel
    return smallest if rank <= smallest else -(-rank // _STEP) * _STEP


def has_rank_kernel(rank: int, tensor_parallel: int = 1) -> bool:
    """Whether a rank, once padded, can be computed: by a kernel, or by the slow loop above all kernels.

    Where the GPUs are no power of two, a rank passes that has a kernel as a whole: which share of it each of them
    gets is not known.
    """
    padded = padded_rank(rank, tensor_parallel)
    shared = padded // tensor_parallel if padded % tensor_parallel == 0 else padded
    return padded > LARGEST_KERNEL_RANK * tensor_parallel or bool({shared, padded} & _RANKS)
