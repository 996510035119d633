"""Give a former champion its place back: live proof first, then compare-and-swap."""

from __future__ import annotations

from typing import Any

from prefect import flow

from slipway.ledger import Outcome
from slipway.release import ReleaseOutcome
from slipway.services.stopping import to_the_end
from tasks.labels import label_run
from tasks.ledger import created_deployments, plan_rollback
from tasks.promotion import restore_champion
from tasks.reporting import conclude_rollback
from tasks.serving import prove_adapter_live, serve_base, take_down
from tasks.stopping import stops_when_told

__all__ = ["rollback"]


@flow(name="rollback", flow_run_name="rollback-{name}-on-{target}", persist_result=False)
@stops_when_told
async def rollback(name: str, target: str = "sandbox", to: str | None = None) -> ReleaseOutcome:
    """Restore the previous champion, after proving that it is live.

    Args:
        name: The adapter's name.
        target: Name or path of a target file.
        to: A release id to go back to, such as ``support-3``; by default the champion before this one.
    """
    plan = plan_rollback(name=name, target=target, to=to)
    await label_run(
        f"{plan.name} on {plan.target_name}: back to {plan.former.release_id}",
        tags=[f"adapter:{plan.name}", f"target:{plan.target_name}", f"base:{plan.base_model}"],
    )
    there: dict[str, Any] = {
        "target": plan.target,
        "target_name": plan.target_name,
        "release_id": plan.former.release_id,
    }
    before = created_deployments(plan.former.release_id)

    async def take_down_ours() -> None:  # the ledger knows even when the step was cut
        for state in created_deployments(plan.former.release_id):
            if state not in before:
                await take_down(state.name, **there)

    try:
        deployment = await serve_base(base_model=plan.base_model, **there)
        proof = await prove_adapter_live(plan.adapter, deployment, prompts=(), **there)
        if proof.is_live:
            await restore_champion(plan.former, name=name, expected_champion=plan.current.sequence)
            return await conclude_rollback(plan, Outcome.PROMOTED, ())
    except BaseException:
        await to_the_end(take_down_ours())
        raise
    await take_down_ours()
    return await conclude_rollback(plan, Outcome.HELD, proof.reasons)
