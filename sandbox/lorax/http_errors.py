"""What goes wrong in a request, with the status, type and wording of LoRAX's router (router/src/infer.rs, server.rs).

RequestError
├── BodyError               400, 413, 415, 422   the body is not the JSON that the route wants
├── ValidationError         422 validation       a value breaks a rule
├── OverloadedError         429 overloaded       no permit left
├── GenerationError         424 generation       adapter or batch failed
├── IncompleteGenerationError 500 incomplete_generation
├── TemplateError           422 template_error   the chat template is missing or refuses the messages
├── ToolError               422 tool_error       tools cannot be used as asked
├── TokenizerError          404 no fast tokenizer
├── UnhealthyError          503 healthcheck
└── StartupError            500 failed healthcheck
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BodyError",
    "GenerationError",
    "IncompleteGenerationError",
    "OverloadedError",
    "RequestError",
    "StartupError",
    "TemplateError",
    "TokenizerError",
    "ToolError",
    "UnhealthyError",
    "ValidationError",
]


class RequestError(Exception):
    """A request that gets an error body instead of text.

    Attributes:
        status: HTTP status where the answer has not begun; a running stream stays 200 and gets an error event.
        error_type: The ``error_type`` of the body.
        label: Value of the label ``err`` of the metric ``lorax_request_failure``.
        prefix: Text that LoRAX puts before the reason.
    """

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "error"
    label: ClassVar[str] = "generation"
    prefix: ClassVar[str] = ""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.prefix}{reason}")

    @property
    def http_status(self) -> int:
        """Status of the answer."""
        return self.status

    def body(self) -> dict[str, str]:
        """The JSON body, or the payload of the event in a stream."""
        return {"error": str(self), "error_type": self.error_type}


class BodyError(RequestError):
    """The body cannot be read as what the route wants.

    LoRAX leaves these to axum, which answers in plain text; clients that expect JSON then show an empty message or fail
    in their parser. Status and wording here are axum's, the body is JSON, and the type is none of those that clients
    map by name, so that their mapping by status gives the class that it gives for LoRAX.
    """

    error_type = "bad_request"
    label = "bad_request"

    def __init__(self, reason: str, *, status: int) -> None:
        super().__init__(reason)
        self._status = status

    @property
    def http_status(self) -> int:
        """Status of the answer: 400, 413, 415 or 422."""
        return self._status


class ValidationError(RequestError):
    """A value breaks one of the router's rules."""

    status = 422
    error_type = "validation"
    label = "validation"
    prefix = "Input validation error: "


class OverloadedError(RequestError):
    """Every permit is taken."""

    status = 429
    error_type = "overloaded"
    label = "overloaded"

    def __init__(self) -> None:
        super().__init__("Model is overloaded")


class GenerationError(RequestError):
    """The engine could not generate: the adapter cannot be had, or its batch failed."""

    status = 424
    error_type = "generation"
    prefix = "Request failed during generation: Server error: "

    def __init__(self, reason: str, *, from_adapter: bool = False) -> None:
        super().__init__(reason)
        self.from_adapter = from_adapter


class IncompleteGenerationError(RequestError):
    """The engine stopped without saying why."""

    error_type = "incomplete_generation"
    label = "incomplete"

    def __init__(self) -> None:
        super().__init__("Incomplete generation")


class TemplateError(RequestError):
    """The chat template is missing or refuses the messages."""

    status = 422
    error_type = "template_error"
    label = "template"
    prefix = "Failed applying chat template to inputs: "


class ToolError(RequestError):
    """Tools cannot be used as asked, or the model's answer is no tool call."""

    status = 422
    error_type = "tool_error"
    label = "validation"
    prefix = "Tool error: "


class TokenizerError(RequestError):
    """The base model has no tokenizer that reports offsets."""

    status = 404
    error_type = "no fast tokenizer"
    label = "bad_request"


class UnhealthyError(RequestError):
    """The engine did not answer the health probe."""

    status = 503
    error_type = "healthcheck"

    def __init__(self) -> None:
        super().__init__("unhealthy")


class StartupError(RequestError):
    """The start-up probe generated nothing."""

    error_type = "failed healthcheck"

    def __init__(self) -> None:
        super().__init__("Empty generation")
