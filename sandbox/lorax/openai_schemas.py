"""Shapes of the OpenAI routes' requests, and what they become for the generator (LoRAX's router/src/lib.rs)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.lorax.schemas import (
    ARBITRARY_JSON_SCHEMA,
    I32,
    U64,
    GenerateParameters,
    RequestModel,
    ResponseFormat,
)

__all__ = ["ChatCompletionRequest", "CompletionRequest", "Message", "Tool", "chat_parameters", "completion_parameters"]


class _OpenAIRequest(RequestModel):
    """Fields that both routes take."""

    model: str
    temperature: float | None = None
    top_p: float | None = None
    n: I32 | None = None
    max_tokens: I32 | None = None
    stop: tuple[str, ...] = ()
    stream: bool | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    seed: U64 | None = None
    repetition_penalty: float | None = None
    top_k: I32 | None = None
    ignore_eos_token: bool | None = None
    adapter_source: str | None = None
    api_token: str | None = Field(default=None, repr=False)


class CompletionRequest(_OpenAIRequest):
    """Body of ``/v1/completions``. ``prompt`` is one string, ``stop`` a list."""

    prompt: str
    suffix: str | None = None
    logprobs: I32 | None = None
    echo: bool | None = None
    best_of: I32 | None = None


class TextChunk(RequestModel):
    """A piece of text in a message."""

    type: Literal["text"]
    text: str


class ImageUrl(RequestModel):
    """Where an image is."""

    url: str


class ImageChunk(RequestModel):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Chunk = Annotated[TextChunk | ImageChunk, Field(discriminator="type")]


class Message(RequestModel):
    """One turn of a conversation."""

    role: str
    content: str | tuple[Chunk, ...]
    name: str | None = None

    def text(self) -> str:
        """The content as the chat template sees it: chunks joined, images as Markdown."""
        if isinstance(self.content, str):
            return self.content
        return "".join(
            chunk.text if isinstance(chunk, TextChunk) else f"![]({chunk.image_url.url})" for chunk in self.content
        )


class JsonSchema(RequestModel):
    """OpenAI's wrapper around a schema."""

    name: str
    description: str | None = None
    json_schema: Any = Field(default=None, alias="schema")
    strict: bool | None = None


class ChatResponseFormat(RequestModel):
    """OpenAI's ``response_format``, with the older ``schema`` beside it."""

    type: Literal["Text", "text", "JsonObject", "json_object", "JsonSchema", "json_schema"]
    json_schema: JsonSchema | None = None
    legacy_schema: Any = Field(default=None, alias="schema")

    def native(self) -> ResponseFormat | None:
        """Return what the native routes call this; None where the text is free."""
        if self.type in {"Text", "text"}:
            return None
        if self.type in {"JsonObject", "json_object"}:
            schema = self.legacy_schema
        else:
            schema = None if self.json_schema is None else self.json_schema.json_schema
        return ResponseFormat(type=self.type, schema=ARBITRARY_JSON_SCHEMA if schema is None else schema)


class Function(RequestModel):
    """A function that the model may call; ``parameters`` is the JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: Any = None


class Tool(RequestModel):
    """A tool; functions are the only kind."""

    type: str
    function: Function


class NamedFunction(RequestModel):
    """The name of one function."""

    name: str


class NamedTool(RequestModel):
    """OpenAI's way to force one function."""

    function: NamedFunction


class ChatCompletionRequest(_OpenAIRequest):
    """Body of ``/v1/chat/completions``."""

    messages: tuple[Message, ...]
    response_format: ChatResponseFormat | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: str | NamedTool | None = None
    tool_prompt: str | None = None
    guideline: str | None = None


def completion_parameters(body: CompletionRequest, base_model_id: str) -> GenerateParameters:
    """Translate a completion; greedy unless ``n`` is there at all, and ``logprobs`` asks for the prompt's details."""
    return _parameters(
        body,
        base_model_id,
        best_of=_unsigned(body.best_of, bits=64),
        temperature=body.temperature,
        do_sample=body.n is not None,
        return_full_text=body.echo,
        decoder_input_details=body.logprobs is not None,
    )


def chat_parameters(
    body: ChatCompletionRequest, base_model_id: str, response_format: ResponseFormat | None
) -> GenerateParameters:
    """Translate a chat; sampled unless the temperature is exactly 0, and ``n`` is ``best_of``."""
    greedy = body.temperature == 0
    return _parameters(
        body,
        base_model_id,
        best_of=_unsigned(body.n, bits=64),
        temperature=None if greedy else body.temperature,
        do_sample=not greedy,
        response_format=response_format,
    )


def _parameters(body: _OpenAIRequest, base_model_id: str, **own: Any) -> GenerateParameters:  # noqa: ANN401  # pydantic checks
    return GenerateParameters(
        adapter_id="" if body.model == base_model_id else body.model,
        adapter_source=body.adapter_source,
        api_token=body.api_token,
        top_p=body.top_p,
        top_k=body.top_k,
        max_new_tokens=_unsigned(body.max_tokens, bits=32),
        stop=body.stop,
        seed=body.seed,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        ignore_eos_token=bool(body.ignore_eos_token),
        details=True,
        **own,
    )


def _unsigned(value: int | None, *, bits: int) -> int | None:
    """Cast as Rust's ``as`` does: a negative count becomes a huge one, and validation refuses that."""
    return None if value is None else value % 2**bits
