"""JavaScript patterns, matched as JavaScript matches them."""

from __future__ import annotations

import pytest

from slipway.javascript import ScriptError, check_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
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
        (r"[\1]", "\x01", True),  # an octal escape
        (r"[\S]", "a", True),
        (r"\cA", "\x01", True),
        (r"\p{L}", "p{L}", True),  # without the u flag
        (r"(?<=a+)b", "aab", True),
        (r"\2(a)", "\x02a", True),
        (r"(a)|b\1", "b", True),  # a group that took no part matches nothing, and that is everywhere
        (r"^.$", "\ud83d", True),  # half of an emoji, which a model cut off inside it can give
        (r"^..$", "\U0001f600", True),  # without the u flag an emoji is two units
        (r"a\0b", "a\0b", True),
    ],
)
def test_pattern_means_what_javascript_means(pattern, text, expected):
    check_pattern(pattern)
    assert matches(pattern, text) is expected


@pytest.mark.parametrize(
    "pattern",
    ["(?i)yes", "(?P<a>x)", "(?#x)", "(?>x)", "a++", "a*+", "a{2}{3}", "(", ")", "[a", "a\\", "*a", "a**",
     r"(?<a>x)\k", "[b-a]", "(?<a>x)(?<a>y)", "a{2,1}"],
)  # fmt: skip
def test_pattern_that_javascript_refuses_is_refused(pattern):
    with pytest.raises(ValueError, match="JavaScript refuses the pattern"):
        check_pattern(pattern)


def test_search_that_would_take_years_is_ended(hasty_scripts):
    with pytest.raises(ScriptError, match="ran longer than 1 s"):
        matches(r"^(a+)+$", "a" * 60 + "!")
    assert matches("a", "a"), "the next search works again"


def test_search_that_needs_gigabytes_is_ended():
    with pytest.raises(ScriptError):
        matches(r"^((a)|(b)|(a))*$", "ab" * 4_000_000)
    assert matches("a", "a")
