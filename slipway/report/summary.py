"""The report on half a page of Markdown: for Prefect's UI, for a step summary, for a terminal.

Verdict, the reasons that matter, the rates, what regressed, and where the whole report is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slipway.evidence import Evidence
from slipway.markdown import bullets, cell, code, plain, table
from slipway.report.data import ReportData
from slipway.report.figures import Figures, Rate
from slipway.report.texts import grouped, percent, signed
from slipway.report.verdict import headline
from slipway.results import Arm, CaseResult

__all__ = ["render_summary"]

SHOWN_CASES = 5
SHOWN_TAGS = 12


def render_summary(data: ReportData, *, report: str = "", figures: Figures | None = None) -> str:
    """Write the summary.

    Args:
        data: What the report shows.
        report: Address of the whole report, such as a ``file://`` one; empty where there is none.
        figures: Of this data, where they are known; made where None.

    Raises:
        ConfigurationError: The results hold two lines for one case and arm.
    """
    figures = figures or Figures.of(data)
    sections = [_head(data), _rates(figures), _regressions(figures), _adapter(figures), _links(data, report)]
    return "\n".join(section for section in sections if section)


def _head(data: ReportData) -> str:
    top = headline(data)
    text = f"# {top.mark} {plain(data.release_id or data.name)}: {plain(data.outcome or 'results')}\n\n"
    text += bullets(plain(reason) for reason in top.reasons)
    if top.others:
        text += f"- and {len(top.others)} more in the report\n"
    if top.served:
        text += f"\n{plain(top.served)}\n"
    return text


def _rates(figures: Figures) -> str:
    if not figures.rates:
        return ""
    rows = [
        ["**all cases**" if row.tag is None else plain(row.tag), *map(_rate, row.rates)]
        for row in figures.rates[: SHOWN_TAGS + 1]
    ]
    text = table(["pass rate", *map(str, figures.arms)], rows)
    if len(figures.rates) > SHOWN_TAGS + 1:
        text += f"\n{len(figures.rates) - SHOWN_TAGS - 1} more tags are in the report.\n"
    for pair in figures.pairs:
        difference = ""
        if pair.estimate is not None and pair.low is not None and pair.high is not None:
            difference = f"; {pair.metric} {signed(pair.estimate)} ({signed(pair.low)} to {signed(pair.high)})"
        text += f"\nAgainst the {pair.arm}: {pair.summary.gained} gained, {pair.summary.lost} lost{difference}.\n"
    unasked, why = figures.not_asked
    if unasked:
        text += f"\n{grouped(unasked)} of {grouped(len(figures.evidence.cases))} cases were not asked: {plain(why)}\n"
    return text


def _rate(rate: Rate) -> str:
    missing = f"{rate.missing} missing" if rate.missing else ""
    if rate.interval is None:
        return missing or "no answers"
    ends = f"{percent(rate.interval.low)} to {percent(rate.interval.high)}"
    text = f"{percent(rate.interval.estimate)} ({ends}) of {rate.interval.n}"
    return f"{text}, {missing}" if missing else text


def _regressions(figures: Figures) -> str:
    regressed = figures.regressed
    if not regressed:
        return ""
    shown = regressed[:SHOWN_CASES]
    of = f", the first {len(shown)}" if len(shown) < len(regressed) else ""
    return f"## Regressions: {len(regressed)}{of}\n\n" + _side_by_side(figures.evidence, shown)


def _side_by_side(evidence: Evidence, cases: Sequence[str]) -> str:
    """Show every arm's output; the last column is why the candidate failed."""
    arms = [arm for arm in Arm if arm in evidence.arms]
    rows = []
    for case in cases:
        results = [evidence.arms[arm].get(case) for arm in arms]
        why = next((reason for result in results if result for reason in _failures(result)), "")
        rows.append([plain(case), *(_output(result) for result in results), cell(why) if why else ""])
    return table(["case", *map(str, arms), "what failed"], rows)


def _output(result: CaseResult | None) -> str:
    if result is None or result.error is not None:
        return "*(missing)*"
    return f"{'✓' if result.passed else '✗'} {cell(result.output)}"


def _failures(result: CaseResult) -> Iterator[str]:
    return (check.reason or check.type for check in result.checks if check.passed is False)


def _adapter(figures: Figures) -> str:
    data, parts = figures.data, []
    if data.adapter_uri:
        parts.append(f"Adapter {code(data.adapter_uri)}, digest {code(data.digest.removeprefix('sha256:')[:12])}")
    if data.adapter_id:
        parts.append(f"served as {code(data.adapter_id)}")
    if data.fit is not None:
        changes = len(data.fit.changes)
        parts.append(f"rewritten for the server ({changes} change{'s' * (changes != 1)}, same function)")
    if figures.attempt > 1:
        parts.append(f"attempt {figures.attempt} on this suite")
    return ", ".join(parts) + ".\n" if parts else ""


def _links(data: ReportData, report: str) -> str:
    lines = []
    if report:
        lines.append(f"Every case, plot and digest: {code(report)} (open it in a browser).")
    if data.run_url:
        lines.append(f"Flow run: <{data.run_url}>" if _is_plain_address(data.run_url) else "")
    return bullets(line for line in lines if line)


def _is_plain_address(address: str) -> bool:
    return address.startswith(("http://", "https://")) and not set(address) & set(" <>\"'`\\\n")
