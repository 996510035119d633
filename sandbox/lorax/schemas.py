"""Shapes of the native routes' requests, as LoRAX's serde structs accept them (router/src/lib.rs).

Unknown fields are ignored. Numbers, strings and booleans are not converted into each other. ``null`` is accepted for
the optional fields only: a field with a plain type and a default may be left out but not be null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ARBITRARY_JSON_SCHEMA",
    "U32_MAX",
    "U64_MAX",
    "CompatGenerateRequest",
    "GenerateParameters",
    "GenerateRequest",
    "MergedAdapters",
    "ReferenceRequest",
    "RequestModel",
    "ResponseFormat",
    "TokenizeRequest",
]

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1

U32 = Annotated[int, Field(ge=0, le=U32_MAX)]
U64 = Annotated[int, Field(ge=0, le=U64_MAX)]
I32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]

ARBITRARY_JSON_SCHEMA: dict[str, Any] = {
    "additionalProperties": {"type": ["object", "string", "integer", "number", "boolean", "null"]},
    "title": "ArbitraryJsonModel",
    "type": "object",
}
"""What a ``response_format`` without a schema asks for (router/src/lib.rs, ``default_json_schema``)."""


class RequestModel(BaseModel):
    """Base of all request bodies: strict types, unknown fields ignored as serde does."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


class MergedAdapters(RequestModel):
    """Several adapters to be merged into one, with a weight each."""

    ids: tuple[str, ...]
    weights: tuple[float, ...] = ()
    merge_strategy: str | None = None
    density: float = 0.0
    majority_sign_method: str | None = None


class ResponseFormat(RequestModel):
    """Constraint on the text. Only ``schema`` counts: left out it is any JSON object, null is no constraint."""

    type: Literal["Text", "text", "JsonObject", "json_object", "JsonSchema", "json_schema"]
    # Any JSON value is accepted here, as LoRAX does; one that is no schema fails in generation.
    json_schema: Any = Field(default_factory=lambda: dict(ARBITRARY_JSON_SCHEMA), alias="schema")


class GenerateParameters(RequestModel):
    """How to generate. Values are checked by ``schemas_validation``, after the shape."""

    adapter_id: str | None = None
    adapter_source: str | None = None
    merged_adapters: MergedAdapters | None = None
    api_token: str | None = Field(default=None, repr=False)
    best_of: U64 | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_k: I32 | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: U32 | None = None
    ignore_eos_token: bool = False
    return_full_text: bool | None = None
    stop: tuple[str, ...] = ()
    truncate: U64 | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    return_k_alternatives: I32 | None = None
    apply_chat_template: bool = False
    seed: U64 | None = None
    response_format: ResponseFormat | None = None


class GenerateRequest(RequestModel):
    """Body of ``/generate`` and ``/generate_stream``."""

    inputs: str
    parameters: GenerateParameters = GenerateParameters()


class CompatGenerateRequest(GenerateRequest):
    """Body of ``/`` and ``/invocations``, where ``stream`` chooses the kind of answer."""

    stream: bool = False


class TokenizeRequest(RequestModel):
    """Body of ``/tokenize``."""

    inputs: str
    add_special_tokens: bool | None = None


class ReferenceRequest(RequestModel):
    """Body of the sandbox's own ``/sandbox/reference``: score these ids with transformers and PEFT alone."""

    input_ids: Annotated[tuple[U32, ...], Field(min_length=1)]
    adapter_id: str | None = None
    adapter_source: str | None = None
    api_token: str | None = Field(default=None, repr=False)
