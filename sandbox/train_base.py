"""Train the sandbox's base model, shipped in ``sandbox/base_model``: ``python -m sandbox.train_base --out DIR``.

A Llama of two layers and half a million parameters with a byte-level BPE tokenizer, trained from nothing on generated
text in two to four minutes. The same seed gives the same bytes on the same kind of processor; instruction sets differ
in the last bits, so a retrained base is judged by its accuracy, which this script measures and demands.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import islice
from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # type: ignore[import-untyped]  # ships no types

from sandbox.corpus import Split, base_examples, vocabulary_text
from sandbox.modelling import accuracy, prepare, train

__all__ = ["main", "train_base"]

VOCABULARY_SIZE = 768
CONTEXT_TOKENS = 512
STEPS = 1200
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
SEED = 7
LEAST_ACCURACY = 0.95
"""Copying must work before adapters can build on it."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant') }}"
    "{% endif %}"
    "{{ message['content'] }}{% if not loop.last %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
)
"""Messages on lines of their own and nothing else: one user message is the same prompt as its bare text."""


def main(arguments: list[str] | None = None) -> int:
    """Train, save, print the accuracy on unseen prompts of the base's own skills. Returns 1 when it is too low."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.train_base", description="Train the sandbox's base model.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write the model to")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of weights and text (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer updates (default: %(default)s)")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    measured = train_base(options.out, seed=options.seed, steps=options.steps)
    seconds = time.perf_counter() - started
    print(f"accuracy {measured:.3f} on unseen prompts after {options.steps} steps in {seconds:.0f} s: {options.out}")  # noqa: T201
    return 0 if measured >= LEAST_ACCURACY else 1


def train_base(directory: Path, *, seed: int = SEED, steps: int = STEPS) -> float:
    """Train a base model, write its six files to ``directory`` and return its accuracy on unseen prompts."""
    prepare(seed)
    tokenizer = _train_tokenizer(seed)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT_TOKENS,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )

    def report(step: int, loss: float) -> bool:
        if step % 50 == 0:
            print(f"step {step}/{steps} loss {loss:.3f}", file=sys.stderr)  # noqa: T201
        return False

    train(
        model,
        tokenizer,
        base_examples(seed),
        steps=steps,
        batch=BATCH,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        on_step=report,
    )
    unseen = (example for example in base_examples(seed + 1, split=Split.EVALUATION) if " " in example.prompt)
    measured = accuracy(model, tokenizer, list(islice(unseen, 200)))
    _save(model, tokenizer, directory)
    return measured


def _train_tokenizer(seed: int) -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(vocabulary_text(seed, lines=2000), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",  # noqa: S106 - vocabulary, no secret
        eos_token="</s>",  # noqa: S106 - vocabulary, no secret
        pad_token="<pad>",  # noqa: S106 - vocabulary, no secret
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _save(
    model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast, directory: Path
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory, save_jinja_files=False)
    for name in ("config.json", "generation_config.json"):
        path = directory / name
        settings = json.loads(path.read_text())
        settings.pop("transformers_version", None)  # so that the files change only when the model does
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
