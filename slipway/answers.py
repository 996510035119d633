"""Answers, and which of those recorded earlier stand for requests that would be sent again.

A request is the same when the server, the adapter's bytes, the prompt and the generation settings are, and it is as
often repeated in its suite (``ordinal``). Its answer is then taken from the record. Where only the checks have changed
the recorded output is graded anew. Knows no files; ``services.answer_store`` has them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from slipway import __version__
from slipway.checks import Check, is_judged
from slipway.gate_file import Gate
from slipway.judge_settings import JudgeSettings
from slipway.results import Arm, CaseResult, Timing
from slipway.suite import Case

__all__ = [
    "Answer",
    "CaseKey",
    "Recorded",
    "StoredAnswer",
    "answer_of",
    "case_keys",
    "paired_arms",
    "recall",
    "recall_exactly",
]

NEEDS_LOGPROBS = frozenset({"perplexity", "perplexity-score"})
"""Check types that look at what is not recorded: a line of a thousand numbers for each answer."""
_COUNTING_FIELDS = tuple(field.name for field in fields(Check) if field.name != "where")
"""What makes two checks the same; moving one to another line changes nothing."""
JUDGE_KEYS = ("url", "model", "embeddings_model")


class Answer(NamedTuple):
    """One reply. A named tuple, which is made in a third of a frozen dataclass's time.

    Attributes:
        output: The text.
        latency_ms: By the caller's clock, from sending to the last byte, of the attempt that succeeded; None for a
            recorded output that does not tell.
        prompt_tokens: As the server counted them.
        generated_tokens: As the server counted them.
        finish_reason: The server's word for why generation ended.
        timing: What the server told of its own time.
        logprobs: Natural logarithms of the generated tokens' probabilities, in order.
    """

    output: str
    latency_ms: float | None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    finish_reason: str | None = None
    timing: Timing | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CaseKey:
    """What makes two cases the same.

    Attributes:
        request: Hash of the prompt and the generation settings.
        ordinal: How many cases before it in its suite have the same request.
        grading: Hash of the checks, the threshold, the judge and our version.
    """

    request: str
    ordinal: int
    grading: str


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """One recorded answer, as the store gives it back; ``grading`` is empty where it could not be graded."""

    request: str
    ordinal: int
    grading: str
    result: CaseResult


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recorded answer that stands for a request of this evaluation.

    Attributes:
        result: As recorded, under this suite's case and arm.
        is_graded: With the checks of this suite; otherwise its output is still to be graded.
    """

    result: CaseResult
    is_graded: bool


def answer_of(result: CaseResult) -> Answer:
    """Give back the answer that a result records; without its log probabilities."""
    return Answer(
        output=result.output,
        latency_ms=result.latency_ms,
        prompt_tokens=result.prompt_tokens,
        generated_tokens=result.generated_tokens,
        finish_reason=result.finish_reason,
        timing=result.timing,
    )


def case_keys(cases: Sequence[Case], *, max_new_tokens: int, judge: JudgeSettings | None = None) -> tuple[CaseKey, ...]:
    """Tell what identifies each case.

    Args:
        cases: Of a suite, in order.
        max_new_tokens: The target's, for cases that set none.
        judge: Who judges; counts for cases that ask it.
    """
    seen: Counter[str] = Counter()
    keys = []
    for case in cases:
        settings = {**case.generation._asdict(), "max_tokens": case.generation.max_tokens or max_new_tokens}
        request = _hash([case.prompt, settings])
        keys.append(CaseKey(request=request, ordinal=seen[request], grading=_grading(case, judge)))
        seen[request] += 1
    return tuple(keys)


def paired_arms(gate: Gate | None) -> frozenset[Arm]:
    """Tell which arms' latencies or costs the gate compares, so that they must be measured under the same load."""
    rules = () if gate is None else (gate.against.latency, gate.against.cost)
    others = {Arm(rule.of) for rule in rules if rule is not None}
    return frozenset(others | {Arm.CANDIDATE}) if others else frozenset()


