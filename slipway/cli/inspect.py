"""`slipway inspect`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from slipway.base_model import resolve_base
from slipway.cli.output import print_json, stdout
from slipway.configs import ConfigKind, config_directory
from slipway.findings import InspectionVerdict
from slipway.inspection import inspect_bundle
from slipway.inspection_view import print_inspection
from slipway.profiles import DEFAULT_PROFILE, find_profile
from slipway.services.sources import source_for
from slipway.services.workspace import open_store
from slipway.uri import parse_adapter_uri

__all__ = ["inspect"]


async def inspect(
    adapter: str,
    /,
    *,
    base: str | None = None,
    profile: str = DEFAULT_PROFILE,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Pull an adapter and say whether the server would serve it as trained. Exits 1 when it would not.

    Args:
        adapter: A path, `hf://ORG/NAME@REVISION`, `s3://BUCKET/PREFIX/` or `pbase://REPO/TAG`.
        base: The base model: a Hub id, a directory, or a JSON file of base facts. Without it nothing is compared with
            a base.
        profile: The server version whose rules apply.
        as_json: Print one JSON document on stdout.
    """
    rules = find_profile(profile)
    uri = parse_adapter_uri(adapter)
    facts = resolve_base(base, bases_directory=config_directory() / ConfigKind.BASE) if base is not None else None
    bundle = await source_for(uri).pull(uri, open_store())
    inspection = inspect_bundle(bundle, facts, rules)
    if as_json:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection, stdout())
    return 0 if inspection.verdict is InspectionVerdict.SERVABLE else 1
