"""METEOR against values that promptfoo 0.121.9 gave with the same synonyms."""

from __future__ import annotations

import time

import pytest

from slipway.checks import Check, Subject, grade, prepare
from slipway.checks.meteor import meteor
from slipway.checks.porter import stem

SYNONYMS = {
    "quick": ["fast"],
    "present": ["gift"],
    "start": ["begin"],
    "cure": ["heal"],
    "doctor": ["physician"],
    "kid": ["child"],
    "halt": ["stop"],
    "bright": ["smart"],
}
"""Of WordNet 3.1, those that the texts below need, by stem."""


def graded(kind, value, output, **keys):
    check = prepare(Check(type=kind, value=value, **keys), synonyms=lambda word: SYNONYMS.get(word, ()))
    return grade([check], Subject(output=output))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"), ("ponies", "poni"), ("ties", "ti"), ("cats", "cat"), ("feed", "feed"), ("as", "as"),
        ("agreed", "agre"), ("plastered", "plaster"), ("bled", "bled"), ("motoring", "motor"), ("sing", "sing"),
        ("conflated", "conflat"), ("troubled", "troubl"), ("sized", "size"), ("hopping", "hop"), ("falling", "fall"),
        ("filing", "file"), ("happy", "happi"), ("sky", "sky"), ("relational", "relat"), ("conditional", "condit"),
        ("vietnamization", "vietnam"), ("hopefulness", "hope"), ("electrical", "electr"), ("adoption", "adopt"),
        ("adjustment", "adjust"), ("probate", "probat"), ("rate", "rate"), ("controll", "control"), ("roll", "roll"),
    ],
)  # fmt: skip
def test_stems_are_those_of_natural(word, expected):
    assert stem(word) == expected


@pytest.mark.parametrize(
    ("candidate", "reference", "expected"),
    [
        ("The car is fast", "The automobile is quick", 0.6388888888888888),
        ("A big house", "a large home", 0.16666666666666666),
        ("He runs quickly", "he ran fast", 0.16666666666666666),
        ("the cat sat on the mat", "on the mat sat the cat", 0.5),
        ("cats are sitting", "cat sat", 0.2380952380952381),
        ("Hello world.", "hello world", 0.9375),
        (" the cat ", "the cat", 0.8522727272727273),
        ("completely different", "nothing alike", 0),
        ("the the the", "the", 0.4166666666666667),
        ("buy a gift", "purchase a present", 0.625),
        ("It begins now", "it starts at once", 0.48076923076923084),
        ("a a b b", "a b a b", 0.5),
        ("The physician healed him", "the doctor cured him", 0.9921875),
        ("motoring conflated", "motor conflate", 0.9375),
        ("New_York is big", "new_york is large", 0.625),
        ("asleep child", "sleeping kid", 0.25),
        ("Einstein thought", "einstein reckoned", 0.25),
        ("don't stop", "do not halt", 0.17241379310344826),
        ("happy end", "glad ending", 0.25),
        ("end home quick glad", "purchase kid automobile", 0),
        ("smart happy cat large smart", "physician large car big child bright", 0.1694915254237288),
    ],
)
def test_meteor_is_promptfoos(candidate, reference, expected):
    assert meteor(candidate, reference, SYNONYMS) == pytest.approx(expected)


def test_best_reference_counts_and_the_negation_is_the_opposite():
    found = graded("meteor", ["nothing alike", "the cat sat"], "The cat sat.")
    assert (found.passed, found.checks[0].reason) == (True, "METEOR is 0.9815.")
    opposite = graded("not-meteor", ["nothing alike", "the cat sat"], "The cat sat.")
    assert (opposite.passed, opposite.score) == (False, pytest.approx(1 - found.score))
    assert graded("meteor", "the cat sat", "The cat sat.", threshold=0.99).passed is False


def test_empty_output_fails_and_is_no_error():
    assert (graded("meteor", "some text", "").passed, graded("meteor", "some text", "").score) == (False, 0)


@pytest.mark.parametrize("value", ["", [], ["a", ""], 5, None])
def test_reference_without_words_is_refused(value):
    with pytest.raises(ValueError, match="needs a text"):
        prepare(Check(type="meteor", value=value))


@pytest.mark.parametrize("kind", ["meteor", "not-meteor"])
def test_without_a_dictionary_it_is_not_supported_and_says_what_to_install(kind):
    lacking = prepare(Check(type=kind, value="a"))
    assert "wordnet-base" in lacking.unsupported
    assert "WNSEARCHDIR" in lacking.unsupported
    assert grade([lacking], Subject(output="a")).passed is None
    inside = prepare(Check(type="assert-set", checks=(Check(type=kind, value="a"),)))
    assert grade([inside], Subject(output="a")).passed is None


def test_long_outputs_are_graded_in_seconds():
    began = time.process_time()
    graded("meteor", " ".join(f"r{n}" for n in range(300)), " ".join(f"c{n}" for n in range(10_000)))
    graded("meteor", "a " * 10_000, "a " * 10_000)
    assert time.process_time() - began < 10