def recall(
    cases: Sequence[Case],
    keys: Sequence[CaseKey],
    stored: Mapping[Arm, Iterable[StoredAnswer]],
    *,
    paired: frozenset[Arm] = frozenset(),
) -> dict[tuple[str, Arm], Recorded]:
    """Choose the recorded answers that stand for requests of this evaluation.

    An answer whose text was masked before it was written can only be taken with its grade. Latencies compare only
    within one session, so the answers of ``paired`` arms to one case are taken together and from one session, or not at
    all.

    Args:
        cases: Of the suite, in order.
        keys: One for each.
        stored: What the store has of each arm of this evaluation, oldest first.
        paired: Arms whose latencies are compared.

    Returns:
        By case id and arm; what is not in it must be asked.
    """
    shelves = {arm: _by_request(answers) for arm, answers in stored.items()}
    together = [arm for arm in shelves if arm in paired]
    alone = [arm for arm in shelves if arm not in paired or len(together) == 1]
    chosen: dict[tuple[str, Arm], Recorded] = {}
    for case, key in zip(cases, keys, strict=True):
        usable = {arm: _usable(shelf.get((key.request, key.ordinal), {}), case, key) for arm, shelf in shelves.items()}
        picks = {arm: _newest(usable[arm]) for arm in alone}
        if len(together) > 1:
            shared = [session for session in usable[together[0]] if all(session in usable[arm] for arm in together)]
            picks.update({arm: usable[arm][shared[-1]] if shared else None for arm in together})
        for arm, pick in picks.items():
            if pick is not None:
                update = {"case": case.id, "arm": arm, "tags": case.tags, "group": case.group}
                result = pick.result.but(**update)
                chosen[case.id, arm] = Recorded(result=result, is_graded=pick.grading == key.grading)
    return chosen


def recall_exactly(
    record: Sequence[CaseResult], known: Mapping[tuple[str, Arm], Recorded]
) -> dict[tuple[str, Arm], Recorded] | None:
    """Choose of the recorded answers those, and only those, that an earlier evaluation ended with.

    Args:
        record: What that one ended with.
        known: What would be taken from the record now.

    Returns:
        As ``recall``; None where the record cannot be had again: an answer of it was missing, was given by another
            adapter or server, has been asked for anew, or would be graded anew.
    """
    asked = [line for line in record if not line.not_asked]
    found = {(line.case, line.arm): known.get((line.case, line.arm)) for line in asked}
    chosen = {key: item for key, item in found.items() if item is not None and item.is_graded}
    if all(line.error is None and _stands(chosen.get((line.case, line.arm)), line) for line in asked):
        return chosen
    return None


def _stands(item: Recorded | None, line: CaseResult) -> bool:
    return item is not None and _observed(item.result) == _observed(line)


def _observed(result: CaseResult) -> tuple[object, ...]:
    return result.session, result.output, result.passed, result.score


def _by_request(answers: Iterable[StoredAnswer]) -> dict[tuple[str, int], dict[str, StoredAnswer]]:
    """Per request the last answer of each session, the sessions in the order of their first."""
    shelf: dict[tuple[str, int], dict[str, StoredAnswer]] = {}
    for answer in answers:
        shelf.setdefault((answer.request, answer.ordinal), {})[answer.result.session] = answer
    return shelf


def _usable(sessions: Mapping[str, StoredAnswer], case: Case, key: CaseKey) -> dict[str, StoredAnswer]:
    may_grade = not any(map(_needs_logprobs, case.checks))
    return {
        session: answer
        for session, answer in sessions.items()
        if answer.grading == key.grading or (may_grade and not answer.result.redacted)
    }


def _newest(usable: Mapping[str, StoredAnswer]) -> StoredAnswer | None:
    return list(usable.values())[-1] if usable else None


def _needs_logprobs(check: Check) -> bool:
    return check.base_type in NEEDS_LOGPROBS or any(map(_needs_logprobs, check.checks))


def _grading(case: Case, judge: JudgeSettings | None) -> str:
    judged = judge is not None and any(map(is_judged, case.checks))
    who = {name: getattr(judge, name) for name in JUDGE_KEYS} if judged else None
    # The variables count too: a check may look at them.
    return _hash([case.checks, case.transform, case.threshold, case.vars, case.prompt, who, __version__])


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=_as_json, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _as_json(value: object) -> object:
    if isinstance(value, Check):
        return {name: getattr(value, name) for name in _COUNTING_FIELDS}
    return dict(value) if isinstance(value, Mapping) else repr(value)
