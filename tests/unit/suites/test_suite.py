"""Reading suites in promptfoo's format."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from slipway.errors import ConfigFileError
from slipway.grading import grade_outputs
from slipway.suite import load_suite

FULL = """\
    description: Refunds
    prompts:
      - "Q: {{question}}\\nA:"
    providers: [openai:gpt-4]
    defaultTest:
      vars: {tone: kind, question: none}
      threshold: 0.5
      metadata: {tags: [all], team: a}
      options: {max_tokens: 32, temperature: 0}
      assert:
        - {type: not-contains, value: sorry}
    tests:
      - description: refund-1
        vars: {question: "Refund {{item}}, {{tone}}?", item: shoes}
        metadata: {tags: [refund], group: doc-7}
        options: {temperature: 0.5, stop: ["\\n"]}
        assert:
          - {type: icontains, value: "{{item}}", weight: 2, metric: accuracy}
      - vars: {question: plain}
        threshold: 0.9
        tags: safety
    """


def test_whole_suite_is_expanded(write):
    suite = load_suite(write(FULL))
    first, second = suite.cases
    assert suite.description == "Refunds"
    assert suite.notes == ("'providers' is ignored: what is asked is the adapter.",)
    assert (first.id, second.id) == ("refund-1", "case-0002")
    assert first.vars["tone"] == "kind"
    assert [check.type for check in first.checks] == ["not-contains", "icontains"]
    assert first.checks[1].value == "shoes"
    assert (first.checks[1].weight, first.checks[1].metric) == (2, "accuracy")
    assert (first.threshold, second.threshold) == (0.5, 0.9)
    assert (first.tags, first.group) == (("refund",), "doc-7")
    assert (second.tags, second.group) == (("all", "safety"), None)
    assert (first.generation.max_tokens, first.generation.temperature, first.generation.stop) == (32, 0.5, ("\n",))
    assert second.generation.temperature == 0
    assert second.prompt == "Q: plain\nA:"


def test_variables_may_refer_to_each_other(write):
    text = "prompts: ['{{a}}']\ntests: [{vars: {b: x, a: 'is {{b}}'}}]"
    assert load_suite(write(text)).cases[0].prompt == "is x"


def test_lists_of_texts_in_variables_expand_combinatorially(write):
    """The first variable changes slowest; prompts vary inside each test. Lists of anything else are values."""
    suite = load_suite(
        write("""\
            prompts: ["{{a}}{{b}}", "{{b}}{{n}}"]
            tests:
              - vars: {a: [x, y], b: ["1", "2"], n: [3, 4]}
            """)
    )
    assert [case.prompt for case in suite.cases] == [
        "x1", "13,4", "x2", "23,4", "y1", "13,4", "y2", "23,4"
    ]  # fmt: skip
    assert suite.cases[7].id == "case-0008"


def test_expansion_can_be_switched_off(write):
    text = "prompts: ['{{a}}']\ntests: [{vars: {a: [x, y]}, options: {disableVarExpansion: true}}]"
    assert [case.prompt for case in load_suite(write(text)).cases] == ["x,y"]


def test_expanded_cases_of_one_description_are_numbered(write):
    text = "prompts: ['{{a}}']\ntests: [{description: d, vars: {a: [x, y]}}]"
    assert [case.id for case in load_suite(write(text)).cases] == ["d #1", "d #2"]


def test_undefined_variables_are_empty(write):
    text = "prompts: ['<{{nothing}}{{no.such.thing}}>']\ntests: [{}]"
    assert load_suite(write(text)).cases[0].prompt == "<>"


def test_values_look_in_prompts_as_in_javascript(write):
    text = "prompts: ['{{t}} {{f}} {{n}} {{o}} {{o | dump}}']\ntests: [{vars: {t: true, f: 2.0, n: null, o: {k: [1]}}}]"
    assert load_suite(write(text)).cases[0].prompt == 'true 2  {"k":[1]} {"k":[1]}'


def test_bare_list_of_tests_brings_its_own_prompts(write):
    suite = load_suite(write("- vars: {prompt: Hello}\n  assert: [{type: contains, value: hi}]\n"))
    assert suite.cases[0].prompt == "Hello"


def test_test_without_prompt_is_refused_unless_outputs_are_only_graded(write, refused):
    text = "- vars: {prompt: x}\n- assert: [{type: equals, value: hi}]\n"
    error = refused(text)
    assert error.line == 2
    assert "no prompt" in error.message
    assert len(load_suite(write(text), need_prompts=False).cases) == 2


def test_prompts_come_from_files(write):
    write("one {{x}}\n---\ntwo\nlines\n---\n", "prompts/a.txt")
    write("three", "prompts/b.txt")
    write('[{"role": "user", "content": "four"}]', "chat.json")
    suite = load_suite(
        write("prompts: [file://prompts/*.txt, chat.json, {raw: five, label: l}]\ntests: [{vars: {x: 1}}]")
    )
    assert [case.prompt for case in suite.cases] == [
        "one 1", "two\nlines", "three", ({"role": "user", "content": "four"},), "five"
    ]  # fmt: skip


def test_conversations_are_rendered_message_by_message(write):
    """Quotes in a variable must not break the JSON around it."""
    prompt = json.dumps([{"role": "system", "content": "Be {{tone}}."}, {"role": "user", "content": "{{q}}"}])
    write("- {role: user, content: '{{q}}'}\n", "chat.yaml")
    suite = load_suite(
        write(f"prompts: ['{prompt}', file://chat.yaml]\ntests: [{{vars: {{tone: kind, q: 'say \"hi\"'}}}}]\n")
    )
    assert suite.cases[0].prompt == (
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": 'say "hi"'},
    )
    assert suite.cases[1].prompt == ({"role": "user", "content": 'say "hi"'},)
    assert suite.sample_prompts() == ('say "hi"',)


def test_text_that_becomes_a_conversation_is_one(write):
    text = """\
        prompts: ['[{% for t in turns %}{"role": "user", "content": "{{t.x}}"}{% endfor %}]', '[not json', '["a"]']
        tests: [{vars: {turns: [{x: hi}]}}]
        """
    prompts = [case.prompt for case in load_suite(write(text)).cases]
    assert prompts == [({"role": "user", "content": "hi"},), "[not json", '[\n  "a"\n]']


def test_prefix_and_suffix_surround_the_prompt(write):
    text = "prompts: ['{{a}}']\ntests: [{vars: {a: x}, options: {prefix: '<{{a}}', suffix: '>'}}]"
    assert load_suite(write(text)).cases[0].prompt == "<xx>"


def test_tests_come_from_files_and_globs(write):
    write("- vars: {prompt: a}\n- vars: {prompt: b}\n", "tests/1.yaml")
    write("vars: {prompt: c}\n", "tests/2.yml")
    write('[{"vars": {"prompt": "d"}}]', "tests/3.json")
    write('{"vars": {"prompt": "e"}}\n\n{"vars": {"prompt": "f"}}\n', "tests/4.jsonl")
    write("vars: {prompt: g}\n", "deep/er/5.yaml")
    suite = load_suite(
        write("tests: [tests/1.yaml, 'file://tests/[2-3].*', tests/4.jsonl, 'deep/**/*.yaml', {vars: {prompt: h}}]")
    )
    assert [case.prompt for case in suite.cases] == list("abcdefgh")
    assert [case.prompt for case in load_suite(write("tests: tests/1.yaml")).cases] == list("ab")


def test_csv_becomes_tests(write):
    write(
        """\
        question,__expected,__expected2,__description,__metadata:tags[],__metric,__threshold,__prefix
        "one, two",Note: text,not-contains:x,first,"a, b",m,0.5,>
        three,latency(250),,,,,,
        four,is-json,"regex:^a,b$",,,,,

        """,
        "tests.csv",
    )
    first, second, third = load_suite(write("prompts: ['{{question}}']\ntests: tests.csv")).cases
    assert (first.id, first.prompt, first.tags, first.threshold) == ("first", ">one, two", ("a", "b"), 0.5)
    assert [(check.type, check.value, check.metric) for check in first.checks] == [
        ("equals", "Note: text", "m"),
        ("not-contains", "x", "m"),
    ]
    assert [(check.type, check.threshold) for check in second.checks] == [("latency", 250)]
    assert [(check.type, check.value) for check in third.checks] == [("is-json", None), ("regex", "^a,b$")]


def test_values_come_from_files(write):
    write("From a file", "text.txt")
    write("{type: object}", "schema.yaml")
    write("{who: Ann}", "vars.yaml")
    write("assert: [{type: contains, value: '{{who}}x'}]", "default.yaml")
    suite = load_suite(
        write("""\
            prompts: ["{{doc}} {{schema}}{{who}}"]
            defaultTest: file://default.yaml
            tests:
              - vars: {doc: file://text.txt, schema: file://schema.yaml}
                assert: [{type: is-json, value: file://schema.yaml}, {type: equals, value: file://text.txt}]
              - vars: file://vars.yaml
            """)
    )
    assert suite.cases[0].prompt == 'From a file {"type":"object"}'
    assert [check.value for check in suite.cases[0].checks] == ["x", {"type": "object"}, "From a file"]
    assert suite.cases[1].checks[0].value == "Annx"


def test_quirks_are_noted(write):
    suite = load_suite(
        write("""\
            - vars: {prompt: x}
              assert:
                - {type: not-latency, threshold: 5}
                - {type: assert-set, assert: [{type: not-latency, threshold: 6}, {type: contains, value: a}]}
            """)
    )
    assert suite.notes == ("not-latency means latency: promptfoo ignores the not- there.",)


def test_digest_depends_on_what_is_asked_and_expected_only(write):
    base = load_suite(write(FULL)).digest
    assert base.startswith("sha256:")
    assert load_suite(write("# a comment\n" + dedent(FULL), "other.yaml")).digest == base
    for old, new in (
        ("sorry", "sorri"),
        ("weight: 2", "weight: 3"),
        ("max_tokens: 32", "max_tokens: 33"),
        ("Q:", "P:"),
    ):
        assert load_suite(write(FULL.replace(old, new))).digest != base


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("prompts: [x]\n", 1, "tests", "no tests"),
        ("[]", 1, "", "no tests"),
        ("hello", 1, "", "expected keys and values"),
        ("prompts: [x]\ntest: []\n", 2, "test", "Did you mean 'tests'?"),
        ("prompts: [x]\ntests:\n- {}\nscenario: []\n", 4, "scenario", "Did you mean 'scenarios'?"),
        ("prompts: [x]\ntests: 5\n", 2, "tests", "expected a list of tests"),
        ("prompts: [x]\ntests:\n- 5\n", 3, "tests[0]", "expected keys and values"),
        ("prompts: [x]\ntests:\n- vars: {}\n  asserts: []\n", 4, "tests[0].asserts", "Did you mean 'assert'?"),
        ("prompts: [x]\ntests:\n- assert:\n  - typ: equals\n", 4, "tests[0].assert[0].typ", "Did you mean 'type'?"),
        (
            "prompts: [x]\ntests:\n- assert:\n  - {type: icontain, value: y}\n",
            4,
            "tests[0].assert[0]",
            "Did you mean 'icontains'?",
        ),
        ("prompts: [x]\ntests:\n- assert:\n  - {type: contains}\n", 4, "tests[0].assert[0]", "needs a value"),
        (
            "prompts: [x]\ntests:\n- assert:\n  - {type: contains, value: '{{no}}'}\n",
            4,
            "tests[0].assert[0].value",
            "needs a value",
        ),
        ("prompts: [x]\ntests:\n- assert:\n  - {type: regex, value: '('}\n", 4, "tests[0].assert[0]", "pattern"),
        (
            "prompts: [x]\ntests:\n- assert: [{type: equals, value: a, transforms: t}]\n",
            3,
            "tests[0].assert[0].transforms",
            "Did you mean 'transform'?",
        ),
        (
            "prompts: [x]\ntests:\n- assert: [{type: equals, value: a, weight: -1}]\n",
            3,
            "tests[0].assert[0].weight",
            "equal to 0",
        ),
        ("prompts: [x]\ntests:\n- options: {max_token: 5}\n", 3, "tests[0].options.max_token", "'max_tokens'"),
        ("prompts: [x]\ntests:\n- id: a\n- id: a\n", 4, "tests[1].id", "already at suite.yaml:3"),
        ("prompts: [x]\ntests:\n- metadata: {tags: 5}\n", 3, "tests[0]", "tags must be"),
        ("prompts: [x]\ntests:\n- metadata: {group: [5]}\n", 3, "tests[0]", "group must be"),
        ("prompts: ['{{x']\ntests:\n- {}\n", 1, "prompts[0]", "template"),
        ("prompts: ['{{ 1 / 0 }}']\ntests:\n- {}\n", 1, "prompts[0]", "division by zero"),
        ("prompts: [\"{{ ''.__class__.mro() }}\"]\ntests:\n- {}\n", 1, "prompts[0]", "unsafe"),
        ("prompts: [5]\ntests: [{}]\n", 1, "prompts[0]", "expected the text"),
        ("prompts: []\ntests: [{}]\n", 1, "prompts", "no prompt"),
        ("prompts: file://no.txt\ntests: [{}]\n", 1, "prompts", "no prompt is at"),
        ("prompts: file://suite.yaml.py\ntests: [{}]\n", 1, "prompts", "is a program"),
        ("prompts: [x]\ntests: no.yaml\n", 2, "tests", "no file of tests"),
        ("prompts: [x]\ntests: ['no/*.yaml']\n", 2, "tests[0]", "no file of tests"),
        ("prompts: [x]\ntests: [{vars: {a: file://no.txt}}]\n", 2, "tests[0].vars.a", "is not a file"),
        ("prompts: [x]\ntests: [{vars: {a: file://x.py}}]\n", 2, "tests[0].vars.a", "not run"),
        ("prompts: [x]\ndefaultTest: {threshold: high}\ntests: [{}]\n", 2, "defaultTest.threshold", "valid number"),
        (
            'prompts: [\'[{"role": "user", "content": "x"}]\']\ntests:\n- options: {prefix: y}\n',
            3,
            "tests[0]",
            "conversation",
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(refused, text, line, key, says):
    error = refused(text)
    assert (error.line, error.key) == (line, key)
    assert says in str(error)


def test_error_in_a_file_of_tests_names_that_file(write, refused):
    tests = write("- vars: {}\n\n- assert: [{type: nonsense}]\n", "more.yaml")
    error = refused("prompts: [x]\ntests: more.yaml\n")
    assert (error.file, error.line, error.key) == (tests, 3, "[1].assert[0]")
    write('{"vars": {}}\n{"vars": 5}\n', "more.jsonl")
    assert refused("prompts: [x]\ntests: more.jsonl\n").line == 2
    write("x", "more.txt")
    assert "cannot be read from 'more.txt'" in refused("prompts: [x]\ntests: more.txt\n").message


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a,__expectd\n1,2\n", 1, "'__expectd' is not supported"),
        ("a,a\n1,2\n", 1, "two columns 'a'"),
        ("a,b\n1\n", 2, "1 cells, the header has 2"),
        ('a\n"x\ny"\n1,2\n', 4, "2 cells"),
        ('a\n"x" y\n', 2, "not valid CSV"),
        ("a,__threshold\n1,high\n", 2, "expected a number"),
        ("a,__expected\n1,contains:\n", 2, "needs a value"),
        ("a,__expected\n1,javascript:)\n", 2, "JavaScript"),
    ],
)
def test_error_in_a_csv_names_its_line(write, refused, text, line, says):
    (write("", "t.csv")).write_text(text)
    error = refused("prompts: [x]\ntests: t.csv\n")
    assert error.line == line
    assert says in error.message


def test_line_of_a_jsonl_that_is_nested_too_deeply_is_refused(write, refused):
    write('{"vars": {}}\n{"vars": {"a": ' + "[" * 300 + "]" * 300 + "}}\n", "deep.jsonl")
    error = refused("prompts: [x]\ntests: deep.jsonl\n")
    assert (error.line, error.message.endswith("is nested more than 100 levels deep.")) == (2, True)


def test_key_in_a_jsonl_is_named(write, refused):
    write('{"vars": {}}\n{"asert": []}\n', "more.jsonl")
    error = refused("prompts: [x]\ntests: more.jsonl\n")
    assert (error.line, error.key) == (2, "[1].asert")
    assert "Did you mean 'assert'?" in str(error)


def test_file_of_variables_must_hold_keys_and_values(write, refused):
    write("[a]", "vars.yaml")
    assert "keys and values" in refused("prompts: [x]\ntests: [{vars: file://vars.yaml}]\n").message


def test_file_of_tests_may_be_named_by_a_key_of_its_own(write):
    write("- vars: {prompt: a}\n", "more.yaml")
    assert load_suite(write("tests: [{path: file://more.yaml}]")).cases[0].prompt == "a"


def test_long_prompt_that_ends_like_a_file_is_a_prompt(write):
    """The file system refuses names of more than 255 bytes."""
    prompt = "Summarise " + "word " * 100 + "notes.md"
    assert load_suite(write(f"prompts: ['{prompt}']\ntests: [{{}}]\n")).cases[0].prompt == prompt


def test_example_of_the_documentation_loads(pytestconfig, write):
    text = (pytestconfig.rootpath / "docs" / "suites.md").read_text()
    assert load_suite(write(text.split("```yaml\n")[1].split("```")[0])).cases[0].tags == ("refund", "safety")


def test_metadata_column_without_brackets_is_one_text(write):
    write("a,__metadata:tags,__expected\n1,safety,latency\n,,\n", "t.csv")
    (case,) = load_suite(write("prompts: [x]\ntests: t.csv\n")).cases
    assert case.tags == ("safety",)
    assert case.checks[0].threshold == 0.75


def test_too_many_cases_are_refused_before_they_are_made(refused):
    """Ten lists of sixty would be more cases than there is memory for."""
    values = ", ".join(f"v{number}" for number in range(60))
    variables = ", ".join(f"{name}: [{values}]" for name in "abcdefghij")
    assert "more than 100000" in refused(f"- vars: {{{variables}}}\n").message


def test_prompt_of_an_unknown_kind_is_refused(write, refused):
    write("%PDF", "p.pdf")
    assert "cannot be read from 'p.pdf'" in refused("prompts: file://p.pdf\ntests: [{}]\n").message


# -- recorded outputs ---------------------------------------------------------------------------------------------

GRADED = """\
    - description: one
      metadata: {tags: [t], group: g}
      assert: [{type: contains, value: x}]
    - description: two
      assert: [{type: latency, threshold: 10}]
    - description: three
    """


@pytest.fixture
def grade(write, tmp_path):
    """Grade recorded outputs, given as dictionaries, against the suite above."""

    def grade_lines(*outputs):
        suite = load_suite(write(GRADED), need_prompts=False)
        path = tmp_path / "outputs.jsonl"
        path.write_text("".join(json.dumps(output) + "\n" for output in outputs))
        return grade_outputs(suite, path)

    return grade_lines


def test_recorded_outputs_are_graded_in_the_suites_order(grade):
    one, two, three = grade({"test": 1, "output": "", "latency_ms": 12.0}, {"test": 0, "output": "x"})
    assert (one.case, one.passed, one.score, one.tags, one.group, one.output) == ("one", True, 1, ("t",), "g", "x")
    assert (two.passed, two.latency_ms, two.error) == (False, 12.0, None)
    assert (three.passed, three.error) == (None, "no recorded output")


def test_check_that_cannot_be_applied_makes_the_case_missing(grade):
    result = grade({"test": 1, "output": "x"})[1]
    assert (result.passed, result.score) == (None, None)
    assert "latency" in result.error


@pytest.mark.parametrize("tests", [(3,), (0, 0)])
def test_outputs_that_fit_no_case_are_refused(grade, tests):
    with pytest.raises(ConfigFileError) as caught:
        grade(*({"test": test, "output": ""} for test in tests))
    assert (caught.value.line, caught.value.key) == (len(tests), "test")


def test_every_shipped_suite_loads(pytestconfig):
    suites = sorted((pytestconfig.rootpath / "configs" / "suites").glob("*.yaml"))
    for suite in map(load_suite, suites):
        assert len({case.id for case in suite.cases}) == len(suite.cases)
        assert suite.sample_prompts()
