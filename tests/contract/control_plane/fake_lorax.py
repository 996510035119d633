"""A small server with LoRAX's routes and no model, for the tests of what stands in front of it.

It takes the launcher arguments of the real one and, like it, resolves ``pbase`` adapters at the gateway with the
caller's token. The text it generates says which adapter directory it was told to read. Plain ASGI, because the tests
start dozens of it and a framework takes longer to import than they take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode
from urllib.request import Request, urlopen

import uvicorn

gateway = os.environ["PREDIBASE_GATEWAY_ENDPOINT"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    content = b""
    while (message := await receive()).get("more_body"):
        content += message["body"]
    content += message.get("body", b"")
    match scope["method"], scope["path"]:
        case "GET", "/health":
            await _answer(send, {})
        case "GET", "/info":
            query = urlencode(parse_qsl(scope["query_string"].decode()))
            tokens = options.max_total_tokens
            await _answer(send, {"pid": os.getpid(), "query": query, "max_total_tokens": tokens})
        case "POST", "/v1/chat/completions":
            await _answer(send, {"path": scope["path"], "authorization": headers.get("authorization")})
        case "POST", "/generate_stream":
            await _stream(json.loads(content), receive, send)
        case "POST", ("/" | "/generate") as path:
            body = json.loads(content)
            if path == "/" and body.get("stream"):
                await _stream(body, receive, send)
            else:
                await _generate(body, headers, send, is_list=path == "/")
        case _:
            await _answer(send, {"detail": "Not Found"}, status=404)


async def _generate(body: dict, headers: Mapping[str, str], send: Any, *, is_list: bool) -> None:
    adapter = body.get("parameters", {}).get("adapter_id")
    await asyncio.sleep(float(body.get("sleep", 0)))
    text = f"base on {os.getpid()}"
    if adapter:
        status, found = await asyncio.to_thread(_ask_gateway, adapter, headers["authorization"])
        if status != 200:
            await _answer(send, {"error": found, "error_type": "generation"}, status=424)
            return
        text = (Path(json.loads(found)["adapterPath"]) / "adapter_config.json").read_text()
    counts = {"x-prompt-tokens": "3", "x-generated-tokens": "1", "x-adapter-id": adapter or ""}
    reply = {"generated_text": text}
    await _answer(send, [reply] if is_list else reply, headers=counts)


def _ask_gateway(adapter: str, authorization: str) -> tuple[int, str]:
    repo, tag = adapter.split("/")
    url = f"{gateway}/v2/repos/{repo}/version/{tag}"
    try:
        with urlopen(Request(url, headers={"Authorization": authorization})) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def _answer(send: Any, document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
    content = json.dumps(document).encode()
    await _begin(
        send, status, {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
    )
    await send({"type": "http.response.body", "body": content})


async def _begin(send: Any, status: int, headers: Mapping[str, str]) -> None:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})


async def _stream(body: dict, receive: Any, send: Any) -> None:
    """Send events until all are sent or the caller leaves."""

    async def events() -> None:
        await _begin(send, 200, {"content-type": "text/event-stream; charset=utf-8", "x-model-id": "fake"})
        for number in range(int(body.get("events", 3))):
            event = f'data:{{"token":{{"id":{number}}}}}\n\n'.encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(float(body.get("sleep", 0)))
        await send({"type": "http.response.body", "body": b""})

    tasks = [asyncio.create_task(events()), asyncio.create_task(receive())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.05)
    os._exit(1)


parser = argparse.ArgumentParser()
parser.add_argument("--model-dir", type=Path, required=True)
parser.add_argument("--model-id", required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--adapter-source", required=True)
parser.add_argument("--exit-with-parent", type=int, required=True)
parser.add_argument("--max-total-tokens", type=int)
parser.add_argument("--strict", action="store_true")
parser.add_argument("--start-seconds", type=float, default=0)
options = parser.parse_args()
threading.Thread(target=_watch, args=(options.exit_with_parent,), daemon=True).start()
time.sleep(options.start_seconds)
listener = socket.create_server((options.host, options.port))
print(f"ready http://{options.host}:{listener.getsockname()[1]}", flush=True)  # noqa: T201 - the contract with whoever started us
uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)).run(
    sockets=[listener]
)
