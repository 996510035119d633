"""The token is nowhere but where it belongs: a canary is looked for in all that a release leaves behind."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import yaml
from prefect.blocks.system import Secret

ROOT = Path(__file__).parents[2]


def forms_of(secret: str) -> list[bytes]:
    """The secret as text, and as it might be written down escaped."""
    return [
        secret.encode(),
        quote(secret, safe="").encode(),
        base64.b64encode(secret.encode()),
        secret.encode("utf-16-le"),
    ]


def files_with(secret: str, *directories: Path) -> list[str]:
    """Every file below the directories that holds the secret."""
    forms = forms_of(secret)
    files = [path for directory in directories for path in sorted(directory.rglob("*")) if path.is_file()]
    return [str(path) for path in files if any(form in path.read_bytes() for form in forms)]


def test_token_is_found_where_it_is():
    """The search itself works."""
    assert forms_of("a/b")[1] == b"a%2Fb"


async def test_no_ending_of_a_release_leaves_the_token_anywhere(
    run_release, run_rollback, workspace, sandbox, prefect_server, name, tmp_path, suite, gate, capfd
):
    """Promoted, held, refused and rolled back; and failed by a service that says our token back to us."""
    canary = sandbox.canary
    assert os.environ["PREDIBASE_API_TOKEN"] == canary
    for adapter in ("translate-v1", "translate-undertrained", "translate-nan", "translate-v2"):
        await run_release(adapter)
    assert (await run_rollback()).name == "RolledBack"

    echo = {"error": f"your request with Bearer {canary} and token={canary} was not to our liking ({canary})"}
    for status, path in [(401, "/users/current"), (500, "/v2/adapters/upload/"), (422, "/v2/*")]:
        sandbox.arm("status", path, status=status, body=echo, count=20)
        state = await run_release("silently-ignored", name=f"{name}-{status}")
        sandbox.disarm()
        assert state.name == "Failed"
        assert "was not to our liking" in state.message
        assert canary not in state.message
    sandbox.arm("status", "*/generate", status=424, body={**echo, "error_type": "generation"}, count=20)
    state = await run_release("translate-v1", name=f"{name}-424")
    sandbox.disarm()
    assert state.name == "Failed"

    printed = []
    for options, status in [(["--json"], 401), ([], 500), (["--json"], None)]:
        if status:
            sandbox.arm("status", "/users/current", status=status, body=echo, count=20)
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from slipway.cli import main; main()"),
                *("release", sandbox.adapter("translate-v1"), "--name", f"{name}-cli"),
                *("--suite", suite, "--gate", gate, *options),
            ],
            cwd=ROOT,
            env={**os.environ, **prefect_server.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        sandbox.disarm()
        assert done.returncode == (3 if status else 0), done.stderr
        printed += [done.stdout, done.stderr]
    printed += capfd.readouterr()
    assert not any(canary in text for text in printed)

    logs, offset = [], 0
    while page := prefect_server.http.post("/logs/filter", json={"offset": offset}).json():
        logs += page
        offset += len(page)
    assert any(log["message"].startswith("upload:") for log in logs), "logs did reach the server"
    everything = [logs, prefect_server.http.post("/flow_runs/filter", json={}).json()]
    everything += [prefect_server.http.post("/task_runs/filter", json={}).json()]
    everything += [prefect_server.http.post("/artifacts/filter", json={}).json()]
    everything += [prefect_server.http.post("/events/filter", json={"limit": 50}).json()]
    assert canary not in json.dumps(everything)

    checkpoint(prefect_server.database)
    places = [prefect_server.home, prefect_server.database.parent, tmp_path, workspace.home.root]
    assert files_with(canary, *places) == []
    assert files_with(f"{name}-401", prefect_server.database.parent), "the search looked where the runs are"
    assert files_with(name, workspace.home.root), "the search looked where the releases are"


def checkpoint(database: Path) -> None:
    """Have SQLite bring its write-ahead log home, so that one file holds everything."""
    connection = sqlite3.connect(database, timeout=30)
    try:
        connection.execute("PRAGMA wal_checkpoint")
    finally:
        connection.close()


async def test_token_of_a_prefect_block_is_masked_although_no_environment_names_it(
    run_release, workspace, sandbox, prefect_server, name, tmp_path, monkeypatch
):
    """Nothing but the client that holds it can know this one."""
    monkeypatch.delenv("PREDIBASE_API_TOKEN")
    await Secret(value=sandbox.canary).save(f"token-{name}")
    target = yaml.safe_load((ROOT / "configs" / "targets" / "sandbox.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "sandbox.yaml"
    path.write_text(yaml.safe_dump(target | {"token_block": f"token-{name}"}))
    echo = {"error": f"what is {sandbox.canary}?", "error_type": "validation"}
    for fault in ("/v2/repos/*", "*/generate"):
        sandbox.arm("status", fault, status=422, body=echo, count=20)
        state = await run_release("translate-v1", target=str(path))
        sandbox.disarm()
        assert state.name == "Failed"
        assert "what is ***?" in state.message
    assert (await run_release("translate-v1", target=str(path))).name == "Promoted"
    logs = prefect_server.http.post("/logs/filter", json={"sort": "TIMESTAMP_DESC"}).json()
    assert sandbox.canary not in json.dumps([logs, prefect_server.runs(name)])
    assert files_with(sandbox.canary, workspace.home.root, prefect_server.database.parent) == []
