"""Show an inspection: a table on a terminal, one line per finding when piped."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slipway.findings import Finding, InspectionVerdict, Prediction, Severity
from slipway.inspection import Inspection
from slipway.wording import counted

__all__ = ["print_inspection"]

_STYLES: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_VERDICT_STYLES: Final = {
    InspectionVerdict.SERVABLE: "bold green",
    InspectionVerdict.FIXABLE: "bold yellow",
    InspectionVerdict.REFUSED: "bold red",
}
_MEANINGS: Final = {
    Prediction.OK: "would serve it as trained",
    Prediction.REJECT: "would answer with an error",
    Prediction.WRONG: "would answer, and compute something else than was trained",
    Prediction.DROP: "would answer, and leave part or all of it unused",
}


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print facts, prediction, findings with the most severe first, and verdict."""
    for name, value in _facts(inspection):
        console.print(Text.assemble((f"{name:<11} ", "dim"), value), soft_wrap=True)
    if inspection.findings:
        console.print()
        if console.is_terminal:
            console.print(_table(inspection))
        else:
            for finding in inspection.findings:
                console.print(Text(_line(finding)), soft_wrap=True)
        console.print()
    console.print(
        Text.assemble(
            f"{inspection.profile} {_MEANINGS[inspection.prediction]}: ",
            (inspection.verdict.value, _VERDICT_STYLES[inspection.verdict]),
        ),
        soft_wrap=True,
    )


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    facts, bundle = inspection.facts, inspection.bundle
    rank = (
        "unknown" if facts.rank is None else f"{facts.rank}, alpha {facts.alpha:g}" if facts.alpha else f"{facts.rank}"
    )
    return [
        ("adapter", _printable(bundle.uri)),
        ("digest", bundle.digest),
        ("size", f"{bundle.size_bytes:,} bytes in {counted(len(bundle.files), 'file')}"),
        ("base model", _printable(facts.base_model) or "not named"),
        ("method", _printable(facts.peft_type) or "not named"),
        ("rank", rank),
        ("modules", ", ".join(map(_printable, facts.target_modules)) or "none"),
        ("layers", str(facts.layers)),
        ("parameters", f"{facts.parameters:,} {facts.dtype}".rstrip()),
    ]


def _table(inspection: Inspection) -> Table:
    table = Table(show_lines=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("what", ratio=1)
    for finding in inspection.findings:
        what = Text(_printable(finding.message))
        if finding.where:
            what = Text.assemble((_printable(finding.where), "dim"), "\n", what)
        table.add_row(Text(finding.severity, _STYLES[finding.severity]), Text(finding.code), what)
    return table


def _line(finding: Finding) -> str:
    where = f" {finding.where}:" if finding.where else ""
    return _printable(f"{finding.severity} {finding.code}:{where} {finding.message}")


def _printable(text: str) -> str:
    """Escape what could steer a terminal: these texts come from files of unknown origin."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
