"""Start, watch and stop the sandbox's child processes.

A child is a command that prints ``ready URL`` on its standard output once it serves. Each leads a process group of its
own, so that stopping it also stops what it started, and a Ctrl-C at the terminal reaches only the parent, which then
stops its children in order. Leaves to others: what to run, and what to do when a child ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ChildFailedError", "ChildProcess", "exit_with_parent"]

logger = logging.getLogger(__name__)

READY = b"ready "
LOG_TAIL_LINES = 8
LOG_TAIL_BYTES = 16_384
PARENT_POLL_SECONDS = 0.25
ORPHAN_GRACE_SECONDS = 5.0


class ChildFailedError(Exception):
    """A child ended, or stayed silent, before it was ready. The text ends with the last lines of its log."""


class ChildProcess:
    """One running child.

    Attributes:
        name: For people and logs.
        url: What it printed after ``ready``.
        pid: Its process id, which is also its process group.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log_path: Path) -> None:
        self.name = name
        self.url = ""
        self.pid = process.pid
        self._process = process
        self._log_path = log_path
        self._drain: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        ready_timeout_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> ChildProcess:
        """Run a command and wait until it says that it serves.

        Args:
            name: For people and logs.
            command: Program and arguments.
            log_path: Receives standard error, and standard output after the ready line; appended to.
            ready_timeout_seconds: How long to wait for the ready line.
            environment: Added to this process's environment.

        Raises:
            ChildFailedError: It could not be started, ended early, or was not ready in time. It is gone then.
        """
        log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log_path.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
        except OSError as error:
            message = f"{name} could not be started: {error}"
            raise ChildFailedError(message) from error
        child = cls(name, process, log_path)
        try:
            async with asyncio.timeout(ready_timeout_seconds):
                child.url = await child._wait_until_ready()
        except TimeoutError as error:
            await child.stop(grace_seconds=0)
            message = f"{name} was not ready within {ready_timeout_seconds:g} s.{child._log_tail()}"
            raise ChildFailedError(message) from error
        except BaseException:
            await child.stop(grace_seconds=0)
            raise
        child._drain = asyncio.create_task(child._copy_output(), name=f"output of {name}")
        logger.info("%s serves at %s (process %d)", name, child.url, child.pid)
        return child

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for the end; returns the exit status, negative for a signal."""
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once, with no chance to tidy up, as a crash would."""
        self._signal(signal.SIGKILL)

    async def stop(self, *, grace_seconds: float = 5.0) -> None:
        """End the whole process group: TERM, then KILL for what is left after the grace time. Safe to repeat."""
        if grace_seconds > 0 and self.is_running:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_seconds)
        self._signal(signal.SIGKILL)
        await self._process.wait()
        if self._drain is not None:
            await self._drain

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _wait_until_ready(self) -> str:
        output = self._output()
        while line := await output.readline():
            if line.startswith(READY):
                return line.removeprefix(READY).decode().strip()
            self._log(line)
        status = await self._process.wait()
        message = f"{self.name} ended with status {status} before it was ready.{self._log_tail()}"
        raise ChildFailedError(message)

    async def _copy_output(self) -> None:
        """Keep the pipe empty, else the child would block on a full one."""
        output = self._output()
        while chunk := await output.read(65_536):
            self._log(chunk)

    def _output(self) -> asyncio.StreamReader:
        if self._process.stdout is None:
            message = "standard output is always piped"
            raise RuntimeError(message)
        return self._process.stdout

    def _log(self, chunk: bytes) -> None:
        with self._log_path.open("ab") as log:
            log.write(chunk)

    def _log_tail(self) -> str:
        with self._log_path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        tail = "\n".join(lines[-LOG_TAIL_LINES:])
        return f" Its log ({self._log_path}) ends:\n{tail}" if tail else f" Its log ({self._log_path}) is empty."


def exit_with_parent(parent: int) -> None:
    """Make this process end when the one that started it is gone, even by ``kill -9``.

    Polls the parent's id, which changes to that of an adopter; this works on every POSIX system and, unlike Linux's
    parent-death signal, does not depend on which thread of the parent started us. Ends by TERM to itself first, so that
    the process can stop its own children, then for good.

    Args:
        parent: Process id of the one that started this; it says so itself, as it may be gone before this can look.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()
