"""Release one adapter: pull, inspect, fit, upload, attach or deploy, prove live, evaluate, gate, promote.

Held is an outcome and no failure: the run ends in a state of that name, with the reasons. A run fails when something
could not be known or done; repeated with the same parameters it continues where it stopped.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.utilities.annotations import quote

from slipway.findings import InspectionVerdict
from slipway.fit.wanted import wants_fit
from slipway.gate import Decision
from slipway.ledger import Outcome, Promotion
from slipway.release import ReleaseOutcome, plan_release
from slipway.services.stopping import to_the_end
from tasks.dossier import Dossier
from tasks.evaluation import decide_verdict, evaluate_arms, recorded_results
from tasks.fitting import Refused, fit_adapter
from tasks.inspection import base_to_serve, inspect_adapter
from tasks.labels import label_run
from tasks.ledger import as_published, champion_before, created_deployments, current_champion, open_release
from tasks.planning import foresee
from tasks.promotion import promote_candidate
from tasks.registry import upload_adapter
from tasks.reporting import conclude
from tasks.serving import prove_adapter_live, serve_base, take_down
from tasks.sources import pull_adapter
from tasks.stopping import stops_when_told

__all__ = ["Approval", "release"]

APPROVAL_TIMEOUT_SECONDS = 24 * 3600
APPROVAL_POLL_SECONDS = 5
"""Between two looks whether a person has answered; Prefect's own default is 10."""

OUTCOMES = {Decision.HOLD: Outcome.HELD, Decision.INCONCLUSIVE: Outcome.INCONCLUSIVE}


class Approval(RunInput):
    """What a person says when the gate file asks for ``approval: human``."""

    approve: bool = False
    reason: str = ""


@flow(name="release", flow_run_name="release-{name}-to-{target}", persist_result=False, validate_parameters=True)
@stops_when_told
async def release(  # noqa: PLR0917  # a flow's parameters become a form; Prefect calls by keyword
    adapter: str,
    name: str,
    suite: str,
    target: str = "sandbox",
    gate: str = "default",
    approved: bool = False,  # noqa: FBT001, FBT002
    fresh: bool = False,  # noqa: FBT001, FBT002
) -> ReleaseOutcome:
    """Take one adapter to production, or say why not.

    Args:
        adapter: Where the adapter is: a path, ``hf://ORG/NAME@REVISION``, ``s3://BUCKET/PREFIX/`` or ``pbase://REPO/TAG``.
        name: The adapter's name: repository, champion and artifacts go by it.
        suite: Name or path of a suite.
        target: Name or path of a target file.
        gate: Name or path of a gate file.
        approved: A person has agreed already; skips the pause of ``approval: human``.
        fresh: Ask every case again, also what an earlier evaluation recorded.
    """
    plan = plan_release(adapter=adapter, name=name, target=target, suite=suite, gate=gate)
    bundle = await pull_adapter(adapter, name=name)
    base_model = base_to_serve(plan.target, bundle)
    record = open_release(plan, bundle, base_model=base_model)
    await label_run(
        f"{record.id} to {plan.target_name}",
        tags=[f"adapter:{plan.name}", f"target:{plan.target_name}", f"base:{base_model}"],
    )
    champion = current_champion(plan.name, plan.target_name)
    dossier = Dossier(plan=plan, bundle=bundle, base_model=base_model, release_id=record.id, champion=champion)
    if champion is not None and champion.digest == bundle.digest:
        return await conclude(dossier, *await _recall(dossier, champion))

    foresee(plan, release_id=record.id, has_champion=champion is not None)
    if reasons := await _make_servable(dossier):
        return await conclude(dossier, Outcome.REFUSED, reasons)

    try:
        outcome, reasons = await _try_out(dossier, approved=approved, fresh=fresh)
        if outcome is not Outcome.PROMOTED:
            await _take_down(dossier)
    except BaseException:
        await to_the_end(_take_down(dossier))
        raise
    return await conclude(dossier, outcome, reasons)


