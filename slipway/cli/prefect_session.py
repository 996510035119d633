"""Prepare this process for running Prefect flows from the command line. Imports no Prefect: it must come before that."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["prepare_prefect"]

ENVIRONMENT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the release prints its own lines; the UI keeps all logs
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",  # the default of 20 is short for a first start
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


def prepare_prefect() -> None:
    """Quieten Prefect on the terminal and make `flows` importable from a checkout. What the user has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
