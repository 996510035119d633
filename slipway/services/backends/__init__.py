"""One backend per kind of target."""

from __future__ import annotations

import os

from pydantic import SecretStr

from slipway.services.backends.interface import Backend, PublishedAdapter, ServingDeployment
from slipway.services.backends.lorax import LoraxBackend
from slipway.services.backends.predibase import PredibaseBackend
from slipway.services.ledger_store import Ledger
from slipway.targets import Target, TargetKind

__all__ = ["Backend", "PublishedAdapter", "ServingDeployment", "open_backend"]


def open_backend(target: Target, name: str, ledger: Ledger, *, token: SecretStr | None = None) -> Backend:
    """Build the backend of a target.

    Args:
        target: As read from its file.
        name: The name under which the ledger knows it.
        ledger: Where effects are written down before they happen.
        token: Overrides ``PREDIBASE_API_TOKEN``.

    Raises:
        ConfigurationError: An address or the token is missing.
    """
    resolved = target.resolve(os.environ)
    if token is None and (value := os.environ.get("PREDIBASE_API_TOKEN")):
        token = SecretStr(value)
    if resolved.kind is TargetKind.LORAX:
        return LoraxBackend(resolved, name, ledger, token=token)
    return PredibaseBackend(resolved, name, ledger, token=token)
