"""The stems of English words, as the stemmer of npm's ``natural`` gives them, which promptfoo's METEOR uses.

Porter (1980), https://tartarus.org/martin/PorterStemmer, with the deviations of that stemmer: in steps 2 and 3 every
suffix that fits is replaced in turn, and what is no letter counts as a consonant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["stem"]

_SHORTEST = 3
_STEP_2 = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("abli", "able"),
    ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"),
    ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"),
    ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"), ("logi", "log"),
)  # fmt: skip
_STEP_3 = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""),
)  # fmt: skip
_STEP_4 = re.compile(r"(.+?)(?:al|ance|ence|er|ic|able|ible|ant|ement|ment|ent|ou|ism|ate|iti|ous|ive|ize)", re.DOTALL)
_DOUBLED = re.compile(r"([^aeiou])\1\Z")


def stem(word: str) -> str:
    """Give the stem of a word in lower case; it need not be a word itself."""
    if len(word) < _SHORTEST:
        return word
    for step in (_plural, _past, _final_y, _long_suffixes, _short_suffixes, _bare, _final_e, _final_ll):
        word = step(word)
    return word


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss") and len(word) >= _SHORTEST:
        return word[:-1]
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    base = word.removesuffix("ed") if word.endswith("ed") else word.removesuffix("ing")
    if base == word or "V" not in _groups(base):
        return word
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if _DOUBLED.search(base) and base[-1] not in "lsz":
        return base[:-1]
    if _measure(base) == 1 and _letters(base).endswith("CVC") and base[-1] not in "wxy":
        return base + "e"
    return base


def _final_y(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and "V" in _groups(word)[:-1] else word


def _long_suffixes(word: str) -> str:
    return _replaced(word, _STEP_2)


def _short_suffixes(word: str) -> str:
    return _replaced(word, _STEP_3)


def _bare(word: str) -> str:
    match = _STEP_4.fullmatch(word)
    if match and _measure(match[1]) > 1:
        return match[1]
    if len(word) > len("sion") and word.endswith(("sion", "tion")) and _measure(word[:-3]) > 1:
        return word[:-3]
    return word


def _final_e(word: str) -> str:
    measure = _measure(word.removesuffix("e"))
    is_short = _letters(word)[-4:][:3] == "CVC" and len(word) > 1 and word[-2] not in "wxy"
    return word.removesuffix("e") if measure > 1 or (measure == 1 and not is_short) else word


def _final_ll(word: str) -> str:
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word


def _replaced(word: str, suffixes: Sequence[tuple[str, str]]) -> str:
    """Replace each suffix of the word as it came, if it is still there, where a vowel and a consonant precede it."""
    made = word
    for suffix, by in suffixes:
        if word.endswith(suffix) and _measure(word.removesuffix(suffix)) > 0 and made.endswith(suffix):
            made = made.removesuffix(suffix) + by or made
    return made


def _measure(word: str) -> float:
    """Count the groups of vowels that consonants follow; -1 for nothing."""
    return len(_groups(word).removeprefix("C").removesuffix("V")) / 2 if word else -1


def _groups(word: str) -> str:
    """Write C for each group of consonants and V for each group of vowels; a y after consonants is a vowel."""
    word = re.sub(r"[^aeiouy]+y", "CV", word)
    return re.sub("[^V]+", "C", re.sub("[aeiou]+", "V", word))


def _letters(word: str) -> str:
    """Do the same letter by letter."""
    word = re.sub(r"[^aeiouy]y", "CV", word)
    return re.sub("[^V]", "C", re.sub("[aeiou]", "V", word))
