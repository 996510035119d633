"""Run the JavaScript of a suite: assertions, transforms and regular expressions, in an embedded QuickJS.

A script sees its arguments and the language, nothing else: no files, network, packages, timers, environment or Python.
No call leaves anything for the next. A script that is plainly inert runs in a context that such scripts share, in which
nothing can be changed; every other call has a context of its own, which costs ten times as much, and so has each whose
shared run did not return. All have limits on time, memory and stack; what is returned comes back as JSON. Knows nothing
of checks and their meaning.

Source of the forms that a script may have: promptfoo 0.121.9 (one line is an expression, several lines are a function's
body, a file exports a function).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

from slipway.javascript_inert import INERT_NAMES, is_inert, refused_words
from slipway.javascript_source import as_common_js, function_body, missing_globals, original_column

__all__ = [
    "MEMORY_LIMIT_BYTES",
    "TIME_LIMIT_SECONDS",
    "Returned",
    "Script",
    "ScriptError",
    "ScriptNeedsError",
    "call_script",
    "check_pattern",
    "check_script",
    "matches",
    "unmet_need",
]

TIME_LIMIT_SECONDS = 1.0
"""Of processor time, for one call; a promise may take as much again until it settles."""
MEMORY_LIMIT_BYTES = 64 * 2**20
"""Of one context, the arguments included."""
STACK_LIMIT_BYTES = 256 * 2**10
QUICK_CALL_SECONDS = 1e-3
"""Of processor time: after a call that took longer, the memory that it left in the shared context is searched for."""

_CALL = r"""
(() => {
  "use strict";
  const { parse, stringify } = JSON, show = String, make = Function, isFinite = Number.isFinite, quiet = () => {};
  const Malformed = SyntaxError, compiled = /^\s*at <input>:(\d+:\d+)\n\s*at Function /;
  globalThis.console = { log: quiet, info: quiet, warn: quiet, error: quiet, debug: quiet };
  let state = null;
  const succeed = (value) => {
    const type = value === null ? "null" : typeof value;
    const isText = type === "bigint" || (type === "number" && !isFinite(value));
    try { state = stringify(["returned", type, isText ? show(value) : value]); } catch (error) { fail(error); }
  };
  const fail = (error) => {
    let text = "something that cannot be shown";
    try { text = error === null ? "null, as it is where memory ends" : show(error?.message ?? error); } catch {}
    let place = "";
    try { if (error instanceof Malformed) place = compiled.exec(error.stack)?.[1] ?? ""; } catch {}
    state = stringify(["threw", text, place]);
  };
  const exported = (source, name) => {
    const module = { exports: {} };
    make("module", "exports", source)(module, module.exports);
    const found = module.exports;
    const chosen = name ? found?.[name] : typeof found === "function" ? found : found?.default;
    if (typeof chosen !== "function") throw new TypeError("the file exports no function " + name);
    return chosen;
  };
  return (text) => {
    if (text !== null) try {
      const { isModule, source, name, isTried, args } = parse(text);
      const call = isModule ? exported(source, name) : make("output", "context", source);
      const value = isTried ? undefined : call(args[0], args[1]);
      if (typeof value?.then === "function") Promise.resolve(value).then(succeed, fail);
      else succeed(value);
    } catch (error) { fail(error); }
    return state;
  };
})()
"""
_SHARE = r"""
(inert) => {
  "use strict";
  const { parse, stringify } = JSON, show = String, make = Function, isFinite = Number.isFinite, quiet = () => {};
  const intrinsics = new Set(), found = new Set();
  const visit = (value) => {
    if (value === null || (typeof value !== "object" && typeof value !== "function") || intrinsics.has(value)) return;
    intrinsics.add(value);
    for (const key of Reflect.ownKeys(value)) {
      const property = Reflect.getOwnPropertyDescriptor(value, key);
      if (typeof key === "string") found.add(key);
      visit(property.value), visit(property.get), visit(property.set);
    }
    visit(Reflect.getPrototypeOf(value));
  };
  visit(globalThis);
  const names = [...found];
  globalThis.console = { log: quiet, info: quiet, warn: quiet, error: quiet, debug: quiet };
  visit(console);
  const unnamed = [  // kinds of objects that no global leads to
    [].values(), new Map().values(), new Set().values(), ""[Symbol.iterator](), "".matchAll(/a/g),
    [].values().map(quiet), Iterator.from({ next: quiet }), function* () {}, (function* () {})(), async () => {},
    async function* () {}, (async function* () {})(), (function () { return arguments; })(),
  ];
  unnamed.forEach(visit);
  // Setters that keep state behind the language, and ways to run text or to be called later.
  delete Error.prepareStackTrace, delete Error.stackTraceLimit;
  for (const like of [quiet, unnamed[7], unnamed[9], unnamed[10]]) delete Reflect.getPrototypeOf(like).constructor;
  const all = globalThis, { freeze } = Object, kept = new Set(parse(inert));
  Reflect.ownKeys(all).filter((name) => !kept.has(name)).forEach((name) => delete all[name]);
  intrinsics.forEach((value) => freeze(value));
  const known = new Map();
  const compiled = (source) => {
    if (known.size > 255) known.clear();
    const call = freeze(make("output", "context", '"use strict"; ' + source));
    known.set(source, call);
    return call;
  };
  return (text) => {
    if (text === null) return stringify(names);
    try {
      const { source, args } = parse(text);
      const value = (known.get(source) ?? compiled(source))(args[0], args[1]);
      if (typeof value?.then === "function") return null;
      const type = value === null ? "null" : typeof value;
      const isText = type === "bigint" || (type === "number" && !isFinite(value));
      return stringify(["returned", type, isText ? show(value) : value]);
    } catch { return null; }
  };
}
"""
"""Makes everything of the language unchangeable, and gives what calls a script: its result, or null for whatever else.
Without a call it gives the names of all properties that the language had.
"""
Flags = Literal["", "i", "u"]
"""Of a regular expression: none, any case, Unicode."""
_MATCH = r"""
(() => {
  const known = new Map();
  return (pattern, flags, text) => {
    pattern = JSON.parse(pattern);
    const key = flags + "/" + pattern;
    let expression = known.get(key);
    if (expression === undefined) {
      if (known.size > 255) known.clear();
      known.set(key, expression = new RegExp(pattern, flags));
    }
    return text === null || expression.test(JSON.parse(text));
  };
})()
"""
_ABSENT = (
    *("__dirname", "__filename", "AbortController", "Buffer", "clearInterval", "clearTimeout", "crypto", "fetch"),
    *("global", "Headers", "import", "Intl", "process", "Request", "require", "Response", "setImmediate"),
    *("setInterval", "setTimeout", "structuredClone", "TextDecoder", "TextEncoder", "URL", "URLSearchParams"),
    "WebAssembly",
)
"""What Node.js has and the language has not. Using one is told apart from an error of the script's own."""
_LINES_AROUND = 2
"""That ``new Function`` puts before a source: its head, with a break after the parameters."""
_UNDEFINED = re.compile(r"'?([\w$]+)'? is not defined")
_NO_MEMORY = f"it needs more than {MEMORY_LIMIT_BYTES // 2**20} MB of memory"
_LIMIT_MESSAGES = {
    "interrupted": f"it ran longer than {TIME_LIMIT_SECONDS:g} s",
    "out of memory": _NO_MEMORY,
    "null": _NO_MEMORY,  # too little is left to make the error itself
}
"""What the engine says where it ends a script, in words. A script that throws ``null`` is told apart before."""


