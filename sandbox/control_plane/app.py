"""Put the control plane together: authentication, error bodies, routes, life from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.control_plane.deployment_routes import deployments_router
from sandbox.control_plane.deployments import Deployments
from sandbox.control_plane.faults import FaultMiddleware, Faults, faults_router
from sandbox.control_plane.replica import Launcher
from sandbox.control_plane.repos import repos_router
from sandbox.control_plane.request_logs import RequestLogs
from sandbox.control_plane.serving import serving_router
from sandbox.control_plane.settings import ControlPlaneSettings
from sandbox.control_plane.store import Store
from sandbox.control_plane.uploads import PRESIGNED_PREFIX, uploads_router
from sandbox.control_plane.wire import USERNAME, ApiError, error_response

__all__ = ["create_app"]

SWEEP_SECONDS = 600.0
REPLICA_TIMEOUT = httpx.Timeout(600.0, connect=5.0)


def create_app(settings: ControlPlaneSettings, store: Store) -> ASGIApp:
    """Build the application over an open store; it closes the store when it ends."""
    faults = Faults()
    logs = RequestLogs(settings.home / "request-logs")
    # One connection per request in flight: the replicas do the queueing, not the proxy. No proxy or credentials from
    # the environment: replicas are on this machine.
    client = httpx.AsyncClient(
        timeout=REPLICA_TIMEOUT, limits=httpx.Limits(max_connections=None, keepalive_expiry=5.0), trust_env=False
    )
    deployments = Deployments(store, settings, Launcher(settings, faults, client))

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        store.sweep(time.time())
        deployments.resume()
        tasks = [asyncio.create_task(deployments.keep_time()), asyncio.create_task(_sweep(store))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await deployments.close()
            await client.aclose()
            store.close()

    app = FastAPI(lifespan=lifespan, redirect_slashes=False, openapi_url=None)
    app.include_router(_users_router(settings))
    app.include_router(repos_router(store))
    app.include_router(uploads_router(store, settings))
    app.include_router(deployments_router(deployments, store, logs))
    app.include_router(faults_router(faults))
    app.include_router(serving_router(deployments, settings, client, logs))
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, _on_defect)
    return FaultMiddleware(TokenMiddleware(app, settings.token), faults)


class TokenMiddleware:
    """Refuse requests without the token. Only presigned uploads, which carry a signature, need none."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and not scope["path"].startswith(PRESIGNED_PREFIX):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                message = "missing or invalid API token; send the header Authorization: Bearer pb_..."
                error = ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})
                await error_response(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _users_router(settings: ControlPlaneSettings) -> APIRouter:
    router = APIRouter(redirect_slashes=False)

    @router.get("/users/current")
    @router.get("/v1/users/current")
    @router.get("/v2/users/current")
    async def get_current_user() -> dict[str, Any]:
        return {
            "id": 1,
            "username": USERNAME,
            "uuid": "00000000-0000-4000-8000-000000000001",
            "tenant": {
                "name": "Slipway sandbox",
                "shortCode": settings.tenant,
                "subscription": {
                    "id": 1,
                    "tier": "enterprise",
                    "isTrial": False,
                    "expiration": None,
                    "daysRemainingInPlan": None,
                    "active": True,
                },
            },
        }

    return router


async def _sweep(store: Store) -> None:
    """Remove, now and then, what interrupted uploads and deletions left."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        store.sweep(time.time())


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ApiError):
        raise error
    return error_response(request.url.path, error)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(request.url.path, ApiError(error.status_code, message))


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    message = f"invalid request: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return error_response(request.url.path, ApiError(400, message))


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    """Answer JSON even where we failed; the server logs the traceback."""
    message = f"the sandbox failed: {type(error).__name__}: {error}"
    return error_response(request.url.path, ApiError(500, message))
