"""The top of the report in words: the verdict, and what it means for applications."""

from __future__ import annotations

from dataclasses import dataclass

from slipway.report.data import ReportData

__all__ = ["Headline", "headline"]

SHOWN_REASONS = 3
"""At the top; the rules below have all of them."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The verdict in big words.

    Attributes:
        word: One or two words.
        tone: ``good``, ``bad``, ``open`` or ``neutral``: a class of the style sheet.
        mark: A sign that says the same without colour.
        meaning: What the word means, in a sentence.
        served: What applications get now; empty where nothing was released.
        reasons: The weightiest ones.
        others: The rest.
    """

    word: str
    tone: str
    mark: str
    meaning: str
    served: str
    reasons: tuple[str, ...]
    others: tuple[str, ...]


_WORDS = {
    "promoted": ("Promoted", "good", "✓", "Every rule of the gate passed."),
    "held": ("Held", "bad", "✗", "The candidate was tried and did not become champion."),
    "refused": ("Refused", "bad", "✗", "The adapter was not uploaded, and no prompt was spent on it."),
    "inconclusive": ("Inconclusive", "open", "?", "The evidence carries neither a yes nor a no, so nothing changes."),
    "unchanged": ("Unchanged", "neutral", "=", "The candidate is the champion already."),
    "promote": ("Promote", "good", "✓", "What the gate says of these recorded results; nothing was released."),
    "hold": ("Hold", "bad", "✗", "What the gate says of these recorded results; nothing was released."),
    "": ("Results", "neutral", "•", "Recorded results; no gate has judged them."),
}


def headline(data: ReportData) -> Headline:
    """Say how it ended."""
    word, tone, mark, meaning = _WORDS.get(data.outcome, (data.outcome.capitalize(), "neutral", "•", ""))
    if data.outcome == "inconclusive" and not data.release_id:
        meaning = _WORDS["hold"][3]
    return Headline(
        word=word,
        tone=tone,
        mark=mark,
        meaning=meaning,
        served=_served(data) if data.release_id else "",
        reasons=tuple(map(_capitalised, data.reasons[:SHOWN_REASONS])),
        others=data.reasons[SHOWN_REASONS:],
    )


def _served(data: ReportData) -> str:
    if not data.champion_after:
        return f"There is no champion of {data.name} on {data.target}: applications get none yet."
    if data.champion_after == data.champion_before or (not data.champion_before and data.outcome != "promoted"):
        return f"Applications still get {data.champion_after} on {data.target}."
    before = f" (before: {data.champion_before})" if data.champion_before else " (the first champion there)"
    return f"Applications now get {data.champion_after} on {data.target}{before}."


def _capitalised(sentence: str) -> str:
    """Begin with a capital, unless the first word is a name such as pass_rate or support/4."""
    first = sentence.split(" ", 1)[0]
    return sentence[:1].upper() + sentence[1:] if first.isalpha() else sentence
