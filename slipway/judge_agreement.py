"""Whether a judge can be believed: how far its verdicts agree with those of deterministic checks on the same answers.

A judge that says what the rules say wherever both speak is evidence where only the judge speaks; one that agrees no
better than by chance is none. Cohen's kappa corrects agreement for chance: 0 is chance, 1 is perfect (Cohen 1960,
Educ. Psychol. Meas. 20:37).

Pure, and knows no gate: what a low kappa means for a verdict is decided there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slipway.results import CaseResult, CheckResult

__all__ = ["JUDGED_TYPES", "MIN_KAPPA", "Agreement", "judge_agreement"]

JUDGED_TYPES = frozenset(
    {
        "answer-relevance",
        "context-faithfulness",
        "context-recall",
        "context-relevance",
        "factuality",
        "g-eval",
        "llm-rubric",
        "model-graded-closedqa",
        "model-graded-factuality",
    }
)
"""Types, without ``not-``, in which a model gives its opinion."""

MIN_KAPPA = 0.4
"""Below it agreement is at most "fair" on the scale of Landis and Koch 1977 (Biometrics 33:159)."""

_NOT_OF_CONTENT = frozenset(
    {"assert-set", "cost", "finish-reason", "latency", "perplexity", "perplexity-score"}
    | {"similar", "similar:cosine", "similar:dot", "similar:euclidean"}
)
"""Neither a judge nor a rule about what the answer says; a set repeats its members."""

_CONFIDENCE = 0.95
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the judge agrees with the rules.

    Attributes:
        n: Answers on which both gave a verdict. Those of several arms to one case count each, which makes the interval
            a little narrow.
        both_pass: Of these, passed by judge and rules.
        both_fail: Failed by both.
        only_judge_passes: Passed by the judge alone; what a lenient judge, or one talked into it, has many of.
        only_rules_pass: Passed by the rules alone.
        kappa: In [-1, 1]; None where one of the two always says the same, so that chance cannot be told from skill.
        low: Lower bound of its 95 % interval; None likewise.
        high: Upper bound; None likewise.
    """

    n: int
    both_pass: int
    both_fail: int
    only_judge_passes: int
    only_rules_pass: int
    kappa: float | None
    low: float | None
    high: float | None

    @property
    def raw(self) -> float:
        """Share of the answers on which they agree, in [0, 1]."""
        return (self.both_pass + self.both_fail) / self.n

    @property
    def is_sufficient(self) -> bool:
        """Whether the judge is shown to agree at least fairly well, so that what it says may decide a release."""
        return self.kappa is not None and self.kappa >= MIN_KAPPA - _ROUNDING

    @property
    def remark(self) -> str:
        """What to say besides a verdict where the judge is not shown to agree well enough; empty where it is."""
        if self.is_sufficient:
            return ""
        return f"Judged checks should decide nothing alone: {self}; {MIN_KAPPA:g} is the least."

    def __str__(self) -> str:
        raw = f"the judge agrees with the rules on {self.raw:.0%} of {self.n} answers"
        if self.kappa is None or self.low is None or self.high is None:
            return f"{raw}; one of them always says the same, so kappa is not defined"
        return f"{raw}, kappa {self.kappa:.2f} (95 % interval {self.low:.2f} to {self.high:.2f})"


def judge_agreement(results: Iterable[CaseResult]) -> Agreement | None:
    """Compare judged with deterministic checks over the answers that have both; None where none has.

    On either side an answer passes when all its applied checks do. Latency, cost and the like say nothing about content
    and do not count; nor does ``similar``, which is neither an opinion nor a rule.
    """
    pairs = [pair for result in results if result.error is None and (pair := _verdicts(result.checks)) is not None]
    if not pairs:
        return None
    both_pass, both_fail = pairs.count((True, True)), pairs.count((False, False))
    only_judge, only_rules = pairs.count((True, False)), pairs.count((False, True))
    kappa, low, high = _kappa(both_pass, only_judge, only_rules, both_fail)
    return Agreement(
        n=len(pairs),
        both_pass=both_pass,
        both_fail=both_fail,
        only_judge_passes=only_judge,
        only_rules_pass=only_rules,
        kappa=kappa,
        low=low,
        high=high,
    )


def _verdicts(checks: Sequence[CheckResult]) -> tuple[bool, bool] | None:
    judged: list[bool] = []
    ruled: list[bool] = []
    for check in checks:
        base_type = check.type.removeprefix("not-")
        if check.passed is None or base_type in _NOT_OF_CONTENT:
            continue
        (judged if base_type in JUDGED_TYPES else ruled).append(check.passed)
    return (all(judged), all(ruled)) if judged and ruled else None


def _kappa(
    both_pass: int, only_judge: int, only_rules: int, both_fail: int
) -> tuple[float | None, float | None, float | None]:
    n = both_pass + only_judge + only_rules + both_fail
    judge_passes, rules_pass = both_pass + only_judge, both_pass + only_rules
    if judge_passes in {0, n} or rules_pass in {0, n}:
        return None, None, None
    from statsmodels.stats.inter_rater import cohens_kappa  # noqa: PLC0415  # a second that other commands need not pay

    found = cohens_kappa([[both_pass, only_judge], [only_rules, both_fail]])
    kappa, error = float(found.kappa), float(found.std_kappa)
    if error > 0 and math.isfinite(error):
        return kappa, max(-1.0, float(found.kappa_low)), min(1.0, float(found.kappa_upp))
    return kappa, *_exact_bounds(judge_passes / n, rules_pass / n, both_pass + both_fail, n)


def _exact_bounds(judge_rate: float, rules_rate: float, agreed: int, n: int) -> tuple[float, float]:
    """Bound kappa where its estimated variance is 0, as with perfect agreement, which few answers do not prove.

    The exact bounds of the agreement at the observed rates, instead of an interval that is one point.
    """
    from slipway.statistics import clopper_pearson  # noqa: PLC0415  # as above

    by_chance = judge_rate * rules_rate + (1 - judge_rate) * (1 - rules_rate)
    low, high = ((bound - by_chance) / (1 - by_chance) for bound in clopper_pearson(agreed, n, confidence=_CONFIDENCE))
    return max(-1.0, low), min(1.0, high)