async def _make_servable(dossier: Dossier) -> tuple[str, ...]:
    """Inspect, fit what fitting mends, inspect again. Gives the reasons against the adapter; none if it is servable."""
    known: dict[str, Any] = {
        "target": dossier.plan.target,
        "base_model": dossier.base_model,
        "release_id": dossier.release_id,
    }
    inspection = dossier.inspection = await inspect_adapter(dossier.bundle, **known)
    if wants_fit(inspection):
        fitted = await fit_adapter(dossier.bundle, **known)
        if not isinstance(fitted, Refused):
            dossier.fitted = fitted
            inspection = dossier.fitted_inspection = await inspect_adapter(fitted.bundle, **known)
        elif inspection.verdict is not InspectionVerdict.SERVABLE:
            return fitted.reasons
    return () if inspection.verdict is InspectionVerdict.SERVABLE else inspection.reasons


async def _try_out(dossier: Dossier, *, approved: bool, fresh: bool) -> tuple[Outcome, tuple[str, ...]]:
    """Everything that happens on the target."""
    plan, release_id = dossier.plan, dossier.release_id
    there: dict[str, Any] = {"target": plan.target, "target_name": plan.target_name, "release_id": release_id}

    adapter = dossier.adapter = await upload_adapter(dossier.servable, name=plan.name, **there)
    deployment = dossier.deployment = await serve_base(base_model=dossier.base_model, **there)
    proof = dossier.proof = await prove_adapter_live(adapter, deployment, prompts=plan.suite.sample_prompts(), **there)
    if not proof.is_live:
        return Outcome.HELD, proof.reasons

    results = dossier.results = await evaluate_arms(
        quote(plan.suite),
        name=plan.name,
        candidate=adapter,
        champion=dossier.champion,
        digest=dossier.bundle.digest,
        deployment=deployment,
        gate=plan.gate,
        fresh=fresh,
        **there,
    )
    verdict = dossier.verdict = await decide_verdict(
        results, plan.gate, has_champion=dossier.champion is not None, release_id=release_id
    )
    if verdict.verdict is not Decision.PROMOTE:
        return OUTCOMES[verdict.verdict], verdict.reasons
    if plan.gate.approval == "human" and not approved:
        answer = await _ask_a_person(dossier)
        if not answer.approve:
            return Outcome.HELD, (f"a person said no: {answer.reason or 'no reason given'}.",)

    dossier.promotion = await promote_candidate(
        adapter,
        name=plan.name,
        target_name=plan.target_name,
        digest=dossier.bundle.digest,
        champion=dossier.champion,
        evidence_digest=dossier.evidence_digest,
        release_id=release_id,
    )
    return Outcome.PROMOTED, verdict.reasons


async def _ask_a_person(dossier: Dossier) -> Approval:
    form = Approval.with_initial_data(
        description=f"**Promote {dossier.plan.name}?** The evidence: artifact `evaluation-{dossier.plan.name}`."
    )
    # Its stub types the class as awaitable; what comes back is the filled-in form.
    answer: Approval = await pause_flow_run(
        wait_for_input=form,  # type: ignore[arg-type]
        timeout=APPROVAL_TIMEOUT_SECONDS,
        poll_interval=APPROVAL_POLL_SECONDS,
    )
    return answer


async def _take_down(dossier: Dossier) -> None:
    """Delete the deployment that this release created, if it did: the ledger knows even when the step was cut."""
    for deployment in created_deployments(dossier.release_id):
        await take_down(
            deployment.name,
            target=dossier.plan.target,
            target_name=dossier.plan.target_name,
            release_id=dossier.release_id,
        )


async def _recall(dossier: Dossier, champion: Promotion) -> tuple[Outcome, tuple[str, ...]]:
    """The candidate is champion: by an earlier release, or by this one, which was cut before it could say so."""
    dossier.adapter = as_published(champion)
    if champion.release_id != dossier.release_id:
        already = f"these bytes are the champion already: {champion.adapter_id}, release {champion.release_id}."
        return Outcome.UNCHANGED, (already,)
    reasons: tuple[str, ...] = ("promoted by an earlier run of this release, which was cut before its report.",)
    dossier.champion = champion_before(champion)
    dossier.results = recorded_results(dossier.release_id, champion.evidence_digest)
    if dossier.results is not None:
        dossier.verdict = await decide_verdict(
            dossier.results,
            dossier.plan.gate,
            has_champion=dossier.champion is not None,
            release_id=dossier.release_id,
        )
        reasons += dossier.verdict.reasons
    return Outcome.PROMOTED, reasons
