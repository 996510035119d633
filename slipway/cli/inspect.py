"""`slipway inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from slipway.base_model import resolve_base
from slipway.cli.output import print_json, stderr, stdout
from slipway.cli.progress_bar import showing_bars
from slipway.configs import ConfigKind, config_directory
from slipway.findings import InspectionVerdict
from slipway.inspection import inspect_bundle
from slipway.inspection_view import print_inspection
from slipway.profiles import DEFAULT_PROFILE, find_profile
from slipway.server_facts import ServerFacts
from slipway.services.sources import source_for
from slipway.services.workspace import open_store
from slipway.uri import parse_adapter_uri

__all__ = ["inspect"]

_BYTES_PER_GB = 10**9
_COUNT = validators.Number(gte=1)


async def inspect(
    adapter: str,
    /,
    *,
    base: str | None = None,
    profile: str = DEFAULT_PROFILE,
    tensor_parallel: Annotated[int, Parameter(validator=_COUNT)] = 1,
    gpu_memory_gb: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None,
    preloaded: Annotated[bool, Parameter(negative="")] = False,
    medusa_heads: Annotated[int | None, Parameter(validator=_COUNT)] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    sarif: Path | None = None,
) -> int:
    """Pull an adapter and say whether the server would serve it as trained. Exits 1 when it would not.

    Args:
        adapter: A path, `hf://ORG/NAME@REVISION`, `s3://BUCKET/PREFIX/` or `pbase://REPO/TAG`.
        base: The base model: a Hub id, a directory, or a JSON file of base facts. Without it nothing is compared.
        profile: The server version whose rules apply: `lorax-0.12`, or `peft` for what PEFT itself computes.
        tensor_parallel: GPUs that share the model (`--num-shard` of LoRAX).
        gpu_memory_gb: Memory of one GPU in 10^9 bytes; without it nothing is said about memory.
        preloaded: The server was started with preloaded adapters.
        medusa_heads: Heads of the Medusa adapter that the server was started with.
        as_json: Print one JSON document on stdout.
        sarif: Also write the findings to this file as SARIF 2.1.0.
    """
    rules = find_profile(profile)
    uri = parse_adapter_uri(adapter)
    server = ServerFacts(
        tensor_parallel=tensor_parallel,
        gpu_memory_bytes=None if gpu_memory_gb is None else round(gpu_memory_gb * _BYTES_PER_GB),
        preloads_adapters=preloaded,
        medusa_heads=medusa_heads,
    )
    facts = resolve_base(base, bases_directory=config_directory() / ConfigKind.BASE) if base is not None else None
    with showing_bars(stderr()):
        bundle = await source_for(uri).pull(uri, open_store())
    inspection = inspect_bundle(bundle, facts, rules, server)
    if sarif is not None:
        from slipway.sarif import write_sarif

        write_sarif(sarif, inspection, rules)
    if as_json:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection, stdout())
    return 0 if inspection.verdict is InspectionVerdict.SERVABLE else 1
