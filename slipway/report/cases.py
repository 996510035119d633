"""Every case as a reader sees it: the prompt, each arm's output with differences marked, and what each check said.

``build`` makes the values, from which the page shows the first few by itself; ``pack`` makes the JSON from which the
page's script shows all of them. Both hold readable text only: nothing here is markup.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from slipway.evidence import instrument_fault
from slipway.prompts import Prompt
from slipway.report.figures import Figures
from slipway.report.texts import cut, visible
from slipway.report.words import Range, differences, segments
from slipway.results import Arm, CaseResult, CheckResult

__all__ = ["AnswerView", "CaseView", "Change", "State", "build", "pack"]

TEXT_LIMITS = (20_000, 8_000, 2_000, 800, 300)
"""Characters of a prompt or output that are shown; the first at which everything fits ``TEXT_BUDGET``."""
TEXT_BUDGET = 24_000_000
"""Characters. A browser opens a page of this size in about a second; the results file has all of them."""
REASON_LIMIT = 600


_Check = tuple[str, bool | None, float, str, str, float]
"""Type, passed, score, reason, metric and weight of a check result: what makes two of them alike."""


class State(IntEnum):
    """What became of one arm's answer. The script knows these numbers."""

    FAILED = 0
    PASSED = 1
    MISSING = 2
    NOT_ASKED = 3
    GRADED = 4
    """A score without a pass or a fail."""


class Change(IntEnum):
    """The candidate against the reference. The script knows these numbers."""

    NONE = 0
    REGRESSION = 1
    GAIN = 2


@dataclass(frozen=True, kw_only=True)
class AnswerView:
    """One arm's answer, its texts fit to be shown; ``marks`` are ranges of ``output``."""

    arm: Arm
    state: State
    line: CaseResult
    output: str
    marks: Sequence[Range]
    error: str

    def segments(self) -> Iterator[tuple[str, bool]]:
        """Cut the output into what is marked and what is not."""
        return segments(self.output, self.marks)


@dataclass(frozen=True, kw_only=True)
class CaseView:
    """One case: ``prompt`` is a list of role and text, with an empty role for a prompt that is no conversation."""

    id: str
    tags: tuple[str, ...]
    change: Change
    prompt: tuple[tuple[str, str], ...]
    answers: tuple[AnswerView, ...]


def build(figures: Figures) -> list[CaseView]:
    """Make the views, in the order in which the cases were recorded."""
    data = figures.data
    limit = _text_limit(figures)
    regressed, gained = frozenset(figures.regressed), frozenset(figures.gained)
    views = []
    for case in dict.fromkeys(line.case for line in data.results):
        lines = figures.of_case(case)
        change = Change.REGRESSION if case in regressed else Change.GAIN if case in gained else Change.NONE
        views.append(
            CaseView(
                id=visible(case),
                tags=tuple(map(visible, sorted(figures.evidence.tags[case]))),
                change=change,
                prompt=_messages(data.prompts.get(case), limit),
                answers=_answers(lines, figures.reference, limit),
            )
        )
    return views


