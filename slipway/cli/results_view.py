"""Show recorded results: pass rates per arm, then what the candidate failed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from slipway.cli.output import printable
from slipway.results import Arm, CaseResult

__all__ = ["print_results", "results_document", "results_exit_code"]

SHOWN_FAILURES = 10


def print_results(console: Console, results: Sequence[CaseResult]) -> None:
    """Print the rates, and the first failures with their reasons."""
    for arm in Arm:
        of_arm = [result for result in results if result.arm is arm]
        if not of_arm:
            continue
        answered = [result for result in of_arm if result.error is None]
        passed = sum(bool(result.passed) for result in answered)
        rate = f"{passed / len(answered):.1%}" if answered else "no answers"
        missing = f", {len(of_arm) - len(answered)} missing" if len(answered) < len(of_arm) else ""
        console.print(f"{arm:<10} {passed}/{len(answered)} passed ({rate}{missing})")
    failed = [result for result in results if result.arm is Arm.CANDIDATE and result.passed is False]
    for result in failed[:SHOWN_FAILURES]:
        why = next((check.reason for check in result.checks if not check.passed), "")
        shown = printable(f"{result.case}: {why or repr(result.output)}")
        console.print(f"  [red]✗[/] {escape(shown)}", soft_wrap=True)
    if len(failed) > SHOWN_FAILURES:
        console.print(f"  ... and {len(failed) - SHOWN_FAILURES} more")
    _print_missing(console, results)


def _print_missing(console: Console, results: Sequence[CaseResult]) -> None:
    """Say once for all its cases why answers are missing: a service that is down fails every case alike."""
    causes: dict[tuple[Arm, str], list[str]] = {}
    for result in results:
        if result.error is not None:
            causes.setdefault((result.arm, result.error), []).append(result.case)
    for (arm, error), cases in list(causes.items())[:SHOWN_FAILURES]:
        named = ", ".join(cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
        shown = printable(f"missing of {arm}: {named}: {error}")
        console.print(f"  [yellow]?[/] {escape(shown)}", soft_wrap=True)
    if len(causes) > SHOWN_FAILURES:
        console.print(f"  ... and {len(causes) - SHOWN_FAILURES} more causes")


def results_document(results: Sequence[CaseResult]) -> list[dict[str, object]]:
    """For ``--json``: the lines of a results file, as a list."""
    return [result.model_dump(mode="json") for result in results]


def results_exit_code(results: Sequence[CaseResult]) -> int:
    """1 when the candidate failed a case, 3 when nothing failed but answers are missing, else 0."""
    candidate = [result for result in results if result.arm is Arm.CANDIDATE]
    if any(result.passed is False for result in candidate):
        return 1
    return 3 if not candidate or any(result.error is not None for result in candidate) else 0
