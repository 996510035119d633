"""Turn recorded outputs into results: a file of them is graded against a suite, and no model is asked for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from slipway.answers import Answer
from slipway.checks import Grade, Judge, Subject, grade, grade_judged, is_judged
from slipway.errors import ConfigFileError, ServiceError
from slipway.recording import Recorder, Redact, subject_of
from slipway.results import Arm, CaseResult
from slipway.results_io import RecordedOutput, read_outputs
from slipway.suite import Case, Suite
from slipway.wording import counted

__all__ = ["grade_answer", "grade_case", "grade_outputs", "is_case_judged", "judge_outputs"]

NOTHING_RECORDED = "no recorded output"


def is_case_judged(case: Case) -> bool:
    """Whether a judge must be asked to grade an answer to the case."""
    return any(map(is_judged, case.checks))


def grade_case(case: Case, subject: Subject) -> Grade:
    """Grade one answer to a case for which no judge is needed."""
    return grade(case.checks, subject, threshold=case.threshold, transform=case.transform)


async def grade_answer(case: Case, subject: Subject, judge: Judge | None) -> Grade:
    """Grade one answer to a case, with a judge where one is needed.

    A judge that does not answer is the instrument's fault: the grade says so in ``error``, and the case is missing.
    """
    if judge is None or not is_case_judged(case):
        return grade_case(case, subject)
    try:
        return await grade_judged(case.checks, subject, judge, threshold=case.threshold, transform=case.transform)
    except ServiceError as error:
        return Grade(passed=None, score=None, error=f"the judge did not answer: {error}")


def grade_outputs(suite: Suite, path: Path | str, *, redact: Redact | None = None) -> list[CaseResult]:
    """Grade a file of recorded outputs of the candidate, one result for each case in the suite's order; asks no judge.

    A case without a recorded output is missing, not failed.

    Args:
        suite: Expanded, without a judge; ``test`` of an output is the 0-based index of its case.
        path: JSONL, one ``{"test": 0, "output": "..", "latency_ms": 12.0}`` a line, in any order; see
            ``RecordedOutput`` for what more it may tell.
        redact: Applied to outputs, reasons and errors, after grading; None leaves them.

    Raises:
        ConfigFileError: A bad line, an index that the suite does not have, or two outputs for one case.
    """
    recorder = Recorder(redact=redact)
    results = []
    for case, recorded in _paired(suite, path):
        if recorded is None:
            results.append(recorder.missing(case, Arm.CANDIDATE, "", NOTHING_RECORDED))
        else:
            answer = _answer(recorded)
            verdict = grade_case(case, subject_of(case, answer, recorded.cost_usd))
            results.append(recorder.graded(case, Arm.CANDIDATE, "", answer, verdict, recorded.cost_usd, ""))
    return results


async def judge_outputs(
    suite: Suite, path: Path | str, judge: Judge, *, redact: Redact | None = None
) -> list[CaseResult]:
    """Do as ``grade_outputs``, and ask the judge for the checks that need it, several answers at once."""
    recorder = Recorder(redact=redact)
    free = asyncio.Semaphore(judge.settings.max_concurrency)

    async def result_of(case: Case, recorded: RecordedOutput | None) -> CaseResult:
        if recorded is None:
            return recorder.missing(case, Arm.CANDIDATE, "", NOTHING_RECORDED)
        answer = _answer(recorded)
        async with free:
            verdict = await grade_answer(case, subject_of(case, answer, recorded.cost_usd), judge)
        return recorder.graded(case, Arm.CANDIDATE, "", answer, verdict, recorded.cost_usd, "")

    return list(await asyncio.gather(*(result_of(*pair) for pair in _paired(suite, path))))


def _answer(recorded: RecordedOutput) -> Answer:
    return Answer(
        output=recorded.output,
        latency_ms=recorded.latency_ms,
        finish_reason=recorded.finish_reason,
        logprobs=recorded.logprobs,
        prompt_tokens=recorded.prompt_tokens,
        generated_tokens=recorded.generated_tokens,
    )


def _paired(suite: Suite, path: Path | str) -> Iterator[tuple[Case, RecordedOutput | None]]:
    by_case = _by_case(read_outputs(path), len(suite.cases), path)
    for index, case in enumerate(suite.cases):
        yield case, by_case.get(index)


def _by_case(outputs: Sequence[RecordedOutput], cases: int, path: Path | str) -> dict[int, RecordedOutput]:
    found: dict[int, RecordedOutput] = {}
    for output in outputs:
        if output.test >= cases:
            raise ConfigFileError(
                f"there is no test {output.test}: the suite has {counted(cases, 'case')}.",
                file=path,
                line=output.line,
                key="test",
                fix="Write 0." if cases == 1 else f"Write 0 to {cases - 1}.",
            )
        if output.test in found:
            raise ConfigFileError(
                f"test {output.test} already has an output at line {found[output.test].line}.",
                file=path,
                line=output.line,
                key="test",
                fix="Keep one line for each test.",
            )
        found[output.test] = output
    return found
