"""Reading request bodies and writing answers: JSON with LoRAX's NaN rule, and server-sent events with axum's bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from pydantic import ValidationError as PydanticValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sandbox.lorax.http_errors import BodyError, RequestError
from sandbox.lorax.schemas import RequestModel

__all__ = [
    "DONE_EVENT",
    "EventStream",
    "closing",
    "encode_event",
    "error_response",
    "json_response",
    "read_body",
    "until_disconnect",
]

DONE_EVENT = b"data:[DONE]\n\n"
"""How OpenAI streams end. Native streams end without it."""

KEEP_ALIVE_EVENT = b":\n\n"

Body = TypeVar("Body", bound=RequestModel)
Item = TypeVar("Item")
Result = TypeVar("Result")


def encode_json(payload: object) -> bytes:
    """Serialise; NaN and infinities become null, as serde_json writes them."""
    return to_json(payload, inf_nan_mode="null")


def json_response(payload: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with one JSON document."""
    return Response(encode_json(payload), status_code=status, headers=headers, media_type="application/json")


def error_response(error: RequestError) -> Response:
    """Answer with LoRAX's error body."""
    return json_response(error.body(), status=error.http_status)


def encode_event(payload: object) -> bytes:
    """Write one event: no space after the colon, no event name."""
    return b"data:" + encode_json(payload) + b"\n\n"


async def read_body(request: Request, model: type[Body], *, max_bytes: int) -> Body:
    """Read and parse a JSON body, checking in axum's order: content type, size, syntax, shape.

    Raises:
        BodyError: With status 415, 413, 400 or 422.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        raise BodyError("Expected request with `Content-Type: application/json`", status=415)
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > max_bytes:
            raise BodyError("Failed to buffer the request body: length limit exceeded", status=413)
    try:
        return model.model_validate_json(bytes(raw))
    except PydanticValidationError as error:
        # The input is left out of the text: it may hold a token.
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise _body_error(problems) from None


def _body_error(problems: list[ErrorDetails]) -> BodyError:
    if any(problem["type"] == "json_invalid" for problem in problems):
        return BodyError(f"Failed to parse the request body as JSON: {problems[0]['msg']}", status=400)
    where = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}" for problem in problems)
    return BodyError(f"Failed to deserialize the JSON body into the target type: {where}", status=422)


@asynccontextmanager
async def closing(iterator: AsyncIterator[Item]) -> AsyncGenerator[AsyncIterator[Item], None]:
    """Close an iterator at the end of the block, so that leaving early cancels what feeds it."""
    if isinstance(iterator, AsyncGenerator):
        async with aclosing(iterator):
            yield iterator
        return
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


async def until_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Run ``work``, cancelling it when the client goes away; None means that it went.

    The body must have been read before: only then does the next message say that the client is gone.
    """
    running = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(request.receive))
    try:
        await asyncio.wait({running, watcher}, return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else None
    finally:
        await _cancel(running, watcher)


class EventStream(Response):
    """A server-sent event stream over ready-made event bytes.

    ``events`` is closed as soon as the client goes away, and a comment line is sent after each ``keep_alive_seconds``
    of silence.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str],
        keep_alive_seconds: float,
    ) -> None:
        super().__init__(headers={"content-type": "text/event-stream", "cache-control": "no-cache", **headers})
        # The base class counted an empty body; a stream has no length.
        del self.headers["content-length"]
        self._events = events
        self._keep_alive_seconds = keep_alive_seconds
        self._last_sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Send head and events until the stream ends or the client goes away."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._last_sent = asyncio.get_running_loop().time()
        writer = asyncio.create_task(self._write(send))
        watcher = asyncio.create_task(_disconnected(receive))
        keeper = asyncio.create_task(self._keep_alive(send))
        try:
            await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(keeper, watcher, writer)
        if not writer.cancelled():
            writer.result()

    async def _write(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                await self._send(send, event)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, event: bytes) -> None:
        self._last_sent = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": event, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        now = asyncio.get_running_loop().time
        while True:
            silent_seconds = now() - self._last_sent
            if silent_seconds >= self._keep_alive_seconds:
                await self._send(send, KEEP_ALIVE_EVENT)
                silent_seconds = 0.0
            await asyncio.sleep(self._keep_alive_seconds - silent_seconds)


async def _disconnected(receive: Receive) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
