"""`slipway sandbox`."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from slipway.errors import ConfigurationError

__all__ = ["sandbox"]


def sandbox(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> int:
    """Start Predibase and LoRAX on this machine, print what to export, then `ready`, and stay until Ctrl-C.

    Further arguments go to the sandbox; `slipway sandbox -- --help` lists them.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("sandbox") is None:
        raise ConfigurationError(
            "the sandbox is not installed.",
            fix="Install it with `pip install 'slipway[sandbox]'`, or use `make setup`.",
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "sandbox", *arguments])  # noqa: S606  # signals must reach it directly
