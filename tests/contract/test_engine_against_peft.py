"""The inference engine against transformers and PEFT, and against LoRAX's documented ways of losing an adapter.

The reference is teacher forcing: the generated text goes through PEFT once, every generated token must be the argmax
there and have the same log probability. Models are random, seeded and a few ten kilobytes large.
"""

import asyncio
import json
import logging
import math
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.utils import logging as transformers_logging

from sandbox.lorax.adapters import AdapterReader, padded_rank
from sandbox.lorax.contract import AdapterError, AdapterRequest, Finished, FinishReason, GenerationRequest, Sampling
from sandbox.lorax.engine import TorchEngine
from sandbox.lorax.families import projection_types

VOCABULARY = 320
EOS = 1
TOLERANCE = 1e-4
TEXTS = ["the quick", "the lazy dog jumps over the brown fox and the quick dog", "fox jumps over", "a", "dog over"]
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SMALL = {"vocab_size": VOCABULARY, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": EOS}
LLAMA_LIKE = {
    **SMALL, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
FAMILIES = {
    "llama": (LlamaConfig(**LLAMA_LIKE), SEVEN),
    "gpt2": (
        GPT2Config(**{**SMALL, "bos_token_id": EOS}, n_embd=32, n_layer=2, n_head=4),
        ["c_attn", "c_proj", "c_fc"],
    ),
    "qwen2": (Qwen2Config(**LLAMA_LIKE), SEVEN),
    "phi": (PhiConfig(**LLAMA_LIKE), ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]),
    # Sliding and full attention in turn, so the flat mask and transformers' own mask code.
    "gemma2": (Gemma2Config(**LLAMA_LIKE, head_dim=8, sliding_window=6, pad_token_id=0), SEVEN),
    # Not in LoRAX's list of families: every linear layer counts.
    "qwen3": (Qwen3Config(**LLAMA_LIKE, head_dim=8), SEVEN),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog and a"] * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


@pytest.fixture(scope="module")
def base_of(tmp_path_factory, tokenizer):
    """Directory of a family's random base model, made once."""
    made: dict[str, Path] = {}

    def make(family):
        if family not in made:
            directory = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(FAMILIES[family][0])
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() > 1:
                        parameter.normal_(0, 0.25)
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            made[family] = directory
        return made[family]

    return make


@pytest.fixture(scope="module")
def make_adapter(tmp_path_factory, base_of):
    """Directory of a PEFT adapter with large random weights; keyword arguments go to LoraConfig."""

    def make(family="llama", *, seed=0, rank=8, **settings):
        base = base_of(family)
        settings = {"lora_alpha": 2 * rank, "target_modules": FAMILIES[family][1], **settings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(
                AutoModelForCausalLM.from_pretrained(base),
                LoraConfig(task_type="CAUSAL_LM", r=rank, fan_in_fan_out=family == "gpt2", **settings),
            )
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if ".lora_A." in name or ".lora_B." in name:
                        parameter.normal_(0, 0.15, generator=generator)
            model.peft_config["default"].base_model_name_or_path = str(base)
            directory = tmp_path_factory.mktemp("adapter")
            model.save_pretrained(directory, save_embedding_layers=False)
        return directory

    return make


@pytest.fixture
def start(base_of):
    """Start an engine on a family; all are stopped at the end."""
    engines = []

    def make(family="llama", **settings):
        engine = TorchEngine(base_of(family), **settings)
        engines.append(engine)
        engine.start()
        return engine

    yield make
    for engine in engines:
        engine.stop()


def local(*directories, **settings):
    return AdapterRequest(ids=tuple(map(str, directories)), source="local", **settings)


async def generate(engine, text, adapter=None, *, new=12, **settings):
    """All tokens and the end of one request."""
    ids = engine.encode(text)
    settings.setdefault("ignore_eos_token", True)
    request = GenerationRequest(input_ids=ids, max_new_tokens=new, adapter=adapter, **settings)
    *tokens, finished = [event async for event in engine.generate(request)]
    assert isinstance(finished, Finished)
    return tokens, finished


def logprobs_of(model, prompt_ids, tokens):
    ids = torch.tensor([[*prompt_ids, *(token.id for token in tokens)]])
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1].float(), -1)


def assert_greedy(model, prompt_ids, tokens):
    """Every token is PEFT's argmax with PEFT's log probability."""
    expected = logprobs_of(model, prompt_ids, tokens)
    assert [token.id for token in tokens] == expected.argmax(-1).tolist()
    assert [token.logprob for token in tokens] == pytest.approx(expected.max(-1).values.tolist(), abs=TOLERANCE)


def peft_model(base, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(model, str(adapter))
    return model.eval()


def edited(source, target, *, config=None, tensors=None):
    """Copy an adapter, changing its configuration and passing its tensors through a function."""
    target.mkdir()
    raw = json.loads((source / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps({**raw, **(config or {})}))
    weights = load_file(source / "adapter_model.safetensors")
    save_file(tensors(weights) if tensors else weights, target / "adapter_model.safetensors")
    return target


@pytest.mark.parametrize("family", FAMILIES)
async def test_mixed_batch_equals_peft(family, start, base_of, make_adapter):
    """Different adapters, ranks and prompt lengths in one batch change nothing about each answer."""
    engine = start(family)
    adapters = [None, *(make_adapter(family, seed=seed, rank=rank) for seed, rank in enumerate((8, 16, 8, 32)))]
    answers = await asyncio.gather(
        *(
            generate(engine, text, adapter and local(adapter), new=8 + 3 * index)
            for index, (text, adapter) in enumerate(zip(TEXTS, adapters, strict=True))
        )
    )
    for text, adapter, (tokens, _) in zip(TEXTS, adapters, answers, strict=True):
        assert_greedy(peft_model(base_of(family), adapter), engine.encode(text), tokens)


async def test_sequences_may_join_and_leave_at_any_step(start, base_of, make_adapter):
    """Rows move, columns shift and buffers grow while others run; each answer stays PEFT's."""
    engine = start(max_slots=6)
    adapters = [make_adapter(seed=seed, rank=rank) for seed, rank in enumerate((8, 16, 8))]
    reference = [peft_model(base_of("llama"), adapter) for adapter in (None, *adapters)]

    async def late(index):
        await asyncio.sleep(0.012 * index)
        text = " ".join([TEXTS[index % len(TEXTS)]] * (1 + index % 4))
        which = index % 4
        adapter = local(adapters[which - 1]) if which else None
        tokens, _ = await generate(engine, text, adapter, new=(7, 150, 23, 60)[index % 4])
        return which, engine.encode(text), tokens

    for which, prompt, tokens in await asyncio.gather(*map(late, range(16))):
        assert_greedy(reference[which], prompt, tokens)
    assert engine.gauges()["batch_size"] == 0


async def test_reference_logprobs_agree_with_the_engine(start, make_adapter):
    engine, adapter = start(), local(make_adapter(seed=5))
    tokens, _ = await generate(engine, TEXTS[1], adapter)
    prompt = engine.encode(TEXTS[1])
    ids = [*prompt, *(token.id for token in tokens)]
    expected = engine.reference_logprobs(adapter, ids)
    assert len(expected) == len(ids) - 1
    assert [token.logprob for token in tokens] == pytest.approx(expected[len(prompt) - 1 :], abs=TOLERANCE)
    assert engine.reference_logprobs(None, ids) != pytest.approx(expected, abs=0.01)


async def test_prefill_logprobs_are_those_of_the_prompt(start, make_adapter):
    engine, adapter = start(), local(make_adapter(seed=5))
    plain, (_, finished) = await asyncio.gather(
        generate(engine, TEXTS[2], adapter), generate(engine, TEXTS[1], adapter, prefill_logprobs=True)
    )
    assert plain[1].prefill == ()
    ids = engine.encode(TEXTS[1])
    assert [token for token, _, _ in finished.prefill] == ids
    assert math.isnan(finished.prefill[0][2])
    assert [logprob for _, _, logprob in finished.prefill[1:]] == pytest.approx(
        engine.reference_logprobs(adapter, ids), abs=TOLERANCE
    )


async def test_tokens_stream_before_the_end(start):
    engine = start()
    seen = []
    stream = engine.generate(GenerationRequest(input_ids=engine.encode("a"), max_new_tokens=400, ignore_eos_token=True))
    async for _ in stream:
        seen.append(engine.gauges()["batch_size"])
        if len(seen) == 3:
            break
    await stream.aclose()
    assert seen[0] == 1


async def test_text_of_the_tokens_is_the_answer(start):
    """Stream and answer agree, also where a character spans several tokens; the stream may hold back its last bytes."""
    engine = start()
    tokens, finished = await generate(engine, TEXTS[0], new=80)
    streamed = "".join(token.text for token in tokens if not token.special)
    assert streamed
    assert finished.text.startswith(streamed)
    assert finished.text.removeprefix(streamed).strip("\ufffd") == ""


async def test_alternatives_are_the_best_tokens_in_order(start):
    engine = start()
    (tokens, _), (plain, _) = await asyncio.gather(
        generate(engine, TEXTS[0], alternatives=3), generate(engine, TEXTS[0])
    )
    assert [token.id for token in tokens] == [token.id for token in plain]
    assert all(not token.alternatives for token in plain)
    for token in tokens:
        assert len(token.alternatives) == 3
        assert token.alternatives[0][0] == token.id
        assert token.alternatives[0][2] == pytest.approx(token.logprob, abs=1e-6)
        logprobs = [logprob for _, _, logprob in token.alternatives]
        assert logprobs == sorted(logprobs, reverse=True)


async def test_stop_string_ends_the_text_and_is_kept(start):
    engine = start()
    tokens, _ = await generate(engine, TEXTS[0], new=30)
    stop = next(token.text for token in tokens[3:] if token.text.strip())
    stopped, finished = await generate(engine, TEXTS[0], new=30, stop=("never seen here", stop))
    assert finished.reason is FinishReason.STOP_SEQUENCE
    assert finished.text.endswith(stop)
    assert len(stopped) == finished.generated_tokens < 30


async def test_end_of_sequence_ends_unless_ignored_and_length_is_tested_first(start, tmp_path, make_adapter):
    """A head that loves EOS: EOS at the budget reports length, as in LoRAX."""
    engine = start()
    biased = tmp_path / "eos"
    adapter = make_adapter(target_modules=["lm_head"], rank=8)
    eos_adapter = edited(adapter, biased, tensors=_only_eos)
    request = local(eos_adapter)
    tokens, finished = await generate(engine, TEXTS[0], request, ignore_eos_token=False)
    assert finished.reason is FinishReason.EOS_TOKEN
    assert tokens[-1].id == EOS
    assert tokens[-1].special
    assert "<eos>" not in finished.text
    budget = len(tokens)
    _, finished = await generate(engine, TEXTS[0], request, ignore_eos_token=False, new=budget)
    assert finished.reason is FinishReason.LENGTH
    ignoring, finished = await generate(engine, TEXTS[0], request, new=budget + 3)
    assert len(ignoring) == budget + 3
    assert finished.reason is FinishReason.LENGTH


def _only_eos(tensors):
    """Pushes EOS up for half of all hidden states, strongly."""
    changed = {}
    for name, value in tensors.items():
        changed[name] = torch.zeros_like(value)
        if "lora_B" in name:
            changed[name][EOS, 0] = 100.0
        else:
            changed[name][0, 0] = 1.0
    return changed


@pytest.mark.parametrize(
    "sampling",
    [
        {"do_sample": True},
        {"temperature": 1.7, "top_k": 40},
        {"top_p": 0.9, "temperature": 1.3},
        {"typical_p": 0.6},
        {"do_sample": True, "repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.4},
    ],
    ids="+".join,
)
async def test_seed_repeats_whatever_else_runs(sampling, start, make_adapter):
    engine, adapter = start(), local(make_adapter(seed=3))
    alone, _ = await generate(engine, TEXTS[0], adapter, sampling=Sampling(seed=7, **sampling), new=20)
    crowd = [generate(engine, text, sampling=Sampling(seed=9, **sampling), new=25) for text in TEXTS]
    again = generate(engine, TEXTS[0], adapter, sampling=Sampling(seed=7, **sampling), new=20)
    *_, (repeated, _) = await asyncio.gather(*crowd, again)
    other, _ = await generate(engine, TEXTS[0], adapter, sampling=Sampling(seed=8, **sampling), new=20)
    assert [token.id for token in repeated] == [token.id for token in alone]
    assert [token.id for token in other] != [token.id for token in alone]


async def test_logprob_is_that_of_the_unmodified_distribution(start, base_of):
    engine = start()
    sampling = Sampling(seed=1, temperature=2.0, top_k=5, repetition_penalty=1.5)
    tokens, _ = await generate(engine, TEXTS[0], sampling=sampling)
    expected = logprobs_of(peft_model(base_of("llama")), engine.encode(TEXTS[0]), tokens)
    chosen = [row[token.id].item() for row, token in zip(expected, tokens, strict=True)]
    assert [token.logprob for token in tokens] == pytest.approx(chosen, abs=TOLERANCE)


async def test_schema_makes_a_random_model_write_valid_json(start, make_adapter):
    engine = start()
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 6}, "ok": {"type": "boolean"}, "n": {"enum": [1, 2]}},
        "required": ["name", "ok", "n"],
        "additionalProperties": False,
    }
    answers = await asyncio.gather(
        generate(engine, TEXTS[0], sampling=Sampling(json_schema=schema), new=90, ignore_eos_token=False),
        generate(
            engine, TEXTS[1], local(make_adapter(seed=2)), new=90, ignore_eos_token=False,
            sampling=Sampling(json_schema=schema, do_sample=True, seed=3),
        ),
        generate(engine, TEXTS[2], new=40),
    )  # fmt: skip
    for _, finished in answers[:2]:
        assert finished.reason is FinishReason.EOS_TOKEN
        value = json.loads(finished.text)
        assert set(value) == {"name", "ok", "n"}
        assert isinstance(value["ok"], bool)


async def test_bad_schema_fails_only_its_own_request(start):
    engine = start()
    schema = {"type": "object", "properties": {"x": {"type": "no such type"}}}
    answer, failure = await asyncio.gather(
        generate(engine, TEXTS[0], new=40),
        generate(engine, TEXTS[0], sampling=Sampling(json_schema=schema)),
        return_exceptions=True,
    )
    assert len(answer[0]) == 40
    assert isinstance(failure, RuntimeError)


async def test_failing_prompt_fails_only_its_own_request(start, base_of):
    """A token outside the vocabulary makes the forward pass itself fail, in a batch with others."""
    engine = start()

    async def broken():
        request = GenerationRequest(input_ids=[VOCABULARY + 5], max_new_tokens=3)
        return [event async for event in engine.generate(request)]

    *answers, failure = await asyncio.gather(
        *(generate(engine, text) for text in TEXTS), broken(), return_exceptions=True
    )
    assert isinstance(failure, RuntimeError)
    for text, (tokens, _) in zip(TEXTS, answers, strict=True):
        assert_greedy(peft_model(base_of("llama")), engine.encode(text), tokens)


async def test_lengths_beyond_the_limits_fail_before_they_reach_the_batch(start):
    """The positions of a model end somewhere; one sequence running past them would take the batch with it."""
    engine = start(max_total_tokens=40)
    for prompt, new in (("", 5), (TEXTS[0], 0), (TEXTS[0], 40)):
        with pytest.raises(RuntimeError, match="do not fit"):
            await generate(engine, prompt, new=new)
    tokens, _ = await generate(engine, TEXTS[0], new=40 - len(engine.encode(TEXTS[0])))
    assert len(tokens) == 40 - len(engine.encode(TEXTS[0]))


async def test_nan_adapter_gives_nan_and_harms_nobody(start, base_of, make_adapter, tmp_path, caplog):
    """LoRAX accepts NaN weights. Its rows must not leak into others, also not through a reused slot."""
    engine = start(max_slots=3)
    broken = edited(make_adapter(), tmp_path / "nan", tensors=_all_nan)
    long = " ".join([TEXTS[1]] * 4)
    for _ in range(2):
        (tokens, _), (others, _) = await asyncio.gather(
            generate(engine, long, local(broken), new=5), generate(engine, TEXTS[0], new=30)
        )
        assert all(math.isnan(token.logprob) for token in tokens)
        assert_greedy(peft_model(base_of("llama")), engine.encode(TEXTS[0]), others)
    texts = [TEXTS[0], long, TEXTS[3]]
    answers = await asyncio.gather(*(generate(engine, text, new=30) for text in texts))
    for text, (tokens, _) in zip(texts, answers, strict=True):
        assert_greedy(peft_model(base_of("llama")), engine.encode(text), tokens)
    assert "NaN" in caplog.text
    with pytest.raises(AdapterError, match="NaN"):
        await generate(start(strict=True), "a", local(broken))


def _all_nan(tensors):
    return {name: value * math.nan for name, value in tensors.items()}


async def test_closing_the_stream_frees_the_slot(start, base_of):
    engine = start(max_slots=2)

    async def leave_early():
        stream = engine.generate(
            GenerationRequest(input_ids=engine.encode(TEXTS[1]), max_new_tokens=450, ignore_eos_token=True)
        )
        async for _ in stream:
            break
        await stream.aclose()

    *_, (tokens, _) = await asyncio.gather(*(leave_early() for _ in range(4)), generate(engine, TEXTS[0], new=40))
    assert_greedy(peft_model(base_of("llama")), engine.encode(TEXTS[0]), tokens)
    for _ in range(100):
        if engine.gauges()["batch_size"] == 0:
            break
        await asyncio.sleep(0.01)
    assert engine.gauges()["batch_size"] == 0


async def test_stopping_ends_running_sequences_with_an_error(start):
    engine = start()
    running = asyncio.create_task(generate(engine, TEXTS[0], new=480))
    await generate(engine, TEXTS[0], new=1)
    await asyncio.to_thread(engine.stop)
    with pytest.raises(RuntimeError, match="stopped"):
        await running
    for adapter in (None, local("/nowhere/at/all")):
        with pytest.raises(RuntimeError, match="not running"):
            await generate(engine, TEXTS[0], adapter)


async def test_engine_may_be_started_again(start, make_adapter):
    engine, adapter = start(), local(make_adapter())
    first, _ = await generate(engine, TEXTS[0], adapter)
    await asyncio.to_thread(engine.stop)
    engine.start()
    again, _ = await generate(engine, TEXTS[0], adapter)
    assert [token.id for token in again] == [token.id for token in first]


async def test_engine_survives_a_step_that_fails(start, base_of, monkeypatch):
    """Out of memory in the middle of a batch ends that batch; the next one works."""
    engine = start()
    decode, calls = engine._model.decode, []

    def fails_once(tokens):
        calls.append(len(tokens))
        if len(calls) == 3:
            raise MemoryError("no room")
        return decode(tokens)

    monkeypatch.setattr(engine._model, "decode", fails_once)
    failures = await asyncio.gather(*(generate(engine, text, new=30) for text in TEXTS), return_exceptions=True)
    assert any(isinstance(failure, RuntimeError) and "no room" in str(failure) for failure in failures)
    tokens, _ = await generate(engine, TEXTS[1], new=30)
    assert_greedy(peft_model(base_of("llama")), engine.encode(TEXTS[1]), tokens)


async def test_budget_evicts_the_least_recently_used(start, base_of, make_adapter):
    adapters = [make_adapter(seed=seed) for seed in range(3)]
    size = sum(value.numel() * 4 for value in load_file(adapters[0] / "adapter_model.safetensors").values())
    engine = start(adapter_budget_bytes=2 * size)
    for adapter in (*adapters, adapters[0]):
        tokens, _ = await generate(engine, TEXTS[0], local(adapter))
        assert_greedy(peft_model(base_of("llama"), adapter), engine.encode(TEXTS[0]), tokens)
        gauges = engine.gauges()
        assert gauges["adapter_bytes"] <= 2 * size
    assert gauges["adapters_resident"] == 2


async def test_adapter_larger_than_the_budget_is_refused(start, make_adapter):
    adapter = make_adapter()
    engine = start(adapter_budget_bytes=1000)
    with pytest.raises(AdapterError, match=r"is larger than adapter memory reservation: \d+ / 1000 bytes"):
        await generate(engine, "a", local(adapter))


async def test_failed_load_is_tried_again(start, make_adapter, tmp_path):
    """There is no negative cache: once the files are there, the next request works."""
    engine, place = start(), tmp_path / "late"
    with pytest.raises(AdapterError, match=r"No local weights found in .*late with extension \.safetensors"):
        await generate(engine, "a", local(place))
    edited(make_adapter(), place)
    tokens, _ = await generate(engine, "a", local(place))
    assert tokens


async def test_others_generate_while_an_adapter_loads(start, make_adapter, monkeypatch):
    engine, adapter = start(), local(make_adapter())
    release = threading.Event()
    read = engine._store._reader.read

    def slow(*arguments):
        release.wait(30)
        return read(*arguments)

    monkeypatch.setattr(engine._store._reader, "read", slow)
    waiting = asyncio.create_task(generate(engine, TEXTS[0], adapter))
    tokens, _ = await generate(engine, TEXTS[1], new=20)
    assert len(tokens) == 20
    assert not waiting.done()
    assert engine.gauges()["queue_length"] == 1
    await asyncio.sleep(0.05)
    release.set()
    _, finished = await waiting
    assert finished.queue_ms >= 50


# What LoRAX loses without a word, and what it refuses


def _renamed(tensors):
    return {name.replace("base_model.model.", "model."): value for name, value in tensors.items()}


def _without_one_layer(tensors):
    return {name: value for name, value in tensors.items() if "layers.1.mlp.up_proj" not in name}


LOSSES = {
    "names match nothing": ({}, _renamed, "no weight name matches", lambda model: _silence(model, "")),
    "one layer lacks a type": ({}, _without_one_layer, "up_proj is dropped", lambda model: _silence(model, "up_proj")),
    "rslora": ({"use_rslora": True}, None, "use_rslora is ignored", None),
    "alpha_pattern": ({"alpha_pattern": {"q_proj": 64}}, None, "alpha_pattern is ignored", None),
    "dora": ({"use_dora": True}, None, "use_dora is ignored", None),
    "bias": ({"bias": "lora_only"}, None, "bias='lora_only' is ignored", None),
    "another type of adapter": ({"peft_type": "LOHA"}, None, "peft_type LOHA is read as LORA", None),
    "other base out of reach": (
        {"base_model_name_or_path": "/nowhere/base"}, None, "whose configuration is out of reach", None,
    ),
    "no base named": ({"base_model_name_or_path": None}, None, "base_model_name_or_path is empty", None),
}  # fmt: skip


def _silence(model, part):
    """Make the PEFT reference lose what LoRAX loses: the update of all modules whose name contains ``part``."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name and part in name:
            parameter.data.zero_()


@pytest.mark.parametrize("case", LOSSES)
async def test_what_lorax_loses_is_lost_with_a_warning_or_refused_when_strict(
    case, *, start, base_of, make_adapter, tmp_path, caplog
):
    config, tensors, warning, lose = LOSSES[case]
    good = make_adapter(seed=4)
    adapter = edited(good, tmp_path / "lossy", config=config, tensors=tensors)
    engine = start()
    with caplog.at_level(logging.WARNING):
        tokens, _ = await generate(engine, TEXTS[1], local(adapter))
    assert warning in caplog.text
    reference = peft_model(base_of("llama"), good)
    if lose is not None:
        lose(reference)
    assert_greedy(reference, engine.encode(TEXTS[1]), tokens)
    with pytest.raises(AdapterError, match="refused"):
        await generate(start(strict=True), TEXTS[1], local(adapter))


async def test_good_adapter_passes_strict_without_a_warning(start, make_adapter, caplog):
    adapter = make_adapter(rank=16)
    with caplog.at_level(logging.WARNING):
        tokens, _ = await generate(start(strict=True), "a", local(adapter))
    assert tokens
    assert not caplog.records


async def test_rank_padding_divides_all_but_the_first_type_by_the_padded_rank(start, base_of, make_adapter, caplog):
    """r=4, alpha=8: q_proj gets 2.0, every later type 8 / 8."""
    adapter = make_adapter(seed=6, rank=4)
    engine = start()
    tokens, _ = await generate(engine, TEXTS[1], local(adapter))
    assert "alpha / 8 (padded) instead of alpha / 4" in caplog.text
    reference = peft_model(base_of("llama"), adapter)
    for name, parameter in reference.named_parameters():
        if "lora_B" in name and "q_proj" not in name:
            parameter.data *= 0.5
    assert_greedy(reference, engine.encode(TEXTS[1]), tokens)


async def test_dropping_a_type_that_is_no_family_member(start, base_of, make_adapter, caplog):
    """Embedding LoRA is outside LoRAX's list; the projections beside it still count."""
    adapter = make_adapter(seed=2, target_modules=[*SEVEN, "embed_tokens"])
    engine = start()
    tokens, _ = await generate(engine, TEXTS[1], local(adapter))
    assert "tensors match nothing" in caplog.text
    reference = peft_model(base_of("llama"), adapter)
    for name, parameter in reference.named_parameters():
        if "lora_embedding_B" in name:
            parameter.data.zero_()
    assert_greedy(reference, engine.encode(TEXTS[1]), tokens)


async def test_dora_magnitudes_are_ignored(start, base_of, make_adapter, tmp_path, caplog):
    dora = make_adapter(seed=3, use_dora=True)
    engine = start()
    tokens, _ = await generate(engine, TEXTS[1], local(dora))
    assert "magnitudes" in caplog.text
    plain = edited(
        dora, tmp_path / "plain", config={"use_dora": False},
        tensors=lambda all_: {name: value for name, value in all_.items() if "magnitude" not in name},
    )  # fmt: skip
    assert_greedy(peft_model(base_of("llama"), plain), engine.encode(TEXTS[1]), tokens)


def _wrong_width(tensors):
    return {name: value[:, :16].contiguous() if "lora_A" in name else value for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("settings", "config", "tensors", "message"),
    [
        ({"rank_pattern": {r".*layers\.1.*q_proj": 16}}, {}, None, "stack expects each tensor to be equal size"),
        ({}, {}, _wrong_width, r"q_proj has lora_A \(8, 16\)"),
        ({}, {"r": 0}, None, "division by zero"),
        ({}, {"r": None}, None, "cannot be computed"),
    ],
    ids=["mixed ranks", "other width", "rank 0", "rank null"],
)
async def test_refused_adapters(*, settings, config, tensors, message, start, make_adapter, tmp_path):
    adapter = edited(make_adapter(**settings), tmp_path / "bad", config=config, tensors=tensors)
    with pytest.raises(AdapterError, match=message):
        await generate(start(), "a", local(adapter))


async def test_other_architecture_is_refused(start, base_of, make_adapter, tmp_path):
    adapter = edited(make_adapter(), tmp_path / "other", config={"base_model_name_or_path": str(base_of("gpt2"))})
    with pytest.raises(AdapterError, match=r"Architectures differ: \['GPT2LMHeadModel'\] != \['LlamaForCausalLM'\]"):
        await generate(start(), "a", local(adapter))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "No valid adapter config file found: tried None and None"),
        ({"adapter_config.json": b"{}"}, "No local weights found in .* with extension .safetensors"),
        ({"adapter_config.json": b"{"}, "is not JSON"),
        ({"adapter_config.json": b"[]"}, "is not a JSON object"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"\x10\0\0"}, "Error while deserializing"),
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"cos\nsystem\n(S'true'\ntR."}, "not unpickled"),
        ({"config.json": b"{}"}, "Medusa"),
    ],
    ids=["empty", "no weights", "cut config", "list config", "cut weights", "pickle", "medusa"],
)
async def test_broken_directories_are_refused(files, message, start, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AdapterError, match=message):
        await generate(start(), "a", local(tmp_path))


