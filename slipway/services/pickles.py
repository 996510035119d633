"""Convert ``adapter_model.bin`` without ever opening it in this process.

A pickle can run code where it is read. So a child of its own reads it: with an empty environment, which has no secrets
to take, with limits on memory, time and disk, without network and other processes, and with torch's reader that builds
tensors and refuses all else. What the child writes is then treated as any other file of unknown origin.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from slipway.errors import ConfigurationError, StoreError
from slipway.services import pickle_child
from slipway.tensors import shown

__all__ = ["PICKLE_NAME", "convert_pickle"]

PICKLE_NAME: Final = "adapter_model.bin"

MAX_PICKLE_BYTES: Final = 8 << 30
CPU_SECONDS: Final = 120
WALL_SECONDS: Final = 300.0
"""The largest allowed pickle is read and written within both on a slow disk; importing torch takes seconds."""

_SPARE_BYTES: Final = 512 << 20
"""For what torch imports on first use."""


def convert_pickle(pickle: Path, target: Path, *, cpu_seconds: int = CPU_SECONDS) -> str:
    """Write the tensors of a pickle as safetensors.

    Args:
        pickle: The file; read by the child only.
        target: Written by the child; not complete unless the conversion succeeds.
        cpu_seconds: How long the child may compute.

    Returns:
        Why the pickle is refused; empty when it was converted.

    Raises:
        ConfigurationError: torch is not installed.
        StoreError: The pickle cannot be read.
    """
    try:
        size = pickle.stat().st_size
    except OSError as error:
        raise StoreError(f"{pickle} cannot be read: {error.strerror}.") from error
    if size > MAX_PICKLE_BYTES:
        return f"it has {size:,} bytes, and more than {MAX_PICKLE_BYTES:,} are not converted"
    limits = (4 * size + _SPARE_BYTES, cpu_seconds, size + (16 << 20))
    command = [sys.executable, "-I", pickle_child.__file__, str(pickle), str(target), *map(str, limits)]
    try:
        done = subprocess.run(  # noqa: S603  # our own script on a file that is ours
            command, capture_output=True, env={}, stdin=subprocess.DEVNULL, timeout=WALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"reading it took longer than {WALL_SECONDS:g} s"
    if done.returncode == pickle_child.NO_TORCH:
        raise ConfigurationError(
            f"{pickle.name} is a pickle, and converting it needs torch, which is not installed.",
            fix="Install it with `pip install 'slipway[sandbox]'`, or save the adapter again with "
            "save_pretrained(..., safe_serialization=True).",
        )
    if done.returncode == pickle_child.REFUSED:
        return f"its reader says {shown(done.stderr.decode(errors='replace'))}"
    if done.returncode < 0:
        return f"its reader was ended by signal {-done.returncode}, as when memory, time or disk run out"
    return "" if done.returncode == 0 else f"its reader ended with code {done.returncode}"
