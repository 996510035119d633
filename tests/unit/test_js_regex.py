"""JavaScript patterns, matched as JavaScript matches them."""

from __future__ import annotations

import pytest

from slipway.js_regex import compile_javascript


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (r"^\d+$", "42", True),
        (r"^\d+$", "42\n", False),  # Python's $ would match before the last line end
        (r"^\d$", "٣", False),  # JavaScript's digits are ASCII
        (r"\w", "é", False),
        (r"a\sb", "a\u00a0b", True),
        (r"a[\s]b", "a\u2003b", True),
        (r"a\Sb", "a\u00a0b", False),
        (r"a.b", "a\u2028b", False),
        (r"a.b", "a\rb", False),
        (r"a.b", "a\u00e9b", True),
        (r"(?<year>\d{4})-\k<year>", "2026-2026", True),
        (r"(?<$a>x)\k<$a>", "xx", True),
        (r"(a)\1", "aa", True),
        (r"a{,5}", "a{,5}", True),
        (r"a{,5}", "aaa", False),
        (r"a{", "a{", True),
        (r"{a}", "{a}", True),
        (r"a{2}", "aa", True),
        (r"a{2,}?", "aaa", True),
        (r"x*?y", "xxy", True),
        (r"[]", "a", False),
        (r"[^]", "\n", True),
        (r"[[]", "[", True),
        (r"[a&&b]", "&", True),
        (r"[^^]", "^", False),
        (r"[\]]", "]", True),
        (r"[\-a]", "-", True),
        (r"[\b]", "\b", True),
        (r"\bcat\b", "a cat.", True),
        (r"\A", "A", True),  # without the u flag an escape without meaning is the letter
        (r"\Z", "Z", True),
        (r"\/x\-", "/x-", True),
        (r"\u00e9\x41", "éA", True),
        (r"(?=a)a(?!b)(?<=a)(?<!b)", "a", True),
        (r"(?:a|b)+", "ab", True),
        (r"a.*b|c", "xc", True),
        (r"\k", "k", True),
        (r"[\1]", "1", True),
    ],
)
def test_pattern_means_what_javascript_means(pattern, text, matches):
    assert (compile_javascript(pattern).search(text) is not None) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "(?i)yes", "(?i:yes)", "(?P<a>x)", "(?#x)", "(?>x)", "a++", "a*+", "a{2}{3}", "(", ")", "[a", "a\\", "*a",
        "a**", r"\cA", r"\p{L}", r"\u{1F600}", r"(?<a>x)\k", r"[\S]", "[b-a]", "(?<=a+)b", r"\2(a)", "(?<a>x)(?<a>y)",
    ],
)  # fmt: skip
def test_pattern_that_one_of_the_two_does_not_know_is_refused(pattern):
    with pytest.raises(ValueError, match="pattern"):
        compile_javascript(pattern)
