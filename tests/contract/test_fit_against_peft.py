"""Fitted adapters against PEFT: the same logits as the original's, from PEFT and from the sandbox's LoRAX engine.

What the original computes is what PEFT makes of it, before any damage to its files. Models are random and tiny.
"""

import asyncio
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from sandbox.lorax.contract import AdapterRequest, Finished, GenerationRequest
from sandbox.lorax.engine import TorchEngine
from slipway.adapter import AdapterUri, Source
from slipway.base_model import read_base_directory
from slipway.services.fitting import Fitted, Refused, fit_bundle
from slipway.services.local import LocalSource
from slipway.services.store import BundleStore

VOCABULARY = 64
SMALL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 1, "max_position_embeddings": 64}
CONFIGS = {
    "llama": LlamaConfig(
        **SMALL, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    ),
    "gpt2": GPT2Config(**{**SMALL, "bos_token_id": 1}, n_embd=32, n_layer=2, n_head=4, n_positions=64),
}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.arange(2, 42).reshape(2, 20)
WEIGHTS = "adapter_model.safetensors"
TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    made: dict[str, Path] = {}

    def make(family):
        if family not in made:
            directory = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(CONFIGS[family])
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() > 1:
                        parameter.normal_(0, 0.1)
            model.save_pretrained(directory)
            words = {f"w{number}": number for number in range(VOCABULARY)}
            tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1").save_pretrained(directory)
            made[family] = directory
        return made[family]

    return make


def load(base, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(model, str(adapter))
    return model.eval()


def logits(base, adapter=None):
    with torch.no_grad():
        return load(base, adapter)(input_ids=IDS).logits


def distance(one, other):
    return float((one - other).abs().max())


@pytest.fixture
def save(tmp_path, base_of):
    """Save a PEFT adapter of random numbers; settings are those of ``LoraConfig``."""

    def make(family="llama", *, dtype=None, **settings):
        base = base_of(family)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = LoraConfig(
                task_type="CAUSAL_LM", **{"r": 8, "lora_alpha": 16, "target_modules": SEVEN, **settings}
            )
            model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if ".lora_A." in name or ".lora_B." in name:
                        parameter.normal_(0, 0.1, generator=generator)
            model.peft_config["default"].base_model_name_or_path = str(base)
            directory = tmp_path / "original"
            model.save_pretrained(directory, save_embedding_layers=False)
        if dtype is not None:
            rewrite(directory, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
        return directory

    return make


def rewrite(directory, change):
    tensors = load_file(directory / WEIGHTS)
    save_file({name: value.contiguous() for name, value in change(tensors).items()}, directory / WEIGHTS)


@pytest.fixture
def fit(tmp_path, base_of):
    """Fit a directory; ``damage`` is done to a copy of it first."""

    def run(directory, family="llama", *, damage=None, **settings):
        copy = tmp_path / "damaged"
        shutil.copytree(directory, copy)
        if damage is not None:
            damage(copy)
        store = BundleStore(root=tmp_path / "store")
        bundle = asyncio.run(LocalSource().pull(AdapterUri(source=Source.LOCAL, location=str(copy)), store))
        base = read_base_directory(base_of(family), model_id=str(base_of(family)))
        return fit_bundle(bundle, base, store, **settings)

    return run


def infix(directory):
    rewrite(directory, lambda tensors: {name.replace(".weight", ".default.weight"): x for name, x in tensors.items()})


def prefix(directory):
    rewrite(directory, lambda tensors: {name.removeprefix("base_model.model."): x for name, x in tensors.items()})


def language_model(directory):
    def rename(name):
        return name.replace("model.model.", "model.model.language_model.", 1)

    rewrite(directory, lambda tensors: {rename(name): value for name, value in tensors.items()})


def compiled(directory):
    rewrite(
        directory,
        lambda tensors: {name.replace("model.model.", "model._orig_mod.model.", 1): x for name, x in tensors.items()},
    )


def split(directory):
    tensors = load_file(directory / WEIGHTS)
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:9]}, directory / WEIGHTS)
    save_file({name: tensors[name] for name in names[9:]}, directory / "adapter_model-2.safetensors")


def pickled(directory):
    torch.save(load_file(directory / WEIGHTS), directory / "adapter_model.bin")
    (directory / WEIGHTS).unlink()


def unnamed(directory):
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": None}))


