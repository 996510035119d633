"""The base model: any causal language model that transformers loads, run over rows with an adapter each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from sandbox.lorax.families import projection_types
from sandbox.lorax.kv import RowCache
from sandbox.lorax.lora import LoraBank, linear_shape

__all__ = ["BaseModel", "load_causal_lm"]


def load_causal_lm(model_dir: str | Path, *, device: torch.device) -> nn.Module:
    """Load the weights for inference: float32 on a CPU, the stored type on a GPU."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        str(model_dir), dtype=torch.float32 if device.type == "cpu" else "auto", trust_remote_code=False
    )
    model.requires_grad_(False)
    return model.eval().to(device)


class BaseModel:
    """Weights, tokenizer, LoRA slots and cache of one base model.

    ``prefill`` and ``decode`` belong to the scheduler's thread; everything else may be read from any.
    """

    def __init__(self, model_dir: str | Path, *, device: torch.device) -> None:
        """Load from a local directory. Raises ValueError for a model without a plain key/value cache."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(model_dir), trust_remote_code=False)
        module: Any = load_causal_lm(model_dir, device=device)
        self.module: nn.Module = module
        self.config: Any = module.config
        if getattr(self.module, "_is_stateful", False):
            raise ValueError(f"{self.config.model_type} keeps a recurrent state, which this engine cannot batch by row")
        self.device = device
        parameter = next(self.module.parameters())
        self.dtype = parameter.dtype
        shapes = {name: shape for name, part in self.module.named_modules() if (shape := linear_shape(part))}
        self.types = projection_types(self.config.model_type, shapes)
        self.shapes = {name: shapes[name] for names in self.types.values() for name in names}
        self.lora = LoraBank(self.module, self.types, parameter)
        self.cache = RowCache()
        accepted = set(inspect.signature(self.module.forward).parameters)
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted
        self._full_mask = self._takes_positions and _has_only_full_attention(self.module, self.config)
        self._starts = torch.empty(0)
        self._starts_epoch = -1

    @property
    def text_config(self) -> Any:  # noqa: ANN401  # transformers is untyped here
        """The configuration of the language model itself, inside a multimodal one."""
        return self.config.get_text_config()

    @property
    def vocabulary_size(self) -> int:
        """Width of the logits, which may exceed the tokenizer's vocabulary."""
        head: Any = getattr(self.module, "get_output_embeddings", lambda: None)()
        weight = getattr(head, "weight", None)
        return int(self.text_config.vocab_size if weight is None else weight.shape[0])

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a text: the generation configuration's and the tokenizer's."""
        generation: Any = getattr(self.module, "generation_config", None)
        configured = getattr(generation, "eos_token_id", None)
        ids = set(configured if isinstance(configured, list) else [configured])
        ids.add(self.tokenizer.eos_token_id)
        return frozenset(int(token) for token in ids if token is not None)

    def prefill(self, prompts: Sequence[Sequence[int]], *, all_logits: bool) -> torch.Tensor:
        """Append one row per prompt and return logits ``[rows, columns or 1, vocabulary]``, right-aligned.

        The rows' LoRA slots must have been written.
        """
        first = self.cache.rows
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths)
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        self.cache.open_prefill(lengths)
        self.lora.select(first, len(prompts))
        try:
            starts = torch.tensor(self.cache.starts[first:], device=self.device)[:, None]
            return self._forward(torch.tensor(padded, device=self.device), starts, keep=0 if all_logits else 1)
        except BaseException:
            for row in reversed(range(first, first + len(prompts))):
                self.cache.release(row)
            raise

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Feed every active row its newest token and return logits ``[rows, vocabulary]``."""
        self.cache.open_decode()
        if self._starts_epoch != self.cache.epoch:
            self.lora.select(0, self.cache.rows)
            self._starts = torch.tensor(self.cache.starts, device=self.device)[:, None]
            self._starts_epoch = self.cache.epoch
        return self._forward(torch.tensor(tokens, device=self.device)[:, None], self._starts, keep=1)[:, -1]

    def release(self, row: int) -> None:
        """Free a row; the last row takes its number."""
        last = self.cache.rows - 1
        self.cache.release(row)
        if row == last:
            self.lora.clear(row)
        else:
            self.lora.move(last, row)

    def clear(self) -> None:
        """Forget all rows."""
        for row in range(self.cache.rows):
            self.lora.clear(row)
        self.cache.clear()

    def _forward(self, input_ids: torch.Tensor, starts: torch.Tensor, *, keep: int) -> torch.Tensor:
        new = input_ids.shape[1]
        start, end = self.cache.window
        columns = torch.arange(start, end, device=self.device)
        arguments: dict[str, Any] = {
            "input_ids": input_ids,
            "past_key_values": self.cache,
            "use_cache": True,
            "cache_position": columns[-new:] - start,
            "attention_mask": self._mask(columns, starts, new),
        }
        if self._takes_positions:
            arguments["position_ids"] = (columns[-new:] - starts).clamp_(min=0)
        if self._takes_keep:
            arguments["logits_to_keep"] = keep
        logits: torch.Tensor = self.module(**arguments).logits
        return logits[:, -1:] if keep else logits

    def _mask(self, columns: torch.Tensor, starts: torch.Tensor, new: int) -> torch.Tensor | None:
        """None for rows of equal length; else the four-dimensional mask, or for other attention kinds the flat one."""
        if self._full_mask and bool((starts == columns[0]).all()):
            return None
        seen = columns >= starts
        if not self._full_mask:
            return seen.long()
        allowed = seen[:, None, None, :]
        if new > 1:
            allowed = allowed & (columns <= columns[-new:, None])
        # The smallest number, not minus infinity: a padding position that sees nothing must stay finite.
        return torch.where(allowed, 0.0, torch.finfo(self.dtype).min).to(self.dtype)


def _has_only_full_attention(module: nn.Module, config: Any) -> bool:  # noqa: ANN401  # transformers is untyped here
    """Whether one causal mask fits every layer, so that it can be made here instead of by transformers at each step."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or []
    if any(kind != "full_attention" for kind in kinds) or getattr(text, "attention_chunk_size", None):
        return False
    if getattr(text, "sliding_window", None) and not kinds:
        return False
    kind = text._attn_implementation  # noqa: SLF001  # there is no public name for it
    return bool(getattr(module, "_supports_attention_backend", False)) and kind in {"sdpa", "eager"}
