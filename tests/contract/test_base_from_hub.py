"""Base facts by Hub id: config and headers alone cross the wire, however large the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from base_hub import BaseHub, serve, text_file, weights_file

ASK = """
import json, sys
from pathlib import Path
from slipway.base_model import resolve_base
from slipway.errors import SourceError
try:
    base = resolve_base(sys.argv[1], bases_directory=Path("none"))
except SourceError as error:
    print(json.dumps({"error": error.message, "fix": error.fix}))
else:
    print(json.dumps({"layers": base.layers, "modules": base.modules, "vocab": base.vocab_size,
                      "torch": "torch" in sys.modules, "transformers": "transformers" in sys.modules}))
"""

CONFIG_70B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
LAYER_70B = {
    "self_attn.q_proj": (8192, 8192),
    "self_attn.k_proj": (1024, 8192),
    "self_attn.v_proj": (1024, 8192),
    "self_attn.o_proj": (8192, 8192),
    "mlp.gate_proj": (28672, 8192),
    "mlp.up_proj": (28672, 8192),
    "mlp.down_proj": (8192, 28672),
    "input_layernorm": (1, 8192),
    "post_attention_layernorm": (1, 8192),
}
SHARDS = 30


def model_70b():
    """30 shards, 141 GB, as the largest Llama 3 has."""
    names = {f"model.layers.{n}.{kind}.weight": shape for n in range(80) for kind, shape in LAYER_70B.items()}
    names |= {"model.embed_tokens.weight": (128256, 8192), "lm_head.weight": (128256, 8192)}
    shards, weight_map = {}, {}
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        part = dict(list(names.items())[number::SHARDS])
        shards[file] = weights_file(part)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    return {"config.json": text_file(CONFIG_70B), "model.safetensors.index.json": text_file(index), **shards}


SMALL = {**CONFIG_70B, "model_type": "unheard-of", "num_hidden_layers": 200}


def single_file():
    """A header of more than the first read, of a family that nothing else is known of."""
    shapes = {f"model.layers.{n}.mlp.fc1.weight": (16, 8) for n in range(200)}
    return {"config.json": text_file(SMALL), "model.safetensors": weights_file(shapes)}


FILES = {
    "org/large": model_70b(),
    "org/single": single_file(),
    "org/pickled": {"config.json": text_file(CONFIG_70B)},
    "org/odd": {"config.json": text_file(SMALL), "model.safetensors": text_file({"no": "header"})},
}


@pytest.fixture
def hub():
    with serve(BaseHub(files=FILES)) as running:
        yield running


def ask(hub, model, tmp_path, **extra):
    """Ask in a process of its own: the library reads its environment when it is imported."""
    theirs = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_canary", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, model],
        env={**os.environ, **theirs, **extra},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "hf_canary" not in done.stdout + done.stderr
    return json.loads(done.stdout)


def test_sharded_70b_costs_less_than_a_megabyte(hub, tmp_path):
    facts = ask(hub, "org/large", tmp_path)
    weights = sum(file.size for name, file in FILES["org/large"].items() if name.endswith(".safetensors"))
    assert weights > 140e9
    assert hub.sent_bytes < 1_000_000
    assert facts["layers"] == 80
    assert facts["modules"]["model.layers.79.mlp.down_proj"] == [8192, 28672]
    assert not facts["torch"]
    assert not facts["transformers"]


def test_one_file_is_read_up_to_the_end_of_its_header(hub, tmp_path):
    facts = ask(hub, "org/single", tmp_path)
    assert len(facts["modules"]) == 200
    assert facts["modules"]["model.layers.199.mlp.fc1"] == [16, 8]
    assert hub.sent_bytes < len(FILES["org/single"]["model.safetensors"].start) + 20_000


def test_server_that_ignores_ranges_is_hung_up_on(hub, tmp_path):
    hub.ignores_ranges = True
    facts = ask(hub, "org/large", tmp_path)
    assert facts["modules"]["lm_head"] == [128256, 8192]
    assert hub.sent_bytes < 500_000_000, "what is in the sockets' buffers when they are closed, of 141 GB"


def test_model_without_safetensors_is_known_by_its_config(hub, tmp_path):
    assert ask(hub, "org/pickled", tmp_path)["modules"]["lm_head"] == [128256, 8192]


def test_offline_the_cached_config_is_enough(hub, tmp_path):
    ask(hub, "org/large", tmp_path)
    before = hub.sent_bytes
    facts = ask(hub, "org/large", tmp_path, HF_HUB_OFFLINE="1")
    assert facts["modules"]["lm_head"] == [128256, 8192]
    assert hub.sent_bytes == before


def test_weights_that_are_no_safetensors_are_an_error(hub, tmp_path):
    assert "not a readable safetensors file" in ask(hub, "org/odd", tmp_path)["error"]


def test_shard_that_the_hub_does_not_give_is_an_error(hub, tmp_path):
    hub.broken = frozenset({"model-00007-of-00030.safetensors"})
    answer = ask(hub, "org/large", tmp_path)
    assert "model-00007-of-00030.safetensors cannot be read: status 500" in answer["error"]
    assert "--base" in answer["fix"]
