"""The serving plane: ``/{tenant}/deployments/v2/llms/{name}/...`` in front of the deployments' replicas.

Requests and replies pass through as they are, streams event by event, with every ``x-*`` header. A request to a
deployment in standby wakes it and waits. Shared endpoints are limited as Envoy does it: so many requests in each window
of one second.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sandbox.control_plane.deployments import Deployments
from sandbox.control_plane.lifecycle import Deployment
from sandbox.control_plane.replica import Replica
from sandbox.control_plane.request_logs import RequestLogs
from sandbox.control_plane.settings import ControlPlaneSettings
from sandbox.control_plane.wire import ApiError

__all__ = ["serving_router"]

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
LOGGED_REPLY_BYTES = 1 << 20
CLIENT_CLOSED_REQUEST = 499


class RateLimit:
    """A number of requests per window of one second."""

    def __init__(self, requests_per_second: int) -> None:
        self._limit = requests_per_second
        self._window = 0
        self._used = 0

    def take(self, now: float) -> dict[str, str]:
        """Count one request at ``now`` (seconds since the epoch); returns the headers of its reply.

        Raises:
            ApiError: 429 when the window's requests are used up.
        """
        window = math.floor(now)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        headers = {
            "x-ratelimit-limit": str(self._limit),
            "x-ratelimit-remaining": str(max(0, self._limit - self._used)),
            "x-ratelimit-reset": "1",
        }
        if self._used > self._limit:
            headers["x-envoy-ratelimited"] = "true"
            message = f"rate limit of this shared endpoint exceeded: {self._limit} per second; wait or deploy your own"
            raise ApiError(429, message, error_type="rate_limit_exceeded", headers=headers)
        return headers


@dataclass(frozen=True, kw_only=True)
class _Exchange:
    """One proxied request on its way."""

    deployment: Deployment
    replica: Replica
    path: str
    body: bytes
    started: float


def serving_router(
    deployments: Deployments, settings: ControlPlaneSettings, client: httpx.AsyncClient, logs: RequestLogs
) -> APIRouter:
    """Serve the deployments' replicas."""
    router = APIRouter(redirect_slashes=False)
    limits: dict[str, RateLimit] = {}
    prefix = "/{tenant}/deployments/v2/llms/{name}"

    async def serve(tenant: str, name: str, request: Request, path: str = "") -> Response:
        if tenant != settings.tenant:
            raise ApiError(404, f"unknown tenant {tenant!r}; GET /users/current says tenant.shortCode")
        deployment = deployments.require(name)
        extra: dict[str, str] = {}
        if deployment.record.type == "shared" and request.method == "POST":
            limit = limits.setdefault(name, RateLimit(settings.shared_requests_per_second))
            extra = limit.take(time.time())
        started = time.monotonic()
        body = await request.body()
        while True:
            replica = await deployment.acquire()
            exchange = _Exchange(deployment=deployment, replica=replica, path=f"/{path}", body=body, started=started)
            try:
                reply = await _send(client, request, exchange)
            except httpx.ConnectError:
                # It never saw the request, so another may have it.
                replica.is_unreachable = True
                deployment.release(replica)
            except BaseException:
                deployment.release(replica)
                raise
            else:
                break
        if reply is None:
            deployment.release(replica)
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        response = _ProxiedResponse(reply, exchange, logs)
        response.headers.update(extra)
        return response

    methods = ["GET", "POST"]
    router.add_api_route(prefix, serve, methods=methods, response_model=None)
    router.add_api_route(prefix + "/{path:path}", serve, methods=methods, response_model=None)
    return router


async def _send(client: httpx.AsyncClient, request: Request, exchange: _Exchange) -> httpx.Response | None:
    """Pass a request on; returns the reply with its body unread, or None when the caller has gone away meanwhile.

    Raises:
        httpx.ConnectError: The replica was not there.
        ApiError: 503: it ended while it answered.
    """
    query = f"?{request.url.query}" if request.url.query else ""
    outgoing = client.build_request(
        request.method,
        f"{exchange.replica.url}{exchange.path}{query}",
        headers=_forwarded(request.headers),
        content=exchange.body,
    )
    sending = asyncio.create_task(client.send(outgoing, stream=True))
    leaving = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            return None
        return sending.result()
    except httpx.ConnectError:
        raise
    except httpx.TransportError as error:
        name = exchange.deployment.record.name
        message = f"a replica of deployment {name!r} went away; repeat the request"
        raise ApiError(503, message, error_type="unavailable") from error
    finally:
        # Ending the call to the replica frees the slot that it generates in.
        for task in (sending, leaving):
            task.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _ProxiedResponse(StreamingResponse):
    """A replica's reply, its bytes handed on as they come; logged when it is complete or given up."""

    def __init__(self, reply: httpx.Response, exchange: _Exchange, logs: RequestLogs) -> None:
        super().__init__(self._relay(), status_code=reply.status_code)
        self.raw_headers = [
            (key.lower(), value) for key, value in reply.headers.raw if key.lower().decode() not in HOP_BY_HOP
        ]
        self._reply = reply
        self._exchange = exchange
        self._logs = logs
        config = exchange.deployment.record.config
        self._is_logged = bool(exchange.body) and config.get("requestLoggingEnabled", False)
        self._kept = bytearray()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and give the replica back even where the caller left before the first byte."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._exchange.deployment.release(self._exchange.replica)
            if self._is_logged:
                self._log()
            await self._reply.aclose()

    async def _relay(self) -> AsyncIterator[bytes]:
        async for chunk in self._reply.aiter_raw():
            if self._is_logged and len(self._kept) < LOGGED_REPLY_BYTES:
                self._kept += chunk[: LOGGED_REPLY_BYTES - len(self._kept)]
            yield chunk

    def _log(self) -> None:
        self._logs.record(
            self._exchange.deployment.record.uuid,
            path=self._exchange.path,
            request_body=self._exchange.body,
            response_body=bytes(self._kept),
            status_code=self.status_code,
            headers=dict(self._reply.headers),
            latency_ms=(time.monotonic() - self._exchange.started) * 1000,
        )


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value for key, value in headers.items() if key not in HOP_BY_HOP and key not in ("host", "content-length")
    }
