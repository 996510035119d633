"""Merging several adapters into one, computed as LoRAX computes it.

Formulas follow predibase/lorax, server/lorax_server/utils/merges: A and B are merged separately, so weights act
quadratically on the update; DARE's rescaling is computed and thrown away, so a density below 1 shrinks the update; an
omitted density is 0 and leaves nothing. The rank and alpha of the first adapter hold for the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sandbox.lorax.adapters import AdapterFiles, LoraConfig
from sandbox.lorax.contract import AdapterError, AdapterRequest

__all__ = ["merge"]

_STRATEGIES = ("linear", "ties", "dare_linear", "dare_ties")
_SIGN_METHODS = ("total", "frequency")


def merge(adapters: Sequence[AdapterFiles], request: AdapterRequest, generator: torch.Generator) -> AdapterFiles:
    """Merge in the order of the request. DARE draws its masks from ``generator``.

    Raises AdapterError for unequal ranks, missing target modules, shapes that do not stack and unknown settings.
    """
    strategy, sign_method = request.merge_strategy.lower(), request.majority_sign_method.lower()
    if strategy not in _STRATEGIES or sign_method not in _SIGN_METHODS:
        raise AdapterError(f"unknown merge_strategy {strategy!r} or majority_sign_method {sign_method!r}")
    ranks = {adapter.config.rank for adapter in adapters}
    if len(ranks) > 1:
        raise AdapterError(f"unable to merge adapters, lora configs have different ranks: {ranks}")
    targets = _union_of_targets([adapter.config for adapter in adapters])
    weights = torch.tensor(request.weights or [1.0] * len(adapters))

    modules = dict.fromkeys(module for adapter in adapters for module in adapter.pairs)
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for module in modules:
        having = [index for index, adapter in enumerate(adapters) if module in adapter.pairs]
        merged = []
        for side in (0, 1):
            tensors = [adapters[index].pairs[module][side].float() for index in having]
            try:
                stacked = torch.stack([_pruned(tensor, strategy, request.density, generator) for tensor in tensors])
            except RuntimeError as error:
                raise AdapterError(f"unable to merge adapters at {module}: {error}") from error
            merged.append(_combine(stacked, weights[having], strategy, sign_method))
        pairs[module] = (merged[0], merged[1])
    first = adapters[0].config
    return AdapterFiles(
        adapter_id="+".join(request.ids),
        config=LoraConfig(rank=first.rank, alpha=first.alpha, base_model=first.base_model, target_modules=targets),
        pairs=pairs,
        size_bytes=sum(adapter.size_bytes for adapter in adapters),
    )


def _union_of_targets(configs: Sequence[LoraConfig]) -> list[str]:
    try:
        if all(len(config.target_modules) == 0 for config in configs):
            raise AdapterError("unable to merge adapters, lora configs have no target modules")
        return sorted({str(module) for config in configs for module in config.target_modules})
    except TypeError as error:
        raise AdapterError(str(error)) from error


def _pruned(tensor: torch.Tensor, strategy: str, density: float, generator: torch.Generator) -> torch.Tensor:
    """Keep the largest (ties) or a random (dare) share of the values; nothing is rescaled."""
    if strategy == "linear" or density >= 1:
        return tensor
    if density < 0:
        raise AdapterError(f"Density should be >= 0, got {density}")
    if strategy == "ties":
        flat = tensor.reshape(-1)
        kept = flat.abs().topk(int(density * flat.numel())).indices
        mask = torch.zeros_like(flat)
        mask[kept] = 1
        return tensor * mask.reshape(tensor.shape)
    return tensor * torch.bernoulli(torch.full_like(tensor, density), generator=generator)


def _combine(stacked: torch.Tensor, weights: torch.Tensor, strategy: str, sign_method: str) -> torch.Tensor:
    """Weighted sum, or for the ties strategies the mean over the adapters that agree with the elected sign."""
    weighted = stacked * weights.view(-1, *[1] * (stacked.dim() - 1))
    if not strategy.endswith("ties"):
        return weighted.sum(dim=0)
    sign = stacked.sign()
    votes = (stacked if sign_method == "total" else sign).sum(dim=0)
    agrees = sign == torch.where(votes >= 0, 1, -1)
    return (weighted * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
