"""Write an adapter's two files: the same input gives the same bytes, always and everywhere.

The layout is that of https://github.com/huggingface/safetensors: eight bytes of length, JSON padded with blanks to a
multiple of eight, and the tensors without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from slipway.fit.matrices import FLOATS, Matrix

__all__ = ["config_bytes", "safetensors_blocks"]


def config_bytes(members: Mapping[str, object]) -> bytes:
    """Give the text of ``adapter_config.json``, laid out as PEFT does."""
    return json.dumps(members, indent=2, sort_keys=True, allow_nan=False).encode()


def safetensors_blocks(tensors: Mapping[str, Matrix], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Give a safetensors file block by block.

    Wider formats come first, as in the reference, so that every tensor lies on a multiple of its element's size.
    """
    order = sorted(tensors, key=lambda name: (-FLOATS[tensors[name].dtype].stored.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].data.nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": tensors[name].dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in order:
        matrix = tensors[name]
        contiguous = np.ascontiguousarray(matrix.data, FLOATS[matrix.dtype].stored)
        yield contiguous.reshape(-1).view(np.uint8).data
