"""The router's rules on values, in LoRAX's order, and the engine request that comes out.

Rules and texts are those of LoRAX's router/src/validation.rs; where a request breaks several, the first one decides.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from sandbox.lorax.contract import AdapterRequest, Engine, GenerationRequest, Sampling
from sandbox.lorax.http_errors import GenerationError, ValidationError
from sandbox.lorax.http_settings import ADAPTER_SOURCES, BASE_MODEL_ADAPTER_ID, ServerSettings
from sandbox.lorax.schemas import GenerateParameters, MergedAdapters

__all__ = ["ValidRequest", "adapter_header_ids", "adapter_request", "check_best_of", "check_streamable", "validate"]

MERGE_STRATEGIES = ("linear", "ties", "dare_linear", "dare_ties")
MAJORITY_SIGN_METHODS = ("total", "frequency")


@dataclass(frozen=True, kw_only=True)
class ValidRequest:
    """A request that passed every rule.

    ``seed`` is what the answer reports: the seed in use when sampling, None when greedy.
    """

    generation: GenerationRequest
    seed: int | None


def check_best_of(best_of: int, settings: ServerSettings) -> None:
    """Refuse a ``best_of`` above the limit. LoRAX asks this before it counts the request as running."""
    if settings.max_best_of == 1 and best_of != 1:
        raise ValidationError("`best_of` != 1 is not allowed for this endpoint")
    if best_of > settings.max_best_of:
        raise ValidationError(f"`best_of` must be > 0 and <= {settings.max_best_of}. Given: {best_of}")


def check_streamable(parameters: GenerateParameters) -> None:
    """Refuse what a stream cannot carry."""
    if parameters.best_of is not None and parameters.best_of != 1:
        raise ValidationError("`best_of` != 1 is not supported when streaming tokens")
    if parameters.decoder_input_details:
        raise ValidationError("`decoder_input_details` == true is not supported when streaming tokens")


def adapter_header_ids(parameters: GenerateParameters) -> tuple[str, ...]:
    """Adapter ids that a request names, the base model's left out; these name the answer."""
    merged = parameters.merged_adapters
    ids = (parameters.adapter_id or "",) if merged is None else merged.ids
    return tuple(name for name in ids if name not in {"", BASE_MODEL_ADAPTER_ID})


def validate(
    inputs: str,
    parameters: GenerateParameters,
    *,
    engine: Engine,
    settings: ServerSettings,
    add_special_tokens: bool,
) -> ValidRequest:
    """Apply every rule in LoRAX's order and build the engine's request.

    Raises:
        ValidationError: The first rule that is broken.
        GenerationError: Accepted by the router, but certain to fail in the engine.
    """
    _check_adapters(parameters)
    _check_values(parameters, settings)
    if not inputs:
        raise ValidationError("`inputs` cannot be empty")
    limits = engine.info
    if parameters.truncate is not None and not 0 < parameters.truncate <= limits.max_input_length:
        raise ValidationError(
            f"`truncate` must be strictly positive and less than {limits.max_input_length}. "
            f"Given: {parameters.truncate}"
        )
    input_ids = engine.encode(inputs, add_special_tokens=add_special_tokens)
    _check_lengths(len(input_ids), parameters.max_new_tokens, limits.max_total_tokens, limits.max_input_length)
    max_new_tokens = parameters.max_new_tokens or limits.max_total_tokens - len(input_ids)
    # LoRAX truncates after its length checks, so a prompt that is too long is refused whatever `truncate` says.
    if parameters.truncate is not None:
        input_ids = input_ids[-parameters.truncate :]
    sampling = _sampling(parameters)
    return ValidRequest(
        generation=GenerationRequest(
            input_ids=input_ids,
            max_new_tokens=max_new_tokens,
            adapter=adapter_request(parameters, settings),
            sampling=sampling,
            stop=parameters.stop,
            ignore_eos_token=parameters.ignore_eos_token,
            prefill_logprobs=parameters.decoder_input_details,
            alternatives=parameters.return_k_alternatives or 0,
        ),
        seed=sampling.seed if sampling.do_sample else None,
    )


def adapter_request(parameters: GenerateParameters, settings: ServerSettings) -> AdapterRequest | None:
    """Return the adapter that a request wants, or None for the base model.

    Raises:
        GenerationError: The base model is one of several adapters to be merged, or this server preloads and the adapter
            is not among the preloaded ones.
    """
    source = parameters.adapter_source or settings.default_adapter_source
    if source.lower() in ADAPTER_SOURCES:
        source = source.lower()
    merged = parameters.merged_adapters
    if merged is None or len(merged.ids) == 1:
        # A merge of one adapter is that adapter; its weight is ignored.
        name = parameters.adapter_id if merged is None else merged.ids[0]
        if name is None or name in {"", BASE_MODEL_ADAPTER_ID}:
            return None
        _check_preloaded((name,), settings)
        return AdapterRequest(ids=(name,), source=source, api_token=parameters.api_token)
    _check_preloaded(merged.ids, settings)
    if BASE_MODEL_ADAPTER_ID in merged.ids:
        raise GenerationError(f"the base model ({BASE_MODEL_ADAPTER_ID}) cannot be merged with adapters")
    return AdapterRequest(
        ids=merged.ids,
        source=source,
        api_token=parameters.api_token,
        weights=merged.weights,
        merge_strategy=(merged.merge_strategy or "linear").lower(),
        density=merged.density,
        majority_sign_method=(merged.majority_sign_method or "total").lower(),
    )


