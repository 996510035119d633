"""Files as promptfoo's users write them, and the cases that promptfoo 0.121.9 makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.cases import UnsupportedAssertion
from slipway.checks import Subject, grade
from slipway.javascript import Script
from slipway.judge_settings import JudgeSettings
from slipway.suite import load_suite

CORPUS = Path(__file__).parent


def load(name, **options):
    return load_suite(CORPUS / name / "promptfooconfig.yaml", **options)


@pytest.fixture(scope="module")
def support():
    return load("support")


@pytest.fixture(scope="module")
def extraction():
    return load("extraction")


@pytest.fixture(scope="module")
def routing():
    return load("routing")


def types(case):
    return [check.type for check in case.checks]


def test_tests_come_before_scenarios_and_lists_before_prompts(support):
    """Each test with the first value of a list asks every prompt; scenarios follow the tests."""
    assert [case.id for case in support.cases] == [
        *(f"returns #{number}" for number in range(1, 7)),
        *(f"opening hours #{number}" for number in range(1, 5)),
        *(f"greets #{number}" for number in range(1, 7)),
    ]
    assert [case.vars["item"] for case in support.cases[:6]] == ["shoes"] * 3 + ["boots"] * 3


def test_one_file_is_several_prompts_and_a_conversation_one(support):
    policy = "You answer for Sole & Co.\nPolicy: Returns within 30 days.\nQuestion: "
    question = "How long may I return shoes?"
    assert [case.prompt for case in support.cases[:3]] == [
        policy + question,
        f"Q: {question}\nA:",
        ({"role": "system", "content": "You answer for Sole & Co."}, {"role": "user", "content": question}),
    ]


def test_line_break_that_ends_a_variable_is_dropped(support):
    assert support.cases[0].vars["question"] == "How long may I return shoes?"


def test_test_that_names_its_prompts_asks_no_others(support):
    assert [case.prompt for case in support.cases[8:10]] == [
        "You answer for Sole & Co.\nPolicy: Returns within 30 days.\nQuestion: Are you open on Sundays?",
        "Q: Are you open on Sundays?\nA:",
    ]


def test_assertions_of_the_default_come_first_unless_switched_off(support):
    assert types(support.cases[0]) == ["not-icontains", "javascript", "llm-rubric", "assert-set"]
    assert types(support.cases[6]) == ["regex", "javascript", "javascript", "python", "similar"]


def test_keys_beside_a_reference_override_the_template(support):
    """The template has threshold 0.7 and no weight; its text names a variable."""
    grounded = support.cases[3].checks[2]
    assert (grounded.threshold, grounded.weight, grounded.metric) == (0.7, 3, "grounded-boots")
    assert grounded.value == "Answers How long may I return boots? from the shop's policy only"


def test_rubric_prompt_of_the_default_reaches_judged_assertions(support):
    asked = json.loads(support.cases[0].checks[2].rubric_prompt)
    assert asked == [{"role": "user", "content": "Rubric: {{rubric}} Answer: {{output}}"}]


def test_set_holds_its_assertions(support):
    wording = support.cases[3].checks[3]
    assert (wording.threshold, wording.weight, wording.metric) == (0.5, 2, "wording")
    assert [check.type for check in wording.checks] == ["icontains", "contains-any"]
    assert wording.checks[1].value == ("thirty", "boots")
    assert wording.checks[1].where == "promptfooconfig.yaml:66"


def test_own_transform_replaces_that_of_the_default(support):
    assert support.cases[0].transform == "output.trim()"
    source = (CORPUS / "support" / "lib" / "clean.js").read_text()
    assert support.cases[6].transform == Script(source=source, is_module=True, function="strip")


def test_prefix_stands_before_a_prompt_of_text(support):
    assert support.cases[7].prompt == "[Sole & Co] Q: When are you open?\nA:"


def test_threshold_and_metadata_are_merged(support):
    assert (support.cases[0].threshold, support.cases[8].threshold) == (0.6, 0.9)
    assert (support.cases[0].tags, support.cases[0].group) == (("returns",), "policy-1")
    assert (support.cases[6].tags, support.cases[6].metadata["suite"]) == (("all",), "support")


def test_generation_of_a_prompt_is_that_of_its_cases(support):
    assert [case.generation.temperature for case in support.cases[:3]] == [None, None, 0.2]
    assert support.cases[2].generation.max_tokens == 200


def test_scenario_is_every_test_with_every_set_of_variables(support):
    french, german = support.cases[11], support.cases[14]
    assert (french.prompt, german.prompt) == ("Q: Say hello in French.\nA:", "Q: Say hello in German.\nA:")
    assert types(french) == ["not-icontains", "javascript", "icontains", "not-icontains"]
    assert french.checks[2].value == "bonjour"
    assert types(german) == ["not-icontains", "javascript", "not-icontains"]
    assert (french.tags, german.tags) == (("all",), ("german",))


def test_program_in_python_is_not_read_and_lowers_the_coverage(support):
    """There is no such file: naming it must not matter."""
    assert support.unsupported == (
        UnsupportedAssertion(
            where="promptfooconfig.yaml:82", type="python", reason=support.cases[6].checks[3].unsupported, cases=2
        ),
    )
    assert "Python" in support.unsupported[0].reason
    assert support.coverage == 1 - 2 / 71


def test_everything_ignored_is_said_with_its_reason(support):
    keys = [note.split("'")[1] for note in support.notes if note.startswith("'")]
    assert keys == [
        "providers", "tags", "evaluateOptions", "outputPath", "env", "sharing", "commandLineOptions", "derivedMetrics",
        "options.provider", "options.runSerially", "provider", "providerOutput",
    ]  # fmt: skip
    assert all(" is ignored: " in note for note in support.notes if note.startswith("'"))


def test_judge_of_the_suite_comes_before_the_targets(support, extraction):
    assert support.judge.model == "judge-small"
    assert load("support", judge=JudgeSettings(model="other")).judge == support.judge
    assert extraction.judge is None
    assert load("extraction", judge=JudgeSettings(model="other")).judge.model == "other"


def test_file_of_javascript_grades(support):
    """The script is carried whole and called with the assertion's own configuration."""
    (check,) = (check for check in support.cases[6].checks if isinstance(check.value, Script))
    graded = grade([check], Subject(output="From 09:00 to 18:00"))
    assert (graded.passed, graded.score) == (True, 1)
    assert grade([check], Subject(output="From 10:00")).score == 0.5
    assert grade([check], Subject(output="Never")).passed is False


