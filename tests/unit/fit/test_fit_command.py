"""`slipway fit`, called as the command line calls it."""

import json

import numpy as np
import pytest

from slipway.cli import app
from slipway.errors import AdapterNotFoundError, ConfigurationError, StoreError

BASE = {
    "id": "org/base",
    "model_type": "llama",
    "layers": 2,
    "modules": {
        f"model.layers.{layer}.self_attn.{kind}": shape
        for layer in (0, 1)
        for kind, shape in (("q_proj", [32, 32]), ("v_proj", [16, 32]))
    },
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Give the exit code and what was printed; the result goes to ``out`` below the test's directory."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    facts = tmp_path / "base.json"
    facts.write_text(json.dumps(BASE))

    def call(adapter, *arguments, out="out"):
        capsys.readouterr()
        words = ["fit", str(adapter), "--base", str(facts), "--out", str(tmp_path / out), *arguments]
        code = app(words, exit_on_error=False)
        return code, capsys.readouterr().out

    return call


def test_fixable_adapter_is_written_with_changes_and_proof(run, make_adapter, tmp_path):
    code, text = run(make_adapter(rank=4))
    assert code == 0
    assert "rank 4 is padded with zeros to 8" in text
    assert "4 modules (4 of them never rounded) compute what they did" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 8


def test_result_is_servable_already(run, make_adapter, tmp_path):
    run(make_adapter(rank=4))
    code, text = run(tmp_path / "out", out="again")
    assert code == 0
    assert "servable already" in text
    first, second = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("out", "again"))
    assert first == second


def test_json_is_one_document(run, make_adapter):
    code, text = run(make_adapter(config={"use_rslora": True}), "--json")
    document = json.loads(text)
    assert code == 0
    assert list(document) == [
        "adapter", "verdict", "reasons", "out", "digest", "files", "derived_from", "changes", "proof",
    ]  # fmt: skip
    assert document["derived_from"] == document["adapter"]["digest"] != document["digest"]
    assert document["proof"]["failures"] == []
    assert document["verdict"] == "servable"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": {"use_dora": True, "use_rslora": True}}, "DoRA"),
        ({"config": {"base_model_name_or_path": "org/other"}}, "org/other"),
        ({"rank": 4, "tensors": {"x": np.ones(2, "<f4")}}, "'x'"),
    ],
)
def test_refused_adapter_says_why_and_writes_nothing(run, make_adapter, tmp_path, changes, words):
    code, text = run(make_adapter(**changes))
    assert code == 1
    assert words in text
    assert not (tmp_path / "out").exists()
    code, text = run(make_adapter(**changes), "--json")
    document = json.loads(text)
    assert (code, document["verdict"], document["out"], document["proof"]) == (1, "refused", None, None)
    assert document["reasons"]


def test_dtype_is_given_up_when_asked_also_for_a_servable_adapter(run, make_adapter):
    code, text = run(make_adapter(), "--dtype", "bfloat16")
    assert code == 0
    assert "lossy" in text


def test_rank_suits_the_number_of_gpus(run, make_adapter, tmp_path):
    assert run(make_adapter(), "--tensor-parallel", "4")[0] == 0
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 32


def test_doing_it_again_is_fine_and_something_else_is_not_overwritten(run, make_adapter, tmp_path):
    adapter = make_adapter(rank=4)
    assert [run(adapter)[0], run(adapter)[0]] == [0, 0]
    with pytest.raises(ConfigurationError, match="something else"):
        run(make_adapter(rank=2))
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigurationError):
        run(adapter, out="file")
    assert (tmp_path / "file").read_text() == "kept"


def test_an_adapter_that_is_not_there_is_the_wrong_request(run, tmp_path):
    with pytest.raises(AdapterNotFoundError) as error:
        run(tmp_path / "missing")
    assert error.value.exit_code == 2


def test_a_place_that_cannot_be_written_is_said(run, make_adapter, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        run(make_adapter(), out="file/below")
