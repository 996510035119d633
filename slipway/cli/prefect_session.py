"""Run Prefect flows from the command line. Prefect is imported only once the process is prepared for it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from slipway.cli.output import stderr
from slipway.errors import UnavailableError
from slipway.services.http_errors import bare_url
from slipway.services.stopping import stoppable

__all__ = ["exiting_when_told", "prefect_session", "prepare_prefect"]

REACH_TIMEOUT_SECONDS = 10.0

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


@contextmanager
def prefect_session() -> Iterator[None]:
    """Prepare Prefect, make sure that its server is there, and say so in our words when it goes away meanwhile.

    Raises:
        UnavailableError: The Prefect server cannot be reached.
    """
    prepare_prefect()
    _require_server(os.environ.get("PREFECT_API_URL", ""))
    try:
        with exiting_when_told():
            yield
    except httpx.HTTPError as error:  # our own clients translate theirs, so it is Prefect's
        raise _unreachable(
            os.environ.get("PREFECT_API_URL", ""), f"failed meanwhile ({type(error).__name__})"
        ) from error
    except RuntimeError as error:
        if "Prefect API server" not in str(error):
            raise
        raise UnavailableError(
            "no temporary Prefect server came up in time.",
            service="Prefect server",
            fix="Run `prefect server start`, and `export PREFECT_API_URL=http://127.0.0.1:4200/api`.",
        ) from error


@contextmanager
def exiting_when_told() -> Iterator[None]:
    """Exit as a shell reports a process that a signal ended, once what runs in the block has cleaned up.

    Raises:
        SystemExit: The process was told to stop.
    """
    from prefect.exceptions import TerminationSignal  # the process had to be prepared first

    def say() -> None:
        stderr().print("stopping: what was started is taken down first; a second signal stops at once")

    with stoppable(say) as stop:
        try:
            yield
        except (asyncio.CancelledError, TerminationSignal):  # Prefect's, just before a flow and just after it
            stderr().print("stopped: what this run had started is down; the same command continues it")
            raise SystemExit(128 + (stop.number or signal.SIGTERM)) from None


def _require_server(url: str) -> None:
    """Ask once, at once: Prefect itself repeats for many seconds and ends in a traceback. Any answer will do."""
    if not url:
        stderr().print(
            "[dim]PREFECT_API_URL is not set: unless your Prefect profile names a server, a temporary one starts, "
            "which takes 10 s or more[/]",
            soft_wrap=True,
        )
        return
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=REACH_TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(url, "does not answer") from error


def _unreachable(url: str, what: str) -> UnavailableError:
    return UnavailableError(
        f"the Prefect server at {bare_url(url) or 'its temporary address'} {what}.",
        service="Prefect server",
        url=bare_url(url),
        fix="Start it with `prefect server start`, or correct PREFECT_API_URL; unset, a temporary server is used.",
    )
