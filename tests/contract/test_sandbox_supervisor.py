"""Child processes: ready or failed with a reason, and gone with all that they started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from sandbox.supervisor import ChildFailedError, ChildProcess


async def start(tmp_path, program: str, *, seconds: float = 20) -> ChildProcess:
    command = [sys.executable, "-c", program]
    return await ChildProcess.start(
        "child", command, log_path=tmp_path / "logs" / "child.log", ready_timeout_seconds=seconds
    )


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_child_is_ready_with_its_address_and_can_go_on_printing(tmp_path):
    """A full pipe would block a child that nobody reads."""
    program = """
import time
print("hello")
print("ready http://127.0.0.1:1", flush=True)
print("x" * 1_000_000, flush=True)
print("done", flush=True)
"""
    child = await start(tmp_path, program)
    assert child.url == "http://127.0.0.1:1"
    assert await child.wait() == 0
    await child.stop()
    log = (tmp_path / "logs" / "child.log").read_text()
    assert log.startswith("hello")
    assert log.endswith("x\ndone\n")


async def test_child_that_ends_early_is_an_error_with_the_end_of_its_log(tmp_path):
    program = "import sys; print('no such model', file=sys.stderr); sys.exit(3)"
    with pytest.raises(ChildFailedError, match=r"(?s)status 3 before it was ready.*no such model"):
        await start(tmp_path, program)


async def test_child_that_is_silent_for_too_long_is_ended(tmp_path):
    program = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(ChildFailedError, match="was not ready within 1 s"):
        await start(tmp_path, program, seconds=1)
    assert not is_running(int((tmp_path / "pid").read_text()))


async def test_program_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ChildFailedError, match="could not be started"):
        await ChildProcess.start("child", ["/no/such"], log_path=tmp_path / "log", ready_timeout_seconds=1)


async def test_stop_ends_what_the_child_started_even_when_it_ignores_term(tmp_path):
    program = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", subprocess.Popen(["sleep", "60"]).pid, flush=True)
time.sleep(60)
"""
    child = await start(tmp_path, program)
    await child.stop(grace_seconds=0.3)
    assert not child.is_running
    deadline = time.monotonic() + 5
    while is_running(int(child.url)) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert not is_running(int(child.url))


def test_process_ends_with_its_parent(tmp_path):
    inner = """
import os, time
from sandbox.supervisor import exit_with_parent
exit_with_parent(os.getppid())
time.sleep(60)
"""
    outer = f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {inner!r}])
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
print("started", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        child = int((tmp_path / "pid").read_text())
        time.sleep(0.5)
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
