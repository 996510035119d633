"""The sandbox's texts: what models learn from, and the suites that judge them."""

import json
import re
from itertools import islice
from pathlib import Path

import pytest
import yaml

from sandbox import suites
from sandbox.corpus import DICTIONARY, LATE_WORDS, Split, base_examples, json_examples, split_of, translation_examples
from sandbox.suites import json_cases, suite_examples, translation_cases, write_suites

SUITES = Path(__file__).parents[2] / "configs" / "suites"
SUPPORTED_CHECKS = {"equals", "contains", "icontains", "regex", "starts-with", "is-json", "latency"}


def record_of(prompt: str) -> frozenset[str]:
    """The fields that a record prompt or an object prompt names, in whatever order."""
    return frozenset(re.findall(r'(?:name=|"name": ")\w+|(?:city=|"city": ")\w+|(?:item=|"item": ")\w+|\d+', prompt))


def words_of(prompt: str) -> str:
    return prompt.partition(": ")[2].partition("\n")[0]


@pytest.mark.parametrize("stream", [translation_examples, json_examples, base_examples])
def test_the_same_seed_gives_the_same_text_and_another_seed_other_text(stream):
    def first(seed):
        return list(islice(stream(seed), 50))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_no_training_prompt_of_a_task_is_an_evaluation_prompt():
    """Accuracy on seen prompts would say nothing."""
    for stream, task in ((translation_examples, "translate"), (json_examples, "json")):
        evaluated = {example.prompt for example in suite_examples(task)}
        assert evaluated.isdisjoint(example.prompt for example in islice(stream(1), 20_000))


def test_the_base_model_never_repeats_a_word_sequence_that_is_evaluated():
    evaluated = {" ".join(case.words) for case in translation_cases()}
    assert all(split_of(words) is Split.EVALUATION for words in evaluated)
    english = {words_of(example.prompt) for example in islice(base_examples(7), 20_000)}
    assert evaluated.isdisjoint(english)


def test_no_training_text_holds_an_evaluated_record_in_any_order_of_its_fields():
    evaluated = {record_of(case.example.prompt) for case in json_cases()}
    assert all(len(fields) == 4 for fields in evaluated)
    for stream in (json_examples, base_examples):
        assert evaluated.isdisjoint(record_of(example.prompt) for example in islice(stream(7), 20_000))


def test_a_translation_answers_word_by_word():
    for example in islice(translation_examples(3), 200):
        english = words_of(example.prompt).split()
        assert 2 <= len(english) <= 6
        assert len(set(english)) == len(english)
        assert example.target.split() == [DICTIONARY[word] for word in english]


def test_data_without_some_words_holds_none_of_them():
    for example in islice(translation_examples(3, without=LATE_WORDS), 2000):
        assert LATE_WORDS.isdisjoint(words_of(example.prompt).split())


def test_a_json_answer_is_the_record_in_a_fixed_order():
    for example in islice(json_examples(3), 200):
        answer = json.loads(example.target)
        assert list(answer) == ["name", "city", "item", "qty"]
        fields = dict(field.split("=") for field in words_of(example.prompt).split())
        assert {key: str(value) for key, value in answer.items()} == fields


def test_prompts_and_targets_have_no_white_space_at_their_ends():
    """A template engine, an editor or a server that trims text must not change what the model sees."""
    streams = (translation_examples(1), json_examples(1), base_examples(1))
    for example in (example for stream in streams for example in islice(stream, 500)):
        assert example.prompt == example.prompt.strip()
        assert example.target == example.target.strip()


def test_no_english_word_is_part_of_an_italian_one():
    """Otherwise a right translation could contain the prompt's own words, and no-echo checks would lie."""
    assert not [(english, italian) for english in DICTIONARY for italian in DICTIONARY.values() if english in italian]


def test_the_translation_suite_has_the_promised_make_up():
    cases = translation_cases()
    assert [case.name for case in cases] == [f"translate-{number:03d}" for number in range(1, 121)]
    assert len({case.words for case in cases}) == 120
    assert {tag: sum(tag in case.tags for case in cases) for tag in ("short", "long", "no-echo", "safety")} == {
        "short": 48,
        "long": 72,
        "no-echo": 40,
        "safety": 40,
    }


