"""Tool calls of the chat route: a schema that forces one, and reading it back (LoRAX's router/src/tool_grammar.rs)."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError as PydanticValidationError

from sandbox.lorax.http_errors import ToolError
from sandbox.lorax.openai_schemas import ChatCompletionRequest, Function, NamedTool, Tool
from sandbox.lorax.schemas import RequestModel, ResponseFormat

__all__ = ["messages_with_tools", "read_tool_answer", "tool_response_format"]

NO_TOOL = Tool(
    type="function",
    function=Function(
        name="no_tool",
        description="Answer in plain words instead of calling a function",
        parameters={
            "type": "object",
            "properties": {"content": {"type": "string", "description": "The answer"}},
            "required": ["content"],
        },
    ),
)
"""The choice that LoRAX adds to every list of tools."""

DEFAULT_TOOL_PROMPT = (
    "Answer with a JSON object that calls the one function above that suits the prompt best, as "
    "{name: function name, parameters: dictionary of argument name and its value}. Do not use variables."
)


class _Call(RequestModel):
    function: dict[str, Any]


def tool_response_format(body: ChatCompletionRequest) -> ResponseFormat | None:
    """Return the constraint that forces a tool call, or None where none is to be forced.

    Raises:
        ToolError: The tool that was chosen is not in the list, or there is a ``response_format`` too.
    """
    if not body.tools:
        return None
    if body.response_format is not None:
        raise ToolError("`response_format` and `tools` are mutually exclusive")
    tools = (*body.tools, NO_TOOL)
    chosen = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else body.tool_choice
    if chosen == "none":
        return None
    if chosen not in {None, "auto"}:
        tools = tuple(tool for tool in tools if tool.function.name == chosen)
        if not tools:
            raise ToolError(f"Tool with name {chosen} not found")
    schema = {
        "type": "object",
        "properties": {"function": {"anyOf": [_function_schema(tool.function) for tool in tools]}},
        "required": ["function"],
    }
    return ResponseFormat(type="json_schema", schema=schema)


def messages_with_tools(body: ChatCompletionRequest) -> list[dict[str, str]]:
    """Messages for the chat template; the tools and their prompt follow the last one's text."""
    messages = [{"role": message.role, "content": message.text()} for message in body.messages]
    if body.tools and messages:
        tools = [tool.model_dump() for tool in (*body.tools, NO_TOOL)]
        prompt = body.tool_prompt or DEFAULT_TOOL_PROMPT
        messages[-1]["content"] += f"\n---\n{json.dumps(tools, separators=(',', ':'))}\n{prompt}"
    return messages


def read_tool_answer(text: str) -> dict[str, Any]:
    """Turn forced JSON into an assistant message: a tool call, or the text of the choice ``no_tool``.

    Raises:
        ToolError: The text is no call, as happens when it was cut off by the token budget.
    """
    try:
        arguments = dict(_Call.model_validate_json(text).function)
    except PydanticValidationError:
        raise ToolError(f"Failed to parse generated text: {text!r}") from None
    name = arguments.pop("_name", None)
    if not isinstance(name, str):
        raise ToolError("No _name found in generated text")
    if name != NO_TOOL.function.name:
        function = {"description": None, "name": name, "arguments": json.dumps(arguments, separators=(",", ":"))}
        return {"role": "assistant", "tool_calls": [{"id": "0", "type": "function", "function": function}]}
    content = arguments.get("content")
    if not isinstance(content, str):
        raise ToolError("No `content` found in generated text")
    return {"role": "assistant", "content": content}


def _function_schema(function: Function) -> dict[str, Any]:
    own = function.parameters if isinstance(function.parameters, dict) else {}
    return {
        "type": "object",
        "description": function.description or "",
        "properties": {"_name": {"type": "string", "const": function.name}, **own.get("properties", {})},
        "required": ["_name", *own.get("required", [])],
        "additionalProperties": False,
    }
