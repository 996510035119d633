"""Templates of suites look as promptfoo's do, and let nothing in from outside."""

import pytest

from slipway.templates import fill_variables, json_text, render, render_value


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


def test_variables_in_a_circle_do_not_hang():
    assert fill_variables({"a": "{{b}}", "b": "{{a}}1"}) == {"a": "{{a}}1", "b": "{{a}}11"}
    assert fill_variables({"a": "{{a}}"}) == {"a": "{{a}}"}


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
