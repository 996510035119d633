"""The JavaScript of a suite: what it may be, what it sees, and that it ends."""

from __future__ import annotations

import time

import pytest

from slipway.javascript import Script, ScriptError, ScriptNeedsError, call_script, check_script, unmet_need
from slipway.javascript_source import as_common_js, function_body, missing_globals


def call(source, output="hello", context=None, **keys):
    script = Script(source=source, **keys)
    assert check_script(script) == ""
    return call_script(script, output, context or {})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("output.length", 5),
        ("output.length;  ", 5),
        ("output === 'hello'\n", True),  # the line end of a YAML block
        ("const n = output.length; n > 4", True),
        ("const s = output; s === 'a;b'", False),
        ("let f = () => { return 1; }; f()", 1),
        ("var r = /;'/; r.test(output)", False),
        ("/ell/.test(output)", True),
        ("const n = 1;\nreturn n + 1", 2),
        ("if (output) {\n  return 'yes'\n}\nreturn 'no'", "yes"),
        ("({pass: true, score: 0.5, reason: 'r'})", {"pass": True, "score": 0.5, "reason": "r"}),
        ("[...output].reverse().join('')", "olleh"),
        ("output?.missing ?? 7", 7),
        ("context.vars.name", "Ann"),
        ("console.log(output), true", True),
        ("`${output.length};${1 + 1}`", "5;2"),
        ("(async () => output.length)()", 5),
        ("Promise.resolve(1).then(x => x + 1)", 2),
        ("const x = await Promise.resolve(3);\nreturn x", None),
    ],
)
def test_script_returns_what_its_form_says(source, expected):
    if expected is None:
        with pytest.raises(ValueError, match="cannot be used"):  # promptfoo's function is not async either
            call(source)
        return
    assert call(source, context={"vars": {"name": "Ann"}}).value == expected


@pytest.mark.parametrize(
    ("source", "kind", "value"),
    [
        ("undefined", "undefined", None),
        ("null", "null", None),
        ("NaN", "number", "NaN"),
        ("1/0", "number", "Infinity"),
        ("10n ** 30n", "bigint", "1" + "0" * 30),
        ("() => 1", "function", None),
        ("Symbol('x')", "symbol", None),
        ("output + '\\ud800\\0'", "string", "hello\ud800\0"),
        ("const x = 1\nx", "undefined", None),
    ],
)
def test_every_value_comes_back_as_json_with_its_type(source, kind, value):
    returned = call(source)
    assert (returned.type, returned.value) == (kind, value)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("half \ud83d and \0", "half \ud83d and \0"),
        ({"a": [1, None, {"b": True}]}, {"a": [1, None, {"b": True}]}),
        ({"a": float("nan"), "b": [float("inf")]}, {"a": None, "b": [None]}),
        (2**53 + 1, 2**53),  # numbers are doubles
    ],
)
def test_values_go_in_as_json(given, seen):
    assert call("output", given).value == seen


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("module.exports = (output, context) => output.length", 5),
        ("module.exports = async (output) => output", "hello"),
        ("module.exports = { default: (output) => 1 }", 1),
        ("exports.default = function (output) { return 2 }", 2),
        ("export default (output) => output.length", 5),
        ("export default function check(output) {\n  return check.name\n}", "check"),
        ("const n = 4\nexport default async function (output) { return n }", 4),
        ("function f(o) { return o }\nexport { f as default }", "hello"),
    ],
)
def test_file_exports_its_function_the_old_way_or_the_new(source, expected):
    assert call(source, is_module=True).value == expected


@pytest.mark.parametrize(
    "source",
    ["module.exports = { g: (o) => 'g' }", "export const g = (o) => 'g'", "export function g(o) { return 'g' }"],
)
def test_file_may_name_its_function(source):
    assert call(source, is_module=True, function="g").value == "g"
    with pytest.raises(ValueError, match="exports no function h"):
        check_script(Script(source=source, is_module=True, function="h"))
    with pytest.raises(ValueError, match="exports no function"):
        check_script(Script(source=source, is_module=True))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("output.length >", "unexpected"),
        ("if (output) return true", "if"),  # on one line promptfoo takes it for an expression, and fails
        ("(function f() { f() }", ""),
    ],
)
def test_what_is_no_javascript_is_refused_beforehand(source, says):
    with pytest.raises(ValueError, match="cannot be used") as caught:
        check_script(Script(source=source))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("script", "place"),
    [
        (Script(source="output.length < )"), "at column 17"),
        (Script(source="  output.length < );"), "at column 19"),
        (Script(source="const n = 1; output > @"), "at column 23"),
        (Script(source="const n = ; output > n"), "at column 11"),
        (Script(source="output.length <"), "at its end"),
        (Script(source="const a = 1;\nconst b = ;\nreturn a > b;\n"), "at line 2, column 11"),
        (Script(source="if (output) {\n  return true;\n"), "at its end"),
        (
            Script(source="// a file\nmodule.exports = (output) => {\n  return output +;\n};", is_module=True),
            "at line 3, column 18",
        ),
        (Script(source="export { a,\n  b };\nexport const a = ;", is_module=True), "at line 3"),
        (Script(source="JSON.parse('{');\nmodule.exports = 1", is_module=True), "(line 1 column 2)"),
    ],
)
def test_what_is_no_javascript_is_pointed_at(script, place):
    with pytest.raises(ValueError, match="cannot be used") as caught:
        check_script(script)
    assert str(caught.value).endswith(f" {place}")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("(() => { throw new Error('boo') })()", "boo"),
        ("(() => { throw null })()", "^null"),
        ("(() => { throw { toString() { throw 1 } } })()", "cannot be shown"),
        ("nothing.here", "nothing is not defined"),
        ("Promise.reject(new TypeError('late'))", "late"),
        ("new Promise(() => {})", "never settles"),
        ("(() => { const a = {}; a.a = a; return a })()", "circular"),
        ("Object.prototype.toJSON = () => 5, 3", "changed how values become JSON"),
        ("(function f() { return f() + 1 })()", "call stack"),
        ("JSON.parse('['.repeat(1e6))", "call stack"),
        ("import('fs').then(() => 1)", None),
    ],
)
def test_script_that_throws_says_why(source, says):
    if says is None:
        assert check_script(Script(source=source)) == "import"
        return
    with pytest.raises(ScriptError, match=says):
        call(source)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("while (true) {}\nreturn 1", "longer than 1 s"),
        ("while (true) { try { while (true) {} } catch {} }\nreturn 1", "longer than 1 s"),
        ("/^(a+)+$/.test('a'.repeat(60) + '!')", "longer than 1 s"),
        ("(async () => { while (true) await 1 })()", "did not settle within"),
        ("Promise.resolve().then(() => { while (true) {} })", "longer than 1 s"),
    ],
)
def test_limit_of_time_ends_what_would_not(hasty_scripts, source, says):
    with pytest.raises(ScriptError, match=says):
        call(source)


