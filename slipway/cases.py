"""What a suite is once it is expanded: cases, each with its prompt, what is made of the answer, and its checks.

Values only; ``suite`` makes them of files.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from slipway.checks import Check
from slipway.javascript import Script
from slipway.judge_settings import JudgeSettings
from slipway.prompts import Prompt
from slipway.results import ASSERT_SET
from slipway.suite_shape import CaseShape, SuiteShape

__all__ = ["Case", "GenerationSettings", "Suite", "UnsupportedAssertion", "named_uniquely", "suite_digest"]

SAMPLE_PROMPTS = 3
_NAMING_METRICS = "javascript"
"""The type of check that can name its metrics when it runs."""


class GenerationSettings(NamedTuple):
    """How a case wants its answer generated; None leaves it to the target. Temperature 0 is greedy."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


_AS_THE_TARGET_SAYS = GenerationSettings()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prompt and what is expected of the answer.

    Attributes:
        id: The test's id or description, with a number where several cases share it, or ``case-0001`` by its place;
            unique in the suite.
        vars: What the templates were filled with.
        prompt: Text, or messages of ``role`` and ``content``.
        checks: Verified and with their templates filled in.
        transform: JavaScript that makes what is graded out of the output, before any check; empty for none.
        threshold: Score from which the case passes; None: every check must.
        tags: For rules on a part of the suite; from ``metadata.tags`` or ``tags``.
        group: Cases of one group share a source and are not independent; from ``metadata.group``.
        metadata: The test's, merged over the default's.
        generation: How to generate.
        where: ``file.yaml:12``, where the test is written.
    """

    id: str
    vars: Mapping[str, object]
    prompt: Prompt
    checks: tuple[Check, ...]
    transform: str | Script = ""
    threshold: float | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    generation: GenerationSettings = _AS_THE_TARGET_SAYS
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class UnsupportedAssertion:
    """An assertion that is never applied here: it neither passes nor fails, and lowers the coverage.

    Attributes:
        where: ``file.yaml:12``.
        type: As written.
        reason: Why, to follow "because".
        cases: How many cases have it.
    """

    where: str
    type: str
    reason: str
    cases: int


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite, expanded.

    Attributes:
        path: The file.
        description: Its own.
        cases: In order: tests, then scenarios; inside each the lists in variables, then prompts.
        digest: ``sha256:`` over what the cases ask and expect; formatting and file names do not matter.
        notes: What was ignored or is meant differently than it may look, for the report.
        judge: Who judges answers; None where nobody does.
    """

    path: Path
    description: str
    cases: tuple[Case, ...]
    digest: str
    notes: tuple[str, ...] = ()
    judge: JudgeSettings | None = None

    @cached_property
    def shape(self) -> SuiteShape:
        """How many cases there are for each rule that a gate may have."""
        return SuiteShape(tuple(map(_shape, self.cases)), coverage=self.coverage)

    @cached_property
    def unsupported(self) -> tuple[UnsupportedAssertion, ...]:
        """Which assertions are never applied, in the order of the cases."""
        cases: Counter[tuple[str, str, str]] = Counter()
        for case in self.cases:
            cases.update(
                list(dict.fromkeys((check.where, check.type, check.unsupported) for check in _unsupported(case)))
            )
        return tuple(
            UnsupportedAssertion(where=where, type=kind, reason=reason, cases=count)
            for (where, kind, reason), count in cases.items()
        )

    @cached_property
    def coverage(self) -> float:
        """Share of the assertions, counted once for each case, that can be applied; 1 where there are none."""
        total = sum(1 for case in self.cases for _ in _leaves(case.checks))
        lacking = sum(1 for case in self.cases for _ in _unsupported(case))
        return 1 - lacking / total if total else 1.0

    def sample_prompts(self) -> tuple[str, ...]:
        """Give the first different prompts as text; of a conversation its last message."""
        texts = (case.prompt if isinstance(case.prompt, str) else case.prompt[-1]["content"] for case in self.cases)
        return tuple(itertools.islice(dict.fromkeys(text for text in texts if text.strip()), SAMPLE_PROMPTS))


def named_uniquely(cases: Sequence[Case], mask: Callable[[str], str] | None = None) -> tuple[Case, ...]:
    """Give the cases with an id that no other has: numbered where several share one, by their place where one has none.

    Args:
        cases: Of a suite, in order.
        mask: Applied to each id first, since what tests are called may tell what is private in them.
    """
    wanted = [case.id if mask is None else mask(case.id) for case in cases]
    return tuple(
        case if case.id == name else replace(case, id=name) for case, name in zip(cases, _unique(wanted), strict=True)
    )


def suite_digest(cases: Iterable[Case], judge: JudgeSettings | None) -> str:
    """Name what is asked, what is expected and which models judge; nothing else, so that the same suite has one name.

    Servers and limits of the judge, places in files and metadata do not change what an answer is worth.
    """
    models = [judge.model, judge.embeddings_model] if judge else []
    cases = tuple(cases)
    generations = {generation: generation._asdict() for generation in {case.generation for case in cases}}
    asked = [
        [
            case.id,
            case.prompt,
            case.vars,
            _script(case.transform),
            [_plain(check) for check in case.checks],
            case.threshold,
            case.tags,
            case.group,
            generations[case.generation],
        ]
        for case in cases
    ]
    text = json.dumps([models, asked], sort_keys=True, ensure_ascii=False, default=_script)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(check: Check) -> list[object]:
    return [
        check.type,
        check.value,
        check.threshold,
        check.weight,
        check.metric,
        _script(check.transform),
        check.config,
        check.rubric_prompt,
        [_plain(inner) for inner in check.checks],
    ]


def _script(script: object) -> object:
    return [script.source, script.function] if isinstance(script, Script) else script


def _shape(case: Case) -> CaseShape:
    checks = [*case.checks, *(inner for check in case.checks for inner in check.checks)]
    return CaseShape(
        tags=frozenset(case.tags),
        group=case.group,
        metrics=frozenset(check.metric for check in checks if check.metric),
        may_have_any_metric=any(check.base_type == _NAMING_METRICS for check in checks),
        is_checked=bool(case.checks),
    )


def _leaves(checks: Iterable[Check]) -> Iterator[Check]:
    for check in checks:
        yield from check.checks if check.base_type == ASSERT_SET else (check,)


def _unsupported(case: Case) -> Iterator[Check]:
    return (check for check in _leaves(case.checks) if check.unsupported)


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that several cases share, and name those that have none by their place."""
    counts = Counter(names)
    taken = {name for name, count in counts.items() if name and count == 1}
    numbers: Counter[str] = Counter()
    unique = []
    for place, name in enumerate(names, start=1):
        if name in taken:
            unique.append(name)
            continue
        candidate = f"case-{place:04d}"
        while not name and candidate in taken:
            candidate += "'"
        while name:
            numbers[name] += 1
            candidate = f"{name} #{numbers[name]}"
            if candidate not in taken:
                break
        taken.add(candidate)
        unique.append(candidate)
    return unique
