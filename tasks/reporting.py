"""The end of a release: report, artifacts, events, the ledger's last word, and the state that the run ends in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed

from slipway.gate_rules import RuleOutcome
from slipway.junit import junit_xml
from slipway.ledger import Outcome, ReleaseState
from slipway.redaction import Redactor, scrub_text, secrets_from_environment
from slipway.release import ReleaseOutcome
from slipway.report import Figures, FindingLine, ReportData, masked, render_html, render_summary
from slipway.services.step_summary import append_step_summary
from slipway.services.workspace import open_workspace
from tasks.dossier import Dossier
from tasks.ledger import RollbackPlan, current_champion

__all__ = ["conclude", "conclude_rollback"]

REPORT_FILE = "report.html"
SUMMARY_FILE = "report.md"
JUNIT_FILE = "junit.xml"

STATE_NAMES = {
    Outcome.PROMOTED: "Promoted",
    Outcome.HELD: "Held",
    Outcome.REFUSED: "Held",
    Outcome.INCONCLUSIVE: "Inconclusive",
    Outcome.UNCHANGED: "Unchanged",
}
"""A refused adapter is held before upload; in the Prefect UI both are one state, with the reasons in its message."""

EVENTS = {
    Outcome.PROMOTED: "adapter.promoted",
    Outcome.HELD: "adapter.held",
    Outcome.REFUSED: "adapter.held",
    Outcome.INCONCLUSIVE: "adapter.held",
}


async def conclude(dossier: Dossier, outcome: Outcome, reasons: tuple[str, ...]) -> ReleaseOutcome:
    """Write the report, the artifacts and the events, end the release in the ledger, and return the run's final state.

    Typed as what the flow's caller gets: Prefect takes a returned state for the run's own and hands on its data.

    The ledger comes last: a release that is cut before it is continued, and does all this again.
    """
    workspace = open_workspace()
    champion = current_champion(dossier.plan.name, dossier.plan.target_name)
    release = workspace.ledger.release(dossier.release_id)
    seconds = _seconds(release)
    run_url = _run_url()
    known = dossier.report_data(outcome, reasons, champion=champion, release=release, seconds=seconds, run_url=run_url)
    secrets = partial(scrub_text, secrets=secrets_from_environment(os.environ))
    mask = partial(masked, secrets=secrets, private=Redactor(dossier.plan.target.redact))
    directory = workspace.release_directory(dossier.release_id)
    data, report, text = await asyncio.to_thread(_write, known, mask, directory)  # seconds, where cases are many
    reasons = data.reasons
    result = ReleaseOutcome(
        release_id=dossier.release_id,
        name=dossier.plan.name,
        target=dossier.plan.target_name,
        outcome=outcome,
        reasons=reasons,
        digest=dossier.bundle.digest,
        adapter_id=dossier.adapter.adapter_id if dossier.adapter else "",
        champion=champion.adapter_id if champion else "",
        report=report,
        results=dossier.results,
        seconds=seconds,
        run_url=run_url,
    )
    await acreate_markdown_artifact(text, key=f"release-{result.name}", description=f"{result.release_id}: {outcome}")
    if dossier.inspection is not None:
        await acreate_table_artifact(
            [_finding_row(finding) for finding in dossier.findings],
            key=f"findings-{result.name}",
            description=f"{result.release_id}: what inspection found in {dossier.bundle.uri}",
        )
    if dossier.verdict is not None:
        await acreate_table_artifact(
            [_rule_row(rule) for rule in dossier.verdict.rules],
            key=f"evaluation-{result.name}",
            description=f"{result.release_id}: what each rule of the gate said",
        )
    _announce(result)
    workspace.ledger.end_release(
        result.release_id,
        outcome,
        reasons=reasons,
        evidence={
            "results_sha256": dossier.evidence_digest,
            "gate_digest": dossier.plan.gate_digest,
            "suite_digest": dossier.plan.suite.digest,
            "report": str(report),
            "flow_run": str(flow_run.id or ""),
        },
    )
    return _final_state(result)


def _write(
    known: ReportData, mask: Callable[[ReportData], ReportData], directory: Path
) -> tuple[ReportData, Path, str]:
    """Write report, summary and JUnit XML of what is left after masking.

    Gives that, the report's path and the summary, which a CI step gets too.
    """
    data = mask(known)
    report = directory / REPORT_FILE
    figures = Figures.of(data)
    report.write_text(render_html(data, figures=figures), encoding="utf-8")
    summary = render_summary(data, report=report.as_uri(), figures=figures)
    (directory / SUMMARY_FILE).write_text(summary, encoding="utf-8")
    if data.results:
        (directory / JUNIT_FILE).write_text(junit_xml(data.release_id, data.results), encoding="utf-8")
    append_step_summary(summary)
    return data, report, summary


def _run_url() -> str:
    """The flow run in the Prefect UI; empty where the server has none, as a temporary one."""
    url = flow_run.ui_url or ""
    return url if url.startswith(("http://", "https://")) else ""


async def conclude_rollback(plan: RollbackPlan, outcome: Outcome, reasons: tuple[str, ...]) -> ReleaseOutcome:
    """Announce a rollback, or why there was none, and return the run's final state."""
    champion = current_champion(plan.name, plan.target_name)
    result = ReleaseOutcome(
        release_id=plan.former.release_id,
        name=plan.name,
        target=plan.target_name,
        outcome=outcome,
        reasons=reasons,
        digest=plan.former.digest,
        adapter_id=plan.former.adapter_id,
        champion=champion.adapter_id if champion else "",
        report=None,
        results=None,
        seconds={},
        run_url=_run_url(),
        is_rollback=True,
    )
    is_back = outcome is Outcome.PROMOTED
    await acreate_markdown_artifact(
        f"# {plan.name}: {plan.former.adapter_id} {'is champion again' if is_back else 'was not restored'}\n\n"
        f"Instead of {plan.current.adapter_id} ({plan.current.release_id}).\n\n"
        + "".join(f"- {reason}\n" for reason in reasons),
        key=f"release-{plan.name}",
        description=f"rollback to {plan.former.release_id}",
    )
    if is_back:
        _emit("adapter.rolled-back", result)
        message = f"{plan.former.adapter_id} is champion again, not {plan.current.adapter_id}"
        return _as_data(Completed(name="RolledBack", message=message, data=result))
    return _final_state(result)


