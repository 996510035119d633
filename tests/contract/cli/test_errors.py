"""Every row of docs/errors.md: the condition made with real files and servers, and what is said held against the row.

A test's name is its row's id.
"""

from __future__ import annotations

import re
import resource
import shutil
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from slipway.ledger import champion
from slipway.release import Step
from slipway.services import ledger_engine
from slipway.services.ledger_store import Ledger
from slipway.services.processes import free_port

DOCUMENT = Path(__file__).parents[3] / "docs" / "errors.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+) \| (\d) \| (.+) \|$", re.MULTILINE)
CODE_SPAN = re.compile(r"(`+) ?(.+?) ?\1(?!`)")
RELEASE = ("--suite", "any", "--gate", "any", "--json")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the table promises of one condition."""

    id: str
    excerpts: tuple[str, ...]
    code: int

    def holds_for(self, ran, *, is_json: bool = True) -> None:
        """Check exit code and excerpts, that stdout is one JSON document, and that there is no traceback."""
        assert ran.code == self.code, ran.err + ran.out
        text = ran.err + ran.out
        assert "Traceback" not in text
        for excerpt in self.excerpts:
            pattern = ".*".join(map(re.escape, excerpt.split("...")))
            assert re.search(pattern, text), f"{excerpt!r} is not in\n{text}"
        if is_json:
            document = ran.document
            if "error" in document:
                assert document["exit_code"] == self.code
                assert f"error: {document['message']}\nfix:   {document['fix']}\n" in ran.err


def read_table() -> dict[str, Row]:
    rows = {}
    for id_, _, says, code, _ in ROW.findall(DOCUMENT.read_text()):
        assert id_ not in rows, id_
        excerpts = tuple(span for _, span in CODE_SPAN.findall(says))
        rows[id_] = Row(id=id_, excerpts=excerpts, code=int(code))
    return rows


@pytest.fixture
def row(request) -> Row:
    """The row that the test is named after."""
    return read_table()[row_id(request.node.name)]


def row_id(test_name: str) -> str:
    return test_name.removeprefix("test_").replace("_", "-")


def test_every_row_has_its_test():
    tests = {name for name in globals() if name.startswith("test_") and name != "test_every_row_has_its_test"}
    assert {row_id(name) for name in tests} == set(read_table())


def nothing_happened(desk) -> None:
    """No ledger was made, so that there is no release, promotion or deployment in it; and no bundle."""
    assert not (desk.directory / "home" / "ledger.db").exists()
    assert bundles(desk) == []


def bundles(desk) -> list[Path]:
    store = desk.directory / "home" / "bundles"
    return [path for path in store.rglob("*") if path.name != ".incoming"] if store.exists() else []


def ledger_of(desk) -> Ledger:
    return Ledger(f"sqlite:///{desk.directory}/home/ledger.db")


# The request


def test_usage(desk, row):
    row.holds_for(desk.run("status", "--nope", "--json"))


def test_bad_name(desk, row):
    row.holds_for(desk.call("release", desk.adapter("a"), "--name", "Support Bot", *RELEASE))
    nothing_happened(desk)


def test_missing_path(desk, row):
    row.holds_for(desk.call("release", "nowhere", "--name", "support", *RELEASE))
    nothing_happened(desk)


def test_not_an_adapter(desk, row):
    """The parent of the adapter's directory was given, which is the usual slip."""
    desk.adapter("a").rename(desk.directory / "home-made")
    desk.write("models/readme.txt", "")
    shutil.move(desk.directory / "home-made", desk.directory / "models" / "home-made")
    row.holds_for(desk.call("inspect", "models", "--json"))
    nothing_happened(desk)


def test_unknown_scheme(desk, row):
    row.holds_for(desk.call("release", "ftp://models/support", "--name", "support", *RELEASE))
    nothing_happened(desk)


def test_wrong_base(release_desk, control_plane, row):
    adapter = release_desk.adapter("a", base="org/other-7b")
    ran = release_desk.run("release", adapter, "--name", "stranger", *RELEASE)
    row.holds_for(ran)
    assert ran.document["outcome"] == "refused"
    assert Path(ran.document["report"]).is_file()
    with ledger_of(release_desk) as ledger:
        assert not ledger.release("stranger-1").is_open
    assert control_plane.versions("stranger") is None


