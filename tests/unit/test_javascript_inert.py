"""Scripts that share a context: which ones may, that they say the same there, and that nothing is left behind."""

from __future__ import annotations

import json
import random
import time

import pytest

from slipway import javascript
from slipway.javascript import Script, ScriptError, call_script
from slipway.javascript_inert import is_inert
from slipway.javascript_source import function_body

INERT = [
    "output.length > 10",
    "output",
    "/order-\\d+/.test(output) && !/[/\\]]\\/'/.test(output)",
    "JSON.parse(output).lines.length === 2 && context.vars.number >= 0",
    "const found = JSON.parse(output); found.lines.every(line => line.sku)",
    "output.split(/\\s+/).filter(Boolean).map((word) => word.toLowerCase()).join('-')",
    "Math.abs(output.length - 100) / 100 < 0.5 ? 'near' : 'far'",
    "({pass: output.includes('a'), score: 0.5, reason: `of ${output.length} with ${`inner ${1 + 1}`}`})",
    "const { lines, total } = JSON.parse(output); lines.length / total",
    "const [first, ...others] = output.split(' '); others.length",
    "[...new Set(output.split(''))].sort().join('')",
    "context.vars['number'] + context['vars'].number",
    "output.replace(/(\\w)(\\d)/g, (_, a, b) => b + a)",
    "new RegExp(context.vars.number).test(output)",
    "Object.entries(context.vars).map(([key, value]) => key + value)[0]",
    "(output.match(/o/g) || []).length",
    "10 / 2 / 5 + [4][0] / 2",
    "1 / 0",
    "undefined",
    "null",
    "(x => x)",
    "console.log(output), 7",
    "let score = 0;\nif (output.length > 3) {\n  score += 0.5\n}\nreturn score",
    "// a comment with ' in it\nlet n = 0;\nfor (const word of output.split(' ')) {\n  n++;\n}\nreturn n /* words */",
    "let d = null;\ntry {\n  d = JSON.parse(output);\n} catch (error) {\n  return error.message;\n}\nreturn d",
    "const out = [];\nfor (const line of output.split(' ')) out.push(line.trim());\nreturn out.sort().reverse()",
    "output.split(' ').filter(function (word) { return word.length > 2 }).length",
    "switch (typeof output) { case 'string': return 1; default: return 2 }\nreturn 0",
    "const seen = new Map();\nfor (const c of output.split('')) seen.set(c, (seen.get(c) ?? 0) + 1);\nreturn [...seen]",
]
NOT_INERT = [
    "globalThis.seen = 1",
    "seen = 1",
    "JSON = null",
    "JSON.parse = null",
    "Math.max++",
    "++Math.max",
    "a\n++Math.max\nreturn 1",
    "this.seen = 1",
    "output.constructor",
    "output?.constructor",
    "output['constructor']",
    "output['con' + 'structor']",
    "output[`constructor`]",
    "output['\\x63onstructor']",
    "output[context.vars.key]",
    "const { constructor } = output; constructor",
    "const { constructor: made } = output; made",
    "const { 'constructor': made } = output; made",
    "const { 'con\\x73tructor': made } = output; made",
    "const { ['con' + 'structor']: made } = output; made",
    "(({ constructor: made }) => made)(output)",
    "const { parse } = JSON; [parse.seen] = [1]",
    "({ a: JSON.seen } = { a: 1 })",
    "for (JSON.seen of [1]) {}\nreturn 1",
    "for (JSON.seen in {a: 1}) {}\nreturn 1",
    "for ([JSON.seen] of [[1]]) {}\nreturn 1",
    "let a = (JSON.seen = 1); a",
    "let { a = JSON.seen = 1 } = {}; a",
    "Object.assign(Array.prototype, {seen: 1})",
    "Object.defineProperty(Object, 'seen', {value: 1})",
    "[].__proto__.seen = 1",
    "[].push.call(Math, 1)",
    "delete JSON.parse",
    "eval('1')",
    "Function('return this')()",
    "(() => {}).constructor('return this')()",
    "Symbol.for('seen')",
    "Reflect.ownKeys(JSON)",
    "new Proxy({}, {})",
    "new Date().getTime()",
    "Math.random()",
    "performance.now()",
    "Promise.resolve(1)",
    "(async () => 1)()",
    "async () => 1",
    "(function* () { yield 1 })()",
    "(function named() { return 1 })()",
    "class A {}\nreturn 1",
    "new WeakRef({})",
    "queueMicrotask(() => {})",
    "import('fs')",
    "Error.prepareStackTrace = () => 1",
    "new Error('x').stack",
    "} , globalThis.seen = 1, function () {",
    "1 }) ; (function () {",
    "with (JSON) { parse = 1 }\nreturn 1",
    "var \\u0065val",
    "1 <!-- ' \n; JSON.seen = 1 // '",
    "1\n--> '\nJSON.seen = 1 // '",
    "if (output) /'/.test(output); JSON.seen = 1; /'/.test(output)\nreturn 1",
    "{} /'/.test(output); JSON.seen = 1; /'/.test(output)\nreturn 1",
    "let x = 1\nx++ /'/.test(output); JSON.seen = 1; /'/.test(output)\nreturn 1",
    "'a\u2028b'",
    "// a comment \u2028 JSON.seen = 1\nreturn 1",
    "/* a comment */ JSON\r.seen = 1",
    "'open",
    "`open ${1",
    "`open ${1)}`",
    "(]",
    "x" * 30_000,
]


