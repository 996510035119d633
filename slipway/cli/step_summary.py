"""Tell a CI system's summary what a command found; commands that grade, evaluate or decide call it last."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from slipway.gate import Verdict
from slipway.redaction import scrub_text, secrets_from_environment
from slipway.results import CaseResult
from slipway.services.step_summary import VARIABLE, append_step_summary

__all__ = ["summarise_step"]


def summarise_step(results: Sequence[CaseResult], *, name: str, verdict: Verdict | None = None) -> None:
    """Append pass rates, regressions and the verdict to the step's summary, where there is one."""
    if not os.environ.get(VARIABLE):
        return
    from slipway.report import masked, render_summary
    from slipway.report.recorded import data_of_results

    data = data_of_results(results, name=name, verdict=verdict)
    secrets = partial(scrub_text, secrets=secrets_from_environment(os.environ))
    append_step_summary(render_summary(masked(data, secrets=secrets, private=str)))
