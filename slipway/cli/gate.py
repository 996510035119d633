"""`slipway gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape

from slipway.cli.output import print_json, stdout
from slipway.configs import ConfigKind, find_config
from slipway.gate import Decision, decide
from slipway.gate_file import load_gate
from slipway.results_io import read_results

__all__ = ["gate"]

EXIT_CODES = {Decision.PROMOTE: 0, Decision.HOLD: 1, Decision.INCONCLUSIVE: 3}
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def gate(
    results: Path,
    /,
    *,
    gate: str = "default",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Decide on recorded results; asks no model. Exits 0 for promote, 1 for hold, 3 for inconclusive.

    Args:
        results: JSONL as `slipway evaluate --out` and each release write it.
        gate: Name or path of a gate file.
        as_json: Print one JSON document on stdout.
    """
    verdict = decide(read_results(results), load_gate(find_config(ConfigKind.GATE, gate)))
    if as_json:
        print_json(verdict.as_document())
        return EXIT_CODES[verdict.verdict]
    console = stdout()
    console.print(f"[bold]{verdict.verdict}[/]")
    for rule in verdict.rules:
        console.print(
            f"  [{COLOURS[rule.outcome]}]{rule.outcome:<12}[/] {escape(rule.rule)}: {escape(rule.reason)}",
            soft_wrap=True,
        )
    return EXIT_CODES[verdict.verdict]
