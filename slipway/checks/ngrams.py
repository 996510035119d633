"""Checks of likeness to a reference text by shared n-grams: ROUGE, BLEU and GLEU.

An output without words scores 0; promptfoo 0.121.9 gives an error there, which would let an empty answer go missing
instead of failing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from slipway.checks.registry import Check, Graded, Subject, kind
from slipway.checks.values import scored, threshold_or, words
from slipway.validation_errors import describe

__all__ = ["bleu", "gleu", "references", "rouge_1"]

LONGEST = 4
"""N-grams of 1 to 4 words count."""
ROUGE_THRESHOLD = 0.75
BLEU_THRESHOLD = 0.5
_UNSEEN = 1e-7
"""Stands for a precision of 0, so that the geometric mean of the others is not lost."""
_TOKEN = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


def rouge_1(candidate: str, reference: str) -> float:
    """Give ROUGE-1 as F1: the harmonic mean of the shares of words found in the other text, each as often as it occurs.

    Upper and lower case are different words, as in promptfoo; punctuation marks count as words. Lin (2004),
    https://aclanthology.org/W04-1013.
    """
    ours, theirs = (Counter(_TOKEN.findall(text)) for text in (candidate, reference))
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def bleu(candidate: str, references: Sequence[str]) -> float:
    """Give sentence BLEU: the geometric mean of the clipped n-gram precisions, n = 1 to 4, times the brevity penalty.

    The penalty is exp(1 - r/c) for a candidate of c words that is shorter than the reference nearest in length, of r
    words. A precision of 0 counts as 1e-7. Words are lower-cased and split at spaces. Clipped counts are the greatest
    that one reference allows. Papineni et al. (2002), https://doi.org/10.3115/1073083.1073135; the choices as in
    promptfoo.
    """
    said = words(candidate.lower())
    others = [words(reference.lower()) for reference in references]
    if not said:
        return 0.0
    logarithms = []
    for size in range(1, LONGEST + 1):
        ours = _grams(said, size)
        common = max((ours & _grams(other, size)).total() for other in others)
        logarithms.append(math.log(common / ours.total() if common else _UNSEEN))
    nearest = min((len(other) for other in others), key=lambda length: abs(length - len(said)))
    penalty = 1.0 if len(said) >= nearest else math.exp(1 - nearest / len(said))
    return penalty * math.exp(math.fsum(logarithms) / LONGEST)


def gleu(candidate: str, references: Sequence[str]) -> float:
    """Give GLEU: the smaller of precision and recall over all n-grams, n = 1 to 4, of the best reference.

    Words are lower-cased, split at spaces, and lose full stops at their end. Wu et al. (2016),
    https://arxiv.org/abs/1609.08144, section 9.1; the choices as in promptfoo.
    """
    said = _without_stops(candidate)
    if not said:
        return 0.0
    return max(_gleu_of_one(said, _without_stops(reference)) for reference in references)


def _gleu_of_one(said: Sequence[str], reference: Sequence[str]) -> float:
    ours, theirs = _grams(said, *range(1, LONGEST + 1)), _grams(reference, *range(1, LONGEST + 1))
    most = max(ours.total(), theirs.total())  # the larger total gives the smaller share
    return (ours & theirs).total() / most if most else 0.0


def _without_stops(text: str) -> list[str]:
    return [word.rstrip(".") for word in words(text.lower())]


def _grams(said: Sequence[str], *sizes: int) -> Counter[tuple[str, ...]]:
    found: Iterable[tuple[str, ...]] = (
        tuple(said[start : start + size]) for size in sizes for start in range(len(said) - size + 1)
    )
    return Counter(found)


def _reference(check: Check) -> Check:
    if not isinstance(check.value, str) or not check.value.strip():
        raise ValueError(f"{check.type} needs a text as its value; found {describe(check.value)}")
    threshold_or(check, ROUGE_THRESHOLD)
    return check


def references(check: Check) -> Check:
    """Require one text or several, when the suite is loaded; the value becomes a tuple.

    Raises:
        ValueError: It is something else, or one is blank; or the threshold is no number.
    """
    values = check.value if isinstance(check.value, list) else [check.value]
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError(f"{check.type} needs a text, or a list of texts, as its value; found {describe(check.value)}")
    threshold_or(check, BLEU_THRESHOLD)
    return replace(check, value=tuple(values))


@kind("rouge-n", prepare=_reference, has_threshold=True)
def _rouge_n(check: Check, subject: Subject) -> Graded:
    return scored(check, rouge_1(subject.output, str(check.value)), threshold_or(check, ROUGE_THRESHOLD), "ROUGE-1")


@kind("bleu", prepare=references, has_threshold=True)
def _bleu(check: Check, subject: Subject) -> Graded:
    return scored(check, bleu(subject.output, _texts(check)), threshold_or(check, BLEU_THRESHOLD), "BLEU")


@kind("gleu", prepare=references, has_threshold=True)
def _gleu(check: Check, subject: Subject) -> Graded:
    return scored(check, gleu(subject.output, _texts(check)), threshold_or(check, BLEU_THRESHOLD), "GLEU")


def _texts(check: Check) -> tuple[str, ...]:
    return check.value if isinstance(check.value, tuple) else ()
