"""Throughput and load time of the sandbox's inference engine, with PEFT measured in the same run.

Prints tokens per second for 64 prompts of 32 tokens, 32 new tokens each, greedy, by number of distinct adapters; PEFT's
own mixed batch (``adapter_names``) of the same work; a batch of 16 against 16 requests one by one; and the time to load
an adapter with more and more of them resident. Kinds of run are interleaved, so that a busy machine slows all alike;
medians are shown.

    python benchmarks/sandbox_engine.py [--runs 3] [--json]

Exit code 1 when an anchor is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from sandbox.lorax.contract import AdapterRequest, Finished, GenerationRequest
from sandbox.lorax.engine import TorchEngine

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 64, 32, 32
ADAPTERS = (1, 4, 16, 64)
VOCABULARY = 1024
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Work = Callable[[], int]


def make_base(directory: Path) -> None:
    """A random Llama of 3.4 million parameters: hidden 256, 4 layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=512, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", pad_token="w0").save_pretrained(directory)


def make_adapters(base: Path, root: Path, count: int) -> list[Path]:
    """``count`` rank 8 adapters on all seven projections, different random weights."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=PROJECTIONS),
    )
    model.peft_config["default"].base_model_name_or_path = str(base)
    first = root / "adapter-0"
    model.save_pretrained(first)
    directories = [root / f"adapter-{index}" for index in range(count)]
    names = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    for index, directory in enumerate(directories):
        directory.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(index)
        save_file(
            {name.replace(".default", ""): torch.randn(value.shape, generator=generator) * 0.02
             for name, value in names.items()},
            directory / "adapter_model.safetensors",
        )  # fmt: skip
        (directory / "adapter_config.json").write_bytes((first / "adapter_config.json").read_bytes())
    return directories


def timed(work: Work) -> float:
    """Tokens per second of one run."""
    start = time.perf_counter()
    tokens = work()
    return tokens / (time.perf_counter() - start)


class EngineRuns:
    """The engine's side: every prompt is a request of its own, as over HTTP."""

    def __init__(self, engine: TorchEngine, adapters: list[Path], prompts: list[list[int]]) -> None:
        self._engine, self._prompts = engine, prompts
        self._requests = [AdapterRequest(ids=(str(path),), source="local") for path in adapters]

    async def _one(self, prompt: list[int], adapter: AdapterRequest | None) -> int:
        request = GenerationRequest(input_ids=prompt, max_new_tokens=NEW_TOKENS, adapter=adapter, ignore_eos_token=True)
        async for event in self._engine.generate(request):
            if isinstance(event, Finished):
                return event.generated_tokens
        raise RuntimeError("the stream ended without a result")

    def _adapter(self, index: int, distinct: int) -> AdapterRequest | None:
        return self._requests[index % distinct] if distinct else None

    def together(self, count: int, distinct: int) -> int:
        """``count`` requests at once over ``distinct`` adapters; 0 is the bare base model."""

        async def run() -> int:
            ones = (self._one(self._prompts[index], self._adapter(index, distinct)) for index in range(count))
            return sum(await asyncio.gather(*ones))

        return asyncio.run(run())

    def one_by_one(self, count: int, distinct: int) -> int:
        """The same requests, each after the end of the one before."""

        async def run() -> int:
            return sum(
                [await self._one(self._prompts[index], self._adapter(index, distinct)) for index in range(count)]
            )

        return asyncio.run(run())


