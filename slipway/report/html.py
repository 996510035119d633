"""The report as one HTML file: no network, no dependencies, nothing in it that its texts could bring to life.

The page allows itself one style sheet and one script, by their hashes; every text is escaped by the templates, and the
script writes text nodes only. Without the script the verdict, the plots and the first changed cases are still there.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from slipway.report import cases, texts
from slipway.report.data import ReportData
from slipway.report.figures import Figures
from slipway.report.panels import Panels
from slipway.report.verdict import headline
from slipway.wording import probability

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_html"]

SHOWN_WITHOUT_SCRIPT = 5
"""Cases in the page itself: regressions, else failures, else the first."""

STYLE, SCRIPT = "report.css", "report.js"


def render_html(data: ReportData, *, figures: Figures | None = None) -> str:
    """Write the report.

    Args:
        data: What the report shows.
        figures: Of this data, where they are known: making them takes as long as the page. Made where None.

    Raises:
        ConfigurationError: The results hold two lines for one case and arm.
    """
    from markupsafe import Markup  # noqa: PLC0415  # comes with jinja2, which most commands never need

    figures = figures or Figures.of(data)
    views = cases.build(figures)
    template = _environment().get_template("page.html.j2")
    return template.render(
        data=data,
        figures=figures,
        panels=Panels(figures),
        headline=headline(data),
        shown_cases=_first(views),
        cases_total=len(views),
        packed=Markup(cases.pack(figures, views)),  # noqa: S704  # JSON without "<", ">" and "&"
        policy=_policy(),
        style=Markup(_asset(STYLE)),  # noqa: S704  # ours
        script=Markup(_asset(SCRIPT)),  # noqa: S704  # ours
    )


def _first(views: list[cases.CaseView]) -> list[cases.CaseView]:
    """What to show of the cases to whoever runs no script."""
    regressed = [view for view in views if view.change is cases.Change.REGRESSION]
    failed = [view for view in views if any(answer.state is cases.State.FAILED for answer in view.answers[:1])]
    return (regressed or failed or views)[:SHOWN_WITHOUT_SCRIPT]


def _policy() -> str:
    """Forbid everything but our own style and script: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    rules = {
        "default-src": "'none'",
        "style-src": _hash(_asset(STYLE)),
        "script-src": _hash(_asset(SCRIPT)),
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return (files("slipway.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined  # noqa: PLC0415  # as above
    from markupsafe import Markup  # noqa: PLC0415  # as above

    def finalize(value: object) -> object:
        """Every text that a template writes passes here: what deceives the eye becomes visible."""
        return texts.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    templates = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in (files("slipway.report") / "assets").iterdir()
        if entry.name.endswith(".j2")
    }
    environment = Environment(
        loader=DictLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=texts.percent,
        signed=texts.signed,
        ms=texts.milliseconds,
        usd=texts.usd,
        grouped=texts.grouped,
        counted=texts.counted,
        probability=probability,
    )
    return environment
