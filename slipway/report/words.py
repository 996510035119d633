"""Which words of two texts differ, as ranges of characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

__all__ = ["Range", "differences", "segments"]

Range = tuple[int, int]
"""First character, and the one after the last."""

MAX_WORDS = 1_500
"""Of either text, between what both begin and end with. Comparing takes time by their product; longer ones are marked
whole."""

LEAST_SHARED = 0.4
"""Texts that share fewer of their words are different texts: marking all of both would tell nothing."""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
_PIECE = re.compile(r"\s|[^\W]+|[^\w\s]")


def differences(ours: str, theirs: str) -> tuple[list[Range], list[Range]]:
    """Give the ranges of ``ours`` that are not in ``theirs``, and the other way round; nothing for unlike texts."""
    if ours == theirs:
        return [], []
    marked = _compare(ours, theirs, _WORD)
    # The same words: what differs is the space between them.
    return marked if marked != ([], []) else _compare(ours, theirs, _PIECE)


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


def _compare(ours: str, theirs: str, unit: re.Pattern[str]) -> tuple[list[Range], list[Range]]:
    mine, other = list(unit.finditer(ours)), list(unit.finditer(theirs))
    left, right = [match[0] for match in mine], [match[0] for match in other]
    start = _shared(left, right)
    tail = _shared(left[start:][::-1], right[start:][::-1])
    middle_left, middle_right = left[start : len(left) - tail], right[start : len(right) - tail]
    if max(len(middle_left), len(middle_right)) > MAX_WORDS:
        blocks = [(0, len(middle_left), 0, len(middle_right))]
        shared = start + tail
    else:
        matcher = SequenceMatcher(None, middle_left, middle_right, autojunk=False)
        blocks = [block for tag, *block in matcher.get_opcodes() if tag != "equal"]  # type: ignore[misc]  # four ints
        shared = start + tail + sum(block.size for block in matcher.get_matching_blocks())
    if not blocks or 2 * shared < LEAST_SHARED * (len(left) + len(right)):
        return [], []
    ranges_left, ranges_right = [], []
    for first, last, other_first, other_last in blocks:
        if first < last:
            ranges_left.append((mine[start + first].start(), mine[start + last - 1].end()))
        if other_first < other_last:
            ranges_right.append((other[start + other_first].start(), other[start + other_last - 1].end()))
    return ranges_left, ranges_right


def _shared(left: Sequence[str], right: Sequence[str]) -> int:
    """How many items both begin with."""
    count = 0
    for ours, theirs in zip(left, right, strict=False):
        if ours != theirs:
            break
        count += 1
    return count
