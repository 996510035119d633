"""A small server with LoRAX's routes and no model, for the tests of what stands in front of it.

It takes the launcher arguments of the real one and, like it, resolves ``pbase`` adapters at the gateway with the
caller's token. The text it generates says which adapter directory it was told to read.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import threading
import time
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

app = FastAPI()
gateway = os.environ["PREDIBASE_GATEWAY_ENDPOINT"]


@app.get("/health")
async def health() -> dict:
    return {}


@app.get("/info")
async def info(request: Request) -> dict:
    return {"pid": os.getpid(), "query": str(request.query_params), "max_total_tokens": options.max_total_tokens}


@app.post("/")
async def generate_list(request: Request):
    body = await request.json()
    if body.get("stream"):
        return _stream(body)
    reply = await _generate(body, request)
    return reply if isinstance(reply, JSONResponse) else JSONResponse([reply], headers=_headers(body))


@app.post("/generate")
async def generate(request: Request):
    body = await request.json()
    reply = await _generate(body, request)
    return reply if isinstance(reply, JSONResponse) else JSONResponse(reply, headers=_headers(body))


@app.post("/generate_stream")
async def generate_stream(request: Request):
    return _stream(await request.json())


@app.post("/v1/chat/completions")
async def chat(request: Request):
    return {"path": request.url.path, "authorization": request.headers.get("authorization")}


async def _generate(body: dict, request: Request) -> dict | JSONResponse:
    adapter = body.get("parameters", {}).get("adapter_id")
    await asyncio.sleep(float(body.get("sleep", 0)))
    if not adapter:
        return {"generated_text": f"base on {os.getpid()}"}
    async with httpx.AsyncClient() as client:
        repo, tag = adapter.split("/")
        reply = await client.get(
            f"{gateway}/v2/repos/{repo}/version/{tag}", headers={"Authorization": request.headers["authorization"]}
        )
    if reply.status_code != 200:
        return JSONResponse({"error": reply.text, "error_type": "generation"}, status_code=424)
    return {"generated_text": (Path(reply.json()["adapterPath"]) / "adapter_config.json").read_text()}


def _headers(body: dict) -> dict[str, str]:
    return {
        "x-prompt-tokens": "3",
        "x-generated-tokens": "1",
        "x-adapter-id": body.get("parameters", {}).get("adapter_id") or "",
    }


def _stream(body: dict) -> StreamingResponse:
    async def events():
        for number in range(int(body.get("events", 3))):
            yield f'data:{{"token":{{"id":{number}}}}}\n\n'
            await asyncio.sleep(float(body.get("sleep", 0)))

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-model-id": "fake"})


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
uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listener])
