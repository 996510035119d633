"""What the rules need to know about a serving deployment."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServerFacts"]


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """One serving deployment, as far as an adapter depends on it. The defaults are LoRAX's.

    Attributes:
        tensor_parallel: Number of GPUs that share the model (``--num-shard``).
        gpu_memory_bytes: Total memory of one GPU; None where it is not known, and then nothing is said about memory.
        adapter_memory_fraction: Share of it that is reserved for adapters (``--adapter-memory-fraction``).
        preloads_adapters: Whether it was started with ``--preloaded-adapter-ids``.
        medusa_heads: Heads of the Medusa adapter that it was started with; None without one.
    """

    tensor_parallel: int = 1
    gpu_memory_bytes: int | None = None
    adapter_memory_fraction: float = 0.1
    preloads_adapters: bool = False
    medusa_heads: int | None = None

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1:
            raise ValueError(f"tensor_parallel is {self.tensor_parallel}, and a server has at least one GPU")
        if not 0 < self.adapter_memory_fraction <= 1:
            raise ValueError(f"adapter_memory_fraction is {self.adapter_memory_fraction}, not above 0 and at most 1")
