"""How tests of checks grade one output."""

from __future__ import annotations

import pytest

from slipway.checks import Check, Subject, grade, prepare


@pytest.fixture
def graded():
    """Grade one output with one check, given by its type, value and keys; keys of a subject are taken out."""

    def grade_one(kind, value, output, **keys):
        subject = {name: keys.pop(name) for name in tuple(keys) if name in Subject._fields}
        check = prepare(Check(type=kind, value=value, **keys))
        return grade([check], Subject(output=output, **subject))

    return grade_one


@pytest.fixture
def passes(graded):
    """As ``graded``, but only whether it passed."""
    return lambda kind, value, output, **keys: graded(kind, value, output, **keys).passed
