"""`slipway schema`."""

from __future__ import annotations

import sys
from typing import Literal

from slipway.schemas import schema_text

__all__ = ["schema"]


def schema(kind: Literal["gate", "suite", "target"], /) -> int:
    """Print the JSON Schema of a kind of file, for an editor to complete and check it.

    Args:
        kind: Which.
    """
    sys.stdout.write(schema_text(kind))
    return 0
