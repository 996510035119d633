"""``python -m sandbox`` as a whole: what it prints, that it serves, and that nothing is left when it ends."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

EXPORTED = [
    "PREDIBASE_GATEWAY",
    "PREDIBASE_API_TOKEN",
    "PREDIBASE_SERVING",
    "LORAX_URL",
    "SLIPWAY_SANDBOX_BASE",
    "SLIPWAY_SANDBOX_ADAPTERS",
]


class Sandbox:
    """A running sandbox and the environment that it printed."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sandbox", "--home", str(home), "--no-train", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # as from a terminal of its own
        )
        self.lines = []
        while (line := self.process.stdout.readline()) and line != "ready\n":
            self.lines.append(line.rstrip("\n"))
        self.environment = dict(shlex.split(line)[1].split("=", 1) for line in self.lines)

    def processes(self) -> list[str]:
        """List the command lines of what runs on this home or was started for it."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment, command = (path / "environ").read_bytes(), (path / "cmdline").read_text()
            except OSError:
                continue
            gateway = self.environment.get("PREDIBASE_GATEWAY", "no gateway").encode()
            if str(self.home) in command or gateway in environment:
                found.append(command.replace("\0", " "))
        return found

    def wait_until_nothing_runs(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while running := self.processes():
            assert time.monotonic() < deadline, running
            time.sleep(0.1)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(*options: str) -> Sandbox:
        started.append(Sandbox(tmp_path / "home", *options))
        return started[-1]

    yield begin
    for sandbox in started:
        sandbox.end()


@contextlib.contextmanager
def connected(sandbox: Sandbox):
    """A client of the control plane."""
    with httpx.Client(
        base_url=sandbox.environment["PREDIBASE_GATEWAY"],
        headers={"Authorization": f"Bearer {sandbox.environment['PREDIBASE_API_TOKEN']}"},
        timeout=60,
    ) as client:
        yield client


def test_sandbox_is_killed_goes_on_serves_over_the_real_server_and_stops_with_all_its_processes(start):
    sandbox = start()
    with connected(sandbox) as client:
        body = {"name": "prod", "config": {"baseModel": sandbox.environment["SLIPWAY_SANDBOX_BASE"]}}
        client.post("/v2/deployments", json=body).raise_for_status()
        while client.get("/v2/deployments/prod").json()["data"]["status"] != "ready":
            time.sleep(0.1)
    sandbox.process.kill()
    sandbox.process.wait()
    sandbox.wait_until_nothing_runs(10)

    again = start()
    assert [line.split("=")[0] for line in again.lines] == [f"export {name}" for name in EXPORTED]
    assert again.environment["PREDIBASE_API_TOKEN"] == sandbox.environment["PREDIBASE_API_TOKEN"]
    assert Path(again.environment["SLIPWAY_SANDBOX_ADAPTERS"]).is_absolute()
    with connected(again) as client:
        tenant = client.get("/users/current").json()["tenant"]["shortCode"]
        body = {"inputs": "hello", "parameters": {"max_new_tokens": 4, "details": True}}
        replies = [
            client.post(f"/{tenant}/deployments/v2/llms/prod/generate", json=body),
            httpx.post(f"{again.environment['LORAX_URL']}/generate", json=body, timeout=60),
        ]
        assert [reply.status_code for reply in replies] == [200, 200]
        assert replies[0].json()["generated_text"] == replies[1].json()["generated_text"]
        assert replies[0].headers["x-generated-tokens"] == "4"
    assert len(again.processes()) == 4

    second = start()
    assert second.process.wait(30) == 1
    assert "another sandbox is using" in second.process.stderr.read()
    assert second.lines == []

    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(20) == 0
    assert again.processes() == []


def test_stop_while_starting_leaves_nothing(tmp_path):
    home = tmp_path / "home"
    command = [sys.executable, "-m", "sandbox", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ)
    time.sleep(2.5)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert output == b""
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _mentions(path, str(process.pid), str(home))]
    assert left == []


def _mentions(path: Path, *texts: str) -> bool:
    try:
        arguments = path.read_text().split("\0")
    except OSError:
        return False
    return any(text in arguments for text in texts)
