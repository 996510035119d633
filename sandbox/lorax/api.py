"""The application: LoRAX's routes over one engine, its probes, and the sandbox's own reference route."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from sandbox.lorax.contract import AdapterError, Engine
from sandbox.lorax.http_errors import (
    GenerationError,
    IncompleteGenerationError,
    RequestError,
    StartupError,
    UnhealthyError,
)
from sandbox.lorax.http_generation import Call, Generator
from sandbox.lorax.http_messages import error_response, json_response, read_body
from sandbox.lorax.http_settings import ServerSettings
from sandbox.lorax.metrics import Metrics
from sandbox.lorax.native_routes import documented, with_header_token
from sandbox.lorax.native_routes import router_of as native_router
from sandbox.lorax.openai_routes import router_of as openai_router
from sandbox.lorax.schemas import GenerateParameters, ReferenceRequest
from sandbox.lorax.schemas_validation import adapter_request

__all__ = ["EngineLifecycle", "create_app"]

logger = logging.getLogger(__name__)

STARTUP_PROMPT = "Where should Johnny live?"

GAUGES = {
    "queue_length": "lorax_queue_length",
    "batch_size": "lorax_batch_current_size",
    "batch_max_tokens": "lorax_batch_current_max_tokens",
    "adapters_resident": "sandbox_adapters_resident",
    "adapter_bytes": "sandbox_adapter_bytes",
}
"""Exported name of each of the engine's gauges; LoRAX has no gauges of adapters, so those carry our name."""


class EngineLifecycle:
    """Starts and stops an engine once, whoever asks first."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._running = False

    def start(self) -> None:
        """Start the engine; does nothing when it runs."""
        with self._lock:
            if not self._running:
                self._engine.start()
                self._running = True

    def stop(self) -> None:
        """Stop the engine; does nothing when it does not run."""
        with self._lock:
            if self._running:
                self._engine.stop()
                self._running = False


def create_app(engine: Engine, settings: ServerSettings) -> FastAPI:
    """Build the application. It starts the engine with the server and stops it with it."""
    lifecycle = EngineLifecycle(engine)
    metrics = Metrics(max_input_length=engine.info.max_input_length, max_total_tokens=engine.info.max_total_tokens)
    generator = Generator(engine=engine, settings=settings, metrics=metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        lifecycle.start()
        try:
            await generator.preload()
            yield
        finally:
            await asyncio.to_thread(lifecycle.stop)

    app = FastAPI(
        title="LoRAX-compatible sandbox server",
        openapi_url="/api-doc/openapi.json",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.lifecycle = lifecycle
    app.include_router(native_router(generator))
    app.include_router(openai_router(generator))
    _add_status_routes(app, generator)
    _add_reference_route(app, generator)
    _add_error_handlers(app)
    return app


def _add_status_routes(app: FastAPI, generator: Generator) -> None:
    engine = generator.engine

    @app.get("/", tags=["LoRAX"])
    @app.get("/health", tags=["LoRAX"])
    @app.get("/ping", tags=["LoRAX"])
    async def health() -> Response:
        """Empty answer while the engine works: one generated token until the first success, later only liveness."""
        try:
            if generator.generation_is_healthy:
                engine.gauges()
            else:
                await generator.probe()
        except Exception as error:
            logger.warning("health probe failed: %s", error)
            raise UnhealthyError from error
        return Response()

    @app.get("/startup", tags=["LoRAX"])
    async def startup() -> Response:
        """Empty answer when a real request on the base model yields a token."""
        call = Call(inputs=STARTUP_PROMPT, parameters=GenerateParameters(max_new_tokens=1))
        try:
            best, _ = await generator.run(call)
        except RequestError as error:
            return json_response(error.body(), status=StartupError.status)
        # LoRAX asks for text; here a token is enough, as a base model may well answer this prompt with its end token.
        if best.finished.generated_tokens == 0:
            raise StartupError
        return Response()

    @app.get("/info", tags=["LoRAX"])
    async def info() -> Response:
        """Static facts of this server."""
        return json_response(_info(generator))

    @app.get("/metrics", tags=["LoRAX"])
    async def metrics(request: Request) -> Response:
        """Counts and times, as Prometheus text, or as a JSON map where the client accepts JSON."""
        now = engine.gauges()
        gauges = {exported: now[name] for name, exported in GAUGES.items() if name in now}
        if "application/json" in request.headers.get("accept", ""):
            return json_response(generator.metrics.values(gauges))
        return Response(generator.metrics.text(gauges), media_type="text/plain; version=0.0.4")


def _add_reference_route(app: FastAPI, generator: Generator) -> None:
    one_at_a_time = asyncio.Lock()

    @app.post("/sandbox/reference", tags=["Sandbox"], openapi_extra=documented(ReferenceRequest))
    async def reference(request: Request) -> Response:
        """Score token ids with transformers and PEFT alone. Not a route of LoRAX; the sandbox's own.

        The answer holds the log probability of every token after the first under the same adapter files, so that a
        client can prove what the served model computes.
        """
        body = await read_body(request, ReferenceRequest, max_bytes=generator.settings.max_body_bytes)
        parameters = GenerateParameters(
            adapter_id=body.adapter_id, adapter_source=body.adapter_source, api_token=body.api_token
        )
        adapter = adapter_request(with_header_token(request, parameters), generator.settings)
        try:
            async with one_at_a_time:
                logprobs = await asyncio.to_thread(generator.engine.reference_logprobs, adapter, list(body.input_ids))
        except AdapterError as error:
            raise GenerationError(str(error), from_adapter=True) from error
        except Exception as error:
            logger.exception("reference computation failed")
            raise GenerationError(str(error) or type(error).__name__) from error
        return json_response({"logprobs": logprobs})


def _add_error_handlers(app: FastAPI) -> None:
    async def on_request_error(_: Request, error: Exception) -> Response:
        if not isinstance(error, RequestError):
            raise error
        return error_response(error)

    async def on_http_error(_: Request, error: Exception) -> Response:
        # axum answers an unknown path or method with an empty body.
        if not isinstance(error, HTTPException):
            raise error
        return Response(status_code=error.status_code, headers=error.headers)

    async def on_unexpected(_: Request, error: Exception) -> Response:
        # The server's log gets the trace; the client gets a shape that it can read.
        del error
        return error_response(IncompleteGenerationError())

    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_unexpected)


def _info(generator: Generator) -> dict[str, object]:
    facts, settings = generator.engine.info, generator.settings
    return {
        "model_id": facts.model_id,
        "model_sha": None,
        "model_dtype": facts.dtype if facts.dtype.startswith("torch.") else f"torch.{facts.dtype}",
        "model_device_type": facts.device,
        "model_pipeline_tag": None,
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_best_of": settings.max_best_of,
        "max_stop_sequences": settings.max_stop_sequences,
        "max_input_length": facts.max_input_length,
        "max_total_tokens": facts.max_total_tokens,
        # The router's batching knobs do not exist here; these are LoRAX's defaults, for clients that expect them.
        "waiting_served_ratio": 1.2,
        "max_batch_total_tokens": facts.max_slots * facts.max_total_tokens,
        "max_waiting_tokens": 20,
        "validation_workers": 2,
        "eager_prefill": False,
        "version": "0.1.0",
        "sha": None,
        "docker_label": None,
        "request_logger_url": None,
    }
