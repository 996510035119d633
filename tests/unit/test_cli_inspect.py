"""`slipway inspect` from its arguments to its exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from slipway.cli import app

HEAVY = ("torch", "prefect", "scipy", "sqlalchemy", "boto3", "huggingface_hub", "peft", "transformers")


@pytest.fixture
def slipway(tmp_path, monkeypatch, capsys, base):
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    facts = tmp_path / "base.json"
    facts.write_text(base.to_json())

    def run(*arguments):
        code = app(["inspect", *map(str, arguments), "--base", str(facts)], exit_on_error=False, print_error=False)
        return code, capsys.readouterr().out

    return run


def test_servable_adapter_exits_0_and_fixable_and_refused_exit_1(slipway, make_adapter):
    assert slipway(make_adapter())[0] == 0
    code, text = slipway(make_adapter(rank=7))
    assert (code, text.splitlines()[-1].rpartition(": ")[2]) == (1, "fixable")
    code, text = slipway(make_adapter(config={"use_dora": True}))
    assert (code, text.splitlines()[-1].rpartition(": ")[2]) == (1, "refused")


def test_errors_come_before_warnings_one_line_each(slipway, make_adapter):
    _, text = slipway(make_adapter(rank=7, config={"base_model_name_or_path": None}))
    lines = [line.split(":")[0] for line in text.splitlines() if line.startswith(("error ", "warning ", "note "))]
    assert lines == ["error rank.padding", "warning base.unnamed", "warning modules.width"]


def test_json_is_one_document_and_nothing_else(slipway, make_adapter):
    code, text = slipway(make_adapter(rank=7), "--json")
    document = json.loads(text)
    assert code == 1
    assert (document["verdict"], document["prediction"]) == ("fixable", "wrong")
    assert document["findings"][0]["code"] == "rank.padding"


def test_facts_of_the_deployment_change_the_answer(slipway, make_adapter):
    adapter = make_adapter(rank=8)
    assert slipway(adapter, "--tensor-parallel", "2")[0] == 1
    assert slipway(adapter, "--gpu-memory-gb", "0.00001")[0] == 1
    assert slipway(adapter, "--gpu-memory-gb", "80")[0] == 0
    assert slipway(adapter, "--preloaded")[0] == 1


def test_profile_of_peft_sees_no_server(slipway, make_adapter):
    assert slipway(make_adapter(rank=7), "--profile", "peft")[0] == 0


def test_sarif_is_written_beside_the_answer(slipway, make_adapter, tmp_path):
    code, text = slipway(make_adapter(rank=7), "--sarif", tmp_path / "x.sarif", "--json")
    assert code == 1
    results = json.loads((tmp_path / "x.sarif").read_text())["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == [entry["code"] for entry in json.loads(text)["findings"]]


def test_inspecting_imports_neither_torch_nor_prefect(make_adapter, tmp_path):
    """Its speed as a whole process hangs on this."""
    script = (
        "import sys; from slipway.cli import app; app(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "inspect", str(make_adapter())],
        env={"SLIPWAY_HOME": str(tmp_path / "home"), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]"
