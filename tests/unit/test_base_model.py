"""Facts of base models: derived, read from headers, from files, and looked up by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from slipway.base_model import BaseModel, read_base_directory, read_facts, resolve_base
from slipway.base_shapes import derive_modules
from slipway.errors import ConfigFileError, ConfigurationError

REPOSITORY = Path(__file__).parents[2]

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
}


def model_directory(tmp_path, config=LLAMA, **weights):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    if weights:
        save_file(weights, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("llama", {}),
        ("llama", {"head_dim": 16}),
        ("mistral", {"head_dim": 16}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("gemma", {"head_dim": 16}),
        ("gemma2", {"head_dim": 16}),
        ("granite", {}),
        ("cohere", {}),
        ("phi3", {"pad_token_id": 0}),
    ],
)
def test_derived_shapes_are_those_of_transformers(family, extra):
    """The model's own code is the authority; it is built without memory for weights."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = {**LLAMA, "model_type": family, "architectures": [], **extra}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    theirs = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert derive_modules(config) == theirs


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mixtral"},
        {"model_type": ["llama"]},
        {"hidden_size": None},
        {"hidden_size": "32"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 10**6},
        {"vocab_size": -1},
        {"model_type": "gemma"},
    ],
)
def test_nothing_is_derived_from_what_is_not_known(change):
    """Heads of gemma have a width of their own, which its config has to say."""
    assert derive_modules({**LLAMA, **change}) is None


def test_headers_are_right_where_they_differ_from_the_config(tmp_path):
    weights = {
        "model.layers.0.self_attn.q_proj.weight": np.zeros((40, 32), "<f4"),
        "model.norm.weight": np.zeros(32, "<f4"),
        "model.layers.0.mlp.up_proj.weight": np.zeros((7, 1), "u1"),
    }
    base = read_base_directory(model_directory(tmp_path, **weights), model_id="org/m")
    assert base.modules["model.layers.0.self_attn.q_proj"] == (40, 32)
    assert base.modules["model.layers.0.mlp.up_proj"] == (48, 32), "packed weights have no shape to go by"
    assert "model.norm" not in base.modules
    assert (base.id, base.model_type, base.hidden_size, base.layers, base.vocab_size) == ("org/m", "llama", 32, 2, 64)


def test_tied_head_is_a_module_although_no_file_has_it(tmp_path):
    directory = model_directory(tmp_path, **{"model.embed_tokens.weight": np.zeros((64, 32), "<f4")})
    assert read_base_directory(directory).modules["lm_head"] == (64, 32)


def test_unknown_family_is_known_by_its_headers_alone(tmp_path):
    config = {"model_type": "newest", "n_embd": 4, "n_layer": 3}
    base = read_base_directory(model_directory(tmp_path, config, **{"h.0.proj.weight": np.zeros((3, 4), "<f4")}))
    assert base.modules == {"h.0.proj": (3, 4)}
    assert (base.hidden_size, base.layers) == (4, 3)


def test_unknown_family_without_weights_has_unknown_modules(tmp_path):
    assert read_base_directory(model_directory(tmp_path, {"model_type": "newest"})).modules is None


def test_gpt2_keeps_its_matrices_the_other_way_round(tmp_path):
    weights = {"h.0.attn.c_attn.weight": np.zeros((4, 12), "<f4"), "wte.weight": np.zeros((9, 4), "<f4")}
    base = read_base_directory(model_directory(tmp_path, {"model_type": "gpt2"}, **weights))
    assert base.modules == {"h.0.attn.c_attn": (12, 4), "wte": (9, 4)}


def test_missing_shard_leaves_only_what_the_config_says(tmp_path):
    """Half of the modules must not look like all of them."""
    directory = model_directory(tmp_path, {"model_type": "newest"}, **{"a.weight": np.zeros((3, 4), "<f4")})
    index = {"weight_map": {"a.weight": "model.safetensors", "b.weight": "model-2.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_base_directory(directory).modules is None
    (directory / "model.safetensors").rename(directory / "model-2.safetensors")
    index["weight_map"].pop("a.weight")
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_base_directory(directory).modules == {"a": (3, 4)}


def test_name_of_origin_is_an_alias(tmp_path):
    base = read_base_directory(model_directory(tmp_path, {**LLAMA, "_name_or_path": "org/m"}))
    assert base.answers_to("org/m")
    assert not base.answers_to("")


@pytest.mark.parametrize(
    ("content", "words"), [(b"{", "not JSON"), (b"[]", "not a JSON object"), (b"[" * 100_000, "not JSON")]
)
def test_unusable_config_is_an_error_that_names_the_file(tmp_path, content, words):
    directory = model_directory(tmp_path)
    (directory / "config.json").write_bytes(content)
    with pytest.raises(ConfigFileError, match=words):
        read_base_directory(directory)


def test_damaged_weights_are_an_error(tmp_path):
    directory = model_directory(tmp_path)
    (directory / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="no bytes"):
        read_base_directory(directory)


def test_facts_file_says_the_same_as_the_model(tmp_path):
    base = read_base_directory(model_directory(tmp_path), model_id="org/m")
    (tmp_path / "m.json").write_text(base.to_json())
    assert read_facts(tmp_path / "m.json") == base


def test_facts_without_modules_can_be_written_and_read(tmp_path):
    base = BaseModel(id="org/m", aliases=("b",))
    (tmp_path / "m.json").write_text(base.to_json())
    assert read_facts(tmp_path / "m.json") == base


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"id": ""}', '{"id": "a", "more": 1}', '{"id": "a", "modules": {"q": [1, 0]}}']
)
def test_wrong_facts_file_names_file_and_key(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ConfigFileError, match=r"m\.json"):
        read_facts(tmp_path / "m.json")


@pytest.fixture
def bases(tmp_path):
    directory = tmp_path / "bases"
    directory.mkdir()
    (directory / "one.json").write_text(BaseModel(id="org/one", aliases=("mirror/one",)).to_json())
    return directory


def test_base_is_found_by_id_alias_file_and_directory(tmp_path, bases):
    directory = model_directory(tmp_path)
    assert resolve_base("org/one", bases_directory=bases).id == "org/one"
    assert resolve_base("mirror/one", bases_directory=bases).id == "org/one"
    assert resolve_base(str(bases / "one.json"), bases_directory=tmp_path / "none").id == "org/one"
    assert resolve_base(str(directory), bases_directory=bases).model_type == "llama"


@pytest.mark.parametrize("text", ["", "one", "./missing", "missing/facts.json", "a/b/c", "org/na me"])
def test_unknown_base_lists_the_known_ones(bases, text, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ConfigurationError) as caught:
        resolve_base(text, bases_directory=bases)
    assert "org/one" in caught.value.fix


def test_directory_without_config_is_no_base(tmp_path, bases):
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        resolve_base(str(tmp_path), bases_directory=bases)


def test_shipped_facts_are_those_of_the_shipped_model():
    shipped = resolve_base("slipway/tiny-llama", bases_directory=REPOSITORY / "configs" / "bases")
    assert shipped == read_base_directory(REPOSITORY / "sandbox" / "base_model", model_id="slipway/tiny-llama")