def test_rows_of_a_csv_are_tests(extraction):
    first, second, third, fourth = extraction.cases[:4]
    assert (first.id, first.prompt, first.threshold) == (
        "easy one", "> Extract number, amount from: Invoice 7, 12 EUR", 0.5,
    )  # fmt: skip
    assert (first.tags, first.metadata["source"]) == (("csv", "easy, really"), "scan")
    assert [(check.type, check.threshold, check.metric) for check in first.checks] == [
        ("not-contains", None, ""), ("contains-all", None, "fields"), ("levenshtein", 4, "fields"),
    ]  # fmt: skip
    assert first.checks[1].value == ("7", "12")
    assert [(check.type, check.value) for check in second.checks[1:]] == [
        ("equals", "8"), ("javascript", "output.includes('8')"), ("is-json", None),
    ]  # fmt: skip
    assert types(third)[1:] == ["similar", "llm-rubric", "javascript"]
    assert third.checks[1].threshold == 0.9
    assert isinstance(third.checks[3].value, Script)
    assert [(check.type, check.threshold) for check in fourth.checks[1:]] == [
        ("not-regex", None), ("latency", 1500), ("llm-rubric", None),
    ]  # fmt: skip


def test_lines_of_a_jsonl_are_tests(extraction):
    """A list of texts and a glob of files both make a case for each."""
    assert [case.prompt for case in extraction.cases[4:8]] == [
        "Extract number from: Two invoices: 1 and 2",
        "Extract date from: Two invoices: 1 and 2",
        "Extract total from: First document.",
        "Extract total from: Second document.",
    ]
    assert [case.where for case in extraction.cases[4:8]] == ["tests/hard.jsonl:1"] * 2 + ["tests/hard.jsonl:3"] * 2


def test_braces_in_a_file_are_no_template(extraction):
    assert extraction.cases[6].checks[1].value == "99 {{not a template}}"


def test_references_lead_into_other_files(extraction):
    nested = extraction.cases[8]
    assert nested.prompt == 'Extract {"name":"number"} from: Invoice 11'
    assert [(check.type, check.value, check.metric) for check in nested.checks[1:]] == [
        ("equals", "number=2", "exact"), ("starts-with", "Invoice 11", ""),
    ]  # fmt: skip


def test_default_test_comes_from_a_file(extraction):
    assert {case.generation.seed for case in extraction.cases} == {7}
    assert {case.checks[0].weight for case in extraction.cases} == {0}


def test_variables_come_from_several_files(extraction):
    assert extraction.cases[9].prompt == "Extract amount from: Invoice 12 for Ada"


def test_references_of_a_json_schema_are_its_own(extraction):
    assert extraction.cases[9].checks[1].value["properties"] == {"amount": {"$ref": "#/$defs/n"}}


def test_without_a_judge_judged_assertions_are_unsupported_one_by_one(extraction):
    assert [(found.where, found.type, found.cases) for found in extraction.unsupported] == [
        ("tests/easy.csv:4", "similar", 1),
        ("tests/easy.csv:4", "llm-rubric", 1),
        ("tests/easy.csv:5", "llm-rubric", 1),
    ]
    assert extraction.coverage == 1 - 3 / 29
    judged = load("extraction", judge=JudgeSettings(model="m", embeddings_model="e"))
    assert (judged.unsupported, judged.coverage) == ((), 1)


def test_prompts_are_conversations_in_every_form(routing):
    user = 'say "no"'
    assert [case.prompt for case in routing.cases[:8]] == [
        ({"role": "user", "content": user},),
        (
            {"role": "system", "content": "Route it."},
            {"role": "user", "content": 'a "b"'},
            {"role": "user", "content": user},
        ),
        ({"role": "system", "content": "Route it."}, {"role": "user", "content": f"Ticket: {user}"}),
        json.dumps({"instruction": "route", "ticket": user, "n": 1, "labels": ["a", "b"]}, indent=2),
        json.dumps(f"Route {user}"),
        ({"role": "user", "content": f"Now: {user}"},),
        f"Which team, for {user}?",
        f"# Notes\n---\n{user}\n",
    ]


def test_scenarios_and_their_parts_come_from_files(routing):
    assert [case.checks[0].value for case in routing.cases] == ["billing"] * 8 + ["returns"] * 8
    assert [case.threshold for case in routing.cases] == [None] * 8 + [0.5] * 8
    assert "'options' in the config of a scenario are ignored, as promptfoo does." in routing.notes
    assert routing.cases[8].prompt == routing.cases[0].prompt
