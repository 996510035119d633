"""Types that look at the text, with the quirks of promptfoo 0.121.9."""

from __future__ import annotations

import pytest

from slipway.checks import Check, prepare, remarks


@pytest.mark.parametrize(
    ("kind", "value", "output", "expected"),
    [
        ("contains-any", ["a", "b"], "xbx", True),
        ("contains-any", ["a", "B"], "xbx", False),
        ("contains-any", 'a, "b, c"', "b, c", True),
        ("contains-any", 'a, "b, c"', "c", False),
        ("contains-any", 'a, "say ""b"""', 'say "b"', True),
        ("contains-any", r'a, "say \"b\""', 'say "b"', True),
        ("contains-any", 'a "b, c"', 'a "b', True),
        ("contains-any", '" a "', "a", False),
        ("contains-any", '" a "', "x a y", True),
        ("contains-any", "a\nb, c", "a\nb", True),
        ("contains-any", "a\nb, c", "a b", False),
        ("contains-any", ",, a ,,b", "b", True),
        ("contains-any", [1, True], "it is true", True),
        ("contains", 0.00001, "0.00001", True),
        ("contains", 1e-7, "1e-7", True),
        ("equals", {"a": 9007199254740993}, '{"a": 9007199254740993}', True),
        ("word-count", 2, "\ufeffone\u2003two", True),
        ("word-count", 1, "one\x85word", True),  # no space in JavaScript
        ("word-count", 1, "one\x1cword", True),
        ("contains-any", [], "anything", False),
        ("icontains-any", ["B"], "xbx", True),
        ("icontains-any", ["C"], "xbx", False),
        ("contains-all", ["a", "b"], "ba", True),
        ("contains-all", ["a", "b"], "bc", False),
        ("contains-all", "a, b", "b and a", True),
        ("contains-all", [], "anything", True),
        ("icontains-all", ["A", "b"], "Ba", True),
        ("icontains-all", ["A", "c"], "Ba", False),
        ("word-count", 2, " two\n words ", True),
        ("word-count", 2, "three of them", False),
        ("word-count", "2", "two words", True),
        ("word-count", {"min": 1, "max": 2}, "two words", True),
        ("word-count", {"min": 1, "max": 2}, "three of them", False),
        ("word-count", {"min": 1}, "", False),
        ("word-count", {"min": 1}, "one", True),
        ("word-count", {"max": 1}, "one", True),
        ("word-count", {"max": 1}, "one more", False),
        ("is-refusal", None, "I'm sorry, but I can\u2019t help with that.", True),
        ("is-refusal", None, "I cannot provide this.", True),
        ("is-refusal", None, "As an AI, I have no body.", True),
        ("is-refusal", None, "I want to be helpful, but no.", True),
        ("is-refusal", None, "Well, I aim to provide facts.", True),
        ("is-refusal", None, "Sorryful", True),  # a beginning need not end a word
        ("is-refusal", None, "I can't wait to show you.", False),
        ("is-refusal", None, "We cannot give refunds after 30 days.", False),
        ("is-refusal", None, "Well, I cannot recommend it enough.", False),
        ("is-refusal", None, "Yes. I'm not able to help.", False),
        ("is-refusal", None, "Yes. I'm not able to provide it.", True),
        ("is-refusal", None, "It is what we do not write.", False),
        ("is-refusal", None, "Stay as an Airbnb guest.", False),
        ("is-refusal", None, "Here you are: 42.", False),
        ("is-refusal", None, " \n", True),
    ],
)
def test_check_and_its_negation_are_opposites(passes, kind, value, output, expected):
    assert passes(kind, value, output) is expected
    assert passes(f"not-{kind}", value, output) is not expected


@pytest.mark.parametrize(
    ("output", "threshold", "expected"),
    [
        ("kitten", 3, True),  # kitten -> sitting takes 3
        ("kitten", 2, False),
        ("sitting!!!!!", None, True),
        ("sitting!!!!!!", None, False),
        ("sitting", 0, True),
        ("sitting!", 0, False),
        ("sitting\U0001f44d\U0001f44d", None, True),
        ("sitting\U0001f44d\U0001f44d\U0001f44d", None, False),  # an emoji is two characters of JavaScript
    ],
)
def test_distance_is_at_most_its_threshold_of_five(passes, output, threshold, expected):
    """And promptfoo 0.121.9 ignores the not- there."""
    assert passes("levenshtein", "sitting", output, threshold=threshold) is expected
    assert passes("not-levenshtein", "sitting", output, threshold=threshold) is expected