def test_limit_of_time_is_a_second_of_the_processor():
    began = time.thread_time()
    with pytest.raises(ScriptError, match="longer than 1 s"):
        call("while (true) {}\nreturn 1")
    assert 0.9 < time.thread_time() - began < 2


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("const a = [];\nwhile (true) a.push(new Array(1000).fill('x'))\nreturn 1", "memory"),
        ("'x'.repeat(1e9)", "64 MB of memory"),
        ("new ArrayBuffer(1e9)", "memory"),
        ("[...'x'.repeat(2e7)].map(x => x + x).length", "memory"),
    ],
)
def test_limit_of_memory_ends_what_would_take_it_all(source, says):
    with pytest.raises(ScriptError, match=says):
        call(source)


@pytest.mark.parametrize(
    "name", ["fetch", "require", "process", "setTimeout", "URL", "Buffer", "structuredClone", "WebAssembly"]
)
def test_what_reaches_outside_is_named_before_and_at_run_time(name):
    assert check_script(Script(source=f"{name}('x')")) == name
    hidden = f"eval('{name[:2]}' + '{name[2:]}')('x')"
    assert check_script(Script(source=hidden)) == ""
    with pytest.raises(ScriptNeedsError, match=name):
        call_script(Script(source=hidden), "", {})
    assert call(f"typeof globalThis['{name}']").value == "undefined"


def test_unmet_need_is_a_sentence():
    assert unmet_need("output.length") == ""
    assert unmet_need("fetch(output)").startswith("it needs `fetch`, and scripts of a suite have no files")


def test_top_of_a_file_that_needs_more_is_found_beforehand():
    source = "const get = eval('fet' + 'ch')\nmodule.exports = () => get('x')"
    assert check_script(Script(source=source, is_module=True)) == "fetch"


@pytest.mark.parametrize(
    "source",
    [
        "globalThis.seen = (globalThis.seen || 0) + 1",
        "Array.prototype.seen = ([].seen || 0) + 1",
        "Object.prototype.seen = (({}).seen || 0) + 1",
        "JSON.parse.seen = (JSON.parse.seen || 0) + 1",
    ],
)
def test_no_call_leaves_anything_for_the_next(source):
    assert [call(source).value for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    "source",
    [
        "JSON.parse = JSON.stringify = null, true",
        "Promise.prototype.then = null, true",
        "String = Function = null, true",
        "delete globalThis.JSON, true",
        "Array.prototype[Symbol.iterator] = null, true",
        "globalThis.console = null, true",
    ],
)
def test_broken_language_breaks_only_the_script(source):
    assert call(source).value is True
    assert call("output").value == "hello"


def test_script_reaches_no_python():
    names = call("Object.getOwnPropertyNames(globalThis).join(' ') + ' ' + Function('return this')().constructor").value
    for word in ("python", "std", "os", "print", "load", "Worker"):
        assert f" {word} " not in names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fetch(x)", "fetch"),
        ("'fetch'", ""),
        ("// fetch\nx", ""),
        ("/* fetch */ x", ""),
        ("/fetch/.test(x)", ""),
        ("x.fetch()", ""),
        ("({fetch: 1})", ""),
        ("const fetch = 1; fetch", ""),
        ("prefetch(x)", ""),
        ("await fetch(x)", "fetch"),
    ],
)
def test_only_globals_that_are_used_are_missing(source, expected):
    assert missing_globals(source, ["fetch"]) == expected


def test_sources_are_rewritten_as_functions():
    assert function_body("output > 1;\n") == "return output > 1"
    assert function_body("a\nb\n") == "a\nb"
    assert function_body("const a = ';'; a") == "const a = ';'; return  a"
    assert as_common_js("export default 1") == "exports.default = 1"
    assert as_common_js("export { a, b as c };\n").endswith("exports.a = a;\nexports.c = b;")
