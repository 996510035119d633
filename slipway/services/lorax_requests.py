"""What is sent to a LoRAX server: bodies of requests, refused here where LoRAX would guess, or die.

Native requests are typed by ``lorax.types`` of the official client, which checks the parameters as the server does;
once for all prompts that are asked with the same parameters, as it takes five times as long as writing a prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr, ValidationError

from slipway.adapter import Source
from slipway.errors import InvalidRequestError
from slipway.services.http_errors import Service
from slipway.services.lorax_models import GREEDY, GenerationParameters
from slipway.services.lorax_types import first_error, lorax_modules

if TYPE_CHECKING:
    from lorax.types import Parameters

__all__ = ["LoraxRequests"]

_NOT_IN_CHAT = ("typical_p", "truncate", "prefill_logprobs", "alternatives", "best_of")

_MAX_KEPT = 256
"""Written parameters kept at a time: an evaluation has one set per arm, and one per case that differs."""

_ENCODER = json.JSONEncoder(ensure_ascii=False)


class LoraxRequests:
    """Builds bodies for one server.

    Args:
        service: Named in errors.
        base_url: Named in errors.
        adapter_token: Sent as ``api_token`` with each adapter.
    """

    def __init__(self, service: Service, base_url: str, *, adapter_token: SecretStr | None) -> None:
        self._service = service
        self._base_url = base_url
        self._adapter_token = adapter_token
        self._written: dict[tuple[str | None, Source | None, int], tuple[GenerationParameters, bytes]] = {}
        """By adapter and identity of the parameters, which live as long as they are kept here: to hash them is slow."""

    def generation(
        self, prompt: str, adapter_id: str | None, adapter_source: Source | None, parameters: GenerationParameters
    ) -> bytes:
        """Make the body of ``/generate``.

        Raises:
            InvalidRequestError: LoRAX would refuse it, or guess what is meant.
        """
        errors, types = lorax_modules()
        try:
            if not prompt:
                types.Request(inputs=prompt)  # says why not
            kept = self._written.get((adapter_id, adapter_source, id(parameters)))
            rest = kept[1] if kept else self._rest_of_generation(adapter_id, adapter_source, parameters)
            return b'{"inputs":%b,%b' % (_ENCODER.encode(prompt).encode(), rest)
        except errors.ValidationError as error:
            raise self._refused(f"a generation with these parameters ({error})", "Correct the parameters.") from error
        except ValidationError as error:
            raise self._refused(f"a generation with these parameters ({first_error(error)})", "Correct them.") from None
        except ValueError as error:  # half of a surrogate pair, which no UTF-8 can hold
            raise self._refused("a prompt that is no Unicode text", "Correct the prompt.") from error

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        adapter_id: str | None,
        adapter_source: Source | None,
        parameters: GenerationParameters,
    ) -> bytes:
        """Make the body of ``/v1/chat/completions``.

        Raises:
            InvalidRequestError: As ``generation``; also for what that route does not have.
        """
        self.check_adapter(adapter_id, adapter_source)
        for name in _NOT_IN_CHAT:
            if getattr(parameters, name) != getattr(GREEDY, name):
                raise self._refused(f"a chat with {name}", "Use `generate`, or leave it out.")
        schema = parameters.json_schema
        samples = parameters.do_sample or any(
            value is not None for value in (parameters.temperature, parameters.top_k, parameters.top_p)
        )
        body: dict[str, object | None] = {
            "model": adapter_id or "",
            "messages": [dict(message) for message in messages],
            "adapter_source": adapter_source.value if adapter_source else None,
            "api_token": self._api_token(adapter_id),
            "max_tokens": parameters.max_new_tokens,
            # This route samples unless the temperature is exactly 0 (router/src/lib.rs).
            "temperature": parameters.temperature if samples else 0,
            "top_k": parameters.top_k,
            "top_p": parameters.top_p,
            "repetition_penalty": parameters.repetition_penalty,
            "seed": parameters.seed,
            "stop": list(parameters.stop) or None,
            "ignore_eos_token": parameters.ignore_eos_token or None,
            "response_format": None if schema is None else {"type": "json_object", "schema": dict(schema)},
        }
        return self.encoded({key: value for key, value in body.items() if value is not None})

    def encoded(self, body: object) -> bytes:
        """Write a body as JSON.

        Raises:
            InvalidRequestError: It holds what JSON or UTF-8 cannot.
        """
        try:
            return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except ValueError as error:
            raise self._refused(
                "something that is no Unicode text or no finite number", "Correct prompt and parameters."
            ) from error

    def check_adapter(self, adapter_id: str | None, adapter_source: Source | None) -> None:
        """Refuse what LoRAX would guess about, or die of.

        Raises:
            InvalidRequestError: With what to name instead.
        """
        if adapter_id is None:
            if adapter_source is not None:
                raise self._refused("an adapter source without an adapter", "Give both, or neither for the base model.")
            return
        if adapter_source is None:
            raise self._refused(f"the adapter {adapter_id!r} without its source", "Say hub, s3, local or pbase.")
        # Other characters cannot stand in the reply's headers and abort the router (router/src/server.rs).
        if not adapter_id or not all("!" <= character <= "~" for character in adapter_id):
            raise self._refused(f"the adapter id {adapter_id!r}", "Use printable ASCII without spaces.")
        if adapter_source is Source.PBASE:
            repo, _, tag = adapter_id.partition("/")
            if not repo or not tag.isdecimal():
                # A bare repository would be "the latest", which nobody tested.
                raise self._refused(f"the adapter id {adapter_id!r}", "Name the version: REPO/TAG, such as support/4.")

    def _rest_of_generation(
        self, adapter_id: str | None, adapter_source: Source | None, parameters: GenerationParameters
    ) -> bytes:
        """Write all that comes after the prompt."""
        _, types = lorax_modules()
        request = types.Request(inputs="?", parameters=self._typed_parameters(adapter_id, adapter_source, parameters))
        written: str = request.model_dump_json(by_alias=True, exclude={"inputs"})
        rest = written.removeprefix("{").encode()
        if parameters.json_schema is None:  # a schema may be changed from outside
            if len(self._written) >= _MAX_KEPT:
                self._written.clear()
            self._written[adapter_id, adapter_source, id(parameters)] = parameters, rest
        return rest

    def _typed_parameters(
        self, adapter_id: str | None, adapter_source: Source | None, parameters: GenerationParameters
    ) -> Parameters:
        _, types = lorax_modules()
        self.check_adapter(adapter_id, adapter_source)
        typed = types.Parameters(
            adapter_id=adapter_id,
            adapter_source=adapter_source.value if adapter_source else None,
            api_token=self._api_token(adapter_id),
            details=True,
            do_sample=parameters.do_sample,
            max_new_tokens=parameters.max_new_tokens,
            temperature=parameters.temperature,
            top_k=parameters.top_k,
            top_p=parameters.top_p,
            typical_p=parameters.typical_p,
            repetition_penalty=parameters.repetition_penalty,
            seed=parameters.seed,
            best_of=parameters.best_of,
            stop=list(parameters.stop),
            ignore_eos_token=parameters.ignore_eos_token,
            truncate=parameters.truncate,
            decoder_input_details=parameters.prefill_logprobs,
            return_k_alternatives=parameters.alternatives,
            response_format=None
            if parameters.json_schema is None
            else types.ResponseFormat(type="json_object", schema=dict(parameters.json_schema)),
        )
        for name in ("temperature", "top_p", "typical_p", "repetition_penalty"):
            value = getattr(typed, name)
            if value is not None and not math.isfinite(value):  # would travel as null, which means something else
                raise self._refused(f"a generation with {name} {value}", "Give a finite number.")
        return typed

    def _api_token(self, adapter_id: str | None) -> str | None:
        return self._adapter_token.get_secret_value() if self._adapter_token is not None and adapter_id else None

    def _refused(self, what: str, fix: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._service.name}: {what} cannot be asked for.",
            service=self._service.name,
            url=self._base_url,
            fix=fix,
        )
