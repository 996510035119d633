"""A Predibase tenant, or the sandbox that speaks like one.

The wire has no idempotency: uploading twice makes two versions, and a create that answered 500 may have created. So
each effect is written to the ledger before it is made, and each attempt first reads what earlier ones left behind.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr

from slipway.adapter import Bundle, Source, bundle_digest
from slipway.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DeploymentError,
    InvalidRequestError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
)
from slipway.ledger import DeploymentStage, DeploymentState, UploadStage, UploadState
from slipway.services.archives import digest_of_archive
from slipway.services.backends.interface import PublishedAdapter, ServingDeployment
from slipway.services.http import Timeouts
from slipway.services.ledger_store import Ledger
from slipway.services.lorax import LoraxClient
from slipway.services.predibase import Deployment, DeploymentStatus, PredibaseClient
from slipway.targets import DEFAULT_GATEWAY, Target

__all__ = ["PredibaseBackend"]

ATTACHABLE = (
    DeploymentStatus.READY,
    DeploymentStatus.UPDATING,
    DeploymentStatus.STANDBY,
    DeploymentStatus.INITIALIZING,
    DeploymentStatus.PENDING,
)
"""In order of preference: the sooner it can answer, the better."""

UPLOADED_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What the registry takes of a bundle; it has no slot for anything else, and we never send a pickle."""


