"""Prompts in every form that promptfoo takes them."""

import json

import pytest

from slipway.errors import ConfigFileError
from slipway.suite import load_suite


@pytest.fixture
def prompts(write):
    """Give the prompts of a suite with one test."""

    def load(entries, variables=None):
        return [
            case.prompt
            for case in load_suite(
                write(json.dumps({"prompts": entries, "tests": [{"vars": variables or {}}]}), "suite.json")
            ).cases
        ]

    return load


def test_text_file_is_split_at_lines_of_dashes_only(write, prompts):
    write("a --- b\n ---  \r\n\nc\n----\nd\n---\n\n", "p.txt")
    assert prompts("p.txt") == ["a --- b", "c\n----\nd"]


def test_markdown_is_one_prompt_to_its_last_character(write, prompts):
    write("a\n---\nb\n", "p.md")
    assert prompts(["file://p.md"]) == ["a\n---\nb\n"]


def test_files_may_be_keys_with_their_labels(write, prompts):
    write("one {{x}}", "p.txt")
    assert prompts({"p.txt": "first", "two": "second"}, {"x": 1}) == ["one 1", "two"]


def test_column_of_a_table_is_prompts(write, prompts):
    write('label,prompt\na,"one, {{x}}"\nb,\nc,three\n', "p.csv")
    assert prompts("p.csv", {"x": 1}) == ["one, 1", "three"]
    write("prompt\none\n\ntwo\n", "p.csv")
    assert prompts("p.csv") == ["one", "two"]
    write("zero\none\n", "p.csv")
    assert prompts("p.csv") == ["zero", "one"]


def test_text_that_begins_like_json_is_text(prompts):
    texts = ["[INST] {{x}} [/INST]", '"Yes" or "no"?', "{not json", "{{x}} is", "[1, 2"]
    assert prompts(texts, {"x": "a"}) == ["[INST] a [/INST]", '"Yes" or "no"?', "{not json", "a is", "[1, 2"]
    deep = "[" * 900 + "]" * 900
    assert prompts([deep]) == [deep]


def test_json_that_only_templates_make_valid_is_read_once_filled_in(write, prompts):
    write('[{% for t in turns %}{"role": "user", "content": {{t.text | dump}}}{% endfor %}]', "p.json")
    assert prompts("file://p.json", {"turns": [{"text": 'say "hi"'}]}) == [({"role": "user", "content": 'say "hi"'},)]


def test_malformed_json_without_templates_is_refused_with_its_line(write, prompts):
    path = write('[\n{"role": }]', "p.json")
    with pytest.raises(ConfigFileError) as caught:
        prompts("file://p.json")
    assert (caught.value.file, caught.value.line) == (path, 2)


def test_yaml_of_messages_keeps_what_variables_hold(prompts):
    """A line break in a variable must not become one of the YAML around it."""
    text = "- role: system\n  content: Be kind.\n- role: user\n  content: '{{q}}'\n"
    assert prompts([text], {"q": "a\nb: 'c'"}) == [
        ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "a\nb: 'c'"})
    ]


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["one"], ["1"]),
        (["group"], ["2", "3"]),
        (["group:*"], ["2", "3"]),
        (["group:b", "one"], ["1", "3"]),
        (["the-id"], ["4"]),
        (["plain"], ["plain"]),
    ],
)
def test_test_asks_prompts_by_label_id_or_group(write, names, asked):
    prompts = [
        {"raw": "1", "label": "one"},
        {"raw": "2", "label": "group:a"},
        {"raw": "3", "label": "group:b"},
        {"raw": "4", "label": "four", "id": "the-id"},
        "plain",
    ]
    suite = load_suite(write(json.dumps({"prompts": prompts, "tests": [{"prompts": names}]})))
    assert [case.prompt for case in suite.cases] == asked


def test_options_of_a_test_come_before_the_config_of_a_prompt(write):
    prompt = {"raw": "x", "config": {"temperature": 0.5, "seed": 1, "apiKey": "ignored"}}
    tests = [{}, {"options": {"temperature": 0}}]
    suite = load_suite(write(json.dumps({"prompts": [prompt], "tests": tests})))
    assert [(case.generation.temperature, case.generation.seed) for case in suite.cases] == [(0.5, 1), (0, 1)]
