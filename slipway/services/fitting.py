"""Fit a bundle: read it, rewrite it, write it into the store, prove what was written, and only then keep it."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import numpy as np

from slipway.adapter import Bundle, Digest
from slipway.adapter_config import CONFIG_NAME, AdapterConfig, ConfigProblem, parse_adapter_config, read_adapter_config
from slipway.base_model import BaseModel
from slipway.errors import StoreError
from slipway.fit import LoraModule, Proof, RawAdapter, Refused, Rewritten, is_safe_rank, prove, rewrite_adapter
from slipway.fit.matrices import FLOATS, Matrix
from slipway.fit.writing import config_bytes, safetensors_blocks
from slipway.lora import sort_tensors
from slipway.services.pickles import PICKLE_NAME, convert_pickle
from slipway.services.stage import Stage
from slipway.services.store import BundleStore
from slipway.tensors import Header, HeaderProblem, read_header, shown

__all__ = ["DTYPES", "WEIGHTS_NAME", "Fitted", "Refused", "fit_bundle"]

WEIGHTS_NAME: Final = "adapter_model.safetensors"

DTYPES: Final[Mapping[str, str]] = {"bfloat16": "BF16", "float16": "F16"}
"""Number formats that may be asked for, as torch names them."""

_SAVE_SAFELY: Final = "Save the adapter again with save_pretrained(..., safe_serialization=True)."


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A servable form with the same function.

    Attributes:
        bundle: In the store.
        derived_from: Digest of the bundle that it was made from; also in the weights file's metadata.
        changes: What was changed, one sentence each.
        proof: That the function is the same.
    """

    bundle: Bundle
    derived_from: Digest
    changes: tuple[str, ...]
    proof: Proof


def fit_bundle(
    bundle: Bundle,
    base: BaseModel,
    store: BundleStore,
    *,
    tensor_parallel: int = 1,
    dtype: str | None = None,
) -> Fitted | Refused:
    """Bring a bundle into the form that LoRAX serves as trained.

    The same bundle, base and settings always give the same bytes, so doing it again makes no second bundle.

    Args:
        bundle: As pulled; it is not changed.
        base: What it is to be served on.
        store: Where the result is kept.
        tensor_parallel: GPUs that share one replica.
        dtype: A key of ``DTYPES`` to round all matrices to; lossy. None keeps what they have.

    Returns:
        The result with its proof, or why there is none.

    Raises:
        ConfigurationError: The weights are a pickle and torch is not installed.
        StoreError: The bundle cannot be read, or the store cannot be written.
    """
    with store.stage() as stage:
        adapter = _read(bundle, stage.scratch)
        if isinstance(adapter, Refused):
            return adapter
        rewritten = rewrite_adapter(
            adapter, base, tensor_parallel=tensor_parallel, dtype=None if dtype is None else DTYPES[dtype]
        )
        if isinstance(rewritten, Refused):
            return rewritten
        _write(rewritten, stage, derived_from=bundle.digest)
        seed = int(bundle.digest.removeprefix("sha256:")[:8], 16)
        proof = _prove(rewritten, stage.directory, seed=seed, tensor_parallel=tensor_parallel)
        if isinstance(proof, Refused):
            return proof
        fitted = store.commit(stage, uri=bundle.uri, resolved_revision=bundle.resolved_revision)
    return Fitted(
        bundle=fitted,
        derived_from=bundle.digest,
        changes=tuple(change.message for change in rewritten.changes),
        proof=proof,
    )


