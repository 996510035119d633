"""`slipway resolve`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from slipway.cli.output import print_json, stderr
from slipway.ledger import champion
from slipway.services.workspace import open_workspace

__all__ = ["resolve"]


def resolve(
    name: str,
    /,
    *,
    target: str = "sandbox",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Print the champion's adapter id, to be sent as `adapter_id` or as OpenAI's `model`. Exits 1 when there is none.

    Args:
        name: The adapter's name.
        target: The target's name.
        as_json: Print one JSON document, with the adapter source.
    """
    leader = champion(open_workspace().ledger.promotions(name, target))
    if leader is None:
        if as_json:
            print_json({"name": name, "target": target, "adapter_id": None})
        stderr().print(
            f"{name} has no champion on {target}. `slipway status` shows those there are.", markup=False, soft_wrap=True
        )
        return 1
    if as_json:
        print_json(
            {
                "name": name,
                "target": target,
                "adapter_id": leader.adapter_id,
                "adapter_source": leader.adapter_source,
                "release": leader.release_id,
            }
        )
    else:
        sys.stdout.write(leader.adapter_id + "\n")
    return 0
