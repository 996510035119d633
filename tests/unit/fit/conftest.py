"""Factories of the fit tests."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slipway.adapter_config import parse_adapter_config
from slipway.fit import LoraModule, RawAdapter, rewrite_adapter
from slipway.fit.matrices import Matrix, round_to
from slipway.services.fitting import fit_bundle
from slipway.services.store import BundleStore


def matrix(values, dtype="F32") -> Matrix:
    return round_to(np.asarray(values, np.float64), dtype)


@pytest.fixture
def make_module():
    """A module of random numbers."""

    def make(*, rank=4, rows=6, columns=5, scale=2.0, dtype="F32", seed=0):
        rng = np.random.default_rng(seed)
        return LoraModule(
            a=matrix(rng.standard_normal((rank, columns)), dtype),
            b=matrix(rng.standard_normal((rows, rank)), dtype),
            scale=scale,
        )

    return make


@pytest.fixture
def rewrite(base):
    """Rewrite tensors of float64 values under a config, in memory; tensors are those of one file."""

    def run(tensors, *, dtype="F32", on=base, tensor_parallel=1, to=None, is_pickle=False, **config):
        members = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8, "lora_alpha": 16, **config}
        members = {key: value for key, value in members.items() if value is not ...}
        file = {name: value if isinstance(value, Matrix) else matrix(value, dtype) for name, value in tensors.items()}
        adapter = RawAdapter(
            config=parse_adapter_config(json.dumps(members).encode()),
            members=members,
            tensors={"adapter_model.safetensors": file},
            is_pickle=is_pickle,
        )
        return rewrite_adapter(adapter, on, tensor_parallel=tensor_parallel, dtype=to)

    return run


@pytest.fixture
def store(tmp_path):
    return BundleStore(root=tmp_path / "home" / "bundles")


@pytest.fixture
def fit(make_adapter, pull, store, base):
    """Write an adapter, pull it and fit it."""

    def run(*, directory=None, on=base, tensor_parallel=1, dtype=None, **changes):
        bundle = pull(directory or make_adapter(**changes))
        return fit_bundle(bundle, on, store, tensor_parallel=tensor_parallel, dtype=dtype)

    return run
