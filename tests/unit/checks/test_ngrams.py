"""Likeness by shared n-grams, against values worked out by hand or given in the papers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.checks import Check, prepare
from slipway.checks.ngrams import bleu, gleu, rouge_1

THE = "the the the the the the the"
CAT = "The cat is on the mat"


@pytest.mark.parametrize(
    ("candidate", "reference", "expected"),
    [
        ("a b c d", "a b c d", 1.0),
        ("A b", "a b", 1 / 2),  # promptfoo compares case as written
        ("a b", "b c d", 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)),
        ("a a a", "a", 2 * (1 / 3) * 1 / (1 / 3 + 1)),
        ("a.", "a", 2 * (1 / 2) * 1 / (1 / 2 + 1)),  # the stop is a word
        ("x", "y", 0.0),
        ("", "y", 0.0),
    ],
)
def test_rouge_is_the_harmonic_mean_of_precision_and_recall(candidate, reference, expected):
    assert rouge_1(candidate, reference) == pytest.approx(expected)


def test_bleu_clips_what_is_repeated():
    """Papineni's first example: seven times "the" has a precision of 2/7; its longer n-grams occur nowhere."""
    expected = math.exp((math.log(2 / 7) + 3 * math.log(1e-7)) / 4)
    assert bleu(THE, [CAT]) == pytest.approx(expected)


def test_bleu_is_penalised_for_being_short_and_not_for_being_long():
    """Four words of six, all of them right: exp(1 - 6/4)."""
    assert bleu("the cat is on", [CAT]) == pytest.approx(math.exp(1 - 6 / 4))
    assert bleu(CAT, [CAT]) == pytest.approx(1)
    longer = bleu(f"{CAT} today", [CAT])
    assert longer == pytest.approx(math.exp(sum(math.log(n / (n + 1)) for n in (6, 5, 4, 3)) / 4))


def test_bleu_takes_the_reference_nearest_in_length():
    assert bleu("a b c d", ["a b c d e f g h", "x b c d"]) == pytest.approx(bleu("a b c d", ["a b c d", "x b c d"]))


@pytest.mark.parametrize(
    ("candidate", "references", "expected"),
    [
        (CAT, [CAT], 1.0),
        ("The cat is on the mat.", [CAT], 1.0),
        ("a b", ["a c"], 1 / 3),
        ("a b", ["x y", "a c"], 1 / 3),
        ("a b c", ["a b"], 3 / 6),  # of six n-grams three are in the reference
        ("x", ["y"], 0.0),
        ("a\x85b\ufeffc", ["a\x85b c"], 1.0),  # JavaScript's spaces
        (" ", ["y"], 0.0),
    ],
)
def test_gleu_is_the_smaller_of_precision_and_recall(candidate, references, expected):
    assert gleu(candidate, references) == pytest.approx(expected)


@given(st.text("ab. ", max_size=12), st.text("ab. ", min_size=1, max_size=12).filter(str.strip))
def test_scores_are_in_range_and_1_for_the_same_words(candidate, reference):
    for score in (rouge_1(candidate, reference), bleu(candidate, [reference]), gleu(candidate, [reference])):
        assert 0 <= score <= 1 + 1e-12
    if reference.split() == candidate.split():
        assert rouge_1(candidate, reference) == pytest.approx(1)
        assert gleu(candidate, [reference]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "value", "output", "threshold", "expected"),
    [
        ("rouge-n", "a b c d", "a b c x", None, True),  # 0.75
        ("rouge-n", "a b c d", "a b c x", 0.76, False),
        ("rouge-n", "a b c d e f g", "a b c d e x y", None, False),  # 0.71
        ("bleu", CAT, CAT, None, True),
        ("bleu", CAT, "the cat", None, False),
        ("bleu", ["no", CAT], CAT, 0.99, True),
        ("bleu", "a b c d e f", "a b c d x y", None, True),  # 0.51
        ("bleu", "a b c d e f g h i j k l m n o", "a b c d e f g h x x x x x x x", None, False),  # 0.48
        ("gleu", "a b c", "a b", None, True),  # 0.5
        ("gleu", "a b c", "a b", 0.51, False),
        ("gleu", "a b c d e f g h i j k l m n o", "a b c d e f g h x x x x x x x", None, False),  # 0.48
    ],
)
def test_similarity_passes_from_its_threshold_on(graded, kind, value, output, threshold, expected):
    result = graded(kind, value, output, threshold=threshold)
    opposite = graded(f"not-{kind}", value, output, threshold=threshold)
    assert result.passed is expected
    assert opposite.passed is not expected
    assert result.score + opposite.score == pytest.approx(1)


@pytest.mark.parametrize("kind", ["rouge-n", "bleu", "gleu"])
def test_empty_output_fails_and_is_no_error(graded, kind):
    """Promptfoo gives an error; an adapter that says nothing must not get away as missing."""
    assert (graded(kind, "some text", "").passed, graded(kind, "some text", "").score) == (False, 0)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("rouge-n", ""), ("rouge-n", ["a"]), ("rouge-n", None), ("bleu", []), ("bleu", ["a", ""]), ("gleu", {"a": 1})],
)
def test_reference_without_words_is_refused(kind, value):
    with pytest.raises(ValueError, match="needs a text"):
        prepare(Check(type=kind, value=value))
    with pytest.raises(ValueError, match="threshold"):
        prepare(Check(type=kind, value="a", threshold=math.nan))
