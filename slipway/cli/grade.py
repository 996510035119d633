"""`slipway grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from slipway.cli.output import print_json, stdout, write_text
from slipway.cli.results_view import print_results, results_document, results_exit_code
from slipway.configs import ConfigKind, find_config
from slipway.grading import grade_outputs
from slipway.junit import junit_xml
from slipway.suite import load_suite

__all__ = ["grade"]


def grade(
    suite: str,
    outputs: Path,
    /,
    *,
    junit: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Grade recorded outputs against a suite; asks no model. Exits 1 when a case failed.

    Args:
        suite: Name or path of a suite.
        outputs: JSONL, one `{"test": 0, "output": "..", "latency_ms": 12.0}` per line; `test` counts from 0.
        junit: Where to write JUnit XML.
        as_json: Print one JSON document on stdout.
    """
    loaded = load_suite(find_config(ConfigKind.SUITE, suite), need_prompts=False)
    results = grade_outputs(loaded, outputs)
    if junit is not None:
        write_text(junit, junit_xml(loaded.description or suite, results))
    if as_json:
        print_json(results_document(results))
    else:
        print_results(stdout(), results)
    return results_exit_code(results)
