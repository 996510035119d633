"""Attach or deploy, prove live, take down."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from slipway.live_proof import LiveProof
from slipway.release import Step, deployment_users
from slipway.services.backends import PublishedAdapter, ServingDeployment, open_backend
from slipway.services.probe import prove_live
from slipway.services.workspace import open_workspace
from slipway.targets import Target
from tasks.journal import journaled
from tasks.options import LOCAL, REMOTE, load_token

__all__ = ["prove_adapter_live", "serve_base", "take_down"]


@task(name="attach-or-deploy", task_run_name="serve-{release_id}", **REMOTE)
async def serve_base(*, base_model: str, target: Target, target_name: str, release_id: str) -> ServingDeployment:
    """Find a serving deployment of the base, or create one and wait for it.

    Raises:
        DeploymentError: It cannot serve; what we created is deleted again.
    """
    ledger = open_workspace().ledger
    with journaled(ledger, release_id, Step.SERVE) as note:
        async with open_backend(target, target_name, ledger, token=await load_token(target)) as backend:
            deployment = await backend.serve(base_model, release_id=release_id)
        note.message = f"{'created' if deployment.created else 'attached to'} {deployment.name}"
        note.data = {"deployment": deployment.name, "created": deployment.created}
        return deployment


@task(name="prove-live", task_run_name="prove-{release_id}", **REMOTE)
async def prove_adapter_live(
    adapter: PublishedAdapter,
    deployment: ServingDeployment,
    *,
    prompts: tuple[str, ...],
    target: Target,
    target_name: str,
    release_id: str,
) -> LiveProof:
    """Show that the adapter, and not the base alone, answers.

    Raises:
        ServiceError: The deployment cannot be asked.
    """
    ledger = open_workspace().ledger
    with journaled(ledger, release_id, Step.PROVE) as note:
        backend = open_backend(target, target_name, ledger, token=await load_token(target))
        async with backend, backend.client(deployment) as client:
            proof = await prove_live(
                client,
                adapter,
                prompts=prompts,
                reference_route=target.reference_route,
            )
        note.message = (
            f"live: differs from the base by {proof.difference:.2g} nats, "
            f"cold {proof.cold_ms:.0f} ms, warm {proof.warm_ms:.0f} ms"
            if proof.is_live
            else f"not live: {proof.reasons[0]}"
        )
        note.data = {"is_live": proof.is_live, "difference": proof.difference, "cold_ms": proof.cold_ms}
        return proof


@task(name="take-down", task_run_name="take-down-{deployment}", **LOCAL)
async def take_down(deployment: str, *, target: Target, target_name: str, release_id: str) -> None:
    """Delete a deployment that this release created, unless something else came to rely on it meanwhile.

    Raises:
        ServiceError: It could not be deleted. The ledger then still has it open, and ``slipway doctor`` shows it.
    """
    ledger = open_workspace().ledger
    users = deployment_users(
        deployment,
        releases=ledger.releases(target=target_name),
        promotions=ledger.promotions(target=target_name),
        besides=release_id,
    )
    if users:
        get_run_logger().info("deployment %s stays: %s rely on it", deployment, ", ".join(users))
        return
    async with open_backend(target, target_name, ledger, token=await load_token(target)) as backend:
        await backend.take_down(deployment, release_id=release_id)
