"""Everything a report can show, as values. Knows no format; who fills it need not know how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from slipway.gate import Verdict
from slipway.gate_file import Gate
from slipway.prompts import Prompt
from slipway.results import CaseResult

__all__ = ["CheckGap", "FindingLine", "FitLine", "Note", "ProofLine", "ReportData"]


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
class CheckGap:
    """A kind of check that could not be applied: where it stands, why, and in how many cases."""

    where: str
    type: str
    reason: str
    cases: int


@dataclass(frozen=True, kw_only=True)
class Note:
    """One thing worth telling about the evidence, such as how well the judge agrees with people."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report can show; what a release did not get to stays empty, and its section is left out.

    Attributes:
        name: What is released; of recorded results without a release, the suite's name.
        release_id: This release; empty for recorded results alone.
        outcome: ``promoted``, ``held``, ``refused``, ``inconclusive``, ``unchanged``; of recorded results alone what
            the gate says of them (``promote``, ``hold``, ``inconclusive``), or empty without a gate.
        reasons: Sentences, the deciding ones first.
        actor: Who or what began the release.
        started_at: When, in UTC.
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
        gate: Its rules, for what the suite can show under them.
        results: Recorded results of all arms.
        prompts: By case; private data already masked.
        gaps: Checks of the suite that could not be applied; empty where only the results tell.
        confidence: Of the intervals shown where no gate gives one.
        notes: Of the suite: what was ignored.
        remarks: Further notes on the evidence.
        server: Facts of the target and its server.
        generation: How answers were generated.
        seconds: Duration of each step, in order.
        references: Names and digests of suite, gate, recorded results and the like.
        reproduce: Commands that do it again.
        run_url: The flow run.
    """

    name: str
    release_id: str
    outcome: str
    reasons: tuple[str, ...] = ()
    actor: str = ""
    started_at: datetime | None = None
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
    gate: Gate | None = None
    results: Sequence[CaseResult] = ()
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    gaps: tuple[CheckGap, ...] = ()
    confidence: float = 0.95
    notes: tuple[str, ...] = ()
    remarks: tuple[Note, ...] = ()
    server: Mapping[str, str] = field(default_factory=dict)
    generation: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    reproduce: tuple[str, ...] = ()
    run_url: str = ""
