"""Templates of suites look as promptfoo's do, and let nothing in from outside."""

import time
from pathlib import Path

import pytest

from slipway import template_process
from slipway.templates import TemplateError, VariableError, fill_variables, json_text, render, render_value


@pytest.mark.parametrize(
    ("template", "variables", "text"),
    [
        ("no template", {}, "no template"),
        ("{{a}}-{{ b }}", {"a": "x", "b": "y"}, "x-y"),
        ("{{a}}", {}, ""),
        ("{{a.b.c}}", {}, ""),
        ("{{a.b[0]}}", {"a": {"b": ["z"]}}, "z"),
        ("{{true}}", {}, "true"),
        ("{{t}} {{n}} {{f}} {{g}}", {"t": True, "n": None, "f": 2.0, "g": 2.5}, "true  2 2.5"),
        (
            "{{a}} {{b}} {{c}} {{d}}",
            {"a": 1e-5, "b": 1.5e-7, "c": 1e16, "d": 1e21},
            "0.00001 1.5e-7 10000000000000000 1e+21",
        ),
        (
            "{{a}} {{ b | trim }} {{c}}",
            {"a": -0.0, "b": 12345678901234567890, "c": [1e-6]},
            "0 12345678901234567890 0.000001",
        ),
        ("{{l}}", {"l": [1, True, None, "x", [2, 3]]}, "1,true,,x,2,3"),
        ("{{o}}", {"o": {"k": [1.0, "ü"]}}, '{"k":[1,"ü"]}'),
        ("{{o | dump}} {{o | dump(1)}} {{u | dump}}", {"o": [1]}, "[1] [\n 1\n] "),
        ("{{(s | load).k}}", {"s": '{"k": 5}'}, "5"),
        ("{{s.length}} {{l.length}}", {"s": "abc", "l": [1]}, "3 1"),
        ("{% if a %}yes{% else %}no{% endif %}", {"a": ""}, "no"),
        ("{% for x in l %}{{loop.index}}{{x}}{% endfor %}", {"l": ["a", "b"]}, "1a2b"),
        ("{{ a | upper | replace('X', 'Y') }}", {"a": "x"}, "Y"),
        ("{% raw %}{{a}}{% endraw %}{# no #}", {"a": 1}, "{{a}}"),
        ("{{env}}", {"env": "staging"}, "staging"),
        ('{"a": {{a}}}', {"a": 1}, '{"a": 1}'),
    ],
)
def test_values_look_as_in_javascript(template, variables, text):
    assert render(template, variables) == text


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{a", "is not valid"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ ''.__class__.mro() }}", "unsafe"),
        ("{{ a.toUpperCase() }}", "undefined"),
        ("{{ env.TOKEN }}", "environment variables"),
        ("{{ env['TOKEN'] }}", "environment variables"),
        ("{{ env }}", "environment variables"),
        ("{% if env.TOKEN %}{% endif %}", "environment variables"),
        ("{% for turn in _conversation %}{% endfor %}", "asked one by one"),
        ("{{ _conversation[0].output }}", "asked one by one"),
        ("{{ _conversation.length }}", "asked one by one"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "undefined"),
        ("{{ a | shout }}", "No filter named 'shout'"),
    ],
)
def test_what_cannot_be_rendered_says_why(template, says):
    with pytest.raises(ValueError, match=says):
        render(template, {})


