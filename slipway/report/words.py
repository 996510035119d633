"""Which words of two texts differ, as ranges of characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

__all__ = ["Range", "differences", "segments"]

Range = tuple[int, int]
"""First character, and the one after the last."""

MAX_WORDS = 4_000
"""Of either text, between what both begin and end with. Comparing takes time by their product; longer ones are marked
whole."""

LEAST_SHARED = 0.4
"""Texts that share fewer of their words are different texts: marking all of both would tell nothing."""

_WORD = re.compile(r"([\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s])")


def differences(ours: str, theirs: str) -> tuple[list[Range], list[Range]]:
    """Give the ranges of ``ours`` that are not in ``theirs``, and the other way round; nothing for unlike texts.

    Words are compared as a longest common subsequence. Where the words agree, what differs is the space between them,
    and characters are compared.
    """
    if ours == theirs:
        return [], []
    (left, mine), (right, other) = _words(ours), _words(theirs)
    if left == right:
        left, right = list(ours), list(theirs)
        mine, other = ([(at, at + 1) for at in range(len(text))] for text in (ours, theirs))
    start = _shared(left, right)
    tail = _shared(left[start:][::-1], right[start:][::-1])
    removed, added = _changed(left[start : len(left) - tail], right[start : len(right) - tail])
    kept = len(left) - sum(last - first for first, last in removed)
    if 2 * kept < LEAST_SHARED * (len(left) + len(right)):
        return [], []
    return _characters(mine, removed, start), _characters(other, added, start)


def segments(text: str, ranges: Sequence[Range]) -> Iterator[tuple[str, bool]]:
    """Cut a text at the ranges: each part and whether it is marked."""
    at = 0
    for start, end in ranges:
        if at < start:
            yield text[at:start], False
        yield text[start:end], True
        at = end
    if at < len(text):
        yield text[at:], False


@lru_cache(maxsize=4)  # one text is compared with several, one after the other
def _words(text: str) -> tuple[list[str], list[Range]]:
    parts = _WORD.split(text)  # what lies between the words and the words, in turn
    ends = list(accumulate(map(len, parts)))
    return parts[1::2], list(zip(ends[::2], ends[1::2], strict=False))


def _changed(left: list[str], right: list[str]) -> tuple[list[Range], list[Range]]:
    """Give the ranges of items that only one side has."""
    if max(len(left), len(right)) > MAX_WORDS:
        return [(0, len(left))], [(0, len(right))]
    from rapidfuzz.distance import Indel  # noqa: PLC0415  # only reports with several arms compare words

    removed: list[Range] = []
    added: list[Range] = []
    for step in Indel.opcodes(left, right):
        if step.tag == "delete":
            _extend(removed, step.src_start, step.src_end)
        elif step.tag == "insert":
            _extend(added, step.dest_start, step.dest_end)
    return removed, added


def _extend(ranges: list[Range], first: int, last: int) -> None:
    if ranges and ranges[-1][1] == first:
        ranges[-1] = (ranges[-1][0], last)
    else:
        ranges.append((first, last))


def _characters(places: Sequence[Range], ranges: Sequence[Range], start: int) -> list[Range]:
    return [(places[start + first][0], places[start + last - 1][1]) for first, last in ranges if first < last]


def _shared(left: Sequence[str], right: Sequence[str]) -> int:
    """How many items both begin with."""
    count = 0
    for ours, theirs in zip(left, right, strict=False):
        if ours != theirs:
            break
        count += 1
    return count