def peft_runs(base: Path, adapters: list[Path], prompts: list[list[int]]) -> Callable[[int], int]:
    """PEFT's mixed batch over the same adapters and prompts."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapters[0]), adapter_name="a0")
    for index, path in enumerate(adapters[1:], start=1):
        model.load_adapter(str(path), adapter_name=f"a{index}")
    model.eval()
    ids = torch.tensor(prompts)
    settings = GenerationConfig(
        max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=1
    )

    def run(distinct: int) -> int:
        names = [f"a{index % distinct}" for index in range(len(prompts))]
        with torch.no_grad():
            output = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, adapter_names=names
            )
        return (output.shape[1] - ids.shape[1]) * output.shape[0]

    return run


def load_times(engine: TorchEngine, adapters: list[Path]) -> list[float]:
    """Milliseconds per adapter from request to ready, with all the earlier ones resident."""
    times = []
    for path in adapters:
        answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        start = time.perf_counter()
        engine._store.request(AdapterRequest(ids=(str(path),), source="local"), answers.put)  # noqa: SLF001  # the loader alone
        result = answers.get()
        times.append((time.perf_counter() - start) * 1000)
        if isinstance(result, Exception):
            raise result
    return times


def main() -> int:
    """Measure, print, and compare with the anchors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = root / "base"
        make_base(base)
        adapters = make_adapters(base, root, max(ADAPTERS))
        generator = torch.Generator().manual_seed(1)
        prompts = torch.randint(2, VOCABULARY, (PROMPTS, PROMPT_TOKENS), generator=generator).tolist()
        peft = peft_runs(base, adapters, prompts)
        engine = TorchEngine(base, max_slots=PROMPTS, max_total_tokens=PROMPT_TOKENS + NEW_TOKENS)
        engine.start()
        try:
            runs = EngineRuns(engine, adapters, prompts)
            loads = load_times(engine, adapters)
            runs.together(PROMPTS, max(ADAPTERS))
            kinds: dict[str, Work] = {"engine, no adapter": lambda: runs.together(PROMPTS, 0)}
            for count in ADAPTERS:
                kinds[f"engine, {count} adapters"] = lambda count=count: runs.together(PROMPTS, count)
            kinds["engine, 16 at once"] = lambda: runs.together(16, 16)
            kinds["engine, 16 one by one"] = lambda: runs.one_by_one(16, 16)
            kinds["PEFT mixed batch, 1 adapter"] = lambda: peft(1)
            kinds["PEFT mixed batch, 64 adapters"] = lambda: peft(64)
            samples: dict[str, list[float]] = {name: [] for name in kinds}
            for _ in range(options.runs):
                for name, work in kinds.items():
                    samples[name].append(timed(work))
        finally:
            engine.stop()
    return report(
        {name: statistics.median(values) for name, values in samples.items()}, samples, loads, as_json=options.json
    )


def report(rates: dict[str, float], samples: dict[str, list[float]], loads: list[float], *, as_json: bool) -> int:
    """Print rates and anchors; 1 when an anchor is missed. Ratios are medians of the ratios within each round."""

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(samples[above], samples[below], strict=True))

    anchors = [
        ("64 adapters / 1 adapter", ratio("engine, 64 adapters", "engine, 1 adapters"), 0.85),
        ("64 adapters / PEFT's mixed batch", ratio("engine, 64 adapters", "PEFT mixed batch, 64 adapters"), 3.0),
        ("16 at once / one by one", ratio("engine, 16 at once", "engine, 16 one by one"), 4.0),
    ]
    load_ms, last_ms = statistics.median(loads), statistics.median(loads[-8:])
    missed = [name for name, value, least in anchors if value < least]
    missed += ["adapter load"] if max(load_ms, last_ms) >= 10 else []
    if as_json:
        document = {
            "tokens_per_second": rates, "ratios": {name: value for name, value, _ in anchors},
            "load_ms": {"median": load_ms, "last_8": last_ms, "worst": max(loads)}, "missed": missed,
        }  # fmt: skip
        print(json.dumps(document, indent=1))
    else:
        for name, rate in rates.items():
            print(f"{name:32} {rate:8.0f} tokens/s")
        for name, value, least in anchors:
            print(f"{name:32} {value:8.2f}          at least {least}")
        print(f"{'adapter load':32} {load_ms:8.2f} ms       last 8: {last_ms:.2f}, worst {max(loads):.2f}; below 10")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
