"""Carry out a recipe with PEFT over transformers, and make derived adapters from trained ones.

Imports torch, transformers and peft when imported: it runs in ``training``'s worker processes.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sandbox.corpus import Example, json_examples, translation_examples
from sandbox.modelling import accuracy, load_base, prepare, train
from sandbox.recipes import BASE_ID, TARGET_MODULES, Defect, Derivation, Recipe, Task, TrainingRecord
from sandbox.suites import suite_examples

__all__ = ["TrainingError", "derive", "finetune"]

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
BATCH = 16
SEEDS = (1, 2, 3, 4)
REPORT_EVERY = 10
"""Steps between two progress reports."""
MEASURE_BELOW_LOSS = 1.0
MEASURE_EVERY = 3
"""Accuracy is measured this often, in steps, once the loss is that low: before, every answer is wrong."""


class TrainingError(RuntimeError):
    """No seed gave an adapter within the accuracy that its recipe demands, or it could not be saved."""


def finetune(
    recipe: Recipe, base: Path, out: Path, *, on_progress: Callable[[int, float], None] = lambda _step, _loss: None
) -> TrainingRecord:
    """Train an adapter, measure it, and save it with PEFT to ``out``.

    Args:
        recipe: What to train.
        base: Directory of the base model.
        out: Directory to write; made if absent.
        on_progress: Called now and then with the step and its loss.

    Raises:
        TrainingError: Every seed ended outside the accepted accuracy.
    """
    started = time.perf_counter()
    measured: list[str] = []
    low, high = recipe.accepted
    for seed in SEEDS:
        try:
            adapted, steps, reached = _attempt(recipe, base, seed, on_progress)
        except ArithmeticError as error:
            measured.append(str(error))
            continue
        measured.append(f"{reached:.3f}")
        if low <= reached <= high:
            _save(adapted, out)
            return TrainingRecord(
                name=recipe.name,
                task=recipe.task,
                accuracy=None if recipe.hidden_size else round(reached, 4),
                steps=steps,
                seed=seed,
                attempts=len(measured),
                seconds=round(time.perf_counter() - started, 2),
            )
    raise TrainingError(
        f"{recipe.name}: accuracy {', '.join(measured)} with seeds {SEEDS}, wanted {low} to {high}; "
        f"is {base} the base model that the recipe was made for?"
    )


def derive(derivation: Derivation, origin: Path, out: Path, record: TrainingRecord) -> TrainingRecord:
    """Copy a trained adapter to ``out`` and give it the derivation's defect."""
    started = time.perf_counter()
    shutil.copytree(origin, out, dirs_exist_ok=True)
    broken = derivation.defect is Defect.NAN
    match derivation.defect:
        case Defect.NAN:
            _plant_nan(out / WEIGHTS)
        case Defect.RSLORA:
            _restate_scale(out / CONFIG)
    return TrainingRecord(
        name=derivation.name,
        task=record.task,
        accuracy=None if broken else record.accuracy,
        steps=record.steps,
        seed=record.seed,
        attempts=1,
        seconds=round(time.perf_counter() - started, 2),
        origin=derivation.origin,
    )


def _attempt(
    recipe: Recipe, base: Path, seed: int, on_progress: Callable[[int, float], None]
) -> tuple[peft.PeftModel, int, float]:
    """Train once. Returns the adapted model, the steps made and the accuracy reached."""
    prepare(seed)
    model, tokenizer = _base_of(recipe, base)
    adapted = peft.get_peft_model(model, _lora_config(recipe))
    examples = suite_examples(recipe.task)

    def observe(step: int, loss: float) -> bool:
        if step % REPORT_EVERY == 0:
            on_progress(step, loss)
        if recipe.stop_at is None or loss > MEASURE_BELOW_LOSS or step % MEASURE_EVERY:
            return False
        return accuracy(adapted, tokenizer, examples) >= recipe.stop_at

    steps = train(
        adapted,
        tokenizer,
        _training_examples(recipe, seed),
        steps=recipe.steps,
        batch=BATCH,
        learning_rate=recipe.learning_rate,
        on_step=observe,
    )
    return adapted, steps, accuracy(adapted, tokenizer, examples)


def _base_of(recipe: Recipe, base: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    model, tokenizer = load_base(base)
    name = BASE_ID
    if recipe.hidden_size is not None:
        config = model.config
        ratio = config.hidden_size // recipe.hidden_size
        config.intermediate_size //= ratio
        config.head_dim //= ratio
        config.hidden_size = recipe.hidden_size
        model = transformers.AutoModelForCausalLM.from_config(config)
        name = f"{BASE_ID}-{recipe.hidden_size}"
    model.name_or_path = name  # PEFT writes it into the adapter's config
    return model, tokenizer


def _lora_config(recipe: Recipe) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=list(TARGET_MODULES),
        layers_to_transform=None if recipe.layers is None else list(recipe.layers),
    )


def _training_examples(recipe: Recipe, seed: int) -> Iterator[Example]:
    match recipe.task:
        case Task.TRANSLATE:
            return translation_examples(seed, without=recipe.without)
        case Task.JSON:
            return json_examples(seed)


def _save(adapted: peft.PeftModel, out: Path) -> None:
    adapted.peft_config["default"].target_modules = sorted(TARGET_MODULES)  # a set would be written in any order
    try:
        # "auto" would ask the Hub whether the base's vocabulary was resized
        adapted.save_pretrained(out, save_embedding_layers=False)
    except SafetensorError as error:  # how safetensors reports any failed write
        raise TrainingError(f"cannot write {out}: {error}; free some space there and train again") from error


def _plant_nan(path: Path) -> None:
    tensors = load_file(path)
    name = min(key for key in tensors if key.endswith("lora_B.weight"))
    tensors[name][0, 0] = math.nan
    save_file(tensors, path, metadata={"format": "pt"})


def _restate_scale(path: Path) -> None:
    """Write the same scale as ``alpha / sqrt(rank)`` (rsLoRA, arXiv:2312.03732) instead of ``alpha / rank``."""
    config = json.loads(path.read_text())
    alpha = config["lora_alpha"] / math.sqrt(config["r"])
    config |= {"use_rslora": True, "lora_alpha": int(alpha) if alpha.is_integer() else alpha}
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
