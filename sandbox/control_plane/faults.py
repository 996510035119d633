"""Scripted faults: have chosen requests delayed, refused, reset, or carried out and then answered with an error.

A fault names routes by method and path patterns (``*`` matches across slashes), applies a number of times and is then
spent; the oldest that matches acts. Faults are for rehearsals and tests, live in memory, and are gone after a restart.
The two ``*-start`` kinds act on serving processes instead; their path pattern is matched with the deployment's name.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.control_plane.wire import ApiError, WireModel, error_response, read_body

__all__ = ["FaultKind", "FaultMiddleware", "FaultSpec", "Faults", "faults_router"]

ADMIN_PREFIX = "/sandbox/faults"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: the peer sees a reset instead of an orderly end


class FaultKind(StrEnum):
    """What a fault does."""

    DELAY = "delay"
    STATUS = "status"
    RESET = "reset"
    COMMIT_THEN_STATUS = "commit-then-status"
    COMMIT_THEN_RESET = "commit-then-reset"
    FAIL_START = "fail-start"
    DELAY_START = "delay-start"


START_KINDS = frozenset({FaultKind.FAIL_START, FaultKind.DELAY_START})


class FaultSpec(WireModel, strict=False):
    """One scripted fault, as posted."""

    kind: FaultKind
    path: str
    """Pattern of the request path without the query, or of a deployment's name for the ``*-start`` kinds."""
    method: str = "*"
    count: int = Field(default=1, ge=1)
    """How many requests it hits."""
    skip: int = Field(default=0, ge=0)
    """How many matching requests pass unharmed first."""
    seconds: float = Field(default=0, ge=0)
    """Waited before anything else, whatever the kind."""
    status: int = Field(default=500, ge=200, le=599)
    body: Any = None
    """JSON of the answer; an error in the route's own form where it is null."""
    headers: dict[str, str] = Field(default_factory=dict)
    after_bytes: int = Field(default=0, ge=0)
    """For ``commit-then-reset``: how much of the answer's body gets out first."""


class Faults:
    """The faults that are not yet spent, oldest first."""

    def __init__(self) -> None:
        self._specs: dict[str, FaultSpec] = {}
        self._remaining: dict[str, int] = {}
        self._to_skip: dict[str, int] = {}

    def add(self, spec: FaultSpec) -> str:
        """Arm a fault; returns its id."""
        fault_id = uuid4().hex[:12]
        self._specs[fault_id] = spec
        self._remaining[fault_id] = spec.count
        self._to_skip[fault_id] = spec.skip
        return fault_id

    def remove(self, fault_id: str) -> bool:
        """Disarm one; returns whether it was armed."""
        return self._specs.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Disarm all."""
        self._specs.clear()

    def list(self) -> list[dict[str, Any]]:
        """Describe those that are armed."""
        return [
            {"id": fault_id, "remaining": self._remaining[fault_id], **spec.model_dump(mode="json", by_alias=True)}
            for fault_id, spec in self._specs.items()
        ]

    def take_for_request(self, method: str, path: str) -> FaultSpec | None:
        """Use up one application of the oldest fault that matches a request."""
        for fault_id, spec in self._specs.items():
            is_match = fnmatchcase(method, spec.method.upper()) and fnmatchcase(path, spec.path)
            if spec.kind not in START_KINDS and is_match and self._take(fault_id):
                return spec
        return None

    def take_for_start(self, deployment: str) -> FaultSpec | None:
        """Use up one application of the oldest fault that matches the start of a serving process."""
        for fault_id, spec in self._specs.items():
            if spec.kind in START_KINDS and fnmatchcase(deployment, spec.path) and self._take(fault_id):
                return spec
        return None

    def _take(self, fault_id: str) -> bool:
        if self._to_skip[fault_id]:
            self._to_skip[fault_id] -= 1
            return False
        self._remaining[fault_id] -= 1
        if not self._remaining[fault_id]:
            del self._specs[fault_id]
        return True


def faults_router(faults: Faults) -> APIRouter:
    """Serve the script of faults at ``/sandbox/faults``."""
    router = APIRouter(prefix=ADMIN_PREFIX, redirect_slashes=False)

    @router.post("")
    async def add_fault(request: Request) -> dict[str, Any]:
        return {"id": faults.add(await read_body(request, FaultSpec))}

    @router.get("")
    async def list_faults() -> dict[str, Any]:
        return {"faults": faults.list()}

    @router.delete("")
    async def clear_faults() -> dict[str, Any]:
        faults.clear()
        return {}

    @router.delete("/{fault_id}")
    async def remove_fault(fault_id: str) -> dict[str, Any]:
        if not faults.remove(fault_id):
            raise ApiError(404, f"no armed fault has the id {fault_id}")
        return {}

    return router


class FaultMiddleware:
    """Apply faults around an application; their own routes are exempt, or a fault could lock us out."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        spec = self._find(scope)
        if spec is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(spec.seconds)
        match spec.kind:
            case FaultKind.STATUS:
                await _answer(spec, scope, receive, send)
            case FaultKind.RESET:
                await _reset(receive)
            case FaultKind.COMMIT_THEN_STATUS:
                await self._app(scope, receive, _discard)
                await _answer(spec, scope, receive, send)
            case FaultKind.COMMIT_THEN_RESET:
                await self._app(scope, receive, _cut(send, receive, spec.after_bytes))
                await _reset(receive)
            case _:
                await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> FaultSpec | None:
        if scope["type"] != "http":
            return None
        path: str = scope["path"]
        if path.startswith(ADMIN_PREFIX):
            return None
        return self._faults.take_for_request(scope["method"], path)


async def _answer(spec: FaultSpec, scope: Scope, receive: Receive, send: Send) -> None:
    if spec.body is None:
        error = ApiError(spec.status, "injected fault", headers=spec.headers)
        await error_response(scope["path"], error)(scope, receive, send)
    else:
        await JSONResponse(spec.body, spec.status, spec.headers)(scope, receive, send)


async def _discard(_message: Message) -> None:
    pass


def _cut(send: Send, receive: Receive, after_bytes: int) -> Send:
    """Let so many bytes of a body out, then reset the connection."""
    left = after_bytes

    async def cut_send(message: Message) -> None:
        nonlocal left
        if after_bytes == 0:
            return
        if message["type"] != "http.response.body":
            await send(message)
            return
        body = message.get("body", b"")
        if left and (part := body[:left]):
            left -= len(part)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if not left:
            # Flushed first: a reset discards what the socket has not sent yet.
            await asyncio.sleep(0.05)
            await _reset(receive)

    return cut_send


async def _reset(receive: Receive) -> None:
    """Reset the TCP connection of a request."""
    # ASGI has no message for this; uvicorn's ``receive`` is a method of the object that holds the transport.
    transport: asyncio.Transport | None = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        message = "connection resets need uvicorn as the server"
        raise RuntimeError(message)
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
