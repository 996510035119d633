"""The shapes on the wire: request bodies, reply objects, error bodies.

The envelopes differ from route to route, as the official SDK expects them (``predibase`` 2025.10.3): a repository and
an adapter version come bare, deployments inside ``data``, lists in two manners. Errors are ``{"error": "text"}``,
except on the two routes that answer a file, where the SDK reads ``error.message``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from sandbox.control_plane.store import AdapterVersion, DeploymentRecord, Event, Repo

__all__ = [
    "ApiError",
    "ArchiveRequest",
    "CreateDeploymentRequest",
    "CreateRepoRequest",
    "DeploymentConfig",
    "FinishUploadRequest",
    "StartUploadRequest",
    "UpdateDeploymentRequest",
    "deployment_json",
    "error_response",
    "events_json",
    "read_body",
    "repo_json",
    "version_json",
]

FILE_ROUTES = re.compile(r"^/v2/(repos/.+/version/[^/]+/download|deployments/[^/]+/request-logs)$")
USERNAME = "sandbox@localhost"
WRITE_ONLY_CONFIG = frozenset({"hfToken"})

Body = TypeVar("Body", bound="WireModel")


class ApiError(Exception):
    """An answer other than success.

    Args:
        status_code: HTTP status.
        message: For the person who called: what is wrong, and what would be right.
        error_type: Set on serving routes, where LoRAX clients read it.
        headers: Added to the answer.
    """

    def __init__(
        self, status_code: int, message: str, *, error_type: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = message
        self.error_type = error_type
        self.headers = headers


class WireModel(BaseModel):
    """A request body: camelCase, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)


class CreateRepoRequest(WireModel):
    """``POST /v2/repos``."""

    name: str
    description: str | None = None
    exists_ok: bool | None = None


class ArchiveRequest(WireModel):
    """``PUT /v2/repos/{repo}/version/{tag}``."""

    archived: bool


class StartUploadRequest(WireModel):
    """First step of an upload. The region is accepted and means nothing here."""

    repo: str
    region: str | None = None


class FinishUploadRequest(WireModel):
    """Third step of an upload."""

    upload_token: str


class InferenceRequest(WireModel):
    """The hardware of one replica."""

    sku: str | None = None


class ComputeRequests(WireModel):
    """Hardware by purpose."""

    inference: InferenceRequest | None = None


class ComputeSpec(WireModel):
    """Where and on what to run."""

    requests: ComputeRequests | None = None
    region: str | None = None


class DeploymentConfig(WireModel):
    """The config of a serving deployment. A null means "not given" on create and "leave unchanged" on update.

    Acted on here: the base model, replicas, cooldown, preloaded adapters, launcher arguments, ``maxTotalTokens``,
    ``hfToken``, request logging. The hardware and speed settings are kept and shown, and have no effect on a CPU.
    """

    base_model: str | None = None
    min_replicas: int | None = Field(default=None, ge=0)
    max_replicas: int | None = Field(default=None, ge=1)
    cooldown_time: Annotated[int | float, Field(ge=0)] | None = None
    scale_up_request_threshold: int | None = Field(default=None, ge=1)
    preloaded_adapters: list[str] | None = None
    custom_args: list[str | int | float] | None = None
    request_logging_enabled: bool | None = None
    max_total_tokens: int | None = Field(default=None, ge=2)
    hf_token: str | None = Field(default=None, repr=False)
    compute_spec: ComputeSpec | None = None
    accelerator: str | None = None
    quantization: str | None = None
    direct_ingress: bool | None = None
    lorax_image_tag: str | None = None
    speculator: str | None = None
    prefix_caching: bool | None = None
    backend: str | None = None
    disable_adapters: bool | None = None
    uses_guaranteed_capacity: bool | None = None
    chunked_prefill: bool | None = None
    speculation_disable_by_batch_size: int | None = None
    max_num_batched_tokens: int | None = None
    cache_model: bool | None = None
    merge_adapter: bool | None = None

    def given(self) -> dict[str, Any]:
        """Return the keys that were given, as on the wire."""
        return self.model_dump(by_alias=True, exclude_none=True)


class CreateDeploymentRequest(WireModel):
    """``POST /v2/deployments``."""

    name: str
    config: DeploymentConfig
    description: str | None = None


class UpdateDeploymentRequest(WireModel):
    """``PUT /v2/deployments/{name}``."""

    config: DeploymentConfig | None = None
    description: str | None = None


async def read_body(request: Request, model: type[Body]) -> Body:
    """Read a JSON request body.

    Raises:
        ApiError: 400, naming the first key that is wrong.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise ApiError(400, f"invalid request: {where}: {first['msg']}") from error


def error_response(path: str, error: ApiError) -> JSONResponse:
    """Answer an error in the form that the route's clients read."""
    content: dict[str, Any] = {"error": {"message": error.message} if FILE_ROUTES.match(path) else error.message}
    if error.error_type:
        content["error_type"] = error.error_type
    return JSONResponse(content, status_code=error.status_code, headers=error.headers)


def repo_json(repo: Repo, versions: list[AdapterVersion]) -> dict[str, Any]:
    """Render a repository, its versions lowest tag first."""
    return {
        "uuid": repo.uuid,
        "name": repo.name,
        "description": repo.description,
        "versions": [
            {
                "tag": version.tag,
                "createdAt": version.created_at,
                "createdBy": USERNAME,
                "baseModel": version.base_model,
                "archived": version.archived,
            }
            for version in versions
        ],
    }


def version_json(version: AdapterVersion, adapter_path: str) -> dict[str, Any]:
    """Render an adapter version. An uploaded one is always complete."""
    return {
        "repo": version.repo_name,
        "tag": version.tag,
        "archived": version.archived,
        "baseModel": version.base_model,
        "status": "completed",
        "adapterPath": adapter_path,
        "description": None,
        "checkpoint": None,
        "finetuningJob": None,
    }


def deployment_json(record: DeploymentRecord, *, current_replicas: int, max_input_length: int) -> dict[str, Any]:
    """Render a serving deployment, without what its config says in confidence."""
    config = record.config
    sku = ((config.get("computeSpec") or {}).get("requests", {}).get("inference") or {}).get("sku")
    return {
        "name": record.name,
        "uuid": record.uuid,
        "description": record.description,
        "type": record.type,
        "status": record.status.value,
        "model": {"name": config["baseModel"], "maxInputLength": max_input_length},
        "accelerator": {"id": sku or config.get("accelerator") or "cpu"},
        "quantization": config.get("quantization"),
        "currentReplicas": current_replicas,
        "usesGuaranteedCapacity": bool(config.get("usesGuaranteedCapacity", False)),
        "config": {key: value for key, value in config.items() if key not in WRITE_ONLY_CONFIG},
    }


def events_json(record: DeploymentRecord, events: list[Event], active_seconds: float) -> dict[str, Any]:
    """Render the events of the current rollout; times in seconds."""
    return {
        "name": record.name,
        "resourceActiveTime": int(active_seconds),
        "deploymentStatus": record.status.value,
        "ComputeEvents": [
            {"eventType": event.type, "timestamp": event.timestamp, "message": event.message} for event in events
        ],
    }
