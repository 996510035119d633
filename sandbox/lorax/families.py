"""Which linear layers LoRAX lets an adapter touch, per model family.

A *projection type* is one kind of linear layer over all blocks ("q_proj"). LoRAX loads types in a fixed order, and both
dropping and mis-scaling follow that order, so the order here matters. Read from ``ADAPTER_LAYERS`` and
``adapter_target_to_layer`` in predibase/lorax, server/lorax_server/models/*.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["REFUSED_FAMILIES", "projection_types"]

_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SEVEN_AND_HEAD = (*_SEVEN, "lm_head")
_PHI = ("q_proj", "k_proj", "v_proj", "dense", "mlp.fc1", "mlp.fc2", "lm_head")

_FAMILIES: dict[str, tuple[str, ...]] = {
    "llama": _SEVEN_AND_HEAD,
    "mistral": _SEVEN_AND_HEAD,
    "qwen2": _SEVEN_AND_HEAD,
    "granite": _SEVEN_AND_HEAD,
    "gemma": _SEVEN,
    "gemma2": _SEVEN,
    "solar": _SEVEN,
    "mixtral": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "phi": _PHI,
    "phi-msft": _PHI,
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "cohere": ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "lm_head"),
    "dbrx": ("out_proj", "lm_head"),
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
}

_NO_ADAPTERS = "This model does not support adapter loading."

REFUSED_FAMILIES: dict[str, str] = {
    "bloom": "Memory reserved for adapters is 0. This model cannot load adapters dynamically.",
    "falcon": _NO_ADAPTERS,
    "gpt_bigcode": _NO_ADAPTERS,
    "gpt_neox": _NO_ADAPTERS,
    "mpt": _NO_ADAPTERS,
    "opt": _NO_ADAPTERS,
}
"""Families that LoRAX serves without adapters, with its answer to a request that names one."""

_EXPERTS = re.compile(r"\.experts\.\d+\.")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def projection_types(model_type: str, linear_layers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Group the names of a model's linear layers into projection types, each in layer order.

    Families that LoRAX knows get its types in its order; for any other family every linear layer counts, grouped by its
    name with the block number left out. Routed experts are never included: their rows are tokens, not requests.
    """
    names = [name for name in linear_layers if not _EXPERTS.search(name)]
    listed = _FAMILIES.get(model_type)
    if listed is None:
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(_NUMBER.sub("*", name), []).append(name)
        return {kind: tuple(members) for kind, members in groups.items()}
    members_of = {kind: tuple(name for name in names if name == kind or name.endswith("." + kind)) for kind in listed}
    return {kind: members for kind, members in members_of.items() if members}
