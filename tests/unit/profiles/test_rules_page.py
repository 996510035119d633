"""The page of rules and the rules themselves agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.findings import Fix, Prediction, Severity
from slipway.profiles.page import render_rules
from slipway.rules import Hit, rule

PAGE = Path(__file__).parents[3] / "docs" / "rules.md"


def test_page_is_what_the_rules_say():
    assert PAGE.read_text() == render_rules(), "run: python -m slipway.profiles.page > docs/rules.md"


def test_prediction_that_a_rule_does_not_declare_is_a_defect():
    @rule("x", Severity.ERROR, Prediction.DROP, Fix.NONE, source="nowhere")
    def surprising(_):
        """A surprise."""
        yield Hit(message="", prediction=Prediction.REJECT)

    assert surprising.summary == "A surprise."
    with pytest.raises(ValueError, match="does not declare"):
        list(surprising(None))
