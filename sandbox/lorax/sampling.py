"""Choosing the next token of every row at once.

Order and formulas as in LoRAX, server/lorax_server/utils/tokens.py and logits_process.py: repetition penalty, frequency
and presence penalty, schema mask, temperature, top-k, top-p, typical-p. A row's choice depends on its own logits and
its own generator alone, so a seed gives the same text whatever else is in the batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sandbox.lorax.contract import Sampling

__all__ = ["Choice", "RowSampler", "choose", "is_sampled"]


def is_sampled(sampling: Sampling) -> bool:
    """Whether tokens are drawn: any warper switches sampling on, temperature 0 switches it off."""
    if sampling.temperature == 0:
        return False
    warped = sampling.top_k > 0 or sampling.top_p < 1 or sampling.typical_p < 1
    return sampling.do_sample or warped or sampling.temperature != 1


class RowSampler:
    """State of one sequence's choices: its generator and the tokens it has seen."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], vocabulary_size: int) -> None:
        """Counts are kept only for rows with a penalty."""
        self.sampling = sampling
        self.sampled = is_sampled(sampling)
        # Not for secrets: a request's seed has to give the same text again.
        self.random = random.Random(sampling.seed)  # noqa: S311
        self.penalised = (
            sampling.repetition_penalty != 1 or sampling.frequency_penalty != 0 or sampling.presence_penalty != 0
        )
        self.counts: torch.Tensor | None = None
        if self.penalised:
            ids = torch.tensor([token for token in prompt if 0 <= token < vocabulary_size], dtype=torch.long)
            self.counts = torch.bincount(ids, minlength=vocabulary_size).float()

    @property
    def plain(self) -> bool:
        """Greedy without penalties."""
        return not (self.sampled or self.penalised)

    def accept(self, token: int) -> None:
        """Record the chosen token."""
        if self.counts is not None:
            self.counts[token] += 1


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One step's result, one entry per row; ``logprobs`` are those of the unmodified distribution."""

    ids: list[int]
    logprobs: list[float]
    alternatives: list[tuple[tuple[int, float], ...]]


def choose(
    logits: torch.Tensor,
    rows: Sequence[RowSampler],
    masks: Sequence[np.ndarray | None],
    alternatives: Sequence[int],
) -> Choice:
    """Choose from ``logits`` ``[rows, vocabulary]``. ``masks`` hold each row's allowed tokens as booleans, or None."""
    raw = torch.log_softmax(logits.float(), dim=-1)
    scores = raw
    if not all(row.plain for row in rows) or any(mask is not None for mask in masks):
        scores = _processed(logits.float(), rows, masks)
    ids = scores.argmax(dim=-1)
    drawn = [index for index, row in enumerate(rows) if row.sampled]
    if drawn:
        ids[drawn] = _draw(scores[drawn], [rows[index] for index in drawn])
    logprobs = raw.gather(1, ids[:, None])[:, 0].tolist()
    best: list[tuple[tuple[int, float], ...]] = [()] * len(rows)
    if most := max(alternatives, default=0):
        values, indices = raw.topk(min(most, raw.shape[-1]), dim=-1)
        pairs = zip(indices.tolist(), values.tolist(), strict=True)
        best = [
            tuple(zip(tokens[:wanted], logs[:wanted], strict=True))
            for wanted, (tokens, logs) in zip(alternatives, pairs, strict=True)
        ]
    return Choice(ids=ids.tolist(), logprobs=logprobs, alternatives=best)


def _processed(logits: torch.Tensor, rows: Sequence[RowSampler], masks: Sequence[np.ndarray | None]) -> torch.Tensor:
    scores = logits.clone()
    penalised = [index for index, row in enumerate(rows) if row.penalised]
    if penalised:
        scores[penalised] = _penalised(scores[penalised], [rows[index] for index in penalised])
    for index, mask in enumerate(masks):
        if mask is not None:
            scores[index].masked_fill_(torch.from_numpy(~mask).to(scores.device), -torch.inf)
    drawn = [index for index, row in enumerate(rows) if row.sampled]
    if drawn:
        scores[drawn] = _warped(scores[drawn], [rows[index].sampling for index in drawn])
    return scores


def _penalised(scores: torch.Tensor, rows: Sequence[RowSampler]) -> torch.Tensor:
    counts = torch.stack([row.counts for row in rows if row.counts is not None]).to(scores.device)
    seen = counts > 0
    repetition = _column([row.sampling.repetition_penalty for row in rows], scores)
    scores = torch.where(seen, torch.where(scores < 0, scores * repetition, scores / repetition), scores)
    frequency = _column([row.sampling.frequency_penalty for row in rows], scores)
    presence = _column([row.sampling.presence_penalty for row in rows], scores)
    return scores - counts * frequency - seen * presence


def _warped(scores: torch.Tensor, settings: Sequence[Sampling]) -> torch.Tensor:
    scores = scores / _column([each.temperature for each in settings], scores)
    size = scores.shape[-1]
    if any(each.top_k for each in settings):
        kth = torch.tensor([min(each.top_k or size, size) - 1 for each in settings], device=scores.device)
        ordered = scores.sort(dim=-1, descending=True).values
        scores = scores.masked_fill(scores < ordered.gather(1, kth[:, None]), -torch.inf)
    if any(each.top_p < 1 for each in settings):
        ordered, order = scores.sort(dim=-1)
        # Where top-p is off nothing may go, not even what has a cumulated probability of exactly 0.
        cut = _column([1 - each.top_p if each.top_p < 1 else -1.0 for each in settings], scores)
        remove = ordered.softmax(dim=-1).cumsum(dim=-1) <= cut
        remove[:, -1] = False
        scores = scores.masked_fill(remove.scatter(1, order, remove), -torch.inf)
    if any(each.typical_p < 1 for each in settings):
        scores = _typical(scores, settings)
    return scores


def _typical(scores: torch.Tensor, settings: Sequence[Sampling]) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the entropy (Meister et al., arXiv 2202.00666)."""
    logs = scores.log_softmax(dim=-1)
    entropy = -(logs * logs.exp()).nansum(dim=-1, keepdim=True)
    distance, order = (-logs - entropy).abs().sort(dim=-1)
    mass = scores.gather(1, order).softmax(dim=-1).cumsum(dim=-1)
    last = (mass < _column([each.typical_p for each in settings], scores)).sum(dim=-1).clamp_(max=scores.shape[-1] - 1)
    off = torch.tensor([each.typical_p >= 1 for each in settings], device=scores.device)
    last = last.masked_fill(off, scores.shape[-1] - 1)
    remove = distance > distance.gather(1, last[:, None])
    return scores.masked_fill(remove.scatter(1, order, remove), -torch.inf)


def _draw(scores: torch.Tensor, rows: Sequence[RowSampler]) -> torch.Tensor:
    """Invert the cumulated distribution at one uniform number per row.

    In double precision, so that a different batch (and so a different rounding of the logits) changes a draw only when
    the number falls within the rounding itself.
    """
    cumulated = scores.double().softmax(dim=-1).cumsum(dim=-1)
    uniform = torch.tensor([[row.random.random()] for row in rows], dtype=torch.double, device=scores.device)
    drawn = torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True)
    # NaN, and the last place of rounding, point past the end.
    return drawn[:, 0].clamp_(max=scores.shape[-1] - 1)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
