"""The same adapters under transformers and PEFT alone: what the engine is compared with.

Nothing of the serving path is used here, so that the two cannot share a mistake. PEFT's own semantics hold:
rank-stabilised scaling, DoRA, rank and alpha patterns, saved modules.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sandbox.lorax.contract import AdapterError, AdapterRequest
from sandbox.lorax.model import load_causal_lm

__all__ = ["Reference"]


class Reference:
    """A second copy of the base model, loaded at first use. One call at a time."""

    def __init__(self, model_dir: str | Path, *, device: torch.device, seed: int) -> None:
        """``seed`` is for PEFT's DARE masks."""
        self._model_dir = model_dir
        self._device = device
        self._seed = seed
        self._lock = threading.Lock()
        self._base: nn.Module | None = None

    def logprobs(
        self, adapter: AdapterRequest | None, directories: Sequence[Path], input_ids: list[int]
    ) -> list[float]:
        """Natural log probability of each token after the first.

        Raises AdapterError when PEFT cannot load the files.
        """
        if len(input_ids) < 2:
            return []
        with self._lock, torch.no_grad():
            if self._base is None:
                self._base = load_causal_lm(self._model_dir, device=self._device)
            model: Any = self._base if adapter is None else self._with_adapter(self._base, adapter, directories)
            ids = torch.tensor([input_ids], device=self._device)
            logs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
            chosen: list[float] = logs.gather(1, ids[0, 1:, None])[:, 0].tolist()
            return chosen

    def _with_adapter(self, base: nn.Module, adapter: AdapterRequest, directories: Sequence[Path]) -> nn.Module:
        from peft import PeftModel  # noqa: PLC0415  # seconds to import, and serving does not need it

        # Own modules, shared tensors: PEFT rewires modules, and this keeps the base as it was.
        shared = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
        model: Any = copy.deepcopy(base, shared)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT warns of what the engine has already logged
                names = [f"adapter{index}" for index in range(len(directories))]
                model = PeftModel.from_pretrained(model, str(directories[0]), adapter_name=names[0])
                for name, directory in zip(names[1:], directories[1:], strict=True):
                    model.load_adapter(str(directory), adapter_name=name)
                if len(names) > 1:
                    self._merge(model, names, adapter)
        except Exception as error:
            raise AdapterError(f"PEFT cannot load {'+'.join(adapter.ids)}: {error}") from error
        wrapped: nn.Module = model.eval()
        return wrapped

    def _merge(self, model: Any, names: list[str], adapter: AdapterRequest) -> None:  # noqa: ANN401  # untyped
        strategy = adapter.merge_strategy.lower()
        extras: dict[str, Any] = {}
        if strategy != "linear":
            extras["density"] = adapter.density
        if strategy.endswith("ties"):
            extras["majority_sign_method"] = adapter.majority_sign_method.lower()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            model.add_weighted_adapter(
                names, list(adapter.weights or [1.0] * len(names)), "merged", combination_type=strategy, **extras
            )
        model.set_adapter("merged")