def _final_state(result: ReleaseOutcome) -> ReleaseOutcome:
    message = " ".join(result.reasons) or f"{result.adapter_id} is champion of {result.name} on {result.target}."
    return _as_data(Completed(name=STATE_NAMES[result.outcome], message=message, data=result))


def _as_data(state: State[ReleaseOutcome]) -> ReleaseOutcome:
    return cast("ReleaseOutcome", state)


def _announce(result: ReleaseOutcome) -> None:
    """Every release says that it has ended, and then how."""
    _emit("adapter.released", result)
    if (event := EVENTS.get(result.outcome)) is not None:
        _emit(event, result)


def _emit(event: str, result: ReleaseOutcome) -> None:
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"slipway.adapter.{result.name}", "prefect.resource.name": result.name},
        related=[{"prefect.resource.id": f"slipway.release.{result.release_id}", "prefect.resource.role": "release"}],
        payload={
            "name": result.name,
            "target": result.target,
            "outcome": result.outcome,
            "reasons": list(result.reasons),
            "adapter_id": result.adapter_id,
            "champion": result.champion,
            "digest": result.digest,
        },
    )


def _finding_row(finding: FindingLine) -> dict[str, object]:
    return {
        "severity": str(finding.severity),
        "code": finding.code,
        "mended": "by fit" if finding.mended else "",
        "message": finding.message,
    }


def _rule_row(rule: RuleOutcome) -> dict[str, object]:
    return {
        "rule": rule.rule,
        "outcome": str(rule.outcome),
        "estimate": _short(rule.estimate),
        "low": _short(rule.low),
        "high": _short(rule.high),
        "n": rule.n,
        "reason": rule.reason,
    }


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _seconds(release: ReleaseState) -> dict[str, float]:
    return {
        name: seconds for name, step in release.steps.items() if isinstance(seconds := step.data.get("seconds"), float)
    }
