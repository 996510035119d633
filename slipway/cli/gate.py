"""`slipway gate`."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from rich.markup import escape

from slipway.cli.output import print_json, printable, stdout
from slipway.cli.step_summary import summarise_step
from slipway.configs import ConfigKind, find_config
from slipway.gate import Decision, decide
from slipway.gate_file import load_gate
from slipway.results_io import read_results
from slipway.wording import counted, p_value, probability

__all__ = ["gate"]

EXIT_CODES = {Decision.PROMOTE: 0, Decision.HOLD: 1, Decision.INCONCLUSIVE: 3}
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def gate(
    results: Path,
    /,
    *,
    gate: str = "default",
    attempt: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    first_release: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Decide on recorded results; asks no model. Exits 0 for promote, 1 for hold, 3 for inconclusive.

    Args:
        results: JSONL as `slipway evaluate --out` and each release write it.
        gate: Name or path of a gate file.
        attempt: Which attempt of this candidate on this suite it is, from 1; later ones need clearer evidence.
        first_release: There is no champion yet, so that rules about it are left out, as the gate file says. Without
            this, results that lack the champion leave such rules open.
        as_json: Print one JSON document on stdout.
    """
    has_champion = False if first_release else None
    lines = read_results(results)
    gc.freeze()  # they live until the process ends: no search for cycles need walk through them
    verdict = decide(lines, load_gate(find_config(ConfigKind.GATE, gate)), attempt=attempt, has_champion=has_champion)
    summarise_step(lines, name=results.name, verdict=verdict)
    if as_json:
        print_json(verdict.as_document())
        return EXIT_CODES[verdict.verdict]
    console = stdout()
    console.print(f"[bold]{verdict.verdict}[/]")
    console.print(f"attempt {verdict.attempt}, {100 * verdict.confidence:g} % confidence", style="dim")
    told = set()
    for rule in verdict.rules:
        told.add(rule.reason)
        console.print(
            f"  [{COLOURS[rule.outcome]}]{rule.outcome:<12}[/] {escape(printable(rule.rule))}: "
            f"{escape(printable(rule.reason))}",
            soft_wrap=True,
        )
    for reason in verdict.reasons:
        if reason not in told:
            console.print(escape(printable(reason)), soft_wrap=True)
    if verdict.regressions:
        console.print(f"below the {verdict.regressions[0].against} (Holm over all tags and metrics; informs only):")
    for one in verdict.regressions:
        colour = "red" if one.is_beyond_chance else "dim"
        console.print(
            f"  [{colour}]{one.kind} {escape(printable(one.name))} {one.difference:+.3f}[/] on "
            f"{counted(one.n, 'case')}, {p_value(one.p)}, adjusted {probability(one.p_holm)}",
            soft_wrap=True,
        )
    return EXIT_CODES[verdict.verdict]