def pack(figures: Figures, views: Sequence[CaseView]) -> str:
    """Write the views as JSON that may stand inside a ``script`` element; equal texts are stored once.

    The layout, which the script reads: ``texts``, ``tags`` and ``checks`` are tables; a case is ``[id, tags, change,
    prompt, answers]`` with prompt as ``[role, text, ...]``; an answer is ``[arm, state, output, marks, error, checks,
    figures]`` with a check as ``[type, passed, score, reason, metric, weight]`` and figures as ``[score, latency_ms,
    prompt_tokens, generated_tokens, cost_usd, finish_reason, redacted]``. Arms, tags, checks and texts are indices.
    """
    texts: dict[str, int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    checks: dict[_Check, int] = {}

    def check(line: CheckResult) -> int:
        return checks.setdefault(
            (line.type, line.passed, line.score, line.reason, line.metric, line.weight), len(checks)
        )

    arms = {arm: number for number, arm in enumerate(Arm)}
    tags = {tag: number for number, tag in enumerate(dict.fromkeys(tag for view in views for tag in view.tags))}
    cases = [
        [
            view.id,
            [tags[tag] for tag in view.tags],
            int(view.change),
            [text(part) for message in view.prompt for part in message],
            [
                [
                    arms[answer.arm],
                    int(answer.state),
                    text(answer.output),
                    [offset for pair in answer.marks for offset in pair],
                    text(answer.error),
                    [check(line) for line in answer.line.checks],
                    _figures(answer.line, text),
                ]
                for answer in view.answers
            ],
        ]
        for view in views
    ]
    document = {
        "arms": list(map(str, arms)),
        "reference": str(figures.reference or ""),
        "tags": list(tags),
        "cases": cases,
        "checks": [_check(line, text) for line in checks],
        "texts": list(texts),
    }
    return _in_script(json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def _in_script(document: str) -> str:
    """Hide what would end a script element or open another inside it (HTML standard, 4.12.1.3)."""
    return document.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _text_limit(figures: Figures) -> int:
    lengths = [len(line.output) for line in figures.data.results]
    lengths += [len(content) for prompt in figures.data.prompts.values() for _, content in _parts(prompt)]
    fitting = (limit for limit in TEXT_LIMITS if sum(min(length, limit) for length in lengths) <= TEXT_BUDGET)
    return next(fitting, TEXT_LIMITS[-1])


def _parts(prompt: Prompt | None) -> Iterator[tuple[str, str]]:
    if isinstance(prompt, str):
        yield "", prompt
    elif prompt is not None:
        for message in prompt:
            yield message.get("role", ""), message.get("content", "")


def _messages(prompt: Prompt | None, limit: int) -> tuple[tuple[str, str], ...]:
    return tuple((visible(role), cut(visible(content), limit)) for role, content in _parts(prompt))


def _answers(lines: Mapping[Arm, CaseResult], reference: Arm | None, limit: int) -> tuple[AnswerView, ...]:
    """Compare the candidate's words with the reference's, and the other arms' words with the candidate's."""
    outputs = {arm: cut(visible(line.output), limit) for arm, line in lines.items()}
    marks: dict[Arm, Sequence[Range]] = {}
    ours = outputs.get(Arm.CANDIDATE)
    for arm, output in outputs.items():
        if (
            arm is Arm.CANDIDATE
            or ours is None
            or not _is_answered(lines[Arm.CANDIDATE])
            or not _is_answered(lines[arm])
        ):
            continue
        candidate_marks, marks[arm] = differences(ours, output)
        if arm is reference:
            marks[Arm.CANDIDATE] = candidate_marks
    faults = {arm: instrument_fault(line) for arm, line in lines.items()}
    return tuple(
        AnswerView(
            arm=arm,
            state=_state(line, faults[arm]),
            line=line,
            output=outputs[arm],
            marks=marks.get(arm, ()),
            error=cut(visible(faults[arm]), REASON_LIMIT),
        )
        for arm, line in lines.items()
    )


def _is_answered(line: CaseResult) -> bool:
    return line.error is None


def _state(line: CaseResult, fault: str) -> State:
    if line.not_asked:
        return State.NOT_ASKED
    if fault:
        return State.MISSING
    if line.passed is None:
        return State.GRADED
    return State.PASSED if line.passed else State.FAILED


def _check(check: _Check, text: Callable[[str], int]) -> list[object]:
    kind, passed, score, reason, metric, weight = check
    return [
        text(visible(kind)),
        None if passed is None else int(passed),
        _number(score),
        text(cut(visible(reason), REASON_LIMIT)),
        text(visible(metric)),
        _number(weight),
    ]


def _figures(line: CaseResult, text: Callable[[str], int]) -> list[object]:
    return [
        _number(line.score),
        _number(line.latency_ms),
        line.prompt_tokens,
        line.generated_tokens,
        _number(line.cost_usd, digits=9),
        text(visible(line.finish_reason or "")),
        int(line.redacted),
    ]


def _number(value: float | None, *, digits: int = 4) -> float | int | None:
    """Round for showing; what a broken clock or grader recorded, and JSON cannot hold, is left out."""
    if value is None or not math.isfinite(value):
        return None
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded
