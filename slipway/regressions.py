"""Which tags and named metrics the candidate is worse on, with the noise of asking many questions taken out.

Of twenty tags one looks worse at 5 % by luck alone. Holm's procedure (1979) keeps the chance of even one false entry,
over the whole list, below 1 - confidence. The list informs; the rules of the gate decide.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from slipway.bootstrap import TooFewGroupsError, normal_mean, sign_flip
from slipway.comparison import difference_interval
from slipway.evidence import Evidence
from slipway.gate_file import NAMED, Gate, Measure, Metric
from slipway.gate_rules import is_binary
from slipway.results import Arm
from slipway.statistics import Interval, mcnemar

__all__ = ["Regression", "regressions"]

Kind = Literal["tag", "metric"]


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A tag or a metric on which the candidate's mean is below the other arm's.

    Attributes:
        name: The tag, or the metric's name as the assertions give it.
        kind: ``tag`` (its pass rate is compared) or ``metric`` (its scores are).
        against: The other arm.
        n: Pairs.
        difference: Mean of candidate minus other; below 0.
        interval: Around it, two-sided at the gate's confidence and not adjusted; None for too few graded pairs.
        p: One-sided p of "no worse": exact McNemar, or sign-flip permutation where scores are graded or cases grouped.
        p_holm: The same adjusted by Holm for all tags and metrics that were compared.
        is_beyond_chance: Whether ``p_holm`` is at most 1 - confidence.
    """

    name: str
    kind: Kind
    against: Arm
    n: int
    difference: float
    interval: Interval | None
    p: float
    p_holm: float
    is_beyond_chance: bool

    def as_document(self) -> dict[str, object]:
        """Give it as JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "against": str(self.against),
            "n": self.n,
            "difference": self.difference,
            "low": self.interval.low if self.interval else None,
            "high": self.interval.high if self.interval else None,
            "p": self.p,
            "p_holm": self.p_holm,
            "is_beyond_chance": self.is_beyond_chance,
        }


def regressions(evidence: Evidence, gate: Gate) -> tuple[Regression, ...]:
    """List the tags and metrics on which the candidate is below the champion, or the base where there is none.

    Every tag and metric with a pair counts in the adjustment, whichever way it went. The least likely come first.
    """
    arm = Arm.CHAMPION if Arm.CHAMPION in evidence.arms else Arm.BASE
    if arm not in evidence.arms or Arm.CANDIDATE not in evidence.arms:
        return ()
    asked: list[tuple[Kind, str, Measure, str | None]] = [
        *(("tag", tag, Metric.PASS_RATE, tag) for tag in evidence.all_tags),
        *(("metric", measure.removeprefix(NAMED), measure, None) for measure in evidence.all_metrics),
    ]
    compared = [
        (kind, name, pairs) for kind, name, measure, tag in asked if (pairs := _pairs(evidence, arm, measure, tag))
    ]
    if not compared:
        return ()
    ps = [_p_of_no_worse(pairs) for *_, pairs in compared]
    adjusted = _holm(ps)
    found = []
    for (kind, name, pairs), p, p_holm in zip(compared, ps, adjusted, strict=True):
        difference = sum(ours - theirs for ours, theirs, _ in pairs) / len(pairs)
        if difference < 0:
            found.append(
                Regression(
                    name=name,
                    kind=kind,
                    against=arm,
                    n=len(pairs),
                    difference=difference,
                    interval=_interval(kind, pairs, gate.confidence),
                    p=p,
                    p_holm=p_holm,
                    is_beyond_chance=p_holm <= 1 - gate.confidence,
                )
            )
    return tuple(sorted(found, key=lambda one: (one.p_holm, one.p, one.kind, one.name)))


_Pairs = list[tuple[float, float, Hashable]]


def _pairs(evidence: Evidence, arm: Arm, measure: Measure, tag: str | None) -> _Pairs:
    ours, theirs = evidence.by_case(Arm.CANDIDATE, measure), evidence.by_case(arm, measure)
    return [
        (ours[case], theirs[case], evidence.unit(case))
        for case in evidence.tagged(tag)
        if case in ours and case in theirs
    ]


def _groups(pairs: _Pairs) -> list[Hashable] | None:
    units = [unit for *_, unit in pairs]
    return units if len(set(units)) < len(units) else None


def _p_of_no_worse(pairs: _Pairs) -> float:
    groups = _groups(pairs)
    if groups is None and all(is_binary(pair[:2]) for pair in pairs):
        gains = sum(ours > theirs for ours, theirs, _ in pairs)
        losses = sum(ours < theirs for ours, theirs, _ in pairs)
        return mcnemar(gains, losses, alternative="loss")
    _, lower = sign_flip([ours - theirs for ours, theirs, _ in pairs], groups=groups)
    return lower


def _interval(kind: Kind, pairs: _Pairs, confidence: float) -> Interval | None:
    if kind == "tag":  # the report has a table of all tags, which must not show another interval
        return difference_interval([pair[:2] for pair in pairs], [unit for *_, unit in pairs], confidence)
    try:
        return normal_mean([ours - theirs for ours, theirs, _ in pairs], confidence=confidence, groups=_groups(pairs))
    except TooFewGroupsError:
        return None


def _holm(ps: list[float]) -> list[float]:
    """Adjust as ``multipletests(ps, method="holm")`` of statsmodels does, whose import takes longer than a verdict."""
    adjusted, least = list(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, ps[index] * (len(ps) - rank))
        adjusted[index] = min(least, 1.0)
    return adjusted