class PredibaseBackend:
    """See ``interface.Backend``."""

    def __init__(self, target: Target, name: str, ledger: Ledger, *, token: SecretStr | None) -> None:
        if token is None:
            raise ConfigurationError(
                f"target {name} needs a token, and PREDIBASE_API_TOKEN is not set.",
                fix="Export PREDIBASE_API_TOKEN, or name a Prefect Secret block with token_block: in the target file.",
            )
        self._target = target
        self._name = name
        self._ledger = ledger
        self._token = token
        self._client = PredibaseClient(target.gateway or DEFAULT_GATEWAY, token, serving=target.serving or "")
        self._tenant: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def check(self, base_model: str) -> str:
        """Ask who the token belongs to; see ``Backend``."""
        if base_model not in self._target.bases:
            raise ConfigurationError(
                f"target {self._name} does not serve {base_model}.",
                fix=f"It serves {', '.join(self._target.bases)}; add the base under bases: in its file.",
            )
        return await self._tenant_code()

    # Publishing -----------------------------------------------------------------------------------------------------

    async def publish(self, bundle: Bundle, *, repository: str, description: str) -> PublishedAdapter:
        """Upload once per digest; see ``Backend``."""
        registry = await self._registry_name()
        with self._ledger.lease(f"upload:{registry}:{bundle.digest}"):
            known = self._ledger.find_version(target=registry, digest=bundle.digest)
            if known is not None and await self.has(known):
                return PublishedAdapter(adapter_id=known, source=Source.PBASE, reused=True)
            interrupted = self._ledger.open_upload(target=registry, digest=bundle.digest)
            if interrupted is not None:
                version = await self._settle(registry, bundle, interrupted)
                if version is not None:
                    return PublishedAdapter(adapter_id=version, source=Source.PBASE, reused=True)
            version = await self._upload(registry, bundle, repository=repository, description=description)
            return PublishedAdapter(adapter_id=version, source=Source.PBASE, reused=False)

    async def has(self, adapter_id: str) -> bool:
        """See ``Backend``; an archived version still serves, a failed one does not."""
        repository, _, tag = adapter_id.partition("/")
        version = await self._client.get_version(repository, int(tag))
        return version is not None and version.is_usable

    async def _upload(self, registry: str, bundle: Bundle, *, repository: str, description: str) -> str:
        attempt = uuid.uuid4().hex
        note: dict[str, Any] = {
            "target": registry,
            "digest": bundle.digest,
            "repository": repository,
            "attempt_id": attempt,
        }
        self._ledger.record_upload(**note, stage=UploadStage.INTENDED)
        if await self._client.get_repo(repository) is None:
            await self._client.create_repo(repository, description)
        tags = [version.tag for version in await self._client.list_versions(repository)]
        slot = await self._client.start_upload(repository)
        self._ledger.record_upload(**note, stage=UploadStage.TOKEN, upload_token=slot.upload_token, tags_before=tags)
        for file in UPLOADED_FILES:
            url = slot.presigned_urls.get(file)
            if url is None:
                raise ProtocolError(
                    f"the registry gave no upload address for {file}.", service="Predibase", fix="Check its version."
                )
            await self._client.put_file(url, bundle.directory / file, slot.required_headers)
        self._ledger.record_upload(**note, stage=UploadStage.SENT, upload_token=slot.upload_token, tags_before=tags)
        version = await self._client.finish_upload(slot.upload_token)
        self._ledger.record_upload(**note, stage=UploadStage.COMMITTED, version=version.adapter_id)
        return version.adapter_id

    async def _settle(self, registry: str, bundle: Bundle, upload: UploadState) -> str | None:
        """End an upload that a crash cut: the version it made, or None when it can be shown to have made none.

        Before the files were complete nothing asked for a version, so there is none. After that the same token is sent
        again, which the registry answers with the same version; where it no longer knows the token, the versions made
        since are downloaded and compared by content.
        """
        note: dict[str, Any] = {
            "target": registry,
            "digest": bundle.digest,
            "repository": upload.repository,
            "attempt_id": upload.attempt_id,
        }
        if upload.stage is UploadStage.SENT and upload.upload_token is not None:
            try:
                adapter_id: str | None = (await self._client.finish_upload(upload.upload_token)).adapter_id
            except (NotFoundError, InvalidRequestError, ConflictError):
                adapter_id = await self._find_by_content(upload.repository, bundle, upload.tags_before or ())
            if adapter_id is not None:
                self._ledger.record_upload(**note, stage=UploadStage.COMMITTED, version=adapter_id)
                return adapter_id
        self._ledger.record_upload(**note, stage=UploadStage.ABANDONED)
        return None

    async def _find_by_content(self, repository: str, bundle: Bundle, tags_before: Sequence[int]) -> str | None:
        wanted = bundle_digest(file for file in bundle.files if file.name in UPLOADED_FILES)
        for version in await self._client.list_versions(repository):
            if version.tag in tags_before:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                archive = Path(scratch) / "version.zip"
                await self._client.download_version(repository, version.tag, archive)
                try:
                    found = digest_of_archive(archive, names=UPLOADED_FILES)
                except zipfile.BadZipFile as error:
                    raise ProtocolError(
                        f"the archive of {repository}/{version.tag} is no zip file.",
                        service="Predibase",
                        fix="Download it by hand and compare; then repeat the release.",
                    ) from error
            if found == wanted:
                return f"{repository}/{version.tag}"
        return None

    # Serving --------------------------------------------------------------------------------------------------------

    async def serve(self, base_model: str, *, release_id: str) -> ServingDeployment:
        """See ``Backend``."""
        registry = await self._registry_name()
        name = self._target.deployment_name(base_model)
        with self._ledger.lease(f"deployment:{registry}:{name}"):
            ours = self._ours(registry, name)
            running = await self._running(base_model, name)
            if running is not None:
                is_ours = running.name == name and ours is not None and self._continues(ours, release_id)
                await self._wait(running.name, delete_on_failure=is_ours, release_id=release_id)
                return await self._as_serving(running.name, created=is_ours)
            await self._clear_wreck(registry, name, base_model, release_id=release_id, created_by_us=ours is not None)
            created = await self._create(registry, name, base_model, release_id=release_id)
            return await self._as_serving(name, created=created)

    async def attach(self, base_model: str) -> ServingDeployment:
        """See ``Backend``."""
        name = self._target.deployment_name(base_model)
        running = await self._running(base_model, name)
        if running is None:
            raise DeploymentError(
                f"no deployment of {base_model} is running on {self._name}.",
                deployment=name,
                status="absent",
                fix="`slipway release` creates one; or start one in the Predibase console.",
            )
        await self._poll_until_ready(running.name)
        return await self._as_serving(running.name, created=False)

    async def take_down(self, deployment: str, *, release_id: str) -> None:
        """See ``Backend``."""
        registry = await self._registry_name()
        note = {"target": registry, "name": deployment, "release_id": release_id}
        self._ledger.record_deployment(**note, stage=DeploymentStage.DELETING)
        await self._client.delete_deployment(deployment)
        self._ledger.record_deployment(**note, stage=DeploymentStage.DELETED)

    def client(self, deployment: ServingDeployment) -> LoraxClient:
        """See ``Backend``."""
        return LoraxClient(
            deployment.url,
            self._token,
            timeouts=Timeouts(read_seconds=self._target.answer_timeout_seconds),
            connections=self._target.max_concurrency,
            address_variable="PREDIBASE_SERVING",
        )

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

    def _ours(self, registry: str, name: str) -> DeploymentState | None:
        """What the ledger knows of a deployment of this name that we created and did not delete."""
        states = self._ledger.created_deployments(registry)
        return next((state for state in states if state.name == name and state.is_open), None)

    def _continues(self, deployment: DeploymentState, release_id: str) -> bool:
        """Whether this very release created it and was cut before it ended; then it is still its to take down."""
        release = self._ledger.find_release(release_id)
        return deployment.release_id == release_id and release is not None and release.is_open

    async def _clear_wreck(
        self, registry: str, name: str, base_model: str, *, release_id: str, created_by_us: bool
    ) -> None:
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
        self._ledger.record_deployment(
            target=registry, name=name, release_id=release_id, stage=DeploymentStage.DELETING
        )
        await self._client.delete_deployment(name)
        self._ledger.record_deployment(target=registry, name=name, release_id=release_id, stage=DeploymentStage.DELETED)

    async def _create(self, registry: str, name: str, base_model: str, *, release_id: str) -> bool:
        """Create the deployment and wait for it; False when somebody else created it first."""
        note = {"target": registry, "name": name, "release_id": release_id, "base_model": base_model}
        self._ledger.record_deployment(**note, stage=DeploymentStage.INTENDED)
        try:
            made = await self._client.create_deployment(
                name, self._target.deployment.wire_config(base_model), f"created by Slipway for release {release_id}"
            )
        except (AuthenticationError, ConflictError, InvalidRequestError, NotFoundError):
            self._ledger.record_deployment(**note, stage=DeploymentStage.DELETED)  # refused, so there is nothing
            raise
        if made.was_there:
            self._ledger.record_deployment(**note, stage=DeploymentStage.DELETED)  # ours was never made
        else:
            self._ledger.record_deployment(**note, stage=DeploymentStage.CREATED)
        await self._wait(name, delete_on_failure=not made.was_there, release_id=release_id)
        if not made.was_there:
            self._ledger.record_deployment(**note, stage=DeploymentStage.READY)
        return not made.was_there

    async def _wait(self, name: str, *, delete_on_failure: bool, release_id: str) -> None:
        """Poll until the deployment can serve; on failure delete it if it is ours, and say so."""
        try:
            await self._poll_until_ready(name)
        except BaseException as error:
            if not delete_on_failure:
                raise
            await asyncio.shield(self.take_down(name, release_id=release_id))
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

    async def _as_serving(self, name: str, *, created: bool) -> ServingDeployment:
        url = self._client.serving_url(await self._tenant_code(), name)
        return ServingDeployment(name=name, url=url, created=created)

    async def _tenant_code(self) -> str:
        if self._tenant is None:
            self._tenant = await self._client.current_user()
        return self._tenant

    async def _registry_name(self) -> str:
        """How the ledger names this registry: two tenants behind one target file are two registries."""
        return f"{self._name}@{await self._tenant_code()}"
