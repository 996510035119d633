"""Headers and configs that somebody wrote to hurt: findings, never crashes, never gigabytes, never minutes.

24,000 mutants of good files, from a fixed seed so that a failure can be repeated, and what hypothesis thinks of.
"""

from __future__ import annotations

import json
import random
import resource
import time
from pathlib import Path

import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.adapter import AdapterFile, Bundle, Digest
from slipway.adapter_config import AdapterConfig, ConfigProblem, parse_adapter_config
from slipway.adapter_evidence import Evidence, WeightsFile
from slipway.findings import judge, predict
from slipway.profiles import PROFILES
from slipway.scan import Scan
from slipway.tensors import Header, HeaderProblem, measure_header, parse_header

MUTANTS = 12_000
SECONDS = 25.0
MEMORY_BYTES = 256 << 20

HOSTILE = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, 1e308, -1e308, 0.5, "", "x", "\0", "\ud800", "A" * 5000,
    [], {}, [[]], [-1], [2**63, 2**63], [0, 2**64], [1e308], {"a": {}}, "F32", "BF16", "I8", "LORA", "IA3", "(a*)*b",
    "all-linear", ".*", "/x/y/z", [None], ["q_proj"], {"q_proj": 8}, {"(a+)+$": 8}, {"q_proj": -1}, [[0, 2]],
    [[0, 10**12]], [10**12],
)  # fmt: skip

CONFIG = {
    "peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"],
    "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"k_proj": 4}, "use_rslora": False, "modules_to_save": None,
    "layers_to_transform": [0, 1], "layer_replication": None, "init_lora_weights": True, "bias": "none",
    "auto_mapping": {"base_model_class": "X"}, "trainable_token_indices": None, "exclude_modules": [], "revision": None,
}  # fmt: skip


def good_header():
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for layer in range(2):
        for side, shape in (("A", [8, 32]), ("B", [32, 8])):
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 1024]}
            offset += 1024
    return header


NAMES = (
    "base_model.model.model.layers.999999999.self_attn.q_proj.lora_A.weight", "x", "", "__metadata__", "\0", "a" * 9000,
    "base_model.model." + "layers.0." * 900 + "lora_A.weight", "lora_A" * 1000, "0.0.linear.weight", ".lora_A.weight",
    "base_model.model.lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "q.lora_a",
    "base_model.model..lora_B.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
    "base_model.model.{}.0.layers.1.x.lora_A.weight",
)  # fmt: skip


def mutate_tree(rng: random.Random, tree: object) -> object:
    """Change one thing somewhere in a document."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        changed = dict(tree)
        match rng.randrange(5):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(NAMES)] = changed.pop(key)
            case 2:
                changed[rng.choice(NAMES)] = rng.choice(HOSTILE)
            case _:
                changed[key] = mutate_tree(rng, tree[key])
        return changed
    if isinstance(tree, list) and tree and rng.random() < 0.7:
        changed_list = list(tree)
        changed_list[rng.randrange(len(tree))] = mutate_tree(rng, rng.choice(tree))
        return changed_list
    return rng.choice(HOSTILE)


def mutate_bytes(rng: random.Random, text: bytes) -> bytes:
    """Flip, drop, repeat or insert some bytes."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) or 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 200)]
            case 3:
                data[at:at] = rng.choice(
                    [b"NaN", b"-Infinity", b"[" * 3000, b'{"a":' * 3000, b"9" * 6000, b"\xff", b"\\ud800"]
                )
            case _:
                data[at:at] = rng.choice([b",", b"}", b"{", b'"', b":", b"null", b"-1", b"1e999", b"\0"])
    return bytes(data)


def mutant(rng: random.Random, document: dict) -> bytes:
    tree: object = document
    for _ in range(rng.randint(1, 3)):
        tree = mutate_tree(rng, tree)
    text = json.dumps(tree).encode()
    return mutate_bytes(rng, text) if rng.random() < 0.5 else text


def evidence_of(config: AdapterConfig | ConfigProblem, header: Header | HeaderProblem, base) -> Evidence:
    """What would have been read from files of these contents; of the numbers, the worst."""
    scan = None
    if isinstance(header, Header):
        names = tuple(tensor.name for tensor in header.tensors)
        scan = Scan(sha256="0" * 64, nonfinite=names[:1], zero=names[1:], norms=dict.fromkeys(names, 1e300))
    file = AdapterFile(name="adapter_model.safetensors", size_bytes=1, sha256="0" * 64)
    bundle = Bundle(
        digest=Digest("sha256:" + "0" * 64),
        directory=Path("/nowhere"),
        files=(file,),
        uri="hf://a/b",
        resolved_revision="c",
    )
    return Evidence(
        bundle=bundle, config=config, weights=(WeightsFile(file=file, header=header, scan=scan),), base=base
    )


