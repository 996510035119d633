"""What of promptfoo cannot be obeyed is refused, ignored with a note, or counted as unsupported: never dropped."""

import json
from dataclasses import replace

import pytest

from slipway.javascript import Script
from slipway.judge_settings import JudgeSettings
from slipway.redaction import Redactor
from slipway.suite import load_suite

TEST = "prompts: [x]\ntests:\n- "


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("prompts: [x]\nextensions: [file://hook.js]\ntests: [{}]\n", 2, "extensions", "may change what is asked"),
        (TEST + "options: {storeOutputAs: a}\n", 3, "tests[0].options.storeOutputAs", "any order"),
        (TEST + "options: {transformVars: 'vars'}\n", 3, "tests[0].options.transformVars", "changes what is asked"),
        (TEST + "options: {transform: 'output..x'}\n", 3, "tests[0].options.transform", "JavaScript"),
        (TEST + "options: {temperture: 1}\n", 3, "tests[0].options.temperture", "Did you mean 'temperature'?"),
        ("prompts: [x]\ntests: huggingface://datasets/a/b\n", 2, "tests", "not on this machine"),
        ("prompts: [x]\ntests: https://docs.google.com/spreadsheets/d/1\n", 2, "tests", "not on this machine"),
        ("prompts: [x]\ntests: [az://account/tests.csv]\n", 2, "tests[0]", "Download it"),
        ("prompts: [x]\ntests: file://tests.py:generate\n", 2, "tests", "is a program"),
        ("prompts: [x]\ntests: [{path: file://tests.js, config: {n: 5}}]\n", 2, "tests[0]", "is a program"),
        ("prompts: [x]\ntests: tests.xlsx#Sheet1\n", 2, "tests", "Save the sheet as a .csv"),
        ("prompts: [file://p.js]\ntests: [{}]\n", 1, "prompts[0]", "is a program"),
        ("prompts: ['exec:./p.sh']\ntests: [{}]\n", 1, "prompts[0]", "would be run or fetched"),
        ("prompts: ['langfuse://a:1']\ntests: [{}]\n", 1, "prompts[0]", "would be run or fetched"),
        ("prompts: [prompts/missing.txt]\ntests: [{}]\n", 1, "prompts[0]", "no prompt is at"),
        ("prompts: [{label: a}]\ntests: [{}]\n", 1, "prompts[0]", "has no text"),
        ("prompts: [{raw: a, lable: b}]\ntests: [{}]\n", 1, "prompts[0].lable", "Did you mean 'label'?"),
        (
            "prompts: [{raw: a, config: {temperature: hot}}]\ntests: [{}]\n",
            1,
            "prompts[0].config.temperature",
            "number",
        ),
        ('prompts: [\'[{"role": "user", "content": 5}]\']\ntests: [{}]\n', 1, "prompts[0]", "role and a content"),
        (
            'prompts: [\'[{"role": "user", "content": "a", "name": "b"}]\']\ntests: [{}]\n',
            1,
            "prompts[0]",
            "'name'; only role and content are sent",
        ),
        (
            'prompts: [\'[{"role": "user", {% if a %}{% endif %}"content": "{{a}}"}]\']\ntests:\n- vars: {a: \'"\'}\n',
            1,
            "prompts[0]",
            "dump",
        ),
        (
            "prompts: ['{{env.HOME}}']\ntests:\n- {}\n",
            1,
            "prompts[0]",
            "write the value itself; the test at suite.yaml:3",
        ),
        ("prompts: [x]\ntests:\n- vars:\n    a: b\n    q: '{{ 1 / 0 }}'\n", 5, "tests[0].vars.q", "division by zero. "),
        (
            "prompts: [x]\ndefaultTest:\n  vars:\n    q: '{{z}}'\ntests:\n- vars: {z: '{{q}}'}\n",
            4,
            "defaultTest.vars.q",
            "names itself, through 'z'. Break the circle",
        ),
        (TEST + "options: {prefix: '{{'}\n", 3, "tests[0]", "is not valid"),
        (
            TEST + "assert:\n  - type: contains\n    value: '{{nix}}'\n",
            5,
            "tests[0].assert[0].value",
            "found the text ''; 'nix' is not set. Write `vars: {nix: ...}`",
        ),
        (TEST + "assert: [{type: contains, value: '{{q'}]\n", 3, "tests[0].assert[0].value", "statement'. Correct the"),
        (
            TEST + "assert: [{type: not-javascript, value: 'output. ='}]\n",
            3,
            "tests[0].assert[0]",
            "'output. ='. Write it like `{type: not-javascript, value: output.length < 80}`",
        ),
        (
            TEST + "assert: [{type: latency}]\n",
            3,
            "tests[0].assert[0]",
            "Write it like `{type: latency, threshold: 800}`",
        ),
        ("", None, "", "the keys prompts, tests, defaultTest, scenarios, assertionTemplates, judge."),
        (
            "prompts: [{raw: a, label: one}]\ntests:\n- prompts: [on]\n",
            3,
            "tests[0]",
            "Did you mean 'one'?",
        ),
        (TEST + "prompts: []\n", 3, "tests[0]", "asks none"),
        (TEST + "assert: [{$ref: '#/assertionTemplates/a'}]\n", 3, "tests[0].assert[0].$ref", "leads nowhere"),
        (
            "assertionTemplates: {polite: {type: equals}}\n"
            + TEST
            + "assert: [{$ref: '#/assertionTemplates/plite'}]\n",
            4,
            "tests[0].assert[0].$ref",
            "Did you mean 'polite'?",
        ),
        (
            "assertionTemplates: {a: {$ref: '#/assertionTemplates/a'}}\n"
            + TEST
            + "assert: [{$ref: '#/assertionTemplates/a'}]\n",
            4,
            "tests[0].assert[0].$ref",
            "leads back to itself",
        ),
        (
            "assertionTemplates:\n  a:\n    typ: equals\n" + TEST + "assert: [{$ref: '#/assertionTemplates/a'}]\n",
            3,
            "tests[0].assert[0].typ",
            "Did you mean 'type'?",
        ),
        (TEST + "assert: [{type: equals, value: a, assert: []}]\n", 3, "tests[0].assert[0].assert", "holds no"),
        (TEST + "assert: [{type: assert-set}]\n", 3, "tests[0].assert[0]", "at least one"),
        (
            TEST + "assert:\n  - type: assert-set\n    assert:\n    - {type: contains}\n",
            6,
            "tests[0].assert[0].assert[0]",
            "needs a value",
        ),
        (
            TEST + "assert:\n  - type: assert-set\n    assert:\n    - {type: contains, vale: a}\n",
            6,
            "tests[0].assert[0].assert[0].vale",
            "Did you mean 'value'?",
        ),
        (TEST + "assert: [{type: equals, value: a, config: 5}]\n", 3, "tests[0].assert[0].config", "keys and values"),
        (TEST + "assert: [{type: javascript, value: file://no.js}]\n", 3, "tests[0].assert[0].value", "not a file"),
        (TEST + "assert: [{type: equals, value: file://*.txt}]\n", 3, "tests[0].assert[0].value", "not a file"),
        ("prompts: [x]\nscenarios:\n- tests: []\n", 3, "scenarios[0].config", "required"),
        ("prompts: [x]\nscenarios:\n- config: []\n", 3, "scenarios[0]", "no variables"),
        ("prompts: [x]\nscenarios: [file://no.yaml]\n", 2, "scenarios[0]", "not a file"),
        ("prompts: [x]\njudge: {modle: a}\ntests: [{}]\n", 2, "judge.modle", "Did you mean 'model'?"),
        ("prompts: [x]\nproviders: [echo]\n", 1, "tests", "no tests"),
        ("prompts: [x]\ntests: empty.jsonl\n", 2, "tests", "no tests"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_its_place(write, refused, text, line, key, says):
    write("", "empty.jsonl")
    error = refused(text)
    assert (error.line, error.key) == (line, key)
    assert says in str(error)


def test_same_id_of_two_tests_is_refused_across_files(write, refused):
    write("- id: a\n", "more.yaml")
    error = refused("prompts: [x]\ntests: [{id: a}, more.yaml]\n")
    assert (error.file.name, error.key) == ("more.yaml", "[0].id")
    assert "already at suite.yaml:2" in error.message


def test_cases_of_one_id_are_numbered(write):
    suite = load_suite(write("- {id: a, vars: {prompt: [x, y]}}\n- {id: b, vars: {prompt: z}}\n"))
    assert [case.id for case in suite.cases] == ["a #1", "a #2", "b"]


@pytest.mark.parametrize(("bare", "note"), [(0, None), (1, "1 case has no assertion"), (2, "2 cases have no")])
def test_cases_that_check_nothing_are_told(write, bare, note):
    checked = "- {vars: {prompt: a}, assert: [{type: equals, value: x}]}\n"
    notes = load_suite(write(checked + "- {vars: {prompt: b}}\n" * bare)).notes
    assert [*notes] == [one for one in notes if note and one.startswith(note)]
    assert bool(notes) == bool(note)


def test_what_is_private_in_the_name_of_a_case_is_masked_and_names_stay_apart(write):
    path = write("- {description: call Ann, vars: {prompt: a}}\n- {description: call Bob, vars: {prompt: b}}\n")
    plain = load_suite(path)
    masked = load_suite(path, mask=Redactor(["Ann|Bob"]))
    assert [case.id for case in plain.cases] == ["call Ann", "call Bob"]
    assert [case.id for case in masked.cases] == ["call *** #1", "call *** #2"]
    assert masked.digest == plain.digest, "attempts on the same suite are counted together"


def test_shared_descriptions_are_numbered_over_the_whole_suite(write):
    """Files that promptfoo loads have them; the names must be unique all the same, whatever else is called so."""
    text = "".join(
        f"- {{description: {name}, vars: {{prompt: x}}}}\n" for name in ("d", "'d #2'", "d", "e", "case-0006")
    )
    suite = load_suite(write(text + "- vars: {prompt: y}\n"))
    assert [case.id for case in suite.cases] == ["d #1", "d #2", "d #3", "e", "case-0006", "case-0006'"]
    assert "1 description is shared by several tests: their cases are numbered." in suite.notes


def test_keys_of_the_author_may_hold_anchors(write):
    text = "x-common: &c {type: contains, value: a}\n_note: b\nprompts: [x]\ntests: [{assert: [*c]}]\n"
    assert load_suite(write(text)).cases[0].checks[0].type == "contains"


def test_references_may_lead_to_keys_of_the_author(write):
    """What stands there is only looked at where it is used: a JSON Schema has references of its own."""
    text = """\
        x-parts:
          kind: {type: contains, value: a}
          schema: {$ref: '#/$defs/n'}
        prompts: [x]
        tests: more.yaml
        """
    write("- assert: [{$ref: '#/x-parts/kind', value: b}]\n", "more.yaml")
    (check,) = load_suite(write(text)).cases[0].checks
    assert (check.type, check.value) == ("contains", "b")


def unsupported(write, test, *files):
    for name in files:
        write("", name)
    suite = load_suite(write(f"prompts: [x]\ntests:\n- {json.dumps(test)}\n"))
    return suite, {found.type: found.reason for found in suite.unsupported}


def test_value_that_a_program_computes_is_unsupported(write):
    suite, reasons = unsupported(write, {"assert": [{"type": "equals", "value": "file://x.js"}]}, "x.js")
    assert "only `javascript` assertions are run" in reasons["equals"]
    assert suite.coverage == 0


def test_context_transform_is_unsupported(write):
    assertion = {"type": "context-recall", "value": "a", "contextTransform": "output.context"}
    _, reasons = unsupported(write, {"assert": [assertion]})
    assert "contextTransform" in reasons["context-recall"]


def test_transform_in_python_leaves_nothing_to_grade(write):
    assertions = [
        {"type": "equals", "value": "a"},
        {"type": "assert-set", "assert": [{"type": "contains", "value": "b"}]},
    ]
    suite, reasons = unsupported(write, {"options": {"transform": "file://t.py"}, "assert": assertions})
    assert set(reasons) == {"equals", "contains"}
    assert all("not JavaScript" in reason for reason in reasons.values())
    assert (suite.coverage, suite.cases[0].transform) == (0, "")


def test_transform_that_needs_the_network_leaves_nothing_to_grade(write):
    test = {"options": {"transform": "fetch(output)"}, "assert": [{"type": "equals", "value": "a"}]}
    _, reasons = unsupported(write, test)
    assert "fetch" in reasons["equals"]


def test_transform_of_an_assertion_in_python_is_unsupported_alone(write):
    assertions = [{"type": "equals", "value": "a", "transform": "file://t.py"}, {"type": "equals", "value": "b"}]
    suite, reasons = unsupported(write, {"assert": assertions})
    assert list(reasons) == ["equals"]
    assert suite.coverage == 0.5


def test_file_of_a_transform_is_carried_as_a_script(write):
    write("export const named = (output) => output", "t.mjs")
    suite = load_suite(
        write("prompts: [x]\ntests: [{assert: [{type: equals, value: a, transform: 'file://t.mjs:named'}]}]\n")
    )
    script = Script(source="export const named = (output) => output", is_module=True, function="named")
    assert suite.cases[0].checks[0].transform == script


def test_scoring_function_lowers_the_coverage(write):
    """The case is still graded, by weights and threshold, but the report must not look complete."""
    test = {"assertScoringFunction": "file://score.js", "assert": [{"type": "equals", "value": "a"}]}
    suite, reasons = unsupported(write, test)
    assert "assertScoringFunction" in reasons
    assert suite.coverage == 0.5
    assert suite.unsupported[0].where == "suite.yaml:3"


def test_scores_of_factuality_reach_its_checks(write):
    text = """\
        prompts: [x]
        judge: {model: m}
        tests:
        - options: {factuality: {subset: 0.5}}
          assert: [{type: factuality, value: a}]
        """
    assert load_suite(write(text)).cases[0].checks[0].config["factuality"] == {"subset": 0.5}


def test_paths_are_looked_for_beside_the_suite_then_beside_the_file(write):
    """Promptfoo takes them from the suite's directory; a file of tests moved with its data still works."""
    write("of the suite", "a.txt")
    write("of the tests", "more/a.txt")
    write("only here", "more/b.txt")
    write("- vars: {prompt: 'file://a.txt'}\n- vars: {prompt: 'file://b.txt'}\n", "more/tests.yaml")
    suite = load_suite(write("tests: more/tests.yaml"))
    assert [case.prompt for case in suite.cases] == ["of the suite", "only here"]


# -- the digest ---------------------------------------------------------------------------------------------------

DIGESTED = {
    "prompts": ["{{q}}"],
    "judge": {"model": "m"},
    "tests": [
        {
            "vars": {"q": "x", "unseen": "y"},
            "options": {"transform": "output.trim()", "rubricPrompt": "Rate {{output}}"},
            "assert": [
                {"type": "llm-rubric", "value": "kind"},
                {"type": "javascript", "value": "output === 'a'", "transform": "output + 'b'", "config": {"n": 1}},
                {"type": "assert-set", "threshold": 0.5, "assert": [{"type": "contains", "value": "c"}]},
            ],
        }
    ],
}


def digest(write, text):
    return load_suite(write(text)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"m"', '"other"'),
        ('"y"', '"z"'),
        ("output.trim()", "output.trimEnd()"),
        ("Rate {{output}}", "Judge {{output}}"),
        ("kind", "polite"),
        ("output === 'a'", "output === 'b'"),
        ("output + 'b'", "output + 'c'"),
        ('{"n": 1}', '{"n": 2}'),
        ('"threshold": 0.5', '"threshold": 0.6'),
        ('"c"', '"d"'),
    ],
)
def test_digest_covers_everything_that_decides_an_answers_worth(write, old, new):
    text = json.dumps(DIGESTED)
    assert text.count(old) == 1
    assert digest(write, text) != digest(write, text.replace(old, new))


