"""Serving deployments of a Predibase tenant: attach to one, create one, wait for it, take it down.

A create that answered 500 may have created, and each minute of what was created costs money. So the ledger says what we
are about to create before we do, and what fails to become ready is deleted again.
"""

from __future__ import annotations

import asyncio
import time

from slipway.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DeploymentError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from slipway.ledger import DeploymentStage, DeploymentState
from slipway.services.ledger_store import Ledger
from slipway.services.predibase import CreatedDeployment, Deployment, DeploymentStatus, PredibaseClient
from slipway.services.stopping import to_the_end
from slipway.targets import Target

__all__ = ["Deployments"]

ATTACHABLE = (
    DeploymentStatus.READY,
    DeploymentStatus.UPDATING,
    DeploymentStatus.STANDBY,
    DeploymentStatus.INITIALIZING,
    DeploymentStatus.PENDING,
)
"""In order of preference: the sooner it can answer, the better."""


class Deployments:
    """The serving deployments of one tenant.

    Args:
        client: Of its control plane.
        ledger: Where effects are written down first.
        registry: The tenant's name in the ledger.
        target: Which bases it serves, and how to create a deployment.
    """

    def __init__(self, client: PredibaseClient, ledger: Ledger, registry: str, target: Target) -> None:
        self._client = client
        self._ledger = ledger
        self._registry = registry
        self._target = target

    async def attach_or_create(self, base_model: str, *, release_id: str) -> tuple[str, bool]:
        """Wait until a deployment of the base can serve; returns its name, and whether this release made it.

        Raises:
            DeploymentError: It ended errored or was not ready in time; what we created is deleted again.
        """
        name = self._target.deployment_name(base_model)
        ours = self._ours(name)
        running = await self._running(base_model, name)
        if running is not None:
            is_ours = running.name == name and ours is not None and self._continues(ours, release_id)
            await self._wait(running.name, delete_on_failure=is_ours, release_id=release_id)
            if is_ours:
                self._record(name, release_id, DeploymentStage.READY, base_model)
            return running.name, is_ours
        await self._clear_wreck(name, base_model, release_id=release_id, created_by_us=ours is not None)
        return name, await self._create(name, base_model, release_id=release_id)

    async def attach(self, base_model: str) -> str:
        """Wait for a running deployment of the base; returns its name and creates nothing.

        Raises:
            DeploymentError: There is none.
        """
        name = self._target.deployment_name(base_model)
        running = await self._running(base_model, name)
        if running is None:
            raise DeploymentError(
                f"no deployment of {base_model} is running on {self._registry}.",
                deployment=name,
                status="absent",
                fix="`slipway release` creates one; or start one in the Predibase console.",
            )
        await self._poll_until_ready(running.name)
        return running.name

    async def take_down(self, name: str, *, release_id: str) -> None:
        """Delete a deployment of ours; one that is not there is fine."""
        self._record(name, release_id, DeploymentStage.DELETING)
        await self._client.delete_deployment(name)
        self._record(name, release_id, DeploymentStage.DELETED)

    async def _running(self, base_model: str, preferred: str) -> Deployment | None:
        """The deployment of this base that can answer soonest; shared endpoints are rate-limited, so not those."""
        candidates = [
            deployment
            for deployment in await self._client.list_deployments()
            if deployment.status in ATTACHABLE
            and deployment.type != "shared"
            and self._target.served_base(deployment.base_model) == base_model
        ]
        return min(
            candidates,
            key=lambda found: (ATTACHABLE.index(found.status), found.name != preferred, found.name),
            default=None,
        )

    def _ours(self, name: str) -> DeploymentState | None:
        """What the ledger knows of a deployment of this name that we created and did not delete."""
        states = self._ledger.created_deployments(self._registry)
        return next((state for state in states if state.name == name and state.is_open), None)

    def _continues(self, deployment: DeploymentState, release_id: str) -> bool:
        """Whether this very release created it and was cut before it ended; then it is still its to take down."""
        release = self._ledger.find_release(release_id)
        return deployment.release_id == release_id and release is not None and release.is_open

    async def _clear_wreck(self, name: str, base_model: str, *, release_id: str, created_by_us: bool) -> None:
        """Remove what an earlier attempt of ours left under the name, so that it can be created afresh."""
        wreck = await self._client.get_deployment(name)
        if wreck is None:
            return
        if self._target.served_base(wreck.base_model) != base_model:
            raise ConfigurationError(
                f"the deployment {name} exists and serves {wreck.base_model}, not {base_model}.",
                fix="Set deployment.name: in the target file to a name that is free.",
            )
        if not created_by_us:
            raise DeploymentError(
                f"the deployment {name} is {wreck.status_text}, and Slipway did not create it.",
                deployment=name,
                status=wreck.status_text,
                fix="Start or delete it, or set deployment.name: in the target file to another name.",
            )
        await self.take_down(name, release_id=release_id)

    async def _create(self, name: str, base_model: str, *, release_id: str) -> bool:
        """Create the deployment and wait for it; False when somebody else created it first."""
        self._record(name, release_id, DeploymentStage.INTENDED, base_model)
        creating = asyncio.create_task(
            self._client.create_deployment(
                name, self._target.deployment.wire_config(base_model), f"created by Slipway for release {release_id}"
            )
        )
        try:
            made = await asyncio.shield(creating)
        except (AuthenticationError, ConflictError, InvalidRequestError, NotFoundError):
            self._record(name, release_id, DeploymentStage.DELETED)  # refused, so there is nothing
            raise
        except asyncio.CancelledError:
            await to_the_end(self._undo(creating, name, release_id=release_id))
            raise
        if made.was_there:
            self._record(name, release_id, DeploymentStage.DELETED)  # ours was never made
            await self._wait(name, delete_on_failure=False, release_id=release_id)
            return False
        self._record(name, release_id, DeploymentStage.CREATED, base_model)
        await self._wait(name, delete_on_failure=True, release_id=release_id)
        self._record(name, release_id, DeploymentStage.READY, base_model)
        return True

    async def _undo(self, creating: asyncio.Task[CreatedDeployment], name: str, *, release_id: str) -> None:
        """Delete what a creation that nobody waits for any more has made, once it is known what that is."""
        await asyncio.wait([creating])
        if not creating.cancelled() and creating.exception() is None and creating.result().was_there:
            self._record(name, release_id, DeploymentStage.DELETED)  # ours was never made
        else:
            await self.take_down(name, release_id=release_id)

    async def _wait(self, name: str, *, delete_on_failure: bool, release_id: str) -> None:
        """Poll until the deployment can serve; on failure delete it if it is ours, and say so."""
        try:
            await self._poll_until_ready(name)
        except BaseException as error:
            if not delete_on_failure:
                raise
            await to_the_end(self.take_down(name, release_id=release_id))
            if not isinstance(error, DeploymentError):
                raise
            raise DeploymentError(
                f"{error.message} It was deleted again.", deployment=name, status=error.status, fix=error.fix
            ) from error

    async def _poll_until_ready(self, name: str) -> None:
        limit = self._target.deployment.ready_timeout_seconds
        deadline = time.monotonic() + limit
        status = "unseen"
        while True:
            try:
                found = await self._client.get_deployment(name)
            except UnavailableError:
                found = None
                if time.monotonic() > deadline:
                    raise
            else:
                if found is None:
                    raise DeploymentError(
                        f"the deployment {name} vanished while we waited for it (last seen {status}).",
                        deployment=name,
                        status="deleted",
                        fix="Somebody deleted it; repeat the release.",
                    )
                status = found.status_text
                if found.can_serve:
                    return
                if found.has_failed:
                    raise DeploymentError(
                        f"the deployment {name} ended {status}.",
                        deployment=name,
                        status=status,
                        fix="Look at its events in the Predibase console; check accelerator, base and custom_args.",
                    )
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"the deployment {name} was not ready within {limit:g} s (last seen {status}).",
                    deployment=name,
                    status=status,
                    fix="Raise deployment.ready_timeout_seconds in the target file, or check the accelerator.",
                )
            await asyncio.sleep(self._target.deployment.poll_seconds)

    def _record(self, name: str, release_id: str, stage: DeploymentStage, base_model: str = "") -> None:
        self._ledger.record_deployment(
            target=self._registry, name=name, release_id=release_id, stage=stage, base_model=base_model
        )
