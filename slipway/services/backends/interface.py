"""What every kind of target can do for a release.

A backend knows one target's services and the ledger; it knows nothing of suites, gates or Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from slipway.adapter import Bundle, Source
from slipway.services.lorax import LoraxClient

__all__ = ["PUBLISH_PATIENCE_SECONDS", "Backend", "PublishedAdapter", "ServingDeployment"]

PUBLISH_PATIENCE_SECONDS = 900.0
"""How long to wait for another process that publishes the same bytes: gigabytes over a slow line take this long."""


@dataclass(frozen=True, kw_only=True)
class PublishedAdapter:
    """An adapter where the target's servers can fetch it.

    Attributes:
        adapter_id: What requests name: ``repo/tag``, a path, ``s3://..``, ``owner/repo``.
        source: How LoRAX is told to read the id.
        reused: True when these bytes were there already and nothing was sent.
    """

    adapter_id: str
    source: Source
    reused: bool


@dataclass(frozen=True, kw_only=True)
class ServingDeployment:
    """A serving deployment that can be asked.

    Attributes:
        name: As the control plane names it; host and port for a self-hosted LoRAX.
        url: Base URL of its LoRAX routes.
        created: True when this release made it, and must take it down if it comes to nothing.
    """

    name: str
    url: str
    created: bool


class Backend(Protocol):
    """One target's services."""

    async def __aenter__(self) -> Self:
        """Open connections."""

    async def __aexit__(self, *_: object) -> None:
        """Close them."""

    async def check(self, base_model: str) -> str:
        """Ask the target who we are; returns a name for the tenant or server.

        Raises:
            ServiceError: Unreachable, or the token is refused.
            ConfigurationError: The target does not serve ``base_model``.
        """

    async def publish(self, bundle: Bundle, *, repository: str, description: str) -> PublishedAdapter:
        """Make a bundle fetchable, once per digest, whatever happened to earlier attempts."""

    async def has(self, adapter_id: str) -> bool:
        """Whether a published adapter is still there."""

    async def serve(self, base_model: str, *, release_id: str) -> ServingDeployment:
        """Attach to a deployment of the base, or create one and wait until it can serve.

        Raises:
            DeploymentError: It ended errored or was not ready in time; what we created is deleted again.
        """

    async def attach(self, base_model: str) -> ServingDeployment:
        """Attach to a running deployment of the base; creates nothing.

        Raises:
            DeploymentError: There is none.
        """

    async def take_down(self, deployment: str, *, release_id: str) -> None:
        """Delete a deployment that this release created; a missing one is fine."""

    def client(self, deployment: ServingDeployment) -> LoraxClient:
        """A client of its LoRAX routes, with the target's time limits."""