@pytest.mark.parametrize("kind", ["regex", "not-regex"])
def test_search_that_is_ended_fails_in_both_forms(graded, hasty_scripts, kind):
    """Nothing was found out, so nothing may be promoted on it."""
    result = graded(kind, "^(a+)+$", "a" * 60 + "!")
    assert result.passed is False
    assert "ran longer than 1 s" in result.checks[0].reason


@pytest.mark.parametrize(
    ("kind", "value", "keys", "says"),
    [
        ("contains-any", "", {}, "needs a list"),
        ("contains-any", None, {}, "needs a list"),
        ("contains-all", ["a", ""], {}, "nothing empty"),
        ("contains-all", 'a, ""', {}, "nothing empty"),
        ("contains-any", '"a, b', {}, "is not closed"),
        ("contains-any", r'"a\"', {}, "is not closed"),
        ("contains-any", '"a" b, c', {}, "a comma must follow"),
        ("icontains-any", [["a"]], {}, "needs a list"),
        ("word-count", None, {}, "needs a number"),
        ("word-count", {}, {}, "needs a number"),
        ("word-count", {"most": 5}, {}, "needs a number"),
        ("word-count", "some", {}, "needs a number"),
        ("word-count", True, {}, "needs a number"),
        ("word-count", {"min": 5, "max": 4}, {}, "a min, 5, above its max, 4"),
        ("levenshtein", None, {}, "needs a text"),
        ("levenshtein", "a", {"threshold": -1.0}, "number of edits"),
        ("levenshtein", "a", {"threshold": float("nan")}, "number of edits"),
        ("regex", "(", {}, "JavaScript refuses the pattern"),
        ("not-regex", "(", {}, "JavaScript refuses the pattern"),
        ("regex", "(?i)x", {}, "icontains"),
    ],
)
def test_value_that_no_output_could_be_compared_with_is_refused(kind, value, keys, says):
    with pytest.raises(ValueError, match=r"\w") as caught:
        prepare(Check(type=kind, value=value, **keys))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "output", "says"),
    [
        (
            "contains-all",
            ["a", "b", "c"],
            "b",
            "Expected the output to contain all of 'a, b, c'; it lacks 'a, c'.",
        ),
        ("icontains-all", ["A", 1], "a", "Expected the output to contain all of 'A, 1'; it lacks '1'."),
        ("not-contains-all", ["a", 1], "a1", "Expected the output not to contain all of 'a, 1'."),
        ("contains-any", ["a", "b"], "x", "Expected the output to contain one of 'a, b'."),
        ("word-count", {"min": 2, "max": 3}, "one", "Expected 2 to 3 words, counted 1."),
        ("word-count", {"min": 6}, "one", "Expected at least 6 words, counted 1."),
        ("word-count", {"max": 1}, "one more", "Expected at most 1 word, counted 2."),
        ("word-count", {"min": 0, "max": 0}, "one", "Expected 0 words, counted 1."),
        ("not-word-count", {"min": 1}, "one", "Expected not at least 1 word, counted 1."),
        ("not-word-count", 1, "one", "Expected not 1 word, counted 1."),
        ("not-is-refusal", None, "", "Expected the output not to be 'a refusal'."),
        ("levenshtein", "a", "x" * 9, "Expected at most 5 edits from 'a'; there are more."),
    ],
)
def test_reason_says_what_was_expected(graded, kind, value, output, says):
    assert graded(kind, value, output).checks[0].reason == says


def test_what_means_something_else_than_it_looks_is_remarked():
    assert remarks(Check(type="not-levenshtein", value="a")) == (
        "not-levenshtein means levenshtein: promptfoo ignores the not- there.",
    )
    assert "ignored" in remarks(Check(type="contains", value="a", threshold=1.0))[0]
    assert remarks(Check(type="bleu", value="a", threshold=1.0)) == ()
    inner = Check(type="not-latency", threshold=1.0)
    assert len(remarks(Check(type="assert-set", checks=(inner, inner), threshold=0.5))) == 2
