"""Cells and columns of CSV files, as promptfoo reads them."""

import pytest

from slipway.suite import load_suite


@pytest.fixture
def checks(write):
    """Give the checks that one cell of ``__expected`` makes."""

    def read(cell):
        quoted = '"' + cell.replace('"', '""') + '"'
        (write("", "t.csv")).write_text(f"a,__expected\n1,{quoted}\n")
        (case,) = load_suite(write("prompts: [x]\ntests: t.csv\n")).cases
        return [(check.type, check.value, check.threshold) for check in case.checks]

    return read


@pytest.mark.parametrize(
    ("cell", "check"),
    [
        ("bare text", ("equals", "bare text", None)),
        ("Note: this", ("equals", "Note: this", None)),
        ("equals:  x ", ("equals", "x", None)),
        ("not-contains:x: y", ("not-contains", "x: y", None)),
        ("contains-any:a, b", ("contains-any", ("a", "b"), None)),
        ("not-icontains-all:a,b", ("not-icontains-all", ("a", "b"), None)),
        ("is-json", ("is-json", None, None)),
        ("levenshtein:a", ("levenshtein", "a", 0.75)),
        ("rouge-n(0.5):a b", ("rouge-n", "a b", 0.5)),
        ("bleu(0.25):a b", ("bleu", ("a b",), 0.25)),
        ("starts-with:a", ("starts-with", "a", 0.75)),
        ("fn: output == 1 ", ("javascript", "output == 1", None)),
        ("eval:true", ("javascript", "true", None)),
        ("grade: kind", ("llm-rubric", "kind", None)),
        ("similar:a", ("similar", ("a",), 0.8)),
        ("python:print()", ("python", "print()", None)),
        ("file://x.py", ("python", "file://x.py", None)),
        ("similar:cosine:a", ("similar:cosine", ("a",), 0.75)),
    ],
)
def test_cell_is_one_assertion(checks, cell, check):
    assert checks(cell) == [check]


def test_threshold_of_a_column_is_that_columns(write):
    """Blank cells before it do not shift it to another assertion."""
    write(
        """\
        a,__expected1,__expected2,__config:__expected2:threshold,__config:__expected1:threshold
        1,,levenshtein:x,3,
        2,levenshtein:y,rouge-n:z,,2
        """,
        "t.csv",
    )
    first, second = load_suite(write("prompts: [x]\ntests: t.csv\n")).cases
    assert [check.threshold for check in first.checks] == [3]
    assert [check.threshold for check in second.checks] == [2, 0.75]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a,__config:__expected2:threshold\n1,2\n", 1, "no such column"),
        ("a,__expected,__config:__expected:weight\n1,2,3\n", 1, "not supported"),
        ("a,__expected,__config:__expected:threshold\n1,2,high\n", 2, "expected a number"),
        ("a,__metadata\n1,2\n", 1, "not supported"),
        ("a,__threshold\n1,nan\n", 2, "expected a number"),
    ],
)
def test_column_that_means_nothing_is_refused(write, refused, text, line, says):
    write("", "t.csv").write_text(text)
    error = refused("prompts: [x]\ntests: t.csv\n")
    assert error.line == line
    assert says in error.message
