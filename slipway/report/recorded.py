"""A report of recorded results alone: no release, no server, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slipway.gate import Verdict
from slipway.gate_file import Gate
from slipway.report.data import CheckGap, ReportData
from slipway.results import CaseResult
from slipway.suite import Suite

__all__ = ["data_of_results"]


def data_of_results(
    results: Sequence[CaseResult],
    *,
    name: str,
    suite: Suite | None = None,
    verdict: Verdict | None = None,
    gate: Gate | None = None,
    references: Mapping[str, str] | None = None,
    reproduce: tuple[str, ...] = (),
) -> ReportData:
    """Fill a report's data; nothing in it is masked yet.

    Args:
        results: As an evaluation or a release recorded them.
        name: Of the results.
        suite: Whose prompts are shown; without it only outputs are.
        verdict: What a gate says of them, if one was asked.
        gate: That gate, for what the suite can show under it.
        references: Names and digests of the files.
        reproduce: Commands that make the same report.
    """
    return ReportData(
        name=name,
        release_id="",
        outcome=str(verdict.verdict) if verdict else "",
        reasons=verdict.reasons if verdict else (),
        verdict=verdict,
        gate=gate,
        results=results,
        prompts={case.id: case.prompt for case in suite.cases} if suite else {},
        notes=suite.notes if suite else (),
        gaps=_gaps(results, suite) if suite else (),
        references=references or {},
        reproduce=reproduce,
    )


def _gaps(results: Sequence[CaseResult], suite: Suite) -> tuple[CheckGap, ...]:
    """List what the suite cannot have applied, but for what the results show to have been, as by a target's judge."""
    checks = [check for line in results for check in line.checks]
    applied = {check.type for check in checks if check.passed is not None}
    applied -= {check.type for check in checks if check.passed is None}
    return tuple(
        CheckGap(where=gap.where, type=gap.type, reason=gap.reason, cases=gap.cases)
        for gap in suite.unsupported
        if gap.type not in applied
    )
