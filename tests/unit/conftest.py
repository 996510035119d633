"""Factories that several unit tests use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from slipway import javascript
from slipway.adapter import AdapterUri, Bundle, Source
from slipway.base_model import BaseModel
from slipway.base_shapes import derive_modules
from slipway.services.local import LocalSource
from slipway.services.store import BundleStore

BASE_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
}


@pytest.fixture
def base() -> BaseModel:
    """A base model that the default adapter fits."""
    return BaseModel(
        id="org/base",
        aliases=("mirror/base",),
        model_type="llama",
        architectures=("LlamaForCausalLM",),
        hidden_size=32,
        layers=2,
        vocab_size=64,
        modules=derive_modules(BASE_CONFIG),
    )


def lora_tensors(
    *,
    rank: int = 8,
    types: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj"),
    layers: int = 2,
    dtype: Any = "<f4",
) -> dict[str, np.ndarray]:
    """The tensors of a sound adapter on ``BASE_CONFIG``, of the size that training gives them."""
    rng = np.random.default_rng(0)
    shapes = derive_modules({**BASE_CONFIG, "num_hidden_layers": layers}) or {}
    tensors = {}
    for layer in range(layers):
        for kind in types:
            rows, columns = shapes[f"model.layers.{layer}.{kind}"]
            prefix = f"base_model.model.model.layers.{layer}.{kind}"
            tensors[f"{prefix}.lora_A.weight"] = (rng.standard_normal((rank, columns)) / 8).astype(dtype)
            tensors[f"{prefix}.lora_B.weight"] = (rng.standard_normal((rows, rank)) / 8).astype(dtype)
    return tensors


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """Write an adapter's directory: sound by default, and as broken as the test asks for.

    Args:
        rank: Of tensors and config.
        config: Changes to the config; a value of ``...`` deletes the key.
        tensors: Changes to the tensors; ``None`` deletes one.
        files: Further files, or other contents for the usual ones; ``None`` deletes one.
    """
    count = 0

    def make(
        *,
        rank: int = 8,
        config: Mapping[str, Any] | None = None,
        tensors: Mapping[str, np.ndarray | None] | None = None,
        files: Mapping[str, bytes | None] | None = None,
        **shape: Any,
    ) -> Path:
        nonlocal count
        count += 1
        directory = tmp_path / f"adapter-{count}"
        directory.mkdir()
        members = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "org/base",
            "r": rank,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj"],
            **(config or {}),
        }
        kept = {key: value for key, value in members.items() if value is not ...}
        (directory / "adapter_config.json").write_text(json.dumps(kept))
        arrays = {**lora_tensors(rank=rank, **shape), **(tensors or {})}
        save_file(
            {name: array for name, array in arrays.items() if array is not None},
            directory / "adapter_model.safetensors",
        )
        for name, content in (files or {}).items():
            if content is None:
                (directory / name).unlink()
            else:
                (directory / name).write_bytes(content)
        return directory

    return make


@pytest.fixture
def pull(tmp_path: Path) -> Callable[[Path], Bundle]:
    """Bring a directory into a store of the test's own."""
    store = BundleStore(root=tmp_path / "home" / "bundles")

    def run(directory: Path) -> Bundle:
        return asyncio.run(LocalSource().pull(AdapterUri(source=Source.LOCAL, location=str(directory)), store))

    return run


@pytest.fixture
def hasty_scripts(monkeypatch):
    """A tenth of the time that JavaScript has; messages still say a second. For what never ends, by any limit."""
    monkeypatch.setattr(javascript, "TIME_LIMIT_SECONDS", 0.1)
    monkeypatch.setattr(javascript, "_per_thread", javascript._PerThread())  # contexts made with the limit