class ScriptError(Exception):
    """The script threw, or did not end within its limits.

    Attributes:
        place: Line and column, from 1, of what is no JavaScript, in the source as it was compiled; else None.
    """

    def __init__(self, message: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.place = place


class ScriptNeedsError(Exception):
    """The script wants something that is not here: a file, the network, a package, a timer."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """JavaScript to call with ``(output, context)``.

    Attributes:
        source: An expression on one line, the body of a function on several, or a whole file.
        is_module: It is a file, which exports the function.
        function: Of a file: the name of the export; empty for ``module.exports`` or the default export.
    """

    source: str
    is_module: bool = False
    function: str = ""


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What a script returned.

    Attributes:
        type: As ``typeof`` says, and ``null`` for null.
        value: As JSON; a number that is not finite and a bigint as text; None where JSON has nothing for it.
    """

    type: str
    value: Any


@lru_cache(maxsize=4096)
def check_script(script: Script) -> str:
    """Verify a script before any output is seen, without calling it; the top of a file is run once.

    Returns:
        What it needs and cannot have, as ``fetch``; empty if nothing.

    Raises:
        ValueError: It is no JavaScript, or a file that exports no function; says why.
    """
    needed = missing_globals(script.source, _ABSENT)
    if needed:
        return needed
    try:
        _run(script, [], is_tried=True)
    except ScriptNeedsError as error:
        return str(error)
    except ScriptError as error:
        raise ValueError(f"the JavaScript cannot be used: {error}{_place_in(script, error.place)}") from None
    return ""


def _place_in(script: Script, place: tuple[int, int] | None) -> str:
    """Say where it is in the source as the suite has it: what is compiled has a ``return`` or other exports."""
    if place is None:
        return ""
    line, column = place
    written = script.source.rstrip().split("\n")
    if line > len(written):
        return " at its end"
    if script.is_module:
        is_same = as_common_js(script.source).split("\n")[line - 1] == written[line - 1]
        return f" at line {line}" + (f", column {column}" if is_same else "")
    if len(written) > 1:
        return f" at line {line}, column {column}"
    return f" at column {original_column(script.source, column)}"


def unmet_need(source: str | Script) -> str:
    """Say in words why a script cannot be used here; empty if it can.

    Raises:
        ValueError: It is no JavaScript.
    """
    needed = check_script(Script(source=source) if isinstance(source, str) else source)
    return f"it needs `{needed}`, and scripts of a suite have no files, network, packages or timers" if needed else ""


def call_script(script: Script, output: object, context: Mapping[str, object]) -> Returned:
    """Call the script in a fresh context and wait for what it returns, a promise settled.

    Args:
        script: Checked.
        output: JSON.
        context: JSON; dates and such become text, numbers that are not finite null.

    Raises:
        ScriptError: It threw, or hit a limit; the message is for people.
        ScriptNeedsError: It used something that is not here.
    """
    if not script.is_module:
        body = function_body(script.source)
        if _is_inert(body):
            returned = _run_shared(body, [output, context if "context" in body else None])
            if returned is not None:
                return returned
    return _run(script, [output, context], is_tried=False)


def check_pattern(pattern: str, flags: Flags = "") -> None:
    """Verify a regular expression.

    Raises:
        ValueError: JavaScript refuses it; says why.
    """
    try:
        _match(pattern, flags, None)
    except ScriptError as error:
        raise ValueError(f"JavaScript refuses the pattern {pattern!r}: {error}") from None


def matches(pattern: str, text: str, flags: Flags = "") -> bool:
    """Whether the regular expression is found in the text.

    Raises:
        ScriptError: The search did not end within its limits.
    """
    return _match(pattern, flags, text)


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """The context of inert scripts, and what calls one in it."""

    context: Any
    call: Any


class _PerThread(threading.local):
    """Contexts that are kept, each for the thread that made it: of patterns, since only data enters it, and the shared.

    Attributes:
        match: Finds a pattern in a text; None before the first, and after an error.
        shared: Runs inert scripts; None before the first, and after one that ran into a limit.
    """

    match: Any = None
    shared: _Shared | None = None


_per_thread = _PerThread()


def _match(pattern: str, flags: Flags, text: str | None) -> bool:
    import quickjs  # noqa: PLC0415  # the command line must start without it

    if _per_thread.match is None:
        _per_thread.match = _context().eval(_MATCH)
    try:
        found = _per_thread.match(json.dumps(pattern), flags, None if text is None else json.dumps(text))
    except quickjs.JSException as error:
        _per_thread.match = None
        raise ScriptError(_explained(error)) from None
    return bool(found)


@lru_cache(maxsize=4096)
def _is_inert(body: str) -> bool:
    return is_inert(body, _refused_words())


@cache
def _refused_words() -> frozenset[str]:
    return refused_words(json.loads(_shared().call(None)))


def _shared() -> _Shared:
    context = _context()
    return _Shared(context=context, call=context.eval(_SHARE)(json.dumps(sorted(INERT_NAMES))))


def _run_shared(body: str, arguments: list[object]) -> Returned | None:
    """Call an inert script where others were called; None where it did not return a value, and an own context is due.

    Raises:
        ScriptError: It ran longer than it may; a second run would take as long again.
    """
    import quickjs  # noqa: PLC0415  # as above

    shared = _per_thread.shared or _shared()
    _per_thread.shared = None  # a limit that ends the call ends the context too
    began = time.thread_time()
    try:
        state = shared.call(_json({"source": body, "args": arguments}))
    except quickjs.JSException as error:
        said = _explained(error)
        if said == _LIMIT_MESSAGES["interrupted"]:
            raise ScriptError(said) from None
        return None
    if time.thread_time() - began > QUICK_CALL_SECONDS:
        shared.context.gc()
    _per_thread.shared = shared
    return None if state is None else _read(state)


def _run(script: Script, arguments: list[object], *, is_tried: bool) -> Returned:
    import quickjs  # noqa: PLC0415  # as above

    call = {
        "isModule": script.is_module,
        "source": as_common_js(script.source) if script.is_module else function_body(script.source),
        "name": script.function,
        "isTried": is_tried,
        "args": arguments,
    }
    context = _context()
    try:
        runner = context.eval(_CALL)
        state = runner(_json(call))
        if state is None:
            state = _settled(context, runner)
    except quickjs.JSException as error:  # only what the script cannot catch: its own errors are in the state
        raise ScriptError(_explained(error)) from None
    return _read(state)


def _settled(context: Any, runner: Any) -> str | None:  # noqa: ANN401  # quickjs has no types
    """Run what a promise waits for; each job has the context's limit, and all together once more."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    while (state := runner(None)) is None and context.execute_pending_job():
        if time.monotonic() > deadline:
            raise ScriptError(f"its promise did not settle within {TIME_LIMIT_SECONDS:g} s")
    found: str | None = state
    return found


def _read(state: str | None) -> Returned:
    if state is None:
        raise ScriptError("its promise never settles")
    try:
        found = json.loads(state)
    except RecursionError:
        raise ScriptError("what it returned is nested too deeply") from None
    match found:
        case ["returned", str(kind), value]:
            return Returned(type=kind, value=value)
        case ["threw", str(message), str(place)]:
            absent = _UNDEFINED.fullmatch(message)
            if absent is not None and absent.group(1) in _ABSENT:
                raise ScriptNeedsError(absent.group(1))
            raise ScriptError(_LIMIT_MESSAGES.get(message, message), _place(place))
    raise ScriptError("it changed how values become JSON")


def _place(text: str) -> tuple[int, int] | None:
    """Read ``line:column``; the engine counts from the function that it makes around the source."""
    line, _, column = text.partition(":")
    return (int(line) - _LINES_AROUND, int(column)) if text else None


def _context() -> Any:  # noqa: ANN401  # as above
    import quickjs  # noqa: PLC0415  # as above

    context = quickjs.Context()
    context.set_memory_limit(MEMORY_LIMIT_BYTES)
    context.set_time_limit(TIME_LIMIT_SECONDS)
    context.set_max_stack_size(STACK_LIMIT_BYTES)
    return context


def _explained(error: Exception) -> str:
    text = str(error).split("\n", 1)[0].removeprefix("InternalError: ")
    return _LIMIT_MESSAGES.get(text, text)


def _json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), default=str)


def _finite(value: object) -> object:
    if isinstance(value, float) and value - value != 0:
        return None  # as JSON.stringify does
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