def _read(bundle: Bundle, scratch: Path) -> RawAdapter | Refused:
    names = [file.name for file in bundle.files]
    text = (bundle.directory / CONFIG_NAME).read_bytes() if CONFIG_NAME in names else None
    if text is None:
        return Refused(reasons=(f"there is no {CONFIG_NAME}. Give the directory that PEFT's save_pretrained wrote.",))
    config = parse_adapter_config(text)
    if isinstance(config, ConfigProblem):
        return Refused(reasons=(f"{CONFIG_NAME} cannot be read: {config.message}. Save the adapter again.",))
    paths = [bundle.directory / name for name in names if name.endswith(".safetensors")]
    is_pickle = not paths and PICKLE_NAME in names
    if is_pickle:
        converted = scratch / WEIGHTS_NAME
        if reason := convert_pickle(bundle.directory / PICKLE_NAME, converted):
            return Refused(reasons=(f"{PICKLE_NAME} is not converted: {reason}. {_SAVE_SAFELY}",))
        paths = [converted]
    if not paths:
        return Refused(reasons=(f"there are no weights. Give the directory that has {WEIGHTS_NAME}.",))
    tensors: dict[str, Mapping[str, Matrix]] = {}
    for path in paths:
        header = read_header(path)
        if isinstance(header, HeaderProblem):
            return Refused(reasons=(f"{shown(path.name)} cannot be read: {header.message}. Save it again.",))
        tensors[path.name] = _map(path, header)
    members = json.loads(text.decode("utf-8-sig"))
    return RawAdapter(config=config, members=members, tensors=tensors, is_pickle=is_pickle)


def _map(path: Path, header: Header) -> dict[str, Matrix]:
    """Give the tensors of a file without reading it; what is no matrix of floats stays a row of bytes."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    matrices = {}
    for tensor in header.tensors:
        form = FLOATS.get(tensor.dtype)
        stored = np.dtype("u1") if form is None else form.stored
        count = (tensor.end - tensor.start) // stored.itemsize
        flat = np.frombuffer(content, stored, count, tensor.start) if count else np.empty(0, stored)
        matrices[tensor.name] = Matrix(dtype=tensor.dtype, data=flat if form is None else flat.reshape(tensor.shape))
    return matrices


def _write(rewritten: Rewritten, stage: Stage, *, derived_from: Digest) -> None:
    metadata = {
        "format": "pt",
        "derived_from": derived_from,
        "fitted": ",".join(change.kind for change in rewritten.changes),
    }
    _add(stage, CONFIG_NAME, [config_bytes(rewritten.config)])
    _add(stage, WEIGHTS_NAME, safetensors_blocks(rewritten.tensors, metadata))


def _add(stage: Stage, name: str, blocks: Iterable[bytes | memoryview]) -> None:
    path = stage.scratch / f"new-{name}"
    try:
        with path.open("wb") as file:
            file.writelines(blocks)
        with FileIO(path) as source:
            stage.add(name, source)
        path.unlink()
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}.", fix="Free some space, or set SLIPWAY_HOME to another disk."
        ) from error


def _prove(rewritten: Rewritten, directory: Path, *, seed: int, tensor_parallel: int) -> Proof | Refused:
    """Read what was written as a server would, and hold it against the original."""
    config = read_adapter_config(directory / CONFIG_NAME)
    header = read_header(directory / WEIGHTS_NAME)
    if not isinstance(config, AdapterConfig) or isinstance(header, HeaderProblem):
        return Refused(
            reasons=("what was written cannot be read back. This is a defect in Slipway; please report it.",)
        )
    matrices = _map(directory / WEIGHTS_NAME, header)
    pairs = sort_tensors(header.tensors).pairs
    fitted = {
        path: LoraModule(a=matrices[pair.a.name], b=matrices[pair.b.name], scale=config.lora_alpha / config.r)
        for path, pair in pairs.items()
        if pair.a is not None and pair.b is not None
    }
    proof = prove(rewritten.original, fitted, seed=seed)
    failures = list(proof.failures)
    if not is_safe_rank(config.r, tensor_parallel) or any(module.rank != config.r for module in fitted.values()):
        failures.append(f"rank {config.r} is not the one safe rank of all modules")
    if failures:
        return Refused(
            reasons=(f"the rewrite could not be proven to compute the same, so nothing was written: {failures[0]}.",)
        )
    return proof
