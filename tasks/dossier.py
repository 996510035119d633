"""What one release has found out so far, and how that becomes its report."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.adapter import Bundle
from slipway.gate import Verdict
from slipway.inspection import Inspection
from slipway.ledger import Outcome, Promotion, ReleaseState
from slipway.live_proof import LiveProof
from slipway.release import ReleasePlan, Step
from slipway.report import CheckGap, FindingLine, FitLine, ProofLine, ReportData
from slipway.report.provenance import generation_facts, server_facts
from slipway.results_io import read_results
from slipway.services.backends import PublishedAdapter, ServingDeployment
from slipway.services.fitting import Fitted
from slipway.targets import Target

__all__ = ["Dossier"]


@dataclass(kw_only=True)
class Dossier:
    """Filled by the flow step by step; what a release did not get to stays None.

    Attributes:
        bundle: As asked for; champions go by its digest.
        inspection: Of that.
        fitted: What it was rewritten to, if it was.
        fitted_inspection: Of that.
    """

    plan: ReleasePlan
    bundle: Bundle
    base_model: str
    release_id: str
    champion: Promotion | None
    inspection: Inspection | None = None
    fitted: Fitted | None = None
    fitted_inspection: Inspection | None = None
    adapter: PublishedAdapter | None = None
    deployment: ServingDeployment | None = None
    proof: LiveProof | None = None
    results: Path | None = None
    verdict: Verdict | None = None
    promotion: Promotion | None = None

    @property
    def servable(self) -> Bundle:
        """What is uploaded: the fitted bundle where there is one."""
        return self.fitted.bundle if self.fitted else self.bundle

    @property
    def findings(self) -> tuple[FindingLine, ...]:
        """Of the inspection, and whether fitting mended them."""
        if self.inspection is None:
            return ()
        after = self.fitted_inspection.findings if self.fitted_inspection else self.inspection.findings
        left = {finding.code for finding in after}
        new = (finding for finding in after if finding not in self.inspection.findings)
        return tuple(
            FindingLine(
                severity=finding.severity, code=finding.code, message=finding.message, mended=finding.code not in left
            )
            for finding in (*self.inspection.findings, *new)
        )

    @property
    def evidence_digest(self) -> str:
        """SHA-256 of the recorded results; empty when nothing was evaluated."""
        return hashlib.sha256(self.results.read_bytes()).hexdigest() if self.results else ""

    def report_data(
        self,
        outcome: Outcome,
        reasons: tuple[str, ...],
        *,
        champion: Promotion | None,
        release: ReleaseState,
        seconds: Mapping[str, float],
        run_url: str,
    ) -> ReportData:
        """Everything that the report shows; nothing in it is masked yet.

        Args:
            outcome: How the release ended.
            reasons: Why.
            champion: After this release.
            release: As the ledger has it.
            seconds: By step.
            run_url: The flow run in the Prefect UI.
        """
        plan = self.plan
        return ReportData(
            name=plan.name,
            release_id=self.release_id,
            outcome=outcome,
            reasons=reasons,
            actor=release.opened.actor,
            started_at=release.opened.recorded_at,
            target=plan.target_name,
            adapter_uri=self.bundle.uri,
            resolved_revision=self.bundle.resolved_revision,
            digest=self.bundle.digest,
            size_bytes=self.bundle.size_bytes,
            base_model=self.base_model,
            adapter_id=self.adapter.adapter_id if self.adapter else "",
            champion_before=self.champion.adapter_id if self.champion else "",
            champion_after=champion.adapter_id if champion else "",
            deployment=self._deployment_line(),
            fit=self._fit_line(),
            findings=self.findings,
            proof=self._proof_line(),
            verdict=self.verdict,
            gate=plan.gate,
            results=read_results(self.results) if self.results else (),
            prompts={case.id: case.prompt for case in plan.suite.cases} if self.results else {},
            confidence=plan.gate.confidence,
            notes=plan.suite.notes,
            gaps=tuple(
                CheckGap(where=gap.where, type=gap.type, reason=gap.reason, cases=gap.cases)
                for gap in plan.suite.unsupported
            ),
            server=_server_line(plan.target, release),
            generation=generation_facts(plan.suite, plan.target) if self.results else {},
            seconds=seconds,
            references={
                **({f"champion before ({self.champion.adapter_id})": self.champion.digest} if self.champion else {}),
                f"suite ({plan.sources[1].name})": plan.suite.digest,
                f"gate ({plan.sources[2].name})": plan.gate_digest,
                "recorded results": f"sha256:{self.evidence_digest}" if self.results else "",
            },
            reproduce=self._commands(),
            run_url=run_url,
        )

    def _deployment_line(self) -> str:
        if self.deployment is None:
            return ""
        return f"{self.deployment.name} ({'created for this release' if self.deployment.created else 'attached to'})"

    def _fit_line(self) -> FitLine | None:
        if self.fitted is None:
            return None
        return FitLine(
            digest=self.fitted.bundle.digest,
            derived_from=self.fitted.derived_from,
            changes=self.fitted.changes,
            proof=str(self.fitted.proof),
        )

    def _proof_line(self) -> ProofLine | None:
        if self.proof is None:
            return None
        return ProofLine(
            is_live=self.proof.is_live,
            difference=self.proof.difference,
            noise=self.proof.noise,
            cold_ms=self.proof.cold_ms,
            warm_ms=self.proof.warm_ms,
            reference_difference=self.proof.reference_difference,
            reasons=self.proof.reasons,
        )

    def _commands(self) -> tuple[str, ...]:
        plan = self.plan
        target, suite, gate = (_as_argument(path) for path in plan.sources)
        again = [
            *("slipway", "release", plan.adapter, "--name", plan.name),
            *("--target", target, "--suite", suite, "--gate", gate),
        ]
        commands = [shlex.join(again)]
        if self.results is not None:
            attempt = self.verdict.attempt if self.verdict else 1
            strictness = ["--attempt", str(attempt)] if attempt > 1 else []
            strictness += ["--first-release"] if self.champion is None else []
            commands.append(shlex.join(["slipway", "gate", str(self.results), "--gate", gate, *strictness]))
            masking = ["--target", target] if plan.target.redact or plan.target.judge else []
            commands.append(
                shlex.join(
                    ["slipway", "report", str(self.results), "--suite", suite, "--gate", gate, *masking, *strictness]
                )
            )
        return tuple(commands)


def _server_line(target: Target, release: ReleaseState) -> Mapping[str, str]:
    evaluated = release.finished(Step.EVALUATE)
    data = evaluated.data if evaluated is not None else {}
    basis, told = data.get("basis"), data.get("server")
    address = basis.get("server") if isinstance(basis, Mapping) else None
    return server_facts(target, address=str(address or ""), told=told if isinstance(told, Mapping) else None)


def _as_argument(path: Path) -> str:
    """A shipped file by its name, any other by its path."""
    return path.stem if path.parent.parent.name == "configs" else str(path)
