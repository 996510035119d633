"""Which modules LoRAX looks for LoRA matrices of, by the base's family.

From ``ADAPTER_LAYERS`` and ``adapter_target_to_layer`` in ``server/lorax_server/models/*.py``. A type is one kind of
linear layer over all layers of a model; LoRAX loads type after type, in this order, and all layers of a type or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from slipway.base_model import BaseModel

__all__ = ["FAMILIES", "WITHOUT_ADAPTERS", "WITHOUT_RESERVATION", "group_by_type", "served_types", "type_of"]

_SEVEN: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SEVEN_AND_HEAD: Final = (*_SEVEN, "lm_head")
_PHI: Final = ("q_proj", "k_proj", "v_proj", "dense", "mlp.fc1", "mlp.fc2", "lm_head")

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
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
    "qwen": ("attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2", "mlp.c_proj", "lm_head"),
    "cohere": ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "lm_head"),
    "dbrx": ("out_proj", "lm_head"),
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "mllama": (*_SEVEN, "fc1", "fc2"),
    "xlm-roberta": ("attention.self.query", "attention.self.key", "attention.self.value"),
}
"""Ends of module paths. Left out is what never matches: cohere's gate and up, dbrx's Wqkv, mllama's head."""

WITHOUT_ADAPTERS: Final = frozenset(
    {
        "bert", "distilbert", "falcon", "galactica", "gpt_bigcode", "gpt_neox", "llava", "llava_next", "mpt", "opt",
        "santacoder", "t5",
    }
)  # fmt: skip
"""Served, and every adapter refused."""

WITHOUT_RESERVATION: Final = frozenset({"bloom"})
"""Declared to take adapters, on a path that reserves no memory for any."""


@lru_cache(maxsize=16_384)
def type_of(path: str, family: str) -> str | None:
    """Name the type that a module belongs to; None for one that LoRAX does not look for in this family."""
    ending = next((end for end in FAMILIES.get(family, ()) if path == end or path.endswith("." + end)), None)
    if ending is None or ".experts." in path:
        return None
    return f"vision {ending}" if "vision_model" in path.split(".") else ending


def served_types(base: BaseModel) -> Mapping[str, tuple[str, ...]]:
    """Group the base's modules by type, in LoRAX's order; empty where the modules or the family are not known."""
    return group_by_type(base.modules or (), base.model_type)


def group_by_type(paths: Iterable[str], family: str) -> Mapping[str, tuple[str, ...]]:
    """Group module paths by type, in LoRAX's order."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        if (kind := type_of(path, family)) is not None:
            groups.setdefault(kind, []).append(path)
    order = FAMILIES.get(family, ())
    kinds = sorted(groups, key=lambda kind: (kind.startswith("vision "), order.index(kind.removeprefix("vision "))))
    return {kind: tuple(groups[kind]) for kind in kinds}