def test_unknown_target(desk, row):
    row.holds_for(desk.call("release", desk.adapter("a"), "--name", "support", "--target", "productoin", *RELEASE))
    nothing_happened(desk)


def test_unknown_suite(desk, row):
    outputs = desk.write("outputs.jsonl", "")
    row.holds_for(desk.call("grade", "sute", outputs, "--json"))


def test_unknown_gate(desk, row):
    results = desk.write("results.jsonl", "")
    row.holds_for(desk.call("gate", results, "--gate", "strict", "--json"))


def test_malformed_yaml(desk, row):
    suite = desk.write("suite.yaml", "prompts: [a]\ntests: [{vars: {text: [a\n")
    ran = desk.call("release", desk.adapter("a"), "--name", "support", "--suite", suite, "--gate", "any", "--json")
    row.holds_for(ran)
    nothing_happened(desk)


def test_misspelt_key(desk, row):
    gate = desk.write("gate.yaml", "min_cases: 2\nrequire:\n- {metric: pass_rat, at_least: 0.9}\n")
    results = desk.write("results.jsonl", "")
    row.holds_for(desk.call("gate", results, "--gate", gate, "--json"))


def test_empty_suite(desk, row):
    suite = desk.write("suite.yaml", "prompts: [a]\ntests: []\n")
    ran = desk.call("release", desk.adapter("a"), "--name", "support", "--suite", suite, "--gate", "any", "--json")
    row.holds_for(ran)
    nothing_happened(desk)


def test_broken_line(desk, row):
    results = desk.write(
        "results.jsonl", '{"case": "a", "arm": "base", "passed": true, "score": 1.0}\n{"case": "b", "ar'
    )
    row.holds_for(desk.call("gate", results, "--gate", "any", "--json"))


def test_no_results(desk, row):
    ran = desk.call("gate", desk.write("results.jsonl", ""), "--gate", "any", "--json")
    row.holds_for(ran)
    assert ran.document["verdict"] == "inconclusive"


def test_nothing_to_roll_back(desk, row):
    row.holds_for(desk.run("rollback", "newcomer", "--json"))


# Suites and judges


def graded(desk, suite: str, *options):
    """Grade one recorded answer against a suite."""
    desk.write("suite.yaml", suite)
    desk.write("outputs.jsonl", '{"test": 0, "output": "hello"}\n')
    return desk.call("grade", "suite.yaml", "outputs.jsonl", *options)


def judged_suite(judge: str) -> str:
    return f"""
judge: {judge}
tests:
  - vars: {{prompt: hi}}
    assert: [{{type: llm-rubric, value: is polite}}]
"""


def test_unknown_check(desk, row):
    row.holds_for(
        graded(desk, "tests:\n  - vars: {prompt: hi}\n    assert:\n      - {type: contain, value: h}\n", "--json")
    )
    nothing_happened(desk)


def test_unsupported_check(desk, row):
    checks = "      - {type: contains, value: h}\n      - {type: python, value: len(output) > 1}\n"
    suite = f"tests:\n  - vars: {{prompt: hi}}\n    assert:\n{checks}"
    row.holds_for(graded(desk, suite), is_json=False)
    document = graded(desk, suite, "--json").document
    assert document["coverage"] == 0.5
    assert [entry["where"] for entry in document["unsupported"]] == ["suite.yaml:5"]
    nothing_happened(desk)


