"""The release report in Markdown: what was decided and why, then the evidence, then how to do it again.

Pure: values in, text out. The flow fills ``ReportData`` with what it has; sections without content are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from slipway.comparison import ArmSummary, PairSummary, changed_cases, compare_arms, summarise
from slipway.evidence import Evidence, align
from slipway.gate import Verdict
from slipway.markdown import bullets, cell, code, plain, table
from slipway.results import Arm, CaseResult
from slipway.statistics import Interval

__all__ = ["FindingLine", "FitLine", "ProofLine", "ReportData", "render_report"]

SHOWN_CASES = 10
SHOWN_EXAMPLES = 3

_MARKS = {"pass": "✓ pass", "fail": "✗ fail", "inconclusive": "? inconclusive"}


@dataclass(frozen=True, kw_only=True)
class FindingLine:
    """One finding of the inspection, and whether fitting mended it."""

    severity: str
    code: str
    message: str
    mended: bool = False


@dataclass(frozen=True, kw_only=True)
class FitLine:
    """What fitting made of the adapter: digests, a sentence per change, and the proof that the function is the same."""

    digest: str
    derived_from: str
    changes: tuple[str, ...]
    proof: str


@dataclass(frozen=True, kw_only=True)
class ProofLine:
    """What the live proof saw. Differences in nats, latencies in milliseconds."""

    is_live: bool
    difference: float
    noise: float
    cold_ms: float
    warm_ms: float
    reference_difference: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report can show; what a release did not get to stays empty.

    Attributes:
        name: What is released.
        release_id: This release.
        outcome: ``promoted``, ``held``, ``refused``, ``inconclusive``, ``unchanged``.
        reasons: Sentences, the deciding ones first.
        target: Where to.
        adapter_uri: Where the adapter came from.
        resolved_revision: What the address resolved to.
        digest: Of the bundle.
        size_bytes: Of the bundle.
        base_model: Its base.
        adapter_id: As the server knows it: ``repo/tag`` or a path.
        champion_before: Adapter id compared with; empty on a first release.
        champion_after: Adapter id that applications get now.
        deployment: Serving deployment, and whether it was attached to or created.
        fit: How the adapter was rewritten before it was uploaded.
        findings: Of the inspection.
        proof: The live proof.
        verdict: Of the gate.
        results: Recorded results of all arms.
        confidence: Of the intervals shown; the gate's.
        notes: Of the suite: what was ignored.
        seconds: Duration of each step, in order.
        references: Names and digests of suite, gate, recorded results and the like.
        reproduce: Commands that do it again.
        run_url: The flow run.
    """

    name: str
    release_id: str
    outcome: str
    reasons: tuple[str, ...] = ()
    target: str = ""
    adapter_uri: str = ""
    resolved_revision: str = ""
    digest: str = ""
    size_bytes: int = 0
    base_model: str = ""
    adapter_id: str = ""
    champion_before: str = ""
    champion_after: str = ""
    deployment: str = ""
    fit: FitLine | None = None
    findings: tuple[FindingLine, ...] = ()
    proof: ProofLine | None = None
    verdict: Verdict | None = None
    results: Sequence[CaseResult] = ()
    confidence: float = 0.95
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    reproduce: tuple[str, ...] = ()
    run_url: str = ""


def render_report(data: ReportData) -> str:
    """Write the report.

    Raises:
        ConfigurationError: The results hold two lines for one case and arm.
    """
    evidence = align(data.results)
    sections = [
        _head(data),
        _rules(data),
        _rates(data, evidence),
        _pairs(data, evidence),
        _latencies(data, evidence),
        _changes(evidence),
        _adapter(data),
        _proof(data),
        _fit(data),
        _findings(data),
        _durations(data),
        _again(data),
    ]
    return "\n".join(section for section in sections if section)


def _head(data: ReportData) -> str:
    text = f"# {plain(data.release_id)}: {plain(data.outcome)}\n\n"
    text += bullets(plain(reason) for reason in data.reasons)
    if data.champion_after:
        kept = " (unchanged)" if data.champion_after == data.champion_before else ""
        text += f"\nApplications get {code(data.champion_after)}{kept} on {code(data.target)}.\n"
    elif data.target:
        text += f"\nThere is no champion of {plain(data.name)} on {code(data.target)}.\n"
    return text


def _rules(data: ReportData) -> str:
    if data.verdict is None or not data.verdict.rules:
        return ""
    rows = [
        [
            _MARKS[rule.outcome],
            plain(rule.rule),
            _number(rule.estimate),
            f"{_number(rule.low)} to {_number(rule.high)}",
            str(rule.n),
        ]
        for rule in data.verdict.rules
    ]
    header = ["outcome", "rule", "observed", f"{100 * data.confidence:g} % interval", "n"]
    return f"## Gate: {data.verdict.verdict}\n\n{table(header, rows)}"


def _rates(data: ReportData, evidence: Evidence) -> str:
    if not evidence.cases:
        return ""
    tags = sorted({tag for case in evidence.cases for tag in evidence.tags[case]})
    rows = []
    for tag in (None, *tags):
        cells = [_rate(summarise(evidence, arm, data.confidence, tag=tag)) for arm in Arm if arm in evidence.arms]
        rows.append(["**all cases**" if tag is None else plain(tag), *cells])
    header = ["pass rate", *(str(arm) for arm in Arm if arm in evidence.arms)]
    return f"## Results\n\n{table(header, rows)}" + ("\n" + bullets(map(plain, data.notes)) if data.notes else "")


