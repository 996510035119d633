"""Work out a base model's linear layers from its ``config.json`` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Shape", "derive_modules"]

Shape = tuple[int, int]
"""Of a linear layer: ``(out, in)``."""

_MAX_LAYERS: Final = 4096
_MAX_SIZE: Final = 1 << 24
"""A config that says more is nonsense, and must not make us fill the memory with its layers."""


def derive_modules(config: Mapping[str, object]) -> dict[str, Shape] | None:
    """Work out the linear layers of a known family from its ``config.json``.

    Follows the constructors in transformers' ``modeling_llama.py`` and its relatives.

    Returns:
        Path and shape of every linear layer; None for a family that is not known here or a config that lacks a size.
    """
    name = str(config.get("model_type"))
    family = _FAMILIES.get(name)
    keys = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size", "intermediate_size")
    hidden, heads, layers, vocabulary, inner = (_size(config.get(key)) for key in keys)
    if not (family and hidden and heads and layers and vocabulary and inner) or layers > _MAX_LAYERS:
        return None
    head = _size(config.get("head_dim")) or (0 if name in _HEAD_WIDTH_OF_THEIR_OWN else hidden // heads)
    if not head:
        return None
    key_value = (_size(config.get("num_key_value_heads")) or heads) * head
    layer = family(_Sizes(hidden=hidden, query=heads * head, key_value=key_value, inner=inner))
    modules = {f"model.layers.{number}.{name}": shape for number in range(layers) for name, shape in layer.items()}
    return modules | {"lm_head": (vocabulary, hidden)}


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    hidden: int
    query: int
    key_value: int
    inner: int


def _llama_layer(sizes: _Sizes) -> dict[str, Shape]:
    return {
        "self_attn.q_proj": (sizes.query, sizes.hidden),
        "self_attn.k_proj": (sizes.key_value, sizes.hidden),
        "self_attn.v_proj": (sizes.key_value, sizes.hidden),
        "self_attn.o_proj": (sizes.hidden, sizes.query),
        "mlp.gate_proj": (sizes.inner, sizes.hidden),
        "mlp.up_proj": (sizes.inner, sizes.hidden),
        "mlp.down_proj": (sizes.hidden, sizes.inner),
    }


def _phi3_layer(sizes: _Sizes) -> dict[str, Shape]:
    return {
        "self_attn.qkv_proj": (sizes.query + 2 * sizes.key_value, sizes.hidden),
        "self_attn.o_proj": (sizes.hidden, sizes.query),
        "mlp.gate_up_proj": (2 * sizes.inner, sizes.hidden),
        "mlp.down_proj": (sizes.hidden, sizes.inner),
    }


_FAMILIES: Final[Mapping[str, Callable[[_Sizes], dict[str, Shape]]]] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "granite", "cohere", "solar"), _llama_layer
    ),
    "phi3": _phi3_layer,
}


_HEAD_WIDTH_OF_THEIR_OWN: Final = frozenset({"gemma", "gemma2", "qwen3"})
"""Where ``head_dim`` is not the hidden size over the number of heads when the config leaves it out."""


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE else None
