"""Show recorded results: pass rates per arm, how many checks were applied, then what the candidate failed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from slipway.cli.output import printable
from slipway.coverage import measure_coverage
from slipway.results import Arm, CaseResult
from slipway.results_io import as_document
from slipway.suite import Suite, UnsupportedAssertion
from slipway.wording import counted

__all__ = ["print_results", "print_suite_notes", "results_document", "results_exit_code"]

SHOWN_FAILURES = 10
SHOWN_PLACES = 3


def print_results(
    console: Console, results: Sequence[CaseResult], unsupported: Sequence[UnsupportedAssertion] = ()
) -> None:
    """Print the rates, the coverage, and the first failures with their reasons.

    Args:
        console: Where.
        results: Of all arms.
        unsupported: The suite's assertions that are never applied, to say where they are written.
    """
    for arm in Arm:
        of_arm = [result for result in results if result.arm is arm]
        if not of_arm:
            continue
        answered = [result for result in of_arm if result.error is None]
        passed = sum(bool(result.passed) for result in answered)
        rate = f"{passed / len(answered):.1%}" if answered else "no answers"
        not_asked = sum(result.not_asked for result in of_arm)
        missing = len(of_arm) - len(answered) - not_asked
        lacking = f", {missing} missing" * bool(missing) + f", {not_asked} not asked" * bool(not_asked)
        console.print(f"{arm:<10} {passed}/{len(answered)} passed ({rate}{lacking})")
    _print_coverage(console, results, unsupported)
    failed = [result for result in results if result.arm is Arm.CANDIDATE and result.passed is False]
    for result in failed[:SHOWN_FAILURES]:
        why = next((check.reason for check in result.checks if check.passed is False and check.reason), "")
        shown = printable(f"{result.case}: {why or repr(result.output)}")
        console.print(f"  [red]✗[/] {escape(shown)}", soft_wrap=True)
    if len(failed) > SHOWN_FAILURES:
        console.print(f"  ... and {len(failed) - SHOWN_FAILURES} more")
    _print_missing(console, results)


def _print_coverage(
    console: Console, results: Sequence[CaseResult], unsupported: Sequence[UnsupportedAssertion]
) -> None:
    """Say what was not applied: it neither passed nor failed, and nobody should think that it did."""
    coverage = measure_coverage(results)
    if not coverage.not_applied:
        return
    named = []
    for kind, count in coverage.not_applied.items():
        found = list(dict.fromkeys(entry.where for entry in unsupported if entry.type == kind and entry.where))
        places = ", ".join(found[:SHOWN_PLACES]) + (", ..." if len(found) > SHOWN_PLACES else "")
        named.append(f"{kind} {count}" + (f" ({places})" if places else ""))
    shown = printable(
        f"coverage {coverage.share:.1%} of {counted(coverage.total, 'check')}; not applied: {', '.join(named)}"
    )
    console.print(f"[yellow]{escape(shown)}[/]", soft_wrap=True)
    for reason in dict.fromkeys(f"{entry.type}: {entry.reason}" for entry in unsupported):
        console.print(f"  [yellow]-[/] {escape(printable(reason))}", soft_wrap=True)


def _print_missing(console: Console, results: Sequence[CaseResult]) -> None:
    """Say once for all its cases why answers are missing: a service that is down fails every case alike."""
    causes: dict[tuple[Arm, str], list[str]] = {}
    for result in results:
        if result.error is not None and not result.not_asked:
            causes.setdefault((result.arm, result.error), []).append(result.case)
    for (arm, error), cases in list(causes.items())[:SHOWN_FAILURES]:
        named = ", ".join(cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
        shown = printable(f"missing of {arm}: {named}: {error}")
        console.print(f"  [yellow]?[/] {escape(shown)}", soft_wrap=True)
    if len(causes) > SHOWN_FAILURES:
        console.print(f"  ... and {len(causes) - SHOWN_FAILURES} more causes")


def print_suite_notes(console: Console, suite: Suite) -> None:
    """Say what of a suite was ignored, or read differently than it may look."""
    for note in suite.notes:
        console.print(f"[dim]note: {escape(printable(note))}[/]", soft_wrap=True)


def results_document(
    results: Sequence[CaseResult],
    unsupported: Sequence[UnsupportedAssertion] = (),
    notes: Sequence[str] = (),
) -> dict[str, object]:
    """For ``--json``: counts by arm, the coverage, what is not supported or read differently, and the results."""
    coverage = measure_coverage(results)
    return {
        "arms": {arm.value: _counts(results, arm) for arm in Arm if any(result.arm is arm for result in results)},
        "coverage": coverage.share,
        "checks": coverage.total,
        "unsupported": [
            {"type": entry.type, "where": entry.where, "reason": entry.reason, "cases": entry.cases}
            for entry in unsupported
        ],
        "notes": list(notes),
        "results": [as_document(result) for result in results],
    }


def _counts(results: Sequence[CaseResult], arm: Arm) -> dict[str, object]:
    of_arm = [result for result in results if result.arm is arm]
    answered = [result for result in of_arm if result.error is None]
    passed = sum(bool(result.passed) for result in answered)
    return {
        "cases": len(of_arm),
        "answered": len(answered),
        "not_asked": sum(result.not_asked for result in of_arm),
        "passed": passed,
        "pass_rate": passed / len(answered) if answered else None,
    }


def results_exit_code(results: Sequence[CaseResult]) -> int:
    """1 when the candidate failed a case; 3 when none failed, but answers are missing or checks not applied; else 0.

    What was not asked for, as the verdict was certain, is not missing.
    """
    candidate = [result for result in results if result.arm is Arm.CANDIDATE]
    if any(result.passed is False for result in candidate):
        return 1
    is_known = candidate and all(result.error is None or result.not_asked for result in candidate)
    return 0 if is_known and not measure_coverage(candidate).not_applied else 3
