"""Checks of tool calls that an output spells out as JSON, in the forms of OpenAI, Anthropic and Google."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from slipway.checks.json_schema import check_schema, ends_in_time, schema_problem
from slipway.checks.registry import Check, Graded, Subject, kind
from slipway.checks.values import answer, parse_json, scored, threshold_or, trimmed
from slipway.validation_errors import describe

__all__ = ["called_tools"]

F1_THRESHOLD = 1.0
_NEEDS_TOOLS = "it compares with the tools that the model was given: write them as `config: {tools: [...]}`"


def called_tools(output: object) -> frozenset[str]:
    """Give the names of the tools that an output calls, as promptfoo finds them.

    Args:
        output: JSON, or text: all of it is JSON, or some of its lines are.
    """
    if not isinstance(output, str):
        return frozenset(_names(output))
    try:
        return called_tools(parse_json(output))
    except ValueError:
        lines = (line for line in map(trimmed, output.split("\n")) if line.startswith(("{", "[")))
        return frozenset(name for line in lines for name in _names_in_line(line))


def _names_in_line(line: str) -> Iterator[str]:
    try:
        yield from _names(parse_json(line))
    except ValueError:
        return


def _names(value: object) -> Iterator[str]:
    """Find names in one call, in a message that holds calls, or in a list of calls; ``{name: Ann}`` alone is none."""
    if isinstance(value, list):
        for item in value:
            yield from _name_of(item, "functionCall", "function")
    elif isinstance(value, Mapping):
        calls, live = value.get("tool_calls"), value.get("toolCall")
        if isinstance(calls, list):
            for call in calls:
                yield from _name_in(call.get("function") if isinstance(call, Mapping) else None)
                yield from _name_in(call)
        elif value.get("type") == "tool_use" and isinstance(value.get("name"), str):
            yield value["name"]
        elif isinstance(value.get("functionCall"), Mapping):
            yield from _name_in(value["functionCall"])
        elif isinstance(live, Mapping) and isinstance(live.get("functionCalls"), list):
            for call in live["functionCalls"]:
                yield from _name_in(call)


def _name_of(block: object, *keys: str) -> Iterator[str]:
    """Give the name of one block of a list: of the call under the first of the keys that there is, or its own."""
    if isinstance(block, Mapping):
        calls = [block[key] for key in keys if isinstance(block.get(key), Mapping)]
        is_use = block.get("type") == "tool_use" and isinstance(block.get("name"), str)
        yield from _name_in(calls[0] if calls and not is_use else block)


def _name_in(call: object) -> Iterator[str]:
    if isinstance(call, Mapping) and isinstance(call.get("name"), str):
        yield call["name"]


def _expected(check: Check) -> Check:
    value = check.value.split(",") if isinstance(check.value, str) else check.value
    names = [trimmed(str(name)) for name in value] if isinstance(value, list) else []
    if not names or not all(names):
        raise ValueError(
            f"{check.type} needs names of tools, as a list or with commas, and nothing empty in it; "
            f"found {describe(check.value)}"
        )
    threshold_or(check, F1_THRESHOLD)
    return replace(check, value=tuple(names))


@kind("tool-call-f1", prepare=_expected, has_threshold=True)
def _tool_call_f1(check: Check, subject: Subject) -> Graded:
    """Compare the sets of names, without order or number of calls; F1 = 2 common / (called + expected)."""
    expected = frozenset(check.value if isinstance(check.value, tuple) else ())
    called = called_tools(subject.output if subject.data is None else subject.data)
    f1 = 2 * len(expected & called) / (len(expected) + len(called))
    return scored(check, f1, threshold_or(check, F1_THRESHOLD), "The F1 of the tools called")


def _tools(check: Check) -> Check:
    tools = check.config.get("tools")
    if tools is None:
        return replace(check, unsupported=_NEEDS_TOOLS)
    functions = [_function(tool, check.type) for tool in tools] if isinstance(tools, list) else []
    if not functions:
        raise ValueError(f"the tools of {check.type} must be a list of OpenAI's tools; found {describe(tools)}")
    return replace(check, value={str(function["name"]): function.get("parameters", True) for function in functions})


def _function(tool: object, name: str) -> Mapping[str, object]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(  # noqa: TRY004  # what is wrong is the file, not a caller's type
            f"a tool of {name} must be {{type: function, function: {{name: ..., parameters: ...}}}}"
        )
    check_schema(function.get("parameters", True), f"the tool {function['name']!r}")
    return function


@kind("is-valid-openai-tools-call", prepare=_tools)
@ends_in_time
def _is_valid_tools_call(check: Check, subject: Subject) -> Graded:
    output: object = subject.data
    if output is None:
        try:
            output = parse_json(subject.output)
        except ValueError:
            output = None
    calls = output.get("tool_calls") if isinstance(output, Mapping) else output
    schemas = check.value if isinstance(check.value, dict) else {}
    problem = "it is no list of tool calls"
    if isinstance(calls, list) and calls:
        problem = next(filter(None, (_call_problem(call, schemas) for call in calls)), "")
    graded = answer(check, not problem, "be", "a valid list of tool calls")
    return graded._replace(reason=f"{graded.reason[:-1]}: {problem}.") if problem and graded.reason else graded


def _call_problem(call: object, schemas: Mapping[str, object]) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return "a call has no function"
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, str):
        return "a function has no name, or arguments that are no text"
    if name not in schemas:
        return f"there is no tool {name!r}"
    try:
        parsed = parse_json(arguments)
    except ValueError:
        return f"the arguments of {name!r} are no JSON"
    return schema_problem(schemas[name], parsed)
