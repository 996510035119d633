"""The rehearsal leaves nothing running, also when it is ended half way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has just ended
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def test_term_stops_every_process_that_was_started(tmp_path):
    command = [sys.executable, "-c", "from slipway.cli import main; main()", "rehearse"]
    environment = {**os.environ, "SLIPWAY_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    environment.pop("PREFECT_API_URL", None)
    with (tmp_path / "log").open("wb") as log:
        rehearsal = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 60
            while len(started := descendants(rehearsal.pid)) < 2:
                assert rehearsal.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(2)  # the sandbox starts children of its own
            started |= descendants(rehearsal.pid)
            rehearsal.send_signal(signal.SIGTERM)
            assert rehearsal.wait(60) == 128 + signal.SIGTERM
            deadline = time.monotonic() + 20
            while alive := {pid for pid in started if Path(f"/proc/{pid}").exists()}:
                assert time.monotonic() < deadline, alive
                time.sleep(0.1)
        finally:
            for pid in {rehearsal.pid, *descendants(rehearsal.pid)}:
                if Path(f"/proc/{pid}").exists():
                    os.kill(pid, signal.SIGKILL)
            rehearsal.wait()