def body_of(source):
    return function_body(source)


@pytest.fixture
def shared_only(monkeypatch):
    """Every script is taken for inert, and what does not return in the shared context says so."""
    monkeypatch.setattr(javascript, "_is_inert", lambda body: True)
    monkeypatch.setattr(javascript, "_run", lambda *_, **__: javascript.Returned(type="no result", value=None))


@pytest.mark.parametrize("source", INERT)
def test_inert_scripts_are_known_and_say_the_same_as_alone(source, monkeypatch):
    assert is_inert(body_of(source), javascript._refused_words())
    texts = ["an order-12 of two", json.dumps({"total": 4, "lines": [{"sku": "a"}, {"sku": 1}]}), "", "'\ud83d\0"]
    contexts = [{"vars": {"number": 3}}, {"vars": {"number": "1+"}}]

    def all_results():
        for text in texts:
            for context in contexts:
                try:
                    yield call_script(Script(source=source), text, context)
                except ScriptError as error:
                    yield str(error)

    shared = list(all_results())
    monkeypatch.setattr(javascript, "_is_inert", lambda body: False)
    assert shared == list(all_results())


@pytest.mark.parametrize("source", INERT[:6])
def test_inert_scripts_run_in_the_shared_context(source, shared_only):
    text = json.dumps({"total": 4, "lines": [{"sku": "a"}, {"sku": "order-1"}]})
    assert call_script(Script(source=source), text, {"vars": {"number": 3}}).type != "no result"


@pytest.mark.parametrize("source", NOT_INERT)
def test_everything_else_is_not_inert(source):
    assert not is_inert(body_of(source), javascript._refused_words())


def test_no_name_of_the_language_reaches_another_function_unseen():
    names = json.loads(javascript._shared().call(None))
    assert len(names) > 400
    for name in set(names) - javascript.INERT_NAMES:
        assert not is_inert(f"return output.{name}", javascript._refused_words())
        assert not is_inert(f"return output['{name}']", javascript._refused_words())


