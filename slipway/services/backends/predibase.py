"""A Predibase tenant, or the sandbox that speaks like one."""

from __future__ import annotations

from typing import Self

from pydantic import SecretStr

from slipway.adapter import Bundle, Source
from slipway.errors import ConfigurationError
from slipway.services.backends.exclusive import exclusively
from slipway.services.backends.interface import PUBLISH_PATIENCE_SECONDS, PublishedAdapter, ServingDeployment
from slipway.services.backends.predibase_deployments import Deployments
from slipway.services.backends.predibase_uploads import Uploads
from slipway.services.http import Timeouts
from slipway.services.ledger_store import Ledger
from slipway.services.lorax import LoraxClient
from slipway.services.predibase import PredibaseClient
from slipway.targets import DEFAULT_GATEWAY, Target

__all__ = ["PredibaseBackend"]


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

    async def publish(self, bundle: Bundle, *, repository: str, description: str) -> PublishedAdapter:
        """Upload once per digest; see ``Backend``."""
        registry = await self._registry_name()
        uploads = Uploads(self._client, self._ledger, registry)
        resource = f"upload:{registry}:{bundle.digest}"
        async with exclusively(self._ledger, resource, patience_seconds=PUBLISH_PATIENCE_SECONDS) as lease:
            version = await uploads.version_of(bundle)
            if version is not None:
                return PublishedAdapter(adapter_id=version, source=Source.PBASE, reused=True)
            version = await uploads.upload(bundle, lease, repository=repository, description=description)
            return PublishedAdapter(adapter_id=version, source=Source.PBASE, reused=False)

    async def has(self, adapter_id: str) -> bool:
        """See ``Backend``."""
        return await Uploads(self._client, self._ledger, await self._registry_name()).has(adapter_id)

    async def serve(self, base_model: str, *, release_id: str) -> ServingDeployment:
        """See ``Backend``."""
        registry = await self._registry_name()
        resource = f"deployment:{registry}:{self._target.deployment_name(base_model)}"
        patience = self._target.deployment.ready_timeout_seconds
        async with exclusively(self._ledger, resource, patience_seconds=patience):
            deployments = await self._deployments()
            name, created = await deployments.attach_or_create(base_model, release_id=release_id)
            return await self._as_serving(name, created=created)

    async def attach(self, base_model: str) -> ServingDeployment:
        """See ``Backend``."""
        return await self._as_serving(await (await self._deployments()).attach(base_model), created=False)

    async def take_down(self, deployment: str, *, release_id: str) -> None:
        """See ``Backend``."""
        await (await self._deployments()).take_down(deployment, release_id=release_id)

    def client(self, deployment: ServingDeployment) -> LoraxClient:
        """See ``Backend``."""
        seconds = self._target.answer_timeout_seconds
        return LoraxClient(
            deployment.url,
            self._token,
            timeouts=Timeouts(read_seconds=seconds, whole_seconds=seconds),
            connections=self._target.max_concurrency,
            address_variable="PREDIBASE_SERVING",
            mask=self._target.redactor,
        )

    async def _deployments(self) -> Deployments:
        return Deployments(self._client, self._ledger, await self._registry_name(), self._target)

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