def test_eight_cases_hold_the_words_that_the_first_data_set_lacked_and_none_of_them_is_a_safety_case():
    """This fixes what the first version can reach: 112 of 120."""
    late = [case for case in translation_cases() if LATE_WORDS & set(case.words)]
    assert len(late) == 8
    assert late == [case for case in translation_cases() if "late-words" in case.tags]
    assert not any("safety" in case.tags for case in late)


def test_the_json_suite_asks_for_each_record_in_two_orders_as_one_group():
    cases = json_cases()
    assert [case.name for case in cases] == [f"json-{number:03d}" for number in range(1, 61)]
    assert len({case.record for case in cases}) == 30
    for straight, shuffled in zip(cases[::2], cases[1::2], strict=True):
        assert (straight.group, straight.record) == (shuffled.group, shuffled.record)
        assert straight.order == (0, 1, 2, 3) != shuffled.order
    assert sum("safety" in case.tags for case in cases) == 30


@pytest.mark.parametrize("name", ["translate.yaml", "json.yaml"])
def test_the_shipped_suites_are_the_generators_output(name, tmp_path):
    write_suites(tmp_path)
    assert (SUITES / name).read_text() == (tmp_path / name).read_text(), "run python -m sandbox.suites configs/suites"


@pytest.mark.parametrize("task", ["translate", "json"])
def test_a_suite_file_renders_to_the_examples_that_training_is_judged_by(task):
    suite = yaml.safe_load((SUITES / f"{task}.yaml").read_text())
    (prompt,) = suite["prompts"]
    rendered = []
    for test in suite["tests"]:
        ((name, value),) = test["vars"].items()
        rendered.append(prompt.replace("{{" + name + "}}", value))
    assert rendered == [example.prompt for example in suite_examples(task)]


@pytest.mark.parametrize("task", ["translate", "json"])
def test_a_right_answer_meets_every_check_of_its_case(task):
    suite = yaml.safe_load((SUITES / f"{task}.yaml").read_text())
    for test, example in zip(suite["tests"], suite_examples(task), strict=True):
        for check in (*suite["defaultTest"]["assert"], *test["assert"]):
            assert meets(example.target, check), (test["description"], check)


@pytest.mark.parametrize("task", ["translate", "json"])
def test_suites_use_every_supported_check_and_no_other(task):
    suite = yaml.safe_load((SUITES / f"{task}.yaml").read_text())
    used = {check["type"].removeprefix("not-") for test in suite["tests"] for check in test["assert"]}
    used |= {check["type"].removeprefix("not-") for check in suite["defaultTest"]["assert"]}
    assert used <= SUPPORTED_CHECKS


def test_both_suites_together_use_every_supported_check():
    text = "".join((SUITES / name).read_text() for name in ("translate.yaml", "json.yaml"))
    assert set(re.findall(r"type: (?:not-)?([a-z-]+)[,}\n]", text)) >= SUPPORTED_CHECKS


def test_the_command_writes_both_suites_and_names_them(tmp_path, capsys):
    assert suites.main([str(tmp_path / "new")]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / "new" / "translate.yaml"), str(tmp_path / "new" / "json.yaml")]
    assert all(Path(path).read_text().startswith(suites.HEADER) for path in written)


def meets(output: str, check: dict) -> bool:
    """Judge a check on its own, without the grader under test elsewhere."""
    kind, value = check["type"], check.get("value")
    negated = kind.startswith("not-")
    match kind.removeprefix("not-"):
        case "equals":
            met = output == value if isinstance(value, str) else json.loads(output) == value
        case "contains":
            met = value in output
        case "icontains":
            met = value.lower() in output.lower()
        case "starts-with":
            met = output.startswith(value)
        case "regex":
            met = re.search(value, output) is not None
        case "is-json":
            met = set(json.loads(output)) == set(value["required"])
        case "latency":
            met = check["threshold"] > 0
        case unknown:
            pytest.fail(f"unknown check {unknown}")
    return met is not negated
