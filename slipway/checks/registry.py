"""What a check is, what it is applied to, and which types there are.

A type is one function with the decorator ``kind`` (or ``judged_kind``, where a model judges); nothing else has to know
of it. Knows no type itself, and nothing of suites, scores of cases or records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

from slipway.checks.unsupported import reason_unsupported, unsupported_types
from slipway.javascript import Script, unmet_need
from slipway.judge_settings import JudgeSettings
from slipway.results import ASSERT_SET
from slipway.validation_errors import nearest

__all__ = [
    "Check",
    "Graded",
    "InapplicableCheckError",
    "Judge",
    "Subject",
    "Synonyms",
    "UnknownTypeError",
    "assess",
    "assess_judged",
    "is_judged",
    "judged_kind",
    "kind",
    "known_types",
    "prepare",
    "remarks",
    "supported_types",
]


_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_NO_NUMBERS: Final[Mapping[str, float]] = MappingProxyType({})


_NO_SYNONYMS: Final = (
    "it needs WordNet's synonyms: install Debian's `wordnet-base`, or set WNSEARCHDIR to the directory of its files"
)


class InapplicableCheckError(Exception):
    """A check cannot say yes or no, for want of something to look at: the case is missing, not failed."""


class UnknownTypeError(ValueError):
    """A check of a type that neither we nor promptfoo have.

    Attributes:
        fix: What may have been meant, and what there is.
    """

    def __init__(self, written: str) -> None:
        super().__init__(f"the assertion type {written!r} is not known")
        self.fix = (
            f"{nearest(written.removeprefix('not-'), known_types())} Supported, each also with not- in front: "
            f"{', '.join(supported_types())}."
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """One assertion, its templates rendered and, once ``prepare`` returned it, its value verified.

    Attributes:
        type: As written, ``not-`` included.
        value: What to compare with, in the form that the type's ``prepare`` gave it; of ``javascript`` the source, as a
            ``Script`` where it comes from a file.
        threshold: For types that have one; 0 counts as none where promptfoo takes it so.
        weight: Share in the case's score; 0 only measures.
        metric: Name under which scores are gathered; empty for none.
        transform: JavaScript that makes what is checked out of the output, in a line or a file; empty for none.
        config: Further settings of the type, as written.
        rubric_prompt: For judged types: what to ask instead of the type's own question; empty for that.
        provider: For judged types: the judge that the suite names; the judge of the settings is asked all the same.
        checks: Of ``assert-set``: its assertions.
        where: ``file.yaml:12``, for messages.
        unsupported: Why the check cannot be applied here, though the type is known; empty if it can.
    """

    type: str
    value: object = None
    threshold: float | None = None
    weight: float = 1.0
    metric: str = ""
    transform: str | Script = ""
    config: Mapping[str, object] = field(default_factory=dict)
    rubric_prompt: str = ""
    provider: object = None
    checks: tuple[Check, ...] = ()
    where: str = ""
    unsupported: str = ""

    @cached_property
    def is_negated(self) -> bool:
        """Whether the type starts with ``not-``."""
        return self.type.startswith("not-")

    @cached_property
    def base_type(self) -> str:
        """The type without ``not-``."""
        return self.type.removeprefix("not-")


class Subject(NamedTuple):
    """One answer, as checks look at it. A named tuple, as ``Graded`` is: an evaluation makes one for each answer.

    Attributes:
        output: The text; where a transform made a structure, its JSON; where it made a number, that as text.
        data: That structure, number or boolean; None where the output is text.
        prompt: What was asked: text, or messages of ``role`` and ``content``.
        vars: The case's variables.
        latency_ms: From sending to the last byte; None where unknown.
        cost_usd: Of the answer; None where unknown.
        finish_reason: As the server said it; None where it did not.
        logprobs: Natural logarithms of the generated tokens' probabilities, in order; None where not asked for.
        prompt_tokens: Length of the prompt.
        generated_tokens: Length of the answer.
    """

    output: str
    data: object = None
    prompt: str | Sequence[Mapping[str, str]] | None = None
    vars: Mapping[str, object] = _NOTHING
    latency_ms: float | None = None
    cost_usd: float | None = None
    finish_reason: str | None = None
    logprobs: tuple[float, ...] | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None


class Graded(NamedTuple):
    """What one check says of one output.

    Attributes:
        passed: Whether it holds, a ``not-`` already taken into account.
        score: How well, in [0, 1]; 1 or 0 for types that only say yes or no.
        reason: One sentence; may be empty where the check passed.
        metrics: Further scores by name, which scripts may give; they are gathered beside ``Check.metric``.
    """

    passed: bool
    score: float
    reason: str = ""
    metrics: Mapping[str, float] = _NO_NUMBERS


class Judge(Protocol):
    """A model that judges answers; ``services.judge`` has the one that is asked over HTTP."""

    @property
    def settings(self) -> JudgeSettings:
        """Which model it is."""
        ...

    async def complete(self, messages: Sequence[Mapping[str, str]], *, json: bool = False) -> str:
        """Answer a conversation of ``role`` and ``content``; with ``json`` the reply is asked to be one JSON object.

        Raises:
            ServiceError: No answer; the case is missing.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Give one vector for each text, in order.

        Raises:
            ServiceError: No answer; the case is missing.
        """
        ...


Prepare = Callable[[Check], Check]
"""Verify and normalise a check when the suite is loaded; raises ValueError saying what to write."""
Synonyms = Callable[[str], Collection[str]]
"""Give the synonyms of a word, in lower case."""
LookUp = Callable[[Check, Synonyms], Check]
"""Put the synonyms that a verified check needs into its value."""
Assess = Callable[[Check, Subject], Graded]
"""Apply a prepared check. Raises InapplicableCheckError."""
AssessJudged = Callable[[Check, Subject, Judge], Awaitable[Graded]]
"""The same with a judge. Raises InapplicableCheckError, or ServiceError where the judge does not answer."""


@dataclass(frozen=True)
class _Kind:
    prepare: Prepare
    assess: Assess | None = None
    assess_judged: AssessJudged | None = None
    needs: Literal["chat", "embeddings", "both"] | None = None
    has_threshold: bool = False
    ignores_not: bool = False
    look_up: LookUp | None = None


_KINDS: dict[str, _Kind] = {}


def kind(
    name: str,
    prepare: Prepare,
    *,
    has_threshold: bool = False,
    ignores_not: bool = False,
    look_up: LookUp | None = None,
) -> Callable[[Assess], Assess]:
    """Register the decorated function as the check type ``name`` and ``not-name``.

    Args:
        name: Without ``not-``.
        prepare: Verifies the check and brings its value into the form that the function takes.
        has_threshold: The function looks at the threshold; for other types one that is written is remarked on.
        ignores_not: The function takes ``not-name`` for ``name``, as promptfoo does; remarked on as well.
        look_up: For types that need synonyms: puts them into the verified check.
    """

    def register(assess: Assess) -> Assess:
        _KINDS[name] = _Kind(
            prepare, assess=assess, has_threshold=has_threshold, ignores_not=ignores_not, look_up=look_up
        )
        return assess

    return register


def judged_kind(
    name: str,
    prepare: Prepare,
    *,
    needs: Literal["chat", "embeddings", "both"] = "chat",
    has_threshold: bool = True,
) -> Callable[[AssessJudged], AssessJudged]:
    """Register the decorated coroutine function as the judged check type ``name`` and ``not-name``.

    Args:
        name: Without ``not-``.
        prepare: Verifies the check, whether or not there is a judge.
        needs: What the judge must offer: chat completions, embeddings or both.
        has_threshold: As for ``kind``.
    """

    def register(assess: AssessJudged) -> AssessJudged:
        _KINDS[name] = _Kind(prepare, assess_judged=assess, needs=needs, has_threshold=has_threshold)
        return assess

    return register


def supported_types() -> tuple[str, ...]:
    """List the types that can be applied, given a judge for those that need one; without their ``not-`` forms."""
    return (*_KINDS, ASSERT_SET)


def known_types() -> tuple[str, ...]:
    """List every type of promptfoo, also those that are never applied here; without their ``not-`` forms."""
    return tuple(dict.fromkeys((*supported_types(), *unsupported_types())))


def prepare(check: Check, *, judge: JudgeSettings | None = None, synonyms: Synonyms | None = None) -> Check:
    """Verify a check before any output is seen.

    Args:
        check: With its templates rendered; where ``unsupported`` is set already, only its type is verified.
        judge: Which model would judge; None where nobody would.
        synonyms: Looks words up; None where no dictionary is at hand.

    Returns:
        The check in the form that ``assess`` takes; with ``unsupported`` set where the type is promptfoo's but cannot
        be applied here.

    Raises:
        ValueError: Unknown type, or a value or threshold that the type cannot use; says what to write.
    """
    if check.base_type == ASSERT_SET:
        return _prepare_set(check, judge, synonyms)
    found = _KINDS.get(check.base_type)
    if check.unsupported and (found is not None or reason_unsupported(check.base_type)):
        return check  # known already, as where its value is a program
    if found is None:
        reason = reason_unsupported(check.base_type)
        if not reason:
            raise UnknownTypeError(check.type)
        return replace(check, unsupported=reason)
    prepared = found.prepare(check)
    if found.look_up is not None:
        if synonyms is None:
            return replace(prepared, unsupported=_NO_SYNONYMS)
        prepared = found.look_up(prepared, synonyms)
    reason = prepared.unsupported or _lacking(found, judge) or (unmet_need(check.transform) if check.transform else "")
    return replace(prepared, unsupported=reason)


def remarks(check: Check) -> tuple[str, ...]:
    """Say where a prepared check means something else than it may look, for the notes of a suite."""
    found = _KINDS.get(check.base_type)
    if found is None:
        return tuple(remark for inner in check.checks for remark in remarks(inner))
    noted = []
    if check.is_negated and found.ignores_not:
        noted.append(f"{check.type} means {check.base_type}: promptfoo ignores the not- there.")
    if check.threshold is not None and not found.has_threshold:
        noted.append(f"the threshold of {check.type!r} is ignored: the type has none.")
    return tuple(noted)


def is_judged(check: Check) -> bool:
    """Whether a judge must be asked to apply the prepared check, or one inside it."""
    if check.base_type == ASSERT_SET:
        return any(map(is_judged, check.checks))
    return not check.unsupported and _KINDS[check.base_type].assess_judged is not None


def assess(check: Check, subject: Subject) -> Graded:
    """Apply a prepared check that needs no judge, and is no set, to one output.

    Raises:
        InapplicableCheckError: The answer lacks what the check looks at.
    """
    function = _KINDS[check.base_type].assess
    if function is None:
        raise InapplicableCheckError("a model must judge it, and none was given")
    return function(check, subject)


async def assess_judged(check: Check, subject: Subject, judge: Judge) -> Graded:
    """Apply a prepared check, which is no set, to one output, and ask the judge where the type needs it.

    Raises:
        InapplicableCheckError: The answer lacks what the check looks at, or the judge's reply says neither yes nor no.
        ServiceError: The judge did not answer.
    """
    function = _KINDS[check.base_type].assess_judged
    return assess(check, subject) if function is None else await function(check, subject, judge)


def _prepare_set(check: Check, judge: JudgeSettings | None, synonyms: Synonyms | None) -> Check:
    if check.is_negated:
        raise ValueError("an assert-set cannot be negated; write not- before the types inside it")
    if not check.checks:
        raise ValueError("an assert-set needs `assert:` with at least one assertion")
    if any(inner.base_type == ASSERT_SET for inner in check.checks):
        raise ValueError("an assert-set cannot hold another one; write the inner assertions beside the others")
    return replace(check, checks=tuple(prepare(inner, judge=judge, synonyms=synonyms) for inner in check.checks))


def _lacking(found: _Kind, judge: JudgeSettings | None) -> str:
    if found.needs in {"chat", "both"} and (judge is None or judge.model is None):
        return "a model must judge it, and neither the suite nor the target names one (`judge: {model: ...}`)"
    if found.needs in {"embeddings", "both"} and (judge is None or judge.embeddings_model is None):
        return "it compares embeddings, and no model of them is named (`judge: {embeddings_model: ...}`)"
    return ""