def test_judge_without_token(desk, row, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    row.holds_for(graded(desk, judged_suite("{model: tiny}"), "--json"))
    nothing_happened(desk)


def test_judge_of_others(desk, row, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary0123456789")
    judge = '{url: "http://judge.example.org/v1", model: tiny, token_variable: HF_TOKEN}'
    ran = graded(desk, judged_suite(judge), "--json")
    row.holds_for(ran)
    assert "canary" not in ran.out + ran.err
    nothing_happened(desk)


def test_judge_unreachable(desk, row):
    judge = f'{{url: "http://127.0.0.1:{free_port()}/v1", model: tiny}}'
    row.holds_for(graded(desk, judged_suite(judge), "--json"))
    nothing_happened(desk)


# Credentials and addresses


def test_missing_token(desk, row):
    port = free_port()
    desk.environment |= {f"PREDIBASE_{name}": f"http://127.0.0.1:{port}" for name in ("GATEWAY", "SERVING")}
    row.holds_for(desk.call("release", desk.adapter("a"), "--name", "support", *RELEASE))
    with ledger_of(desk) as ledger:
        assert ledger.releases() == ()


def test_sandbox_elsewhere(desk, row):
    desk.environment |= {
        "PREDIBASE_GATEWAY": "https://api.app.predibase.com",
        "PREDIBASE_SERVING": "http://127.0.0.1:9",
        "PREDIBASE_API_TOKEN": "pb_real",
    }
    row.holds_for(desk.call("release", desk.adapter("a"), "--name", "support", *RELEASE))
    with ledger_of(desk) as ledger:
        assert ledger.releases() == ()


def test_unauthorized(served_desk, row):
    served_desk.environment["PREDIBASE_API_TOKEN"] = "pb_wrong-and-secret"
    ran = served_desk.call("release", served_desk.adapter("a"), "--name", "support", *RELEASE)
    row.holds_for(ran)
    assert "wrong-and-secret" not in ran.out + ran.err
    with ledger_of(served_desk) as ledger:
        assert ledger.releases() == ()


def test_not_found(served_desk, prefect_environment, row):
    served_desk.environment["PREDIBASE_GATEWAY"] = prefect_environment["PREFECT_API_URL"].removesuffix("/api")
    row.holds_for(served_desk.call("evaluate", "any", "--adapter", "support/1", "--json"))


# Services


def test_gateway_unreachable(served_desk, row):
    served_desk.environment["PREDIBASE_GATEWAY"] = f"http://127.0.0.1:{free_port()}"
    row.holds_for(served_desk.call("release", served_desk.adapter("a"), "--name", "support", *RELEASE))
    with ledger_of(served_desk) as ledger:
        assert ledger.releases() == ()


def test_prefect_unreachable(served_desk, control_plane, row):
    served_desk.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api"
    row.holds_for(served_desk.run("release", served_desk.adapter("a"), "--name", "unseen", *RELEASE))
    assert control_plane.versions("unseen") is None
    with ledger_of(served_desk) as ledger:
        assert ledger.releases() == ()


def test_rate_limited(served_desk, control_plane, row):
    control_plane.inject("status", "/users/current", status=429, headers={"Retry-After": "120"})
    began = time.monotonic()
    row.holds_for(served_desk.call("release", served_desk.adapter("a"), "--name", "support", *RELEASE))
    assert time.monotonic() - began < 60  # it does not wait for two minutes before it says so


def test_server_error(release_desk, control_plane, row):
    control_plane.inject("status", "/v2/adapters/upload", method="POST", status=500, count=2)
    adapter = release_desk.adapter("a", seed=5)
    row.holds_for(release_desk.run("release", adapter, "--name", "shaken", *RELEASE))
    assert control_plane.versions("shaken") == 0
    with ledger_of(release_desk) as ledger:
        assert ledger.release("shaken-1").is_open


def test_deployment_errored(release_desk, control_plane, row):
    release_desk.target("spare", bases=spare_base(), deployment={"name": "ill-fated", "poll_seconds": 0.1})
    control_plane.inject("fail-start", "ill-fated", count=50)
    adapter = release_desk.adapter("a", seed=6, base="slipway/spare")
    row.holds_for(release_desk.run("release", adapter, "--name", "errored", "--target", "spare", *RELEASE))
    left_without_deployment(release_desk, control_plane, "errored", "ill-fated")


def test_never_ready(release_desk, control_plane, row):
    deployment = {"name": "late", "poll_seconds": 0.1, "ready_timeout_seconds": 1}
    release_desk.target("spare", bases=spare_base(), deployment=deployment)
    control_plane.inject("delay-start", "late", seconds=60)
    adapter = release_desk.adapter("a", seed=7, base="slipway/spare")
    row.holds_for(release_desk.run("release", adapter, "--name", "tardy", "--target", "spare", *RELEASE))
    left_without_deployment(release_desk, control_plane, "tardy", "late")


def spare_base() -> dict[str, dict[str, str]]:
    return {"slipway/spare": {"facts": "configs/bases/tiny-llama.json"}}


def left_without_deployment(desk, control_plane, name: str, deployment: str) -> None:
    assert deployment not in control_plane.deployments()
    assert control_plane.versions(name) == 1
    with ledger_of(desk) as ledger:
        assert ledger.release(f"{name}-1").is_open
        assert [state.is_open for state in ledger.created_deployments()] == [False]


def test_not_running(served_desk, control_plane, row):
    served_desk.target("spare", bases=spare_base())
    before = control_plane.deployments()
    row.holds_for(served_desk.call("evaluate", "any", "--target", "spare", "--adapter", "support/1", "--json"))
    assert control_plane.deployments() == before


def test_no_such_version(served_desk, released, row):
    ran = served_desk.call("evaluate", "any", "--adapter", "support/99")
    row.holds_for(ran, is_json=False)
    assert re.search(r"candidate +0/0 passed \(no answers, 6 missing\)", ran.out)
    assert re.search(r"base +6/6 passed", ran.out)


# This machine and the ledger


def test_disk_full(desk, row):
    """A limit on the size of files meets the same write as a full disk does, and needs no disk to fill."""
    limit = 16 * 1024
    ran = desk.run(
        "inspect",
        desk.adapter("a"),
        "--json",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    row.holds_for(ran)
    assert bundles(desk) == []


def test_output_full(desk, row):
    with Path("/dev/full").open("w") as full:
        ran = desk.run("status", "--json", stdout=full)
    row.holds_for(ran, is_json=False)


def test_results_elsewhere(served_desk, row):
    served_desk.write("file", "")
    ran = served_desk.call("evaluate", "any", "--adapter", "support/1", "--junit", "file/results.xml", "--json")
    row.holds_for(ran)


def test_ledger_unreachable(desk, row):
    url = f"postgresql://slipway:se-cret@127.0.0.1:{free_port()}/ledger"
    desk.environment["SLIPWAY_LEDGER_URL"] = url
    ran = desk.call("resolve", "support", "--json")
    row.holds_for(ran)
    assert "se-cret" not in ran.out + ran.err


def test_ledger_locked(desk, row, monkeypatch):
    monkeypatch.setattr(ledger_engine, "_BUSY_TIMEOUT_SECONDS", 0.2)  # in place of half a minute
    (desk.directory / "home").mkdir()
    other = sqlite3.connect(desk.directory / "home" / "ledger.db", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        row.holds_for(desk.call("status", "--json"))
    finally:
        other.close()


def test_lease_held(release_desk, control_plane, row):
    deployment = {"name": "taken", "poll_seconds": 0.1, "ready_timeout_seconds": 1}
    release_desk.target("spare", bases=spare_base(), deployment=deployment)
    adapter = release_desk.adapter("a", seed=9, base="slipway/spare")
    with ledger_of(release_desk) as ledger:
        with ledger.lease("deployment:spare@local:taken"):
            row.holds_for(release_desk.run("release", adapter, "--name", "second", "--target", "spare", *RELEASE))
        assert ledger.release("second-1").is_open
    assert "taken" not in control_plane.deployments()


def test_champion_moved(release_desk, control_plane, released, row):
    """The rival is promoted while the proof waits for an answer that the control plane keeps back."""
    adapter = release_desk.adapter("a", seed=8)
    control_plane.inject("delay", "/*/generate", seconds=4)
    with release_desk.start("release", adapter, "--name", "contested", *RELEASE) as process:
        wait_until((release_desk.directory / "home" / "ledger.db").exists, process)
        with ledger_of(release_desk) as ledger:
            wait_until(lambda: any(release.finished(Step.SERVE) for release in ledger.releases()), process)
            rival = ledger.promote(
                name="contested",
                target="sandbox",
                expected_champion=None,
                release_id="rival-1",
                adapter_id="contested/77",
                adapter_source="pbase",
                digest="sha256:" + "7" * 64,
            )
            row.holds_for(release_desk.end(process))
            assert champion(ledger.promotions("contested", "sandbox")) == rival
            assert ledger.release("contested-1").is_open


def wait_until(is_so, process: subprocess.Popen, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
