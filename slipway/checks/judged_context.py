"""Checks of answers given from a context: whether it was the right one, and whether the answer keeps to it.

The four measures of RAGAS (Es et al. 2023, arXiv:2309.15217) as promptfoo has them, except that sentences and claims
are numbered by us and the judge names numbers, so that nothing depends on how it repeats a text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from slipway import judging
from slipway.checks.registry import Check, Graded, InapplicableCheckError, Judge, Subject, judged_kind
from slipway.checks.verdicts import answered, graded, reaches, with_text, with_threshold
from slipway.judge_replies import read_numbers, read_texts
from slipway.vectors import cosine

__all__: list[str] = []

_QUESTIONS = 3
_MOST_CLAIMS = 200


def _with_default(threshold: float, *, needs_value: bool = False) -> Callable[[Check], Check]:
    def prepare(check: Check) -> Check:
        if needs_value:
            check = with_text(check)
        if check.rubric_prompt:
            return replace(
                check,
                unsupported=f"its rubricPrompt asks for a form of reply that {check.base_type} is not read from here; "
                "leave it to the built-in question, or write the criterion as llm-rubric",
            )
        return with_threshold(replace(check, threshold=threshold if check.threshold is None else check.threshold))

    return prepare


@judged_kind("answer-relevance", prepare=_with_default(0.7), needs="both")
async def _answer_relevance(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Compare what was asked with questions that the answer would answer: the mean cosine of their embeddings."""
    query = subject.vars.get("query")
    asked = query if isinstance(query, str) and query else judging.prompt_text(subject.prompt)
    if not asked.strip():
        raise InapplicableCheckError(
            "it compares with the question, and neither the prompt nor a variable `query` is known"
        )
    if not subject.output.strip():
        return graded(check, reaches(0.0, check.threshold), 0.0, "The answer is blank.")
    questions = await answered(
        judge,
        judging.ask_questions(subject.output, _QUESTIONS),
        lambda text: read_texts(text, "questions", least=_QUESTIONS, most=_QUESTIONS),
    )
    first, *others = await judge.embed([asked, *questions])
    score = max(0.0, math.fsum(_cosine(first, other) for other in others) / len(others))
    return graded(check, reaches(score, check.threshold), score, f"Relevance {score:.2f}; {check.threshold:g} needed.")


@judged_kind("context-relevance", prepare=_with_default(0.5))
async def _context_relevance(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Take the share of the context's parts that the query needs; parts are chunks, lines or sentences."""
    query = _variable(check, subject, "query")
    chunks = _context(check, subject)
    parts = chunks if len(chunks) > 1 else _sentences(chunks[0])
    needed = await answered(
        judge, judging.ask_relevant(query, parts), lambda text: read_numbers(text, "relevant", of=len(parts))
    )
    return _share(check, len(needed), len(parts), "parts of the context are needed")


@judged_kind("context-recall", prepare=_with_default(0.5, needs_value=True))
async def _context_recall(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Take the share of the reference's sentences that the context supports, or the prompt where there is none."""
    chunks = _context(check, subject, otherwise=judging.prompt_text(subject.prompt))
    sentences = _sentences(str(check.value))
    question = judging.ask_supported("\n".join(chunks), sentences)
    found = await answered(judge, question, lambda text: read_numbers(text, "supported", of=len(sentences)))
    return _share(check, len(found), len(sentences), "sentences of the reference are in the context")


@judged_kind("context-faithfulness", prepare=_with_default(0.7))
async def _context_faithfulness(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Take the share of the answer's claims that the context supports."""
    query = _variable(check, subject, "query")
    chunks = _context(check, subject)
    if not subject.output.strip():
        return graded(check, reaches(0.0, check.threshold), 0.0, "The answer is blank.")
    claims = await answered(
        judge,
        judging.ask_claims(query, subject.output),
        lambda text: read_texts(text, "claims", least=0, most=_MOST_CLAIMS),
    )
    if not claims:
        raise InapplicableCheckError("the answer makes no claim, so there is nothing to be faithful")
    question = judging.ask_supported("\n".join(chunks), claims)
    found = await answered(judge, question, lambda text: read_numbers(text, "supported", of=len(claims)))
    return _share(check, len(found), len(claims), "claims are in the context")


def _share(check: Check, part: int, whole: int, what: str) -> Graded:
    score = part / whole
    reason = f"{part} of {whole} {what}: {score:.2f}; {check.threshold:g} needed."
    return graded(check, reaches(score, check.threshold), score, reason)


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    try:
        return cosine(left, right)
    except ValueError as error:
        raise InapplicableCheckError(str(error)) from error


def _variable(check: Check, subject: Subject, name: str) -> str:
    value = subject.vars.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InapplicableCheckError(
            f"{check.base_type} needs the variable `{name}` with a text in it; write it in `vars:`"
        )
    return value


def _context(check: Check, subject: Subject, *, otherwise: str = "") -> list[str]:
    value = subject.vars.get("context") or otherwise
    chunks = value if isinstance(value, list) else str(value).splitlines()
    found = [str(chunk) for chunk in chunks if str(chunk).strip()]
    if not found:
        raise InapplicableCheckError(
            f"{check.base_type} needs the variable `context`: a text or a list of texts; write it in `vars:`"
        )
    return found


def _sentences(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        return lines
    return [part for part in re.split(r"(?<=[.!?])\s+(?=\S)", text.strip()) if part]
