"""Write the page of all rules, ``docs/rules.md``: ``python -m slipway.profiles.page > docs/rules.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from slipway.profiles import PROFILES
from slipway.rules import Rule, ServerProfile

__all__ = ["render_rules"]

_INTRODUCTION: Final = """\
# Rules

What `slipway inspect` looks for, by profile. `prediction` says what the server would do on account of the finding
alone: `reject` (answer with an error), `wrong` (answer, computing something else than was trained), `drop` (answer,
leaving part or all of the adapter unused) or `ok`. `fix` says who can mend it: `fit` (`slipway fit`, losslessly),
`manual` (a person) or `none`. An adapter is `servable` without errors, `fixable` if `fit` mends every error, and
`refused` otherwise; a warning is about what may happen, and keeps nothing from being served.

This page is written by `python -m slipway.profiles.page`.
"""


def render_rules() -> str:
    """Give the page as Markdown."""
    return "\n".join((_INTRODUCTION, *(line for profile in PROFILES.values() for line in _section(profile)))) + "\n"


def _section(profile: ServerProfile) -> Iterator[str]:
    yield f"## `{profile.name}`"
    yield ""
    yield f"Sources: {profile.reference}."
    yield ""
    yield "| code | what | prediction | severity | fix | source |"
    yield "|---|---|---|---|---|---|"
    yield from map(_row, profile.rules)
    yield ""


def _row(rule: Rule) -> str:
    predictions = " or ".join((rule.prediction, *rule.also))
    cells = (f"`{rule.code}`", rule.summary, predictions, rule.severity, rule.fix, rule.source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(render_rules())
