"""Start server processes of our own, wait until they answer, and stop them with everything they started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from slipway.errors import UnavailableError

__all__ = ["ServerProcess", "free_port"]

STOP_SECONDS = 10.0
"""From TERM to KILL."""

POLL_SECONDS = 0.05


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A child in a process group of its own, so that stopping it stops its children too.

    Args:
        name: For messages.
        command: Program and arguments.
        log: Where its output goes.
        environment: Added to ours.
        show_errors: Leave its stderr on our terminal instead of the log.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        show_errors: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603  # our own command line
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if show_errors else subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, and id of the group."""
        return self._process.pid

    def wait_until(self, is_ready: Callable[[str], bool], *, timeout_seconds: float) -> str:
        """Wait until ``is_ready`` accepts what the process has printed so far; returns that text.

        Raises:
            UnavailableError: It exited, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            printed = self.log.read_text(encoding="utf-8", errors="replace")
            if is_ready(printed):
                return printed
            code = self._process.poll()
            if code is not None:
                raise UnavailableError(
                    f"{self.name} exited with code {code} before it was ready. It said: {printed[-2000:].strip()}",
                    service=self.name,
                    fix=f"Its output is in {self.log}.",
                )
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.name} was not ready within {timeout_seconds:g} s.",
                    service=self.name,
                    fix=f"Its output is in {self.log}.",
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it: TERM to the group, KILL after a while. Does nothing when it has ended."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def kill(self) -> None:
        """End it without asking."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
