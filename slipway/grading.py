"""Turn outputs into recorded results: one fresh from a server, or a file of them, for which no model is asked."""

from __future__ import annotations

from pathlib import Path

from slipway.checks import Subject, grade
from slipway.errors import ConfigFileError
from slipway.results import Arm, CaseResult
from slipway.results_io import RecordedOutput, read_outputs
from slipway.suite import Case, Suite

__all__ = ["grade_case", "grade_outputs"]


def grade_case(
    case: Case,
    *,
    arm: Arm,
    output: str,
    latency_ms: float | None,
    adapter_id: str = "",
    prompt_tokens: int | None = None,
    generated_tokens: int | None = None,
) -> CaseResult:
    """Grade one arm's output of one case and record it."""
    subject = Subject(output=output, prompt=case.prompt, vars=case.vars, latency_ms=latency_ms)
    verdict = grade(case.checks, subject, threshold=case.threshold)
    return CaseResult(
        case=case.id,
        arm=arm,
        adapter_id=adapter_id,
        output=output,
        passed=verdict.passed,
        score=verdict.score,
        tags=case.tags,
        group=case.group,
        checks=verdict.checks,
        latency_ms=latency_ms,
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        error=verdict.error,
    )


def grade_outputs(suite: Suite, path: Path | str, *, arm: Arm = Arm.CANDIDATE) -> list[CaseResult]:
    """Grade a file of recorded outputs, one result for each case in the suite's order.

    A case without a recorded output is missing, not failed.

    Args:
        suite: Expanded; ``test`` of an output is the 0-based index of its case.
        path: JSONL, one ``{"test": 0, "output": "..", "latency_ms": 12.0}`` a line, in any order.
        arm: Under which arm to record the results.

    Raises:
        ConfigFileError: A bad line, an index that the suite does not have, or two outputs for one case.
    """
    by_case: dict[int, RecordedOutput] = {}
    for output in read_outputs(path):
        if output.test >= len(suite.cases):
            raise ConfigFileError(
                f"there is no test {output.test}: the suite has {len(suite.cases)} cases.",
                file=path,
                line=output.line,
                key="test",
                fix=f"Write 0 to {len(suite.cases) - 1}.",
            )
        if output.test in by_case:
            raise ConfigFileError(
                f"test {output.test} already has an output at line {by_case[output.test].line}.",
                file=path,
                line=output.line,
                key="test",
                fix="Keep one line for each test.",
            )
        by_case[output.test] = output
    results = []
    for index, case in enumerate(suite.cases):
        recorded = by_case.get(index)
        if recorded is None:
            missing = CaseResult(case=case.id, arm=arm, tags=case.tags, group=case.group, error="no recorded output")
            results.append(missing)
        else:
            results.append(grade_case(case, arm=arm, output=recorded.output, latency_ms=recorded.latency_ms))
    return results