KINDS = {
    "rslora": {"use_rslora": True},
    "rslora of an odd rank": {"use_rslora": True, "r": 5},
    "alpha pattern by powers of two": {"alpha_pattern": {"q_proj": 4, "down_proj": 64}},
    "alpha pattern": {"alpha_pattern": {"v_proj": 11, r"model\.layers\.1\..*": 7, "q_proj": 3}},
    "rank pattern": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 13}},
    "both patterns and rslora": {
        "rank_pattern": {"q_proj": 4, "^model.layers.2.mlp.up_proj": 20},
        "alpha_pattern": {"up_proj": 5},
        "use_rslora": True,
    },
    "small rank": {"r": 3, "lora_alpha": 7},
    "rank without a kernel": {"r": 40},
    "some layers": {"layers_to_transform": [0, 2]},
    "one module": {"target_modules": r".*layers\.1\.self_attn\.v_proj"},
    "output layer": {"target_modules": ["q_proj", "lm_head"], "r": 4},
}
DAMAGES = [infix, prefix, language_model, compiled, split, pickled, unnamed]


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_adapter_has_the_logits_of_the_original(kind, save, fit, base_of):
    original = save(**KINDS[kind])
    expected = logits(base_of("llama"), original)
    fitted = fit(original)
    assert isinstance(fitted, Fitted), fitted
    assert distance(logits(base_of("llama"), fitted.bundle.directory), expected) <= TOLERANCE
    assert distance(expected, logits(base_of("llama"))) > 0.05


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_fitted_back_to_the_original(damage, save, fit, base_of):
    original = save()
    fitted = fit(original, damage=damage)
    assert isinstance(fitted, Fitted), fitted
    expected = logits(base_of("llama"), original)
    assert distance(logits(base_of("llama"), fitted.bundle.directory), expected) <= TOLERANCE


def test_transposed_layers_are_fitted_like_others(save, fit, base_of):
    original = save("gpt2", target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, r=4, use_rslora=True)
    fitted = fit(original, "gpt2")
    expected = logits(base_of("gpt2"), original)
    assert distance(logits(base_of("gpt2"), fitted.bundle.directory), expected) <= TOLERANCE
    config = json.loads((fitted.bundle.directory / "adapter_config.json").read_text())
    assert config["target_modules"] == ["c_attn", "mlp.c_proj"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept_and_loses_nothing_where_nothing_is_multiplied(dtype, save, fit, base_of):
    original = save(use_rslora=True, r=5, dtype=dtype)
    fitted = fit(original)
    assert {tensor.dtype for tensor in load_file(fitted.bundle.directory / WEIGHTS).values()} == {dtype}
    expected = logits(base_of("llama"), original)
    assert distance(logits(base_of("llama"), fitted.bundle.directory), expected) <= TOLERANCE


def test_precision_is_given_up_only_within_what_is_stated(save, fit, base_of):
    original = save()
    fitted = fit(original, dtype="bfloat16")
    expected = logits(base_of("llama"), original)
    assert TOLERANCE < distance(logits(base_of("llama"), fitted.bundle.directory), expected) < 0.1


@pytest.mark.parametrize(
    "kind", ["rslora", "alpha pattern", "both patterns and rslora", "small rank", "some layers", "one module"]
)
async def test_the_sandbox_serves_the_fitted_adapter_as_peft_computes_the_original(kind, save, base_of, tmp_path):
    """The engine makes LoRAX's mistakes, so that it agrees only because the fitted form avoids all of them."""
    original = save(**KINDS[kind])
    store = BundleStore(root=tmp_path / "store")
    bundle = await LocalSource().pull(AdapterUri(source=Source.LOCAL, location=str(original)), store)
    base = read_base_directory(base_of("llama"), model_id=str(base_of("llama")))
    fitted = fit_bundle(bundle, base, store)
    engine = TorchEngine(base_of("llama"), strict=True)
    engine.start()
    try:
        request = GenerationRequest(
            input_ids=IDS[0].tolist(),
            max_new_tokens=10,
            adapter=AdapterRequest(ids=(str(fitted.bundle.directory),), source="local"),
            ignore_eos_token=True,
        )
        *tokens, finished = [event async for event in engine.generate(request)]
    finally:
        engine.stop()
    assert isinstance(finished, Finished)
    ids = torch.tensor([[*IDS[0].tolist(), *(token.id for token in tokens)]])
    with torch.no_grad():
        expected = torch.log_softmax(load(base_of("llama"), original)(input_ids=ids).logits[0, 19:-1], -1)
    assert [token.id for token in tokens] == expected.argmax(-1).tolist()
    assert [token.logprob for token in tokens] == pytest.approx(expected.max(-1).values.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"bias": "all", "target_modules": ["c_attn"], "fan_in_fan_out": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"lora_bias": True},
        {"trainable_token_indices": [3]},
    ],
)
def test_what_peft_saves_of_other_kinds_is_refused(settings, save, fit):
    family = "gpt2" if settings.get("bias") else "llama"
    assert isinstance(fit(save(family, **settings), family), Refused)
