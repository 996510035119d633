"""The routes of serving deployments: create, show, update, delete, events, request logs, and crash, stop, stand by."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from sandbox.control_plane.deployments import DEFAULT_MAX_REPLICAS, Deployments
from sandbox.control_plane.request_logs import RequestLogs
from sandbox.control_plane.store import Store
from sandbox.control_plane.wire import (
    ApiError,
    CreateDeploymentRequest,
    UpdateDeploymentRequest,
    events_json,
    read_body,
)

__all__ = ["deployments_router"]

SHARED_TYPES = frozenset({"shared", "serverless"})  # the second is the older word
PRIVATE_TYPES = frozenset({"private", "dedicated"})


def deployments_router(deployments: Deployments, store: Store, logs: RequestLogs) -> APIRouter:
    """Serve a set of deployments."""
    router = APIRouter(redirect_slashes=False)
    routes = _DeploymentRoutes(deployments, store, logs)
    router.add_api_route("/v2/deployments", routes.create_deployment, methods=["POST"])
    router.add_api_route("/v2/deployments", routes.list_deployments, methods=["GET"])
    # Before the route of one deployment, which would take the last segment for a name.
    router.add_api_route("/v2/deployments/recommended-config", routes.recommend_config, methods=["GET"])
    router.add_api_route("/v2/deployments/{name}", routes.get_deployment, methods=["GET"])
    router.add_api_route("/v2/deployments/{name}", routes.update_deployment, methods=["PUT"])
    router.add_api_route("/v2/deployments/{name}", routes.delete_deployment, methods=["DELETE"])
    router.add_api_route("/v2/deployments/{name}/request-logs", routes.download_request_logs, methods=["GET"])
    router.add_api_route("/llms/{name}/events", routes.list_events, methods=["GET"])
    # What Predibase leaves to chance, by hand.
    router.add_api_route("/sandbox/deployments/{name}/crash", routes.crash_deployment, methods=["POST"])
    router.add_api_route("/sandbox/deployments/{name}/standby", routes.stand_by_deployment, methods=["POST"])
    router.add_api_route("/sandbox/deployments/{name}/stop", routes.stop_deployment, methods=["POST"])
    return router


class _DeploymentRoutes:
    def __init__(self, deployments: Deployments, store: Store, logs: RequestLogs) -> None:
        self._deployments = deployments
        self._store = store
        self._logs = logs

    async def create_deployment(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, CreateDeploymentRequest)
        return {"data": self._deployments.render(self._deployments.create(body.name, body.config, body.description))}

    async def list_deployments(self, request: Request) -> dict[str, Any]:
        wanted = request.query_params.get("type")
        if wanted and wanted not in SHARED_TYPES | PRIVATE_TYPES:
            raise ApiError(400, f"unknown type {wanted!r}; use private or shared")
        kind = "shared" if wanted in SHARED_TYPES else "private"
        found = [each for each in self._deployments.list() if not wanted or each.record.type == kind]
        return {"data": [self._deployments.render(each) for each in found]}

    async def recommend_config(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        base = self._deployments.base_of(query.get("baseModel"))
        return {
            "baseModel": base.id,
            "accelerator": query.get("accelerator") or "cpu",
            "quantization": query.get("quantization") or "none",
            "minReplicas": 0,
            "maxReplicas": DEFAULT_MAX_REPLICAS,
            "maxTotalTokens": base.max_input_length + 1,
        }

    async def get_deployment(self, name: str) -> dict[str, Any]:
        return {"data": self._deployments.render(self._deployments.require(name))}

    async def update_deployment(self, name: str, request: Request) -> dict[str, Any]:
        body = await read_body(request, UpdateDeploymentRequest)
        return {"data": self._deployments.render(self._deployments.update(name, body.config, body.description))}

    async def delete_deployment(self, name: str) -> dict[str, Any]:
        self._deployments.delete(name)
        return {}

    async def download_request_logs(self, name: str, request: Request) -> FileResponse:
        deployment = self._deployments.require(name)
        if not deployment.record.config.get("requestLoggingEnabled"):
            raise ApiError(400, f"deployment {name!r} does not log requests; set requestLoggingEnabled")
        query = request.query_params
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        begin = _moment(query.get("from"), hour)
        end = _moment(query.get("to"), hour + timedelta(hours=1))
        archive = await asyncio.to_thread(
            self._logs.export, deployment.record.uuid, begin, end, query.get("adapterId"), self._store.scratch
        )
        return FileResponse(
            archive,
            media_type="application/zip",
            filename=f"{name}-request-self._logs.zip",
            background=BackgroundTask(archive.unlink, missing_ok=True),
        )

    async def list_events(self, name: str) -> dict[str, Any]:
        deployment = self._deployments.require(name)
        events = self._store.list_events(deployment.record.uuid)
        return events_json(deployment.record, events, deployment.active_seconds)

    async def crash_deployment(self, name: str) -> dict[str, Any]:
        return {"killed": await self._deployments.require(name).crash()}

    async def stand_by_deployment(self, name: str) -> dict[str, Any]:
        self._deployments.require(name).stand_by()
        return {}

    async def stop_deployment(self, name: str) -> dict[str, Any]:
        self._deployments.require(name).stop()
        return {}


def _moment(text: str | None, default: datetime) -> datetime:
    """Read an ISO time; naive is UTC. The SDK sends offsets with a bare ``+``, which arrives as a space."""
    if not text:
        return default
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    raise ApiError(400, f"{text!r} is not an ISO time such as 2026-01-31T15:00:00")