def judge_with_all(evidence: Evidence) -> None:
    for profile in PROFILES.values():
        findings = [finding for rule in profile.rules for finding in rule(evidence)]
        predict(findings)
        judge(findings)
        for finding in findings:
            assert len(finding.message) < 2000
            assert len(finding.where) < 4000
            finding.message.encode()
            json.dumps([finding.where, finding.message])


def test_mutants_are_judged_in_milliseconds_and_little_memory(base):
    """Half are headers, half configs; each meets a good partner or another mutant, with a base and without."""
    rng = random.Random(20_261_120)
    header = good_header()
    size = 4 * 1024
    good_text = json.dumps(header).encode()
    good = parse_header(good_text, file_size_bytes=8 + len(good_text) + size)
    assert isinstance(good, Header)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    accepted = 0
    for number in range(MUTANTS // 2):
        text = mutant(rng, header)
        start = len(text).to_bytes(8, "little") + text[:504]
        found = measure_header(start, file_size_bytes=8 + len(text) + size)
        if isinstance(found, int):
            found = parse_header(text, file_size_bytes=8 + len(text) + size)
        config = parse_adapter_config(mutant(rng, CONFIG))
        if isinstance(found, Header):
            accepted += 1
            safetensors.deserialize(len(text).to_bytes(8, "little") + text + bytes(size))  # the reference takes it too
        on = base if number % 2 else None
        judge_with_all(evidence_of(config, good, on))
        judge_with_all(evidence_of(AdapterConfig(peft_type="LORA"), found, on))
    assert accepted > 150, "mutants that nobody can read test only the reader"
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RELAXED
@given(members=st.dictionaries(st.sampled_from([*CONFIG, "lora_bias", "use_dora", "target_parameters"]), JSON))
def test_any_config_is_judged(base, members):
    config = parse_adapter_config(json.dumps(members).encode())
    text = json.dumps(good_header()).encode()
    judge_with_all(evidence_of(config, parse_header(text, file_size_bytes=8 + len(text) + 4096), base))


@RELAXED
@given(
    entries=st.dictionaries(
        st.text(max_size=30) | st.sampled_from(NAMES),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "U8", "F4", "X"]) | JSON,
                "shape": st.lists(st.integers(-2, 2**65), max_size=4) | JSON,
                "data_offsets": st.lists(st.integers(-2, 2**65), min_size=2, max_size=2) | JSON,
            }
        ),
        max_size=6,
    ),
    size=st.integers(0, 2**40),
)
def test_any_header_is_judged(base, entries, size):
    text = json.dumps(entries).encode()
    found = parse_header(text, file_size_bytes=8 + len(text) + size)
    judge_with_all(evidence_of(AdapterConfig(peft_type="LORA"), found, base))


@RELAXED
@given(start=st.binary(max_size=600), size=st.integers(0, 2**64))
def test_any_beginning_of_a_file_is_measured(start, size):
    found = measure_header(start, file_size_bytes=max(size, len(start)))
    assert isinstance(found, HeaderProblem) or 0 <= found <= 16 << 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"[" * 100_000, 1),
        (b'{"a":' * 100_000, 1),
        (b'{"' + b"layers.0." * 1_000_000 + b'":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 5),
        (
            b"{"
            + b",".join(
                b'"base_model.model.layers.%d.x%d.lora_A.weight":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
                % (n, n)
                for n in range(20_000)
            )
            + b"}",
            10,
        ),
    ],
    ids=["deep lists", "deep objects", "one name of nine megabytes", "twenty thousand layers"],
)
def test_bombs_go_off_quietly(base, text, seconds):
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = parse_header(text, file_size_bytes=8 + len(text))
    for on in (base, None):
        judge_with_all(evidence_of(AdapterConfig(peft_type="LORA"), found, on))
    assert time.monotonic() - began < seconds
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY_BYTES


def test_patterns_that_would_take_for_ever_are_not_evaluated(base):
    keys = {f"(x+x+)+{number}y": 8 for number in range(1000)} | {"a*" * 30 + "b": 4}
    config = parse_adapter_config(
        json.dumps({"peft_type": "LORA", "rank_pattern": keys, "target_modules": "(a*)*$"}).encode()
    )
    text = json.dumps(good_header()).encode()
    began = time.monotonic()
    judge_with_all(evidence_of(config, parse_header(text, file_size_bytes=8 + len(text) + 4096), base))
    assert time.monotonic() - began < 1
