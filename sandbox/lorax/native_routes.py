"""LoRAX's own routes: ``/``, ``/invocations``, ``/generate``, ``/generate_stream`` and ``/tokenize``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from sandbox.lorax.contract import Token
from sandbox.lorax.http_errors import RequestError, TokenizerError
from sandbox.lorax.http_generation import Call, Generator, Sequence, StreamStep
from sandbox.lorax.http_messages import (
    EventStream,
    closing,
    encode_event,
    json_response,
    read_body,
    until_disconnect,
)
from sandbox.lorax.http_settings import ServerSettings
from sandbox.lorax.schemas import (
    CompatGenerateRequest,
    GenerateParameters,
    GenerateRequest,
    RequestModel,
    TokenizeRequest,
)
from sandbox.lorax.schemas_validation import adapter_header_ids

__all__ = ["answer", "answer_stream", "documented", "router_of", "with_header_token"]

CLIENT_CLOSED_REQUEST = 499
"""Status of an answer that nobody reads any more; nginx's number."""


def router_of(generator: Generator) -> APIRouter:
    """Build the native routes over one generator."""
    router = APIRouter(tags=["LoRAX"])
    settings = generator.settings

    @router.post("/", openapi_extra=documented(CompatGenerateRequest))
    @router.post("/invocations", openapi_extra=documented(CompatGenerateRequest))
    async def compat_generate(request: Request) -> Response:
        """Generate; the answer is a list of one object, or a stream with ``stream: true``."""
        body = await read_body(request, CompatGenerateRequest, max_bytes=settings.max_body_bytes)
        call = _call(request, body, settings)
        if body.stream:
            return answer_stream(generator, call, _native_events(generator, call))
        return await answer(generator, request, call, lambda best, losers: [_generate_response(call, best, losers)])

    @router.post("/generate", openapi_extra=documented(GenerateRequest))
    async def generate(request: Request) -> Response:
        """Generate; the answer is one object."""
        body = await read_body(request, GenerateRequest, max_bytes=settings.max_body_bytes)
        call = _call(request, body, settings)
        return await answer(generator, request, call, lambda best, losers: _generate_response(call, best, losers))

    @router.post("/generate_stream", openapi_extra=documented(GenerateRequest))
    async def generate_stream(request: Request) -> Response:
        """Generate as a stream of events, one for each token."""
        body = await read_body(request, GenerateRequest, max_bytes=settings.max_body_bytes)
        call = _call(request, body, settings)
        return answer_stream(generator, call, _native_events(generator, call))

    @router.post("/tokenize", tags=["Tokenization"], openapi_extra=documented(TokenizeRequest))
    async def tokenize(request: Request) -> Response:
        """Split a text into the base model's tokens with their places in it."""
        body = await read_body(request, TokenizeRequest, max_bytes=settings.max_body_bytes)
        try:
            pieces = generator.engine.encode_with_offsets(
                body.inputs, add_special_tokens=body.add_special_tokens is not False
            )
        except ValueError as error:
            raise TokenizerError("No fast tokenizer or tokenizer.json for this model") from error
        return json_response(
            [{"id": token, "text": text, "start": start, "stop": stop} for token, text, start, stop in pieces]
        )

    return router


def documented(model: type[RequestModel]) -> dict[str, Any]:
    """Describe a body in the API's schema: routes read it themselves, so FastAPI cannot see it."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def with_header_token(request: Request, parameters: GenerateParameters) -> GenerateParameters:
    """Take the adapter token from the header ``Authorization: Bearer`` where the body has none."""
    header = request.headers.get("authorization", "")
    if parameters.api_token is not None or not header.startswith("Bearer "):
        return parameters
    return parameters.model_copy(update={"api_token": header.removeprefix("Bearer ")})


async def answer(
    generator: Generator,
    request: Request,
    call: Call,
    render: Callable[[Sequence, tuple[Sequence, ...] | None], object],
) -> Response:
    """Generate to the end and answer with what ``render`` makes of it, under LoRAX's headers."""
    outcome = await until_disconnect(request, generator.run(call))
    if outcome is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    best, losers = outcome
    return json_response(render(best, losers), headers=_response_headers(generator, call, best))


def answer_stream(generator: Generator, call: Call, events: AsyncGenerator[bytes, None]) -> Response:
    """Answer with events under the headers that are known before the first token."""
    return EventStream(
        events,
        headers={
            "x-compute-type": "gpu+optimized",
            "x-compute-characters": str(len(call.inputs)),
            "X-Accel-Buffering": "no",
            **_identity_headers(generator, call),
        },
        keep_alive_seconds=generator.settings.keep_alive_seconds,
    )


