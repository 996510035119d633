"""The OpenAI-shaped routes, with LoRAX's own ideas of them (router/src/server.rs, router/src/lib.rs).

``model`` names the adapter; ids are the string "null"; a stop string ends with ``content_filter``; a completion stream
carries usage in every chunk, a chat stream only in the last.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from sandbox.lorax.contract import FinishReason
from sandbox.lorax.http_errors import RequestError, TemplateError
from sandbox.lorax.http_generation import Call, Generator, Sequence, StreamStep
from sandbox.lorax.http_messages import DONE_EVENT, closing, encode_event, read_body
from sandbox.lorax.native_routes import answer, answer_stream, documented, with_header_token
from sandbox.lorax.openai_schemas import (
    ChatCompletionRequest,
    CompletionRequest,
    chat_parameters,
    completion_parameters,
)
from sandbox.lorax.openai_tools import messages_with_tools, read_tool_answer, tool_response_format

__all__ = ["router_of"]

FINISH_REASONS = {
    FinishReason.EOS_TOKEN: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.STOP_SEQUENCE: "content_filter",
}

SYSTEM_FINGERPRINT = "0.1.0-native"
"""Version and build of the router, as LoRAX writes them outside its image."""


def router_of(generator: Generator) -> APIRouter:
    """Build the OpenAI routes over one generator."""
    router = APIRouter(prefix="/v1", tags=["OpenAI Compatible"])
    settings, model_id = generator.settings, generator.engine.info.model_id

    @router.post("/completions", openapi_extra=documented(CompletionRequest))
    async def completions(request: Request) -> Response:
        """Complete one prompt."""
        body = await read_body(request, CompletionRequest, max_bytes=settings.max_body_bytes)
        parameters = with_header_token(request, completion_parameters(body, model_id))
        call = Call(inputs=body.prompt, parameters=parameters)
        if body.stream:
            return answer_stream(generator, call, _events(generator, call, _completion_chunk))
        return await answer(generator, request, call, lambda best, _: _completion(call, best))

    @router.post("/chat/completions", openapi_extra=documented(ChatCompletionRequest))
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation, written with the base model's chat template."""
        body = await read_body(request, ChatCompletionRequest, max_bytes=settings.max_body_bytes)
        try:
            tools = tool_response_format(body)
            inputs = _render_chat(generator, body)
        except RequestError as error:
            generator.metrics.request_failure.increment(error.label)
            raise
        free_format = None if body.response_format is None else body.response_format.native()
        parameters = with_header_token(request, chat_parameters(body, model_id, tools or free_format))
        call = Call(inputs=inputs, parameters=parameters, add_special_tokens=False)
        if body.stream:
            return answer_stream(generator, call, _events(generator, call, _chat_chunk))
        return await answer(
            generator,
            request,
            call,
            lambda best, _: _chat(best, model_id=model_id, is_tool_call=tools is not None),
        )

    return router


def _render_chat(generator: Generator, body: ChatCompletionRequest) -> str:
    try:
        return generator.engine.apply_chat_template(messages_with_tools(body))
    except ValueError as error:
        raise TemplateError(str(error)) from error


async def _events(
    generator: Generator, call: Call, render: Callable[[StreamStep], dict[str, Any]]
) -> AsyncGenerator[bytes, None]:
    try:
        async with closing(generator.stream(call)) as steps:
            async for step in steps:
                yield encode_event(render(step))
    except RequestError as error:
        yield encode_event(error.body())
    else:
        yield DONE_EVENT


def _completion(call: Call, best: Sequence) -> dict[str, Any]:
    text = call.inputs + best.finished.text if call.parameters.return_full_text else best.finished.text
    return {
        "id": "null",
        "object": "text_completion",
        "created": 0,
        "model": "null",
        "choices": [
            {"index": 0, "text": text, "logprobs": None, "finish_reason": FINISH_REASONS[best.finished.reason]}
        ],
        "usage": _usage(best),
    }


def _completion_chunk(step: StreamStep) -> dict[str, Any]:
    finish_reason = None if step.sequence is None else FINISH_REASONS[step.sequence.finished.reason]
    text = "" if finish_reason == "stop" else step.token.text
    return {
        "id": "null",
        "object": "text_completion",
        "created": 0,
        "model": "null",
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}],
        "usage": _usage(step.sequence),
    }


def _chat(best: Sequence, *, model_id: str, is_tool_call: bool) -> dict[str, Any]:
    text = best.finished.text
    message = read_tool_answer(text) if is_tool_call else {"role": "assistant", "content": text}
    return {
        "id": "null",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model_id,
        "choices": [{"index": 0, "message": message, "finish_reason": FINISH_REASONS[best.finished.reason]}],
        "usage": _usage(best),
        "system_fingerprint": SYSTEM_FINGERPRINT,
    }


def _chat_chunk(step: StreamStep) -> dict[str, Any]:
    finish_reason = None if step.sequence is None else FINISH_REASONS[step.sequence.finished.reason]
    delta = {} if finish_reason == "stop" else {"role": "assistant", "content": step.token.text}
    chunk: dict[str, Any] = {
        "id": "null",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "null",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    if step.sequence is not None:
        chunk["usage"] = _usage(step.sequence)
    return chunk


def _usage(sequence: Sequence | None) -> dict[str, int]:
    prompt = 0 if sequence is None else sequence.prompt_tokens
    generated = 0 if sequence is None else sequence.finished.generated_tokens
    return {"prompt_tokens": prompt, "total_tokens": prompt + generated, "completion_tokens": generated}