async def test_bin_weights_are_read_as_tensors_only(start, base_of, make_adapter, tmp_path, caplog):
    good = make_adapter(seed=1)
    (tmp_path / "adapter_config.json").write_bytes((good / "adapter_config.json").read_bytes())
    torch.save(load_file(good / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    engine = start()
    tokens, _ = await generate(engine, "a", local(tmp_path))
    assert "only tensors are read" in caplog.text
    assert_greedy(peft_model(base_of("llama"), good), engine.encode("a"), tokens)


async def test_unknown_source_is_refused(start):
    wanted = AdapterRequest(ids=("team/a",), source="ftp")
    with pytest.raises(AdapterError, match="Invalid source 'ftp' when downloading adapter 'team/a'"):
        await generate(start(), "a", wanted)


def test_families_without_adapters_are_refused_with_lorax_texts(tmp_path):
    for family, text in {"opt": "This model does not support adapter loading.", "bloom": "Memory reserved"}.items():
        reader = AdapterReader(
            model_id="base", config=SimpleNamespace(model_type=family, architectures=["X"]), types={}, shapes={},
            dtype=torch.float32, device=torch.device("cpu"), strict=False, base_architectures=lambda _: None,
        )  # fmt: skip
        with pytest.raises(AdapterError, match=text):
            reader.read("some/adapter", tmp_path)


def test_projection_types_follow_the_family_and_its_order():
    layers = [f"model.layers.{index}.{part}" for index in range(12) for part in ("mlp.up_proj", "self_attn.q_proj")]
    assert list(projection_types("mixtral", [*layers, "lm_head"])) == ["q_proj"]
    llama = projection_types("llama", [*layers, "lm_head"])
    assert list(llama) == ["q_proj", "up_proj", "lm_head"]
    assert llama["q_proj"][10] == "model.layers.10.self_attn.q_proj"
    other = projection_types("unheard-of", [*layers, "model.layers.0.mlp.experts.3.w1", "lm_head"])
    assert list(other) == ["model.layers.*.mlp.up_proj", "model.layers.*.self_attn.q_proj", "lm_head"]


@pytest.mark.parametrize(("rank", "padded"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (64, 64), (65, 80)])
def test_padded_rank(rank, padded):
    assert padded_rank(rank) == padded


# Merging, LoRAX's way


def _scaled(adapter, target, factor):
    """The same adapter with its update multiplied."""
    alpha = json.loads((adapter / "adapter_config.json").read_text())["lora_alpha"]
    return edited(adapter, target, config={"lora_alpha": alpha * factor})


@pytest.mark.parametrize(("weight", "factor"), [(1.0, 4), (0.5, 1)])
async def test_merge_weights_act_quadratically(*, weight, factor, start, base_of, make_adapter, tmp_path):
    """A and B are merged apart: two equal adapters at 1 and 1 give four times the update."""
    adapter = make_adapter(seed=1)
    twin = edited(adapter, tmp_path / "twin")
    engine = start()
    tokens, _ = await generate(engine, TEXTS[0], local(adapter, twin, weights=(weight, weight)))
    reference = peft_model(base_of("llama"), _scaled(adapter, tmp_path / "scaled", factor))
    assert_greedy(reference, engine.encode(TEXTS[0]), tokens)


async def test_linear_merge_sums_a_and_b_apart(start, base_of, make_adapter, tmp_path):
    first, second = make_adapter(seed=1), make_adapter(seed=2)
    other = load_file(second / "adapter_model.safetensors")
    by_hand = edited(
        first, tmp_path / "sum",
        tensors=lambda all_: {name: 0.7 * value + 0.3 * other[name] for name, value in all_.items()},
    )  # fmt: skip
    engine = start()
    tokens, _ = await generate(engine, TEXTS[0], local(first, second, weights=(0.7, 0.3)))
    assert_greedy(peft_model(base_of("llama"), by_hand), engine.encode(TEXTS[0]), tokens)


@pytest.mark.parametrize("strategy", ["ties", "dare_linear", "dare_ties"])
async def test_omitted_density_leaves_the_base_model(strategy, start, base_of, make_adapter):
    engine = start()
    wanted = local(make_adapter(seed=1), make_adapter(seed=2), weights=(1.0, 1.0), merge_strategy=strategy)
    tokens, _ = await generate(engine, TEXTS[0], wanted)
    assert_greedy(peft_model(base_of("llama")), engine.encode(TEXTS[0]), tokens)


async def test_ties_at_full_density_is_the_mean_of_those_that_agree(start, base_of, make_adapter, tmp_path):
    first, second = make_adapter(seed=1), make_adapter(seed=2)
    other = load_file(second / "adapter_model.safetensors")

    def ties(tensors):
        merged = {}
        for name, value in tensors.items():
            both = torch.stack([value, other[name]])
            agree = both.sign() == torch.where(both.sum(0) >= 0, 1, -1)
            merged[name] = (both * agree).sum(0) / agree.sum(0).clamp(min=1)
        return merged

    engine = start()
    wanted = local(first, second, weights=(1.0, 1.0), merge_strategy="TIES", density=1.0)
    tokens, _ = await generate(engine, TEXTS[0], wanted)
    reference = peft_model(base_of("llama"), edited(first, tmp_path / "ties", tensors=ties))
    assert_greedy(reference, engine.encode(TEXTS[0]), tokens)


async def test_dare_repeats_and_is_not_rescaled(start, make_adapter):
    """Half the values are dropped and the rest stays as large as it was."""
    engine = start()
    adapter = make_adapter(seed=1)
    wanted = local(adapter, make_adapter(seed=2), weights=(1.0, 0.0), merge_strategy="dare_linear", density=0.5)
    merged = engine._store._load(wanted).pairs["q_proj"].a
    original = engine._store._load(local(adapter)).pairs["q_proj"].a
    kept = merged != 0
    assert 0.3 < kept.float().mean() < 0.7
    assert torch.equal(merged[kept], original[kept])
    assert torch.equal(engine._store._load(wanted).pairs["q_proj"].a, merged)


async def test_unequal_ranks_do_not_merge(start, make_adapter):
    wanted = local(make_adapter(rank=8), make_adapter(rank=16), weights=(1.0, 1.0))
    with pytest.raises(AdapterError, match="unable to merge adapters, lora configs have different ranks"):
        await generate(start(), "a", wanted)


async def test_null_target_modules_do_not_merge(start, make_adapter, tmp_path):
    adapters = [edited(make_adapter(), tmp_path / name, config={"target_modules": None}) for name in "xy"]
    with pytest.raises(AdapterError, match="NoneType"):
        await generate(start(), "a", local(*adapters, weights=(1.0, 1.0)))


async def test_reference_follows_peft_where_the_engine_follows_lorax(start, make_adapter):
    """The two disagree on rank-stabilised scaling, and that is how the loss can be seen."""
    engine, adapter = start(), local(make_adapter(seed=3, use_rslora=True))
    tokens, _ = await generate(engine, TEXTS[0], adapter)
    prompt = engine.encode(TEXTS[0])
    expected = engine.reference_logprobs(adapter, [*prompt, *(token.id for token in tokens)])[len(prompt) - 1 :]
    assert max(abs(token.logprob - other) for token, other in zip(tokens, expected, strict=True)) > 0.01


async def test_reference_merges_as_peft_does(start, make_adapter):
    """PEFT sums A and B apart with the root of each weight, so two equal adapters at a quarter are one adapter."""
    engine, adapter = start(), make_adapter(seed=1)
    ids = engine.encode(TEXTS[1])
    merged = engine.reference_logprobs(local(adapter, adapter, weights=(0.25, 0.25)), ids)
    assert merged == pytest.approx(engine.reference_logprobs(local(adapter), ids), abs=TOLERANCE)
    for strategy in ("ties", "dare_linear", "dare_ties"):
        wanted = local(adapter, adapter, weights=(0.5, 0.5), merge_strategy=strategy, density=0.5)
        assert engine.reference_logprobs(wanted, ids) == engine.reference_logprobs(wanted, ids)


def test_reference_refuses_what_peft_refuses(start, make_adapter, tmp_path):
    engine = start()
    wrong = edited(make_adapter(), tmp_path / "wrong", tensors=_wrong_width)
    with pytest.raises(AdapterError, match="PEFT cannot load"):
        engine.reference_logprobs(local(wrong), engine.encode(TEXTS[1]))


async def test_reference_may_be_asked_from_many_threads(start, make_adapter):
    engine = start()
    wanted = [local(make_adapter(seed=seed)) for seed in range(3)] + [None]
    ids = engine.encode(TEXTS[1])
    expected = [engine.reference_logprobs(adapter, ids) for adapter in wanted]
    together = await asyncio.gather(*(asyncio.to_thread(engine.reference_logprobs, adapter, ids) for adapter in wanted))
    assert together == expected


def test_chat_without_a_template_says_so(start):
    with pytest.raises(ValueError, match="template"):
        start().apply_chat_template([{"role": "user", "content": "hi"}])


def test_offsets_point_into_the_text(start):
    engine = start()
    pieces = engine.encode_with_offsets(TEXTS[0], add_special_tokens=True)
    assert [token for token, *_ in pieces] == engine.encode(TEXTS[0])
    assert pieces[0][2] == 0
    assert pieces[-1][3] == len(TEXTS[0])
