"""The config as PEFT reads it."""

from __future__ import annotations

import json
import random

import pytest

from slipway.adapter_config import (
    MAX_CONFIG_BYTES,
    AdapterConfig,
    ConfigProblem,
    parse_adapter_config,
    read_adapter_config,
)
from slipway.errors import StoreError


def parse(**members):
    config = parse_adapter_config(json.dumps(members).encode())
    assert isinstance(config, AdapterConfig)
    return config


CONFIGS = [
    {},
    {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]},
    {"target_modules": r".*\.q_proj", "use_rslora": True, "lora_alpha": 7},
    {"target_modules": "all-linear", "exclude_modules": ["lm_head"], "bias": "all"},
    {"target_modules": ["q_proj"], "layers_to_transform": [0, 2], "layers_pattern": "layers"},
    {"target_modules": ["q_proj"], "layers_to_transform": 1},
    {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 2}},
    {
        "target_modules": ["q_proj"],
        "modules_to_save": ["lm_head"],
        "init_lora_weights": "pissa",
        "fan_in_fan_out": True,
    },
    {"target_modules": ["q_proj"], "layer_replication": [[0, 4], [2, 5]], "revision": "main", "use_dora": True},
    {"base_model_name_or_path": "org/base", "task_type": "CAUSAL_LM", "trainable_token_indices": [1, 2]},
    {"target_modules": ["q_proj"], "init_lora_weights": False, "lora_bias": True, "unheard_of": 1},
]


@pytest.mark.parametrize("members", CONFIGS, ids=range(len(CONFIGS)))
@pytest.mark.filterwarnings("ignore")
def test_same_values_as_peft(tmp_path, members):
    """PEFT is the authority on what a config means, its defaults included."""
    peft = pytest.importorskip("peft")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **members}))
    theirs = peft.PeftConfig.from_pretrained(str(tmp_path))
    ours = read_adapter_config(tmp_path / "adapter_config.json")
    assert isinstance(ours, AdapterConfig)
    assert ours.problems == ()

    def comparable(value):
        if isinstance(value, set):
            return sorted(value)
        if isinstance(value, list | tuple):
            items = [comparable(item) for item in value]
            return sorted(items) if all(isinstance(item, str) for item in items) else items
        return value

    for name in (
        "base_model_name_or_path", "revision", "r", "lora_alpha", "target_modules", "exclude_modules",
        "modules_to_save",
        "rank_pattern", "alpha_pattern", "bias", "lora_bias", "use_rslora", "use_dora", "fan_in_fan_out",
        "init_lora_weights", "layers_pattern", "layer_replication", "target_parameters", "task_type",
    ):  # fmt: skip
        assert comparable(getattr(ours, name)) == comparable(getattr(theirs, name)), name
    layers = theirs.layers_to_transform
    assert ours.layers_to_transform == ((layers,) if isinstance(layers, int) else layers and tuple(layers))
    assert ours.trainable_token_indices == bool(theirs.trainable_token_indices)
    assert ours.peft_type == theirs.peft_type.value


def test_keys_that_are_there_are_known_apart_from_defaults():
    config = parse(r=8, other=1)
    assert config.present == {"r", "other"}
    assert config.lora_alpha == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", "8"), ("r", 8.0), ("r", True), ("r", 0), ("r", -1), ("r", None), ("r", []),
        ("lora_alpha", "8"), ("lora_alpha", None), ("lora_alpha", True), ("lora_alpha", float("nan")),
        ("lora_alpha", float("inf")), ("lora_alpha", 10**400),
        ("peft_type", 1), ("base_model_name_or_path", ["x"]), ("bias", None), ("use_dora", 1),
        ("target_modules", [1]), ("target_modules", {"a": 1}), ("rank_pattern", []), ("rank_pattern", {"a": "b"}),
        ("layers_to_transform", ["1"]), ("layers_to_transform", [True]), ("layer_replication", [[1]]),
        ("layer_replication", [1]), ("init_lora_weights", 1), ("modules_to_save", "lm_head"), ("r", {"a": 1}),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_value_of_a_wrong_type_is_a_problem_and_its_default_taken(key, value):
    config = parse(**{key: value})
    assert [problem.key for problem in config.problems] == [key]
    assert getattr(config, key) == getattr(AdapterConfig(), key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"{", "line 1"),
        (b"[]", "not an object"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 100_000, "deeply"),
        (b'{"r":' + b"9" * 5000 + b"}", "too long"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b" " * (MAX_CONFIG_BYTES + 1), "larger"),
    ],
)
def test_unusable_file_is_a_problem(text, words):
    problem = parse_adapter_config(text)
    assert isinstance(problem, ConfigProblem)
    assert words in problem.message


def test_nesting_that_can_be_read_can_also_be_reported():
    """Printing recurses one level sooner than parsing does."""
    for depth in range(900, 1000):
        text = b'{"r":' + b"[" * depth + b"]" * depth + b"}"
        assert isinstance(parse_adapter_config(text), AdapterConfig | ConfigProblem)


def test_byte_order_mark_is_no_problem():
    assert isinstance(parse_adapter_config(b"\xef\xbb\xbf{}"), AdapterConfig)


def test_missing_file_is_a_problem_and_unreadable_one_an_error(tmp_path):
    assert isinstance(read_adapter_config(tmp_path / "adapter_config.json"), ConfigProblem)
    with pytest.raises(StoreError, match="cannot be read"):
        read_adapter_config(tmp_path)


def test_mutated_configs_never_crash():
    original = json.dumps({"peft_type": "LORA", **CONFIGS[6], "layer_replication": [[0, 1]]}).encode()
    rng = random.Random(11)
    tokens = [b"null", b"[", b"{}", b"1e999", b"-1", b"NaN", b'"', b"true", b"\xc3\x28", b"9" * 20]
    for _ in range(2000):
        mutated = bytearray(original)
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(mutated) + 1)
            mutated[at : at + rng.randrange(6)] = rng.choice(tokens)
        assert isinstance(parse_adapter_config(bytes(mutated)), AdapterConfig | ConfigProblem)