async def _native_events(generator: Generator, call: Call) -> AsyncGenerator[bytes, None]:
    try:
        async with closing(generator.stream(call)) as steps:
            async for step in steps:
                yield encode_event(_stream_response(call, step))
    except RequestError as error:
        yield encode_event(error.body())


def _call(request: Request, body: GenerateRequest, settings: ServerSettings) -> Call:
    parameters = with_header_token(request, body.parameters)
    if parameters.return_full_text is None:
        parameters = parameters.model_copy(update={"return_full_text": settings.return_full_text})
    return Call(inputs=body.inputs, parameters=parameters)


def _identity_headers(generator: Generator, call: Call) -> dict[str, str]:
    headers = {"x-model-id": generator.engine.info.model_id}
    names = ",".join(adapter_header_ids(call.parameters))
    source = call.parameters.adapter_source or generator.settings.default_adapter_source
    # A name that no header can carry is refused by validation, which in a stream runs after the headers.
    if names and names.isascii() and names.isprintable() and source.isascii() and source.isprintable():
        headers |= {"x-adapter-id": names, "x-adapter-source": source}
    return headers


def _response_headers(generator: Generator, call: Call, best: Sequence) -> dict[str, str]:
    finished, count = best.finished, max(best.finished.generated_tokens, 1)
    after_first_ms = best.total_ms - best.first_token_ms
    milliseconds = {
        "x-compute-time": best.total_ms,
        "x-total-time": best.total_ms,
        "x-validation-time": best.validation_ms,
        "x-queue-time": finished.queue_ms,
        "x-inference-time": finished.inference_ms,
        "x-time-per-token": finished.inference_ms / count,
        "x-time-to-first-token": best.first_token_ms,
        "x-time-per-output-token": after_first_ms / max(count - 1, 1),
    }
    counts = {
        "x-compute-characters": len(call.inputs),
        "x-prompt-tokens": best.prompt_tokens,
        "x-generated-tokens": finished.generated_tokens,
        "x-skipped-tokens": 0,
        "x-total-tokens": best.prompt_tokens + finished.generated_tokens,
    }
    return {
        "x-compute-type": "gpu+optimized",
        **{name: str(int(value)) for name, value in milliseconds.items()},
        **{name: str(value) for name, value in counts.items()},
        **_identity_headers(generator, call),
    }


def _generate_response(call: Call, best: Sequence, losers: tuple[Sequence, ...] | None) -> dict[str, Any]:
    response: dict[str, Any] = {"generated_text": _text(call, best)}
    if call.parameters.details or call.parameters.decoder_input_details:
        details = {"prompt_tokens": best.prompt_tokens, **_details(call, best)}
        if losers is not None:
            details["best_of_sequences"] = [
                {"generated_text": _text(call, loser), **_details(call, loser)} for loser in losers
            ]
        response["details"] = details
    return response


def _details(call: Call, sequence: Sequence) -> dict[str, Any]:
    finished = sequence.finished
    return {
        "finish_reason": finished.reason,
        "generated_tokens": finished.generated_tokens,
        "skipped_tokens": 0,
        "seed": sequence.seed,
        "prefill": [{"id": token, "text": text, "logprob": logprob} for token, text, logprob in finished.prefill],
        "tokens": [_token(call, token) for token in sequence.tokens],
    }


def _stream_response(call: Call, step: StreamStep) -> dict[str, Any]:
    text: str | None = None
    details: dict[str, Any] | None = None
    if step.sequence is not None:
        text = _text(call, step.sequence)
        if call.parameters.details:
            details = {
                "finish_reason": step.sequence.finished.reason,
                "prompt_tokens": step.sequence.prompt_tokens,
                "generated_tokens": step.sequence.finished.generated_tokens,
                "skipped_tokens": 0,
                "seed": step.sequence.seed,
            }
    return {"token": _token(call, step.token), "generated_text": text, "details": details}


def _token(call: Call, token: Token) -> dict[str, Any]:
    encoded: dict[str, Any] = {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}
    if call.parameters.return_k_alternatives:
        encoded["alternative_tokens"] = [
            {"id": other, "text": text, "logprob": logprob} for other, text, logprob in token.alternatives
        ]
    encoded["skipped"] = False
    return encoded


def _text(call: Call, sequence: Sequence) -> str:
    return call.inputs + sequence.finished.text if call.parameters.return_full_text else sequence.finished.text
