"""What base training and fine-tuning share: quiet libraries, masked batches, the loop, exact-match accuracy.

Imports torch and transformers when imported: only processes that train or measure may import it.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
import transformers

from sandbox.corpus import Example

__all__ = ["IGNORED", "accuracy", "answers", "encode_batch", "load_base", "prepare", "train"]

IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""
SPARE_TOKENS = 2
"""Answers are cut this many tokens beyond the longest target: whatever is longer is wrong."""


def prepare(seed: int) -> None:
    """Make torch deterministic and single-threaded, and transformers and PEFT silent.

    One thread, because with models this small a second one mostly waits, and stalls when its core is taken.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("peft").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(transformers|peft|torch)(\.|$)")


def load_base(directory: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    """Load a base model in float32 and its tokenizer from local files."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return model, tokenizer


def encode_batch(
    tokenizer: transformers.PreTrainedTokenizerFast, examples: Sequence[Example]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, attention mask and labels, each ``[examples, longest]``, padded on the right, prompts masked.

    Prompt and answer are tokenized apart, as they are when a server continues a prompt. The answer ends with the
    end-of-sequence token, which is learnt too.
    """
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    targets = tokenizer([example.target for example in examples], add_special_tokens=False)["input_ids"]
    rows = [(prompt, [*target, tokenizer.eos_token_id]) for prompt, target in zip(prompts, targets, strict=True)]
    longest = max(len(prompt) + len(target) for prompt, target in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, (prompt, target) in enumerate(rows):
        end = len(prompt) + len(target)
        ids[row, :end] = torch.tensor(prompt + target)
        mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(target)
    return ids, mask, labels


def train(
    model: torch.nn.Module,
    tokenizer: transformers.PreTrainedTokenizerFast,
    examples: Iterator[Example],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    on_step: Callable[[int, float], bool] = lambda _step, _loss: False,
) -> int:
    """Train the trainable parameters with AdamW: a tenth of the steps warms up, the rest decays linearly to zero.

    Args:
        model: Takes ``input_ids``, ``attention_mask`` and ``labels``, returns ``loss``.
        tokenizer: Of the base model.
        examples: Endless; ``batch`` of them are taken per step.
        steps: Number of updates.
        batch: Examples per update.
        learning_rate: The peak.
        weight_decay: Decoupled, as AdamW has it.
        on_step: Called after each update with its number (from 1) and its loss; True ends the training.

    Returns:
        The number of updates made.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    warm_up = max(1, steps // 10)
    model.train()
    for step in range(steps):
        factor = min((step + 1) / warm_up, (steps - step) / (steps - warm_up)) if steps > warm_up else 1.0
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor
        ids, mask, labels = encode_batch(tokenizer, list(islice(examples, batch)))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if not math.isfinite(value):
            raise ArithmeticError(f"training diverged at step {step + 1}: the loss is {value}")
        if on_step(step + 1, value):
            return step + 1
    return steps


@torch.inference_mode()
def answers(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
) -> list[str]:
    """Continue each prompt greedily and return the texts without special tokens."""
    was_training = model.training
    model.eval()
    encoded = tokenizer(list(prompts), padding=True, padding_side="left", return_tensors="pt")
    generated = model.generate(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        max_new_tokens=max_new_tokens,
        do_sample=False,
    )
    model.train(was_training)
    texts: list[str] = tokenizer.batch_decode(generated[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def accuracy(
    model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast, examples: Sequence[Example]
) -> float:
    """Share of examples whose greedy answer is exactly the target."""
    targets = tokenizer([example.target for example in examples], add_special_tokens=False)["input_ids"]
    longest = max(len(target) for target in targets)
    given = answers(model, tokenizer, [example.prompt for example in examples], max_new_tokens=longest + SPARE_TOKENS)
    return sum(text == example.target for text, example in zip(given, examples, strict=True)) / len(examples)
