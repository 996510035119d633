"""Adapters to measure with: real files of the sandbox's base model, different from each other, of any size."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

__all__ = ["BASE_DIRECTORY", "BASE_ID", "WEIGHTS_NAME", "write_adapter", "write_large_adapter", "write_variant"]

BASE_ID = "slipway/tiny-llama"
BASE_DIRECTORY = Path(__file__).parents[2] / "sandbox" / "base_model"

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
RANK = 8


def write_adapter(directory: Path, seed: int) -> Path:
    """Write a LoRA adapter of rank 8 on all projections of the sandbox's base, with random weights.

    Args:
        directory: Made by this.
        seed: Two seeds give two adapters.
    """
    base = json.loads((BASE_DIRECTORY / "config.json").read_text())
    hidden, inner = base["hidden_size"], base["intermediate_size"]
    attended = base["num_attention_heads"] * base["head_dim"]
    shared = base["num_key_value_heads"] * base["head_dim"]
    shapes = {
        "self_attn.q_proj": (hidden, attended), "self_attn.k_proj": (hidden, shared),
        "self_attn.v_proj": (hidden, shared), "self_attn.o_proj": (attended, hidden),
        "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner), "mlp.down_proj": (inner, hidden),
    }  # fmt: skip
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(base["num_hidden_layers"]):
        for name, (inputs, outputs) in shapes.items():
            stem = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{stem}.lora_A.weight"] = random.standard_normal((RANK, inputs), np.float32) * 0.02
            tensors[f"{stem}.lora_B.weight"] = random.standard_normal((outputs, RANK), np.float32) * 0.02
    directory.mkdir(parents=True)
    _write_config(directory, [name.partition(".")[2] for name in shapes])
    (directory / WEIGHTS_NAME).write_bytes(_safetensors(tensors))
    return directory


def write_variant(source: Path, directory: Path, number: int) -> Path:
    """Copy an adapter with other bytes and the same function: its header says which copy it is.

    Args:
        source: A directory with an adapter.
        directory: Made by this.
        number: Two numbers give two digests.
    """
    content = (source / WEIGHTS_NAME).read_bytes()
    length = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {**header.get("__metadata__", {}), "copy": str(number)}
    directory.mkdir(parents=True)
    (directory / CONFIG_NAME).write_bytes((source / CONFIG_NAME).read_bytes())
    (directory / WEIGHTS_NAME).write_bytes(_framed(header) + content[8 + length :])
    return directory


def write_large_adapter(directory: Path, size_bytes: int) -> Path:
    """Write an adapter of about ``size_bytes``: one tensor of random bytes, as no compression on the way may help."""
    directory.mkdir(parents=True)
    _write_config(directory, ["q_proj"])
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    header = {stem: {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}
    with (directory / WEIGHTS_NAME).open("wb") as file:
        file.write(_framed(header))
        for start in range(0, size_bytes, 1 << 20):
            file.write(os.urandom(min(1 << 20, size_bytes - start)))
    return directory


def _write_config(directory: Path, modules: list[str]) -> None:
    config = {
        "base_model_name_or_path": BASE_ID, "bias": "none", "lora_alpha": 2 * RANK, "lora_dropout": 0.0,
        "peft_type": "LORA", "r": RANK, "target_modules": modules, "task_type": "CAUSAL_LM",
    }  # fmt: skip
    (directory / CONFIG_NAME).write_text(json.dumps(config, indent=2))


def _safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    header, blocks, offset = {}, [], 0
    for name, tensor in tensors.items():
        blocks.append(np.ascontiguousarray(tensor, np.float32).tobytes())
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, offset + len(blocks[-1])]}
        offset += len(blocks[-1])
    return _framed(header) + b"".join(blocks)


def _framed(header: Mapping[str, object]) -> bytes:
    """The start of a safetensors file: length and header, padded so that the data are aligned."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