def _rate(summary: ArmSummary) -> str:
    if summary.pass_rate is None:
        return f"no answers, {summary.missing} missing" if summary.missing else "no cases"
    text = f"{_percent(summary.pass_rate)} of {summary.pass_rate.n}"
    return f"{text}, {summary.missing} missing" if summary.missing else text


def _pairs(data: ReportData, evidence: Evidence) -> str:
    rows = []
    for arm in (Arm.CHAMPION, Arm.BASE):
        pair = compare_arms(evidence, arm, data.confidence)
        if pair is not None:
            rows.append(_pair_row(arm, pair))
    if not rows:
        return ""
    header = ["case by case against", "both pass", "gained", "lost", "both fail", "score difference"]
    return f"## Comparison\n\n{table(header, rows)}"


def _pair_row(arm: Arm, pair: PairSummary) -> list[str]:
    difference = "too few pairs" if pair.difference is None else _signed(pair.difference)
    counts = [str(count) for count in (pair.both_pass, pair.gained, pair.lost, pair.both_fail)]
    return [str(arm), *counts, difference]


def _latencies(data: ReportData, evidence: Evidence) -> str:
    rows = []
    for arm in Arm:
        summary = summarise(evidence, arm, data.confidence)
        if summary.p50_ms is not None and summary.p95_ms is not None:
            rows.append([str(arm), _milliseconds(summary.p50_ms), _milliseconds(summary.p95_ms), str(summary.p50_ms.n)])
    return f"## Latency in ms\n\n{table(['arm', 'p50', 'p95', 'answers'], rows)}" if rows else ""


def _changes(evidence: Evidence) -> str:
    regressed = changed_cases(evidence, is_regression=True)
    gained = changed_cases(evidence, is_regression=False)
    text = ""
    if regressed:
        text += f"## Regressions: {len(regressed)}\n\n" + _side_by_side(evidence, regressed[:SHOWN_CASES])
        if len(regressed) > SHOWN_CASES:
            text += f"\n... and {len(regressed) - SHOWN_CASES} more.\n"
    if gained:
        title = f"## Gains: {len(gained)}, the first {min(SHOWN_EXAMPLES, len(gained))}"
        text += ("\n" if text else "") + f"{title}\n\n" + _side_by_side(evidence, gained[:SHOWN_EXAMPLES])
    return text


def _side_by_side(evidence: Evidence, cases: Sequence[str]) -> str:
    """Show every arm's output; the last column is why the first arm with a failed check failed it."""
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
    return (check.reason or check.type for check in result.checks if not check.passed)


def _adapter(data: ReportData) -> str:
    rows = {
        "adapter": data.adapter_uri,
        "revision": data.resolved_revision,
        "digest": data.digest,
        "size": f"{data.size_bytes:,} bytes".replace(",", " ") if data.size_bytes else "",
        "base model": data.base_model,
        "served as": data.adapter_id,
        "compared with": data.champion_before,
        "target": data.target,
        "deployment": data.deployment,
        "release": data.release_id,
        **data.references,
        "flow run": data.run_url,
    }
    known = [[plain(key), code(value)] for key, value in rows.items() if value]
    return f"## Adapter\n\n{table(['', ''], known)}"


def _proof(data: ReportData) -> str:
    proof = data.proof
    if proof is None:
        return ""
    items = [
        "It is the adapter that answers." if proof.is_live else "**Not proven** that the adapter answers.",
        f"Log probabilities differ from the base's by up to {proof.difference:.3g} nats.",
        f"The base's differ from its own, asked again, by up to {proof.noise:.2g} nats.",
        f"First request {proof.cold_ms:.0f} ms (download and load are in it), next {proof.warm_ms:.0f} ms.",
    ]
    if proof.reference_difference is not None:
        items.append(f"PEFT with the same files differs by up to {proof.reference_difference:.2g} nats.")
    return "## Live proof\n\n" + bullets([*items, *map(plain, proof.reasons)])


def _fit(data: ReportData) -> str:
    fit = data.fit
    if fit is None:
        return ""
    digests = f"What is served is {code(fit.digest)}, derived from {code(fit.derived_from)}:\n\n"
    return f"## Fit\n\n{digests}{bullets(map(plain, fit.changes))}\nProof: {plain(fit.proof)}.\n"


def _findings(data: ReportData) -> str:
    if not data.findings:
        return ""
    rows = [
        [plain(line.severity) + (", mended by fit" if line.mended else ""), code(line.code), plain(line.message)]
        for line in data.findings
    ]
    return f"## Findings\n\n{table(['severity', 'code', 'finding'], rows)}"


def _durations(data: ReportData) -> str:
    if not data.seconds:
        return ""
    rows = [[plain(step), f"{seconds:.2f}"] for step, seconds in data.seconds.items()]
    rows.append(["**total**", f"{sum(data.seconds.values()):.2f}"])
    return f"## Durations in seconds\n\n{table(['step', 'seconds'], rows)}"


def _again(data: ReportData) -> str:
    if not data.reproduce:
        return ""
    lines = "".join(f"    {' '.join(command.split())}\n" for command in data.reproduce)
    return f"## Do it again\n\n{lines}"


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _signed(interval: Interval) -> str:
    return f"{interval.estimate:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _milliseconds(interval: Interval) -> str:
    low, high = (f"{bound:.1f}" if abs(bound) != float("inf") else "?" for bound in (interval.low, interval.high))
    return f"{interval.estimate:.1f} ({low} to {high})"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
