"""Likeness to a reference text by words, their stems and their synonyms: METEOR.

Synonyms are looked up when the suite is loaded, so that a prepared check needs no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from slipway.checks.ngrams import references
from slipway.checks.porter import stem
from slipway.checks.registry import Check, Graded, Subject, Synonyms, kind
from slipway.checks.values import SPACE, scored, threshold_or

__all__ = ["meteor"]

THRESHOLD = 0.5
_RECALL_SHARE = 0.9
_FRAGMENTS_WEIGHT = 0.5
_FRAGMENTS_POWER = 3

_Place = tuple[int, str]
"""Where a word stands in its text, and the word or its stem."""
_Pairs = list[tuple[int, int]]
"""Places of words that match, in the candidate and in the reference."""


def meteor(candidate: str, reference: str, synonyms: Mapping[str, Sequence[str]]) -> float:
    """Give METEOR: the harmonic mean of precision and of recall, of nine times the weight, less for scattered matches.

    Words match where they are the same, then where their stems are, then where the stems are synonyms; of several the
    last. With m matches in c chunks the penalty is 0.5 (c / m) ** 3. Banerjee and Lavie (2005),
    https://aclanthology.org/W05-0909; the choices as in promptfoo.

    Args:
        candidate: A text; words end at spaces and lose full stops at their end.
        reference: The text that it should be like.
        synonyms: By stem of a word of the reference, the words that match it.
    """
    ours, theirs = _words(candidate), _words(reference)
    lengths = len(ours), len(theirs)
    same, ours, theirs = _same(ours, theirs)
    stems, ours, theirs = _same(*([(place, stem(word)) for place, word in words] for words in (ours, theirs)))
    pairs = sorted([*same, *stems, *_alike(ours, theirs, synonyms)])
    if not pairs or not candidate:
        return 0.0
    precision, recall = (len(pairs) / length for length in lengths)
    mean = precision * recall / (_RECALL_SHARE * precision + (1 - _RECALL_SHARE) * recall)
    following = sum((a + 1, b + 1) == later for (a, b), later in pairwise(pairs))
    fragmented = (len(pairs) - following) / len(pairs)
    return (1 - _FRAGMENTS_WEIGHT * fragmented**_FRAGMENTS_POWER) * mean


def _words(text: str) -> list[_Place]:
    """Split at spaces; like promptfoo, a space at either end leaves an empty word there."""
    return [(place, word.rstrip(".").lower()) for place, word in enumerate(SPACE.split(text))]


def _same(ours: list[_Place], theirs: list[_Place]) -> tuple[_Pairs, list[_Place], list[_Place]]:
    """Pair what is equal, the last with the last; also give what is left of both."""
    places: dict[str, list[int]] = {}
    for place, word in theirs:
        places.setdefault(word, []).append(place)
    pairs = [(place, found.pop()) for place, word in reversed(ours) if (found := places.get(word))]
    taken, given = {place for place, _ in pairs}, {place for _, place in pairs}
    left = [pair for pair in ours if pair[0] not in taken]
    return pairs, left, [pair for pair in theirs if pair[0] not in given]


def _alike(ours: list[_Place], theirs: list[_Place], synonyms: Mapping[str, Sequence[str]]) -> _Pairs:
    pairs: _Pairs = []
    known = [(place, frozenset(synonyms.get(word, ()))) for place, word in theirs]
    for place, word in reversed(ours):
        match = next((at for at in range(len(known) - 1, -1, -1) if word in known[at][1]), None)
        if match is not None:
            pairs.append((place, known.pop(match)[0]))
    return pairs


def _looked_up(check: Check, synonyms: Synonyms) -> Check:
    """Put beside each reference the synonyms of the stems of its words."""
    texts = check.value if isinstance(check.value, tuple) else ()
    return replace(check, value=[[text, _synonyms_in(str(text), synonyms)] for text in texts])


def _synonyms_in(text: str, synonyms: Synonyms) -> dict[str, list[str]]:
    found = {word: sorted(synonyms(word)) for word in sorted({stem(word) for _, word in _words(text)})}
    return {word: others for word, others in found.items() if others}


@kind("meteor", prepare=references, look_up=_looked_up, has_threshold=True)
def _meteor(check: Check, subject: Subject) -> Graded:
    known = check.value if isinstance(check.value, list) else []
    score = max(meteor(subject.output, text, synonyms) for text, synonyms in known)
    return scored(check, score, threshold_or(check, THRESHOLD), "METEOR")
