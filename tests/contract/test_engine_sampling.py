"""The engine's vectorised sampling against transformers' own processors, row by row."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from sandbox.lorax.contract import Sampling
from sandbox.lorax.sampling import RowSampler, _processed, choose, is_sampled

VOCABULARY = 50
PROMPT = [3, 3, 7, 11]


@pytest.fixture
def logits():
    return torch.randn(6, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3


def expected_of(row, sampling):
    """One row through transformers, in LoRAX's order."""
    scores, prompt = row[None].clone(), torch.tensor([PROMPT])
    if sampling.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(prompt, scores)
    counts = torch.bincount(prompt[0], minlength=VOCABULARY)
    scores = scores - counts * sampling.frequency_penalty - (counts > 0) * sampling.presence_penalty
    for warper in (
        TemperatureLogitsWarper(sampling.temperature) if sampling.temperature != 1 else None,
        TopKLogitsWarper(sampling.top_k) if sampling.top_k else None,
        TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None,
        TypicalLogitsWarper(sampling.typical_p) if sampling.typical_p < 1 else None,
    ):
        scores = warper(prompt, scores) if warper else scores
    return scores[0]


def test_each_row_gets_its_own_settings(logits):
    settings = [
        Sampling(),
        Sampling(do_sample=True, temperature=0.7),
        Sampling(top_k=5),
        Sampling(top_p=0.6, temperature=1.4, frequency_penalty=0.3),
        Sampling(typical_p=0.5, top_k=20),
        Sampling(repetition_penalty=1.4, presence_penalty=-0.5, top_k=9, top_p=0.8, typical_p=0.7, temperature=2.0),
    ]
    rows = [RowSampler(sampling, PROMPT, VOCABULARY) for sampling in settings]
    scores = _processed(logits, rows, [None] * len(rows))
    for row, sampling, result in zip(logits, settings, scores, strict=True):
        torch.testing.assert_close(result, expected_of(row, sampling))


def test_draws_follow_the_distribution():
    """20 000 draws from four probabilities, each within four standard errors."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    row = RowSampler(Sampling(do_sample=True, seed=1), [], 4)
    draws = 20_000
    counts = np.zeros(4)
    for _ in range(draws // 100):
        ids = choose(probabilities.log().expand(100, 4), [row] * 100, [None] * 100, [0] * 100).ids
        counts += np.bincount(ids, minlength=4)
    for count, probability in zip(counts, probabilities.tolist(), strict=True):
        assert abs(count / draws - probability) < 4 * math.sqrt(probability * (1 - probability) / draws)


@pytest.mark.parametrize(
    ("sampling", "drawn"),
    [
        (Sampling(), False),
        (Sampling(do_sample=True), True),
        (Sampling(temperature=0.5), True),
        (Sampling(top_k=3), True),
        (Sampling(top_p=0.9), True),
        (Sampling(typical_p=0.9), True),
        (Sampling(do_sample=True, temperature=0, top_k=3), False),
        (Sampling(repetition_penalty=2.0), False),
    ],
)
def test_any_warper_switches_sampling_on_and_temperature_0_off(sampling, drawn):
    assert is_sampled(sampling) is drawn


def test_masked_tokens_are_never_chosen(logits):
    allowed = np.zeros(VOCABULARY, dtype=bool)
    allowed[[4, 9]] = True
    rows = [RowSampler(Sampling(do_sample=index % 2 == 1, temperature=3.0), PROMPT, VOCABULARY) for index in range(6)]
    for _ in range(20):
        assert set(choose(logits, rows, [allowed] * 6, [0] * 6).ids) <= {4, 9}


def test_nan_logits_give_some_token_with_nan_logprob():
    """LoRAX goes on generating; so must we, greedy and drawn."""
    rows = [RowSampler(Sampling(), PROMPT, VOCABULARY), RowSampler(Sampling(top_p=0.5), PROMPT, VOCABULARY)]
    choice = choose(torch.full((2, VOCABULARY), math.nan), rows, [None, None], [2, 2])
    assert all(0 <= token < VOCABULARY for token in choice.ids)
    assert all(math.isnan(logprob) for logprob in choice.logprobs)