def _check_preloaded(ids: tuple[str, ...], settings: ServerSettings) -> None:
    if settings.preloaded_adapter_ids and (len(ids) > 1 or ids[0] not in settings.preloaded_adapter_ids):
        raise GenerationError(
            "This model does not support dynamic adapter loading. It serves its preloaded adapters only: "
            f"{', '.join(settings.preloaded_adapter_ids)}",
            from_adapter=True,
        )


def _check_adapters(parameters: GenerateParameters) -> None:
    merged = parameters.merged_adapters
    if merged is not None:
        if parameters.adapter_id is not None:
            raise ValidationError("at most one of `adapter_id` or `adapters` may be provided")
        if not merged.ids:
            raise ValidationError("at least one adapter ID must be provided when setting `adapters`")
        if len(merged.ids) != len(merged.weights):
            raise ValidationError("number of adapter IDs must match number of adapter weights")
        _check_merge_words(merged)
    # LoRAX's router dies on the next two (an unwrap with panic=abort); refusing is the nearest that keeps serving.
    for name in (*adapter_header_ids(parameters), parameters.adapter_source or ""):
        if not (name.isascii() and (name.isprintable() or not name)):
            raise ValidationError(f"adapter ids and sources must be printable ASCII. Given: {name!r}")


def _check_merge_words(merged: MergedAdapters) -> None:
    for field, given, known in (
        ("merge_strategy", merged.merge_strategy, MERGE_STRATEGIES),
        ("majority_sign_method", merged.majority_sign_method, MAJORITY_SIGN_METHODS),
    ):
        if given is not None and given.lower() not in known:
            raise ValidationError(f"`{field}` must be one of {', '.join(known)}. Given: {given}")


def _check_values(p: GenerateParameters, settings: ServerSettings) -> None:
    several = (p.best_of or 1) > 1
    sampling = p.do_sample or any(value is not None for value in (p.temperature, p.top_k, p.top_p, p.typical_p))
    rules = (
        (several and not sampling, "you must use sampling when `best_of` is > 1"),
        (p.temperature is not None and p.temperature < 0, "`temperature` must be non-negative"),
        (
            p.repetition_penalty is not None and p.repetition_penalty <= 0,
            "`repetition_penalty` must be strictly positive",
        ),
        (not -2 <= (p.frequency_penalty or 0) <= 2, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        (not -2 <= (p.presence_penalty or 0) <= 2, "`presence_penalty` must be >= -2.0 and <= 2.0"),
        # LoRAX accepts exactly 1.0 too, whatever its message says.
        (p.top_p is not None and not 0 < p.top_p <= 1, "`top_p` must be > 0.0 and < 1.0"),
        (p.typical_p is not None and not 0 < p.typical_p < 1, "`typical_p` must be > 0.0 and < 1.0"),
        (p.top_k is not None and p.top_k <= 0, "`top_k` must be strictly positive"),
        (
            p.return_k_alternatives is not None and p.return_k_alternatives <= 0,
            "`return_k_alternatives` must be strictly positive",
        ),
        (p.max_new_tokens == 0, "`max_new_tokens` must be strictly positive"),
        (
            len(p.stop) > settings.max_stop_sequences,
            f"`stop` supports up to {settings.max_stop_sequences} stop sequences. Given: {len(p.stop)}",
        ),
        (several and p.seed is not None, "`seed` must not be set when `best_of` > 1"),
    )
    for broken, text in rules:
        if broken:
            raise ValidationError(text)


def _check_lengths(input_length: int, max_new_tokens: int | None, max_total_tokens: int, max_input_length: int) -> None:
    if max_new_tokens is not None and input_length + max_new_tokens > max_total_tokens:
        raise ValidationError(
            f"`inputs` tokens + `max_new_tokens` must be <= {max_total_tokens}. "
            f"Given: {input_length} `inputs` tokens and {max_new_tokens} `max_new_tokens`"
        )
    if input_length > max_input_length:
        raise ValidationError(f"`inputs` must have less than {max_input_length} tokens. Given: {input_length}")


def _sampling(p: GenerateParameters) -> Sampling:
    """Decide whether tokens are sampled, as LoRAX's Python server does (lorax_server/utils/tokens.py)."""
    temperature = 1.0 if p.temperature is None else p.temperature
    top_p = 1.0 if p.top_p is None else p.top_p
    typical_p = 1.0 if p.typical_p is None else p.typical_p
    asked = p.do_sample or temperature not in {0.0, 1.0} or p.top_k is not None or top_p < 1 or typical_p < 1
    return Sampling(
        do_sample=asked and temperature != 0,
        temperature=temperature,
        top_k=p.top_k or 0,
        top_p=top_p,
        typical_p=typical_p,
        repetition_penalty=1.0 if p.repetition_penalty is None else p.repetition_penalty,
        frequency_penalty=p.frequency_penalty or 0.0,
        presence_penalty=p.presence_penalty or 0.0,
        seed=secrets.randbits(64) if p.seed is None else p.seed,
        json_schema=_json_schema(p),
    )


def _json_schema(p: GenerateParameters) -> dict[str, Any] | None:
    schema = None if p.response_format is None else p.response_format.json_schema
    if schema is None or isinstance(schema, dict):
        return schema
    raise GenerationError(f"response_format.schema must be a JSON schema object, not {type(schema).__name__}")