PROTOTYPES = [
    "Object.getPrototypeOf(function* () {}.prototype)",
    "Object.getPrototypeOf([].values())",
    "Object.getPrototypeOf('a'.matchAll(/a/g))",
    "Object.getPrototypeOf([].values().map(x => x))",
    "Object.getPrototypeOf((async function* () {}).prototype)",
    "(() => { try { null.x } catch (error) { return Object.getPrototypeOf(error) } })()",
    "(() => { try { nothing } catch (error) { return Object.getPrototypeOf(error) } })()",
    "(() => { try { new Array(-1) } catch (error) { return Object.getPrototypeOf(error) } })()",
    "(() => { try { (function f() { f() })() } catch (error) { return Object.getPrototypeOf(error) } })()",
]
HOSTILE = [
    *(f"const p = {p};\nconst was = p.seen ?? 1;\ntry {{ p.seen = 2 }} catch {{}}\nreturn was" for p in PROTOTYPES),
    "globalThis.seen = (globalThis.seen || 0) + 1",
    "Array.prototype.seen = ([].seen || 0) + 1",
    "Object.prototype.seen = (({}).seen || 0) + 1",
    "JSON.parse.seen = (JSON.parse.seen || 0) + 1",
    "console.seen = (console.seen || 0) + 1",
    "var n = this && this.n || 1; n",
    "seen = typeof seen === 'undefined' ? 1 : seen + 1",
    "Object.defineProperty(Array.prototype, 'seen', {get: () => 2, configurable: true}), [].seen ? 2 : 1",
    "const was = Math.max(1, 0);\ntry { Math.max = () => 2 } catch {}\nreturn was",
    "const was = Date === 2 ? 2 : 1;\ntry { Date = 2 } catch {}\ntry { globalThis.Date = 2 } catch {}\nreturn was",
    "const was = [].concat.seen ?? 1;\ntry { [2].forEach([].push, [].concat) } catch {}\nreturn [].concat[0] ?? was",
    "const was = Math[0] ?? 1;\ntry { [].push.call(Math, 2) } catch {}\nreturn was",
    "const f = [].map;\nconst was = f.seen ?? 1;\ntry { f.seen = 2 } catch {}\nreturn was",
    "const was = new Error('x').stack === 2 ? 2 : 1;\ntry { Error.prepareStackTrace = () => 2 } catch {}\nreturn was",
    "const was = new Error('x').stack.length > 0 ? 1 : 2;\ntry { Error.stackTraceLimit = 0 } catch {}\nreturn was",
    "const run = globalThis.eval;\ntry { run('let seen = 2') } catch {}\nreturn typeof seen === 'undefined' ? 1 : 2",
    "const make = (() => {}).constructor;\ntry { make('globalThis.seen = 2')() } catch {}\nreturn globalThis.seen ?? 1",
    "const make = (function* () {}).constructor;\ntry { make('JSON.seen = 1')().next() } catch {}\nreturn JSON.seen",
    "const r = /a/g;\nconst was = r.lastIndex;\nr.test('aa');\nr.seen = 1;\nreturn was + 1",
    "const was = (strings => strings.seen ?? 1)`x`;\nreturn was",
    "const g = (function* () { yield 1; yield 2 })();\nreturn g.next().value",
    "try { Function.prototype.toString.call(0) } catch (error) { error.seen = 1; return error.seen }",
    "try { arguments.callee.seen = 2 } catch {}\nreturn 1",
    "const was = {}.polluted ?? 1;\ntry { ({}).__proto__.polluted = 2 } catch {}\nreturn was",
    "try { Object.setPrototypeOf(Array.prototype, {seen: 2}) } catch {}\nreturn [].seen ?? 1",
    "try { Array.prototype[Symbol.iterator] = null } catch {}\nreturn [...[1]][0]",
    "(async () => { globalThis.seen = 2 })(), globalThis.seen ?? 1",
    "context.vars.seen = (context.vars.seen || 0) + 1",
    "const key = typeof Symbol === 'undefined' ? 1 : Symbol.keyFor(Symbol.for('seen')).length && 1; key",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_shared_context_keeps_nothing_even_of_what_is_not_inert(source, shared_only):
    """Freezing is the second wall: here the first is taken away."""
    script = Script(source=source)
    results = [call_script(script, "hello", {"vars": {}}) for _ in range(3)]
    assert results[0] == results[1] == results[2]
    assert results[0].value in {1, None}


def test_everything_that_a_script_can_reach_in_the_shared_context_is_frozen(shared_only):
    walk = """
        const seen = new Set(), open = [];
        const visit = (value, path) => {
          if (value === null || (typeof value !== 'object' && typeof value !== 'function') || seen.has(value)) return;
          seen.add(value);
          if (!Object.isFrozen(value)) open.push(path);
          for (const key of [...Object.getOwnPropertyNames(value), ...Object.getOwnPropertySymbols(value)]) {
            const property = Object.getOwnPropertyDescriptor(value, key);
            for (const part of ['value', 'get', 'set']) visit(property[part], path + '.' + String(key));
          }
          visit(Object.getPrototypeOf(value), path + '^');
        };
        const made = (make) => Object.getPrototypeOf(make());
        const thrown = (act) => { try { act() } catch (error) { return Object.getPrototypeOf(error) } };
        visit(console.log.constructor, 'function');
        visit(console, 'console');
        for (const name of context.names) visit(eval_free(name), name);
        visit(made(() => [].values()), 'array iterator'), visit(made(() => new Map().entries()), 'map iterator');
        visit(made(() => new Set().values()), 'set iterator'), visit(made(() => 'a'.matchAll(/a/g)), 'matches');
        visit(made(() => [].values().filter(x => x)), 'helper'), visit(made(() => function* () {}), 'generators');
        visit(made(() => made(function* () {})), 'generator');
        visit(made(() => async function* () {}), 'async generators');
        visit(made(() => async () => {}), 'async'), visit(made(() => (async () => {})()), 'promise');
        visit(thrown(() => null.x), 'type'), visit(thrown(() => nothing), 'reference');
        visit(thrown(() => new Array(-1)), 'range'), visit(thrown(() => new RegExp('(')), 'syntax');
        visit(thrown(() => decodeURIComponent('%')), 'uri'), visit(thrown(() => (function f() { f() })()), 'internal');
        visit((() => { const f = function () {}; return Object.getPrototypeOf(f) })(), 'function');
        return [open, seen.size]
    """.replace("eval_free(name)", "({ " + ", ".join(GLOBALS) + " })[name]")
    found = call_script(Script(source=walk), "", {"names": GLOBALS})
    assert found.type == "object"
    assert found.value[0] == []
    assert found.value[1] > 300


GLOBALS = sorted(name for name in javascript.INERT_NAMES if name[0].isupper() and len(name) > 2 and not name.isupper())


def test_limits_hold_in_the_shared_context_and_it_is_made_anew():
    began = time.thread_time()
    with pytest.raises(ScriptError, match="longer than 1 s"):
        call_script(Script(source="while (true) {}\nreturn 1"), "", {})
    assert time.thread_time() - began < 1.9  # once, not again in an own context
    for source in ("const a = [];\nwhile (true) a.push('x'.repeat(1000000) + a.length)\nreturn 1", "'x'.repeat(1e9)"):
        assert is_inert(body_of(source).replace("1e9", "9"), javascript._refused_words())
        with pytest.raises(ScriptError, match="memory"):
            call_script(Script(source=source), "", {})
    assert call_script(Script(source="output.length"), "hello", {}).value == 5


def test_garbage_of_one_call_takes_no_memory_from_the_next():
    circle = "const a = [];\na.push(a, output.repeat(30000000));\nreturn a.length"
    assert is_inert(circle, javascript._refused_words())
    assert [call_script(Script(source=circle), "x", {}).value for _ in range(6)] == [2] * 6


def test_order_of_calls_does_not_matter():
    source = random.Random(5)
    scripts = [Script(source=text) for text in INERT]
    text = json.dumps({"total": 4, "lines": [{"sku": "a"}]})

    def result(script):
        return call_script(script, text, {"vars": {"number": 3}})

    alone = {script: result(script) for script in scripts}
    for _ in range(300):
        script = source.choice(scripts)
        assert result(script) == alone[script]
