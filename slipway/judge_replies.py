"""What a judge's reply means. Strict: one JSON object of the shape asked for, or the reply is unreadable.

Looking for JSON anywhere in a reply, as is common, reads the verdict that a graded text smuggled into a quotation. A
reply that cannot be read says nothing of the adapter: it is the instrument's failure.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TypeVar

__all__ = [
    "RubricReply",
    "UnreadableReplyError",
    "read_category",
    "read_numbers",
    "read_pass",
    "read_rubric",
    "read_score",
    "read_texts",
]

_THINKING = re.compile(r"\A\s*<think>.*</think>", re.DOTALL)
"""Reasoning that some open models put first. Greedy: what it quotes of the graded text cannot end it early."""
_BLOCK = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)
_MAX_REASON_CHARACTERS = 2_000


class UnreadableReplyError(ValueError):
    """The reply is not what was asked for; the message is the end of a sentence: "because ..."."""


@dataclass(frozen=True, kw_only=True)
class RubricReply:
    """What ``llm-rubric`` is told.

    Attributes:
        passed: None where only a score was given.
        score: In [0, 1]; None where only a verdict was given.
        reason: May be empty.
    """

    passed: bool | None
    score: float | None
    reason: str


def read_rubric(text: str) -> RubricReply:
    """Read ``{"reason", "pass", "score"}``, of which a prompt of the suite may ask for less.

    Raises:
        UnreadableReplyError: Not that, or neither a verdict nor a score.
    """
    reply = _object(text)
    passed = _typed(reply, "pass", bool) if reply.get("pass") is not None else None
    score = _number(reply, highest=1.0) if reply.get("score") is not None else None
    if passed is None and score is None:
        raise UnreadableReplyError("it gave neither pass nor score")
    return RubricReply(passed=passed, score=score, reason=_reason(reply))


def read_pass(text: str, *, allow_letter: bool = False) -> tuple[bool, str]:
    """Read ``{"reason", "pass"}``; with ``allow_letter`` also a text whose last line is Y or N alone.

    Raises:
        UnreadableReplyError: Neither.
    """
    if allow_letter and not text.lstrip().startswith(("{", "`")):
        *earlier, last = text.strip().splitlines() or [""]
        if last.strip() not in {"Y", "N"}:
            raise UnreadableReplyError("its last line was neither Y nor N alone")
        return last.strip() == "Y", _shortened("\n".join(earlier))
    reply = _object(text)
    return _typed(reply, "pass", bool), _reason(reply)


def read_category(text: str, *, allow_letter: bool = False) -> tuple[str, str]:
    """Read ``{"reason", "category"}``; with ``allow_letter`` also a text that starts with ``(A)``.

    Returns:
        A letter from A to E, and the reason.

    Raises:
        UnreadableReplyError: Neither.
    """
    if allow_letter and (found := re.match(r"\s*\(?([A-Ea-e])\)\s*", text)):
        return found[1].upper(), _shortened(text[found.end() :])
    reply = _object(text)
    letter = _typed(reply, "category", str).strip().upper()
    if letter not in {"A", "B", "C", "D", "E"}:
        raise UnreadableReplyError("its category was none of A, B, C, D and E")
    return letter, _reason(reply)


def read_score(text: str, *, highest: float) -> tuple[float, str]:
    """Read ``{"reason", "score"}``, a score from 0 to ``highest``, as a share of it in [0, 1].

    Raises:
        UnreadableReplyError: Not that.
    """
    reply = _object(text)
    return _number(reply, highest=highest) / highest, _reason(reply)


def read_texts(text: str, key: str, *, least: int, most: int) -> tuple[str, ...]:
    """Read ``{key: [texts]}``.

    Raises:
        UnreadableReplyError: Not that, an empty text, or too few or too many of them.
    """
    values = _typed(_object(text), key, list)
    if not least <= len(values) <= most:
        raise UnreadableReplyError(f"{key} had {len(values)} entries, where {least} to {most} can be used")
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise UnreadableReplyError(f"{key} held something that is no text, or an empty one")
    return tuple(value.strip() for value in values)


def read_numbers(text: str, key: str, *, of: int) -> frozenset[int]:
    """Read ``{key: [numbers]}``, numbers of parts from 1 to ``of``.

    Raises:
        UnreadableReplyError: Not that, or a number of no part.
    """
    values = _typed(_object(text), key, list)
    if not all(isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= of for value in values):
        raise UnreadableReplyError(f"{key} held something that is no whole number from 1 to {of}")
    return frozenset(values)


def _object(text: str) -> dict[str, object]:
    bare = _THINKING.sub("", text).strip()
    block = _BLOCK.match(bare)
    try:
        value = json.loads(block[1] if block else bare, object_pairs_hook=_once, parse_constant=_no_constant)
    except UnreadableReplyError:
        raise
    except (ValueError, RecursionError):
        raise UnreadableReplyError("it was not one JSON object and nothing else") from None
    if not isinstance(value, dict):
        raise UnreadableReplyError("it was not one JSON object and nothing else")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise UnreadableReplyError("it gave the same key twice")
    return made


def _no_constant(name: str) -> object:
    raise UnreadableReplyError(f"it gave {name} as a number")


_Typed = TypeVar("_Typed", bool, str, list)  # type: ignore[type-arg]  # what is in the list is verified after


def _typed(reply: dict[str, object], key: str, kind: type[_Typed]) -> _Typed:
    value = reply.get(key)
    if not isinstance(value, kind):
        name = {bool: "true or false", str: "a text", list: "a list"}[kind]
        raise UnreadableReplyError(f"its {key} was not {name}")
    return value


def _number(reply: dict[str, object], *, highest: float) -> float:
    value = reply.get("score")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise UnreadableReplyError(f"its score was no number from 0 to {highest:g}")
    if not math.isfinite(value):  # pragma: no cover  # an infinite one is above the highest
        raise UnreadableReplyError("its score was not finite")
    return float(value)


def _reason(reply: dict[str, object]) -> str:
    reason = reply.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise UnreadableReplyError("its reason was no text")
    return _shortened(reason or "")


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MAX_REASON_CHARACTERS else text[:_MAX_REASON_CHARACTERS] + "..."
