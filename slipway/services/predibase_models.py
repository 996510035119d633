"""What the Predibase control plane replies, as far as we read it; the requests are ``predibase``'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "AdapterVersion",
    "CreatedDeployment",
    "DeployedModel",
    "Deployment",
    "DeploymentStatus",
    "Repo",
    "RepoVersion",
    "Tenant",
    "UploadSlot",
    "User",
]


class DeploymentStatus(StrEnum):
    """Statuses of a serving deployment. One that Predibase adds tomorrow reads as ``UNKNOWN``."""

    PENDING = "pending"
    INITIALIZING = "initializing"
    READY = "ready"
    UPDATING = "updating"
    STANDBY = "standby"
    STOPPED = "stopped"
    ERRORED = "errored"
    FAILED = "failed"
    DELETED = "deleted"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> DeploymentStatus:
        return next((member for member in cls if member.value == str(value).lower()), cls.UNKNOWN)


class Reply(BaseModel):
    """Base of all replies: camelCase on the wire; keys that we do not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class RepoVersion(Reply):
    """A version as its repository lists it."""

    tag: int
    base_model: str = ""
    archived: bool = False
    created_at: str = ""
    created_by: str = ""


class Repo(Reply):
    """An adapter repository."""

    uuid: str
    name: str
    description: str | None = None
    versions: tuple[RepoVersion, ...] = ()


class AdapterVersion(Reply):
    """One immutable version. Usable when ``status`` is ``completed`` and ``adapter_path`` is set."""

    repo: str
    tag: int
    base_model: str
    archived: bool = False
    status: str | None = None
    adapter_path: str | None = None
    description: str | None = None

    @property
    def adapter_id(self) -> str:
        """``repo/tag``, as requests name it."""
        return f"{self.repo}/{self.tag}"

    @property
    def is_usable(self) -> bool:
        """Whether LoRAX can load it."""
        return self.status == "completed" and bool(self.adapter_path)


class DeployedModel(Reply):
    """The base model of a deployment, as the service names it."""

    name: str
    max_input_length: int | None = None


class Deployment(Reply):
    """A serving deployment."""

    name: str
    uuid: str = ""
    description: str | None = None
    type: str = ""
    status_text: str = Field(validation_alias=AliasChoices("status", "status_text"))
    model: DeployedModel
    current_replicas: int = 0
    config: Mapping[str, object] = Field(default={}, repr=False)

    @property
    def status(self) -> DeploymentStatus:
        """The status; ``status_text`` is the service's own word."""
        return DeploymentStatus(self.status_text)

    @property
    def base_model(self) -> str:
        """The base model, as the service names it."""
        return self.model.name

    @property
    def is_ready(self) -> bool:
        """Whether a replica answers now."""
        return self.status in {DeploymentStatus.READY, DeploymentStatus.UPDATING} and self.current_replicas > 0

    @property
    def can_serve(self) -> bool:
        """Whether a request will be answered, now or after waking a replica."""
        return self.is_ready or self.status is DeploymentStatus.STANDBY

    @property
    def has_failed(self) -> bool:
        """Whether waiting is pointless."""
        return self.status in {
            DeploymentStatus.ERRORED,
            DeploymentStatus.FAILED,
            DeploymentStatus.STOPPED,
            DeploymentStatus.DELETED,
        }


class UploadSlot(Reply):
    """Where to put an adapter's files, and the token that makes the last step repeatable."""

    upload_token: str = Field(repr=False)
    presigned_urls: Mapping[str, str] = Field(repr=False)
    required_headers: Mapping[str, str] = Field(default={}, repr=False)


class Tenant(Reply):
    """An account; its short code is part of every serving address."""

    short_code: str


class User(Reply):
    """Who the token belongs to."""

    tenant: Tenant


@dataclass(frozen=True, kw_only=True)
class CreatedDeployment:
    """What creating a serving deployment led to.

    Attributes:
        deployment: As it is now.
        was_there: Whether one of this name and base existed before the request. It may be somebody else's: do not
            delete it on failure unless the ledger says that it is ours.
    """

    deployment: Deployment
    was_there: bool