def test_environment_never_reaches_a_prompt(monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    with pytest.raises(ValueError, match="environment") as caught:
        render("{{ env.TOKEN }}", {})
    assert "hunter2" not in str(caught.value)


def test_variables_are_filled_in_after_those_that_they_name():
    variables = {"a": "<{{b}}>", "b": "{{c | upper}}", "c": "x", "d": ["{{a}}", {"k": "{{c}}"}], "n": 5}
    assert fill_variables(variables) == {"a": "<X>", "b": "X", "c": "x", "d": ["<X>", {"k": "x"}], "n": 5}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"a": "{{a}}"}, "the variable 'a' names itself$"),
        ({"x": "{{b}}", "b": "{{c}}", "c": ["{{ b | upper }}"], "n": "y"}, "'b' names itself, through 'c'$"),
    ],
)
def test_variables_in_a_circle_are_refused(variables, says):
    """Left as they stand, the adapter would be asked braces."""
    with pytest.raises(VariableError, match=says) as caught:
        fill_variables(variables)
    assert caught.value.name in variables


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ 9**99999999 }}", "more than 1 s of processor time"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x", "processor time"),
        ("{{ 'a' * 99999999999 }}", "too much memory"),
        ("{% set n = namespace(x='a') %}{% for i in range(90) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "memory|time"),
        ("{% macro f(n) %}{{ f(n - 1) or f(n - 1) if n }}{% endmacro %}{{ f(60) }}", "processor time"),
        ("{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", "characters"),
        ("{{ [] | sum(start='a' | center(9**9)) }}", "memory|time"),
        ("{{" + "(" * 3000 + "1" + ")" * 3000 + "}}", "nested too deeply"),
    ],
)
def test_template_that_would_not_end_is_refused(template, says):
    """The loader would hang, and nobody would be told where."""
    started = time.process_time()
    with pytest.raises(TemplateError, match=says):
        fill_variables({"a": template})
    assert time.process_time() - started < 1.5
    assert render("{% for i in range(3) %}{{ i }}{{ a }}{% endfor %}", {"a": "b", "c": "d"}) == "0b1b2b"


@pytest.mark.parametrize(
    "template",
    [
        "{{a | upper}} {% if a %}{{ b.c[0] | dump }}{% else %}{{ b | default('x') }}{% endif %}",
        "{% for x in b.c %}- {{ x.name }}{% if not loop.last %}, {% endif %}{% endfor %}",
    ],
)
def test_usual_templates_need_no_process(template, monkeypatch):
    """A process for each suite would cost every run a tenth of a second."""
    monkeypatch.setattr(template_process, "render_apart", None)
    assert render(template, {"a": "x", "b": {"c": [{"name": "y"}]}})


def test_large_variables_are_not_walked_again_and_again_here(monkeypatch):
    monkeypatch.setattr(template_process, "render_apart", lambda _, variables: ",".join(variables))
    template = "{% for x in a %}{% if q %}{% endif %}{% endfor %}" + " " * 1000
    assert render(template, {"a": "x" * 2**20, "b": "y"}) == "a"


def test_process_of_templates_ends_with_its_pipe():
    """It must not outlive what started it."""
    renderer = template_process._Renderer()
    assert renderer.ask(["{{ 1 + 1 }}", {}]) == {"text": "2"}
    assert renderer.close() == 0


def test_process_of_templates_has_no_environment(monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    renderer = template_process._Renderer()
    renderer.ask(["x", {}])
    environment = Path(f"/proc/{renderer._process.pid}/environ")
    assert not environment.exists() or b"hunter2" not in environment.read_bytes()
    renderer.close()


def test_texts_of_one_value_have_one_limit():
    """A short file could otherwise ask for gigabytes."""
    big = {"a": "x" * 2**20, "b": ["{{a}}"] * 17}
    with pytest.raises(VariableError, match="together") as caught:
        fill_variables(big)
    assert caught.value.name == "b"


def test_raw_braces_in_a_variable_stay():
    assert fill_variables({"a": "{% raw %}{{b}}{% endraw %}", "b": "x"})["a"] == "{{b}}"


def test_only_one_line_break_at_the_end_of_a_variable_is_dropped():
    assert fill_variables({"a": "x\n", "b": "x\n\n"}) == {"a": "x", "b": "x\n"}


def test_variables_cannot_grow_without_bound():
    doubling = {"v0": "x" * 1024} | {f"v{n}": f"{{{{v{n - 1}}}}}{{{{v{n - 1}}}}}" for n in range(1, 40)}
    with pytest.raises(ValueError, match="characters"):
        fill_variables(doubling)


def test_keys_of_objects_are_no_templates():
    assert render_value({"{{a}}": ["{{a}}", 1, None]}, {"a": "x"}) == {"{{a}}": ["x", 1, None]}


def test_json_is_written_as_javascript_writes_it():
    assert json_text({"a": [1.0, 2.5, True, None, "é"], "b": {}}) == '{"a":[1,2.5,true,null,"é"],"b":{}}'