def test_digest_covers_neither_places_nor_servers(write):
    text = json.dumps(DIGESTED)
    moved = "# a line more\n" + text.replace('{"model": "m"}', '{"model": "m", "url": "http://127.0.0.1/v1"}')
    assert digest(write, text) == digest(write, moved)
    write(json.dumps(DIGESTED["tests"]), "elsewhere.json")
    assert digest(write, json.dumps(DIGESTED | {"tests": "elsewhere.json"})) == digest(write, text)


def test_judge_of_the_target_is_in_the_digest(write):
    path = write(json.dumps({key: value for key, value in DIGESTED.items() if key != "judge"}))
    digests = {load_suite(path, judge=judge).digest for judge in (None, JudgeSettings(model="m"))}
    assert len(digests) == 2
    assert load_suite(path, judge=JudgeSettings(model="m")).digest == digest(write, json.dumps(DIGESTED))


def test_script_of_a_file_is_in_the_digest(write):
    text = "prompts: [x]\ntests: [{assert: [{type: javascript, value: 'file://a.js'}]}]\n"
    write("module.exports = () => true", "a.js")
    before = digest(write, text)
    write("module.exports = () => false", "a.js")
    after = digest(write, text)
    (script,) = (check.value for check in load_suite(write(text)).cases[0].checks)
    assert before != after
    assert replace(script, source="") == Script(source="", is_module=True)
