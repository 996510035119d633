"""What a control plane is started with, and which base models it knows.

Leaves to others: reading the command line (``__main__``).
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["BaseModel", "BaseModels", "ControlPlaneSettings", "load_or_create_token"]

DEFAULT_MAX_POSITIONS = 2048


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model that deployments can name.

    Attributes:
        id: Path-like id, ``org/name``.
        directory: Where its config, weights and tokenizer are.
    """

    id: str
    directory: Path

    @property
    def short_name(self) -> str:
        """The id without its organisation; resolves to the same model."""
        return self.id.rpartition("/")[2]

    @property
    def max_input_length(self) -> int:
        """Longest prompt in tokens that leaves room for one new token, from the model's own config."""
        try:
            config = json.loads((self.directory / "config.json").read_text())
        except (OSError, ValueError):
            return DEFAULT_MAX_POSITIONS - 1
        return int(config.get("max_position_embeddings", DEFAULT_MAX_POSITIONS)) - 1


class BaseModels:
    """The base models by name: full id, short name, or the directory itself."""

    def __init__(self, models: Iterable[BaseModel]) -> None:
        self._by_name: dict[str, BaseModel] = {}
        self._models = tuple(models)
        for model in self._models:
            for name in (model.id, model.short_name, str(model.directory), str(model.directory.resolve())):
                self._by_name.setdefault(name, model)

    def __iter__(self) -> Iterator[BaseModel]:
        return iter(self._models)

    def find(self, name: str) -> BaseModel | None:
        """Return the model of that name, or None."""
        return self._by_name.get(name)

    def names(self) -> str:
        """List the ids for a message."""
        return ", ".join(sorted(model.id for model in self._models)) or "none"


@dataclass(frozen=True, kw_only=True)
class ControlPlaneSettings:
    """Everything that can differ between two control planes.

    Attributes:
        home: Directory of the state; one running control plane per directory.
        token: The one API token that is accepted.
        url: Where this control plane is reached, without a trailing slash; serving processes fetch adapters there.
        base_models: What deployments may name.
        serving_command: Starts one LoRAX-compatible process; the launcher arguments are added to it.
        strict: Have serving processes refuse what LoRAX silently drops or mis-scales.
        tenant: Short code of the tenant, a path segment of every serving address.
        shared_endpoints: Whether each base model also has a rate-limited shared endpoint, named by its short name.
        shared_requests_per_second: Limit of a shared endpoint; 1 is Predibase's documented free tier.
        default_cooldown_seconds: Idle time before scale to zero where a config does not say.
        minimum_cooldown_seconds: Smallest accepted ``cooldownTime``. Predibase documents 600; a rehearsal cannot wait.
        ready_timeout_seconds: How long a serving process may take until it serves.
        wake_timeout_seconds: How long a request waits for a replica before it gets 504.
        drain_timeout_seconds: How long a replaced replica may finish what it is answering.
        upload_expiry_seconds: Life of a presigned upload, counted from its start.
        parallel_starts: Serving processes that may be starting at once; the others wait in ``pending``.
        crash_limit: Restarts within ``crash_window_seconds`` after which a deployment is ``errored``.
        crash_window_seconds: See ``crash_limit``.
    """

    home: Path
    token: str = field(repr=False)
    url: str
    base_models: BaseModels
    serving_command: tuple[str, ...] = (sys.executable, "-m", "sandbox.lorax")
    strict: bool = False
    tenant: str = "local"
    shared_endpoints: bool = True
    shared_requests_per_second: int = 1
    default_cooldown_seconds: float = 3600.0
    minimum_cooldown_seconds: float = 0.0
    ready_timeout_seconds: float = 120.0
    wake_timeout_seconds: float = 150.0
    drain_timeout_seconds: float = 30.0
    upload_expiry_seconds: float = 3600.0
    parallel_starts: int = 4
    crash_limit: int = 3
    crash_window_seconds: float = 60.0


def load_or_create_token(path: Path) -> str:
    """Return the token kept in a file, made at random on first use and readable by its owner only."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if token := path.read_text().strip():
            return token
        # The process that made the file was killed before it wrote the token.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    token = f"pb_{secrets.token_urlsafe(24)}"
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token
