"""Rules about what an adapter has besides LoRA on linear layers: LoRAX leaves all of it unused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import CONFIG_NAME
from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed
from slipway.lora import OtherKind
from slipway.rules import Hit, Rule, rule
from slipway.tensors import Tensor

__all__ = ["RULES"]


@rule("modules.saved", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py, issue 231")
def modules_saved(evidence: Evidence) -> Iterator[Hit]:
    """Whole modules trained beside LoRA (modules_to_save): LoRAX keeps the base's."""
    tensors, named = evidence.others.get(OtherKind.SAVED_MODULE, ()), evidence.readable_config.modules_to_save
    if evidence.is_lora and (tensors or named):
        yield Hit(
            where=listed(tensor.name for tensor in tensors) or f"{CONFIG_NAME}: modules_to_save",
            message="Whole modules were trained"
            + (f", {listed(named)}" if named else "")
            + ". LoRAX keeps the base's in their place. Train without modules_to_save, or merge into the base.",
        )


@rule("embedding.saved", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py, issue 231")
def embedding_saved(evidence: Evidence) -> Iterator[Hit]:
    """Embeddings or output layer saved whole: LoRAX keeps the base's."""
    saved = [tensor for tensor in _embeddings(evidence) if not _has_other_vocabulary(evidence, tensor)]
    if saved and not evidence.readable_config.modules_to_save:
        yield Hit(
            where=listed(tensor.name for tensor in saved),
            message="The adapter brings its own embeddings or output layer. LoRAX keeps the base's in their place. "
            "Save with save_embedding_layers=False if they were not trained, else merge into the base.",
        )


@rule("embedding.lora", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def embedding_lora(evidence: Evidence) -> Iterator[Hit]:
    """LoRA on embeddings: LoRAX looks for lora_A and lora_B only."""
    if tensors := evidence.others.get(OtherKind.EMBEDDING_LORA, ()):
        yield Hit(
            where=listed(tensor.name for tensor in tensors),
            message="The adapter has LoRA on embeddings. LoRAX leaves it unused. Train linear layers only.",
        )


@rule("tokens.trainable", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def tokens_trainable(evidence: Evidence) -> Iterator[Hit]:
    """Embeddings of single tokens trained (trainable_token_indices): LoRAX keeps the base's."""
    tensors = evidence.others.get(OtherKind.TOKEN_DELTAS, ())
    if evidence.is_lora and (tensors or evidence.readable_config.trainable_token_indices):
        yield Hit(
            where=listed(tensor.name for tensor in tensors) or f"{CONFIG_NAME}: trainable_token_indices",
            message="Embeddings of some tokens were trained. LoRAX keeps the base's in their place. Train without "
            "trainable_token_indices, or merge into the base.",
        )


@rule("tokens.added", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="models/flash_causal_lm.py, issue 231")
def tokens_added(evidence: Evidence) -> Iterator[Hit]:
    """Tokens that the base's vocabulary has not: LoRAX uses the base's tokenizer and embeddings everywhere."""
    base = evidence.base
    if base is None or not base.vocab_size:
        return
    grown = [t for t in _embeddings(evidence) if len(t.shape) == 2 and t.shape[0] > base.vocab_size]
    added = evidence.tokenizer.largest_added_id
    if grown or (added is not None and added >= base.vocab_size):
        count = max([t.shape[0] for t in grown] + ([added + 1] if added is not None else []))
        yield Hit(
            where=listed(tensor.name for tensor in grown) or "added tokens of the tokenizer",
            message=f"The adapter knows {count:,} tokens, and {base.label} has {base.vocab_size:,}. LoRAX uses the "
            "base's tokenizer, so that the new tokens never occur. Train without them, or merge into the base.",
        )


@rule("tokens.chat-template", Severity.WARNING, Prediction.WRONG, Fix.MANUAL, source="router/src/infer.rs, issue 538")
def tokens_chat_template(evidence: Evidence) -> Iterator[Hit]:
    """A chat template beside the adapter: LoRAX uses the base's, which may be another."""
    if file := evidence.tokenizer.chat_template_file:
        yield Hit(
            where=file,
            message="A chat template lies beside the adapter. LoRAX renders chats with the base's. If they differ, "
            "render prompts yourself and send them to /generate.",
        )


@rule("bias.trained", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def bias_trained(evidence: Evidence) -> Iterator[Hit]:
    """Trained biases: LoRAX keeps the base's, and knows none of LoRA's own."""
    biases = [
        *evidence.others.get(OtherKind.BIAS, ()),
        *(bias for bias in evidence.others.get(OtherKind.LORA_BIAS, ()) if bias.name not in evidence.zero),
    ]
    if biases:
        yield Hit(
            where=listed(tensor.name for tensor in biases),
            message=f"{len(biases):,} biases were trained. LoRAX leaves them unused. Train with bias='none' and "
            "lora_bias=False, or merge into the base.",
        )


@rule("bias.zero", Severity.WARNING, Prediction.DROP, Fix.FIT, source="adapters/lora.py")
def bias_zero(evidence: Evidence) -> Iterator[Hit]:
    """Biases of LoRA's own that are all zero: LoRAX leaves them unused, which changes nothing."""
    zero = [bias for bias in evidence.others.get(OtherKind.LORA_BIAS, ()) if bias.name in evidence.zero]
    if zero:
        yield Hit(
            where=listed(tensor.name for tensor in zero),
            message=f"{len(zero):,} biases are zero throughout. LoRAX leaves them unused, and that changes nothing.",
        )


def _embeddings(evidence: Evidence) -> tuple[Tensor, ...]:
    return evidence.others.get(OtherKind.EMBEDDING, ())


def _has_other_vocabulary(evidence: Evidence, tensor: Tensor) -> bool:
    size = evidence.base.vocab_size if evidence.base is not None else None
    return bool(size) and len(tensor.shape) == 2 and tensor.shape[0] != size


RULES: Final[tuple[Rule, ...]] = (
    modules_saved,
    embedding_saved,
    embedding_lora,
    tokens_trainable,
    tokens_added,
    bias_trained,
    bias_zero,
    tokens_chat_template,
)
