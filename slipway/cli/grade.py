"""`slipway grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from slipway.cli.output import print_json, stderr, stdout, write_text
from slipway.cli.results_view import print_results, print_suite_notes, results_document, results_exit_code
from slipway.cli.step_summary import summarise_step
from slipway.configs import ConfigKind, find_config
from slipway.grading import grade_outputs, is_case_judged, judge_outputs
from slipway.junit import junit_xml
from slipway.redaction import Redactor
from slipway.results import CaseResult
from slipway.services.judge import open_judge
from slipway.suite import Suite, load_suite
from slipway.targets import load_target

__all__ = ["grade"]


async def grade(
    suite: str,
    outputs: Path,
    /,
    *,
    target: str | None = None,
    junit: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Grade recorded outputs against a suite; asks no model for answers.

    Exits 1 when a case failed, 3 when an output is missing or a check could not be applied.

    Args:
        suite: Name or path of a suite.
        outputs: JSONL, one `{"test": 0, "output": "..", "latency_ms": 12.0}` per line; `test` counts from 0. Cost,
            finish reason, token counts and log probabilities may follow: `cost_usd`, `finish_reason`,
            `prompt_tokens`, `generated_tokens`, `logprobs`.
        target: Name or path of a target file, for its judge, where the suite names none, and its patterns of private
            data.
        junit: Where to write JUnit XML.
        as_json: Print one JSON document on stdout.
    """
    where = None if target is None else load_target(find_config(ConfigKind.TARGET, target))
    path = find_config(ConfigKind.SUITE, suite)
    judge, redactor = (None, None) if where is None else (where.judge, where.redactor)
    loaded = load_suite(path, need_prompts=False, judge=judge, mask=redactor)
    print_suite_notes(stderr(), loaded)
    results = await _graded(loaded, outputs, redactor)
    if junit is not None:
        write_text(junit, junit_xml(loaded.description or suite, results))
    summarise_step(results, name=loaded.description or suite)
    if as_json:
        print_json(results_document(results, loaded.unsupported, loaded.notes))
    else:
        print_results(stdout(), results, loaded.unsupported)
    return results_exit_code(results)


async def _graded(suite: Suite, outputs: Path, redact: Redactor | None) -> list[CaseResult]:
    if suite.judge is None or not any(map(is_case_judged, suite.cases)):
        return grade_outputs(suite, outputs, redact=redact)
    async with open_judge(suite.judge) as judge:
        return await judge_outputs(suite, outputs, judge, redact=redact)
