"""What the ledger's facts mean: promotions folded to the champion, release events folded to a release's state.

Pure: facts in, answers out. Writing facts down and reading them back is ``services.ledger_store``.

Facts are never changed. "Who is champion" and "how far did this release get" are therefore folds, and two readers of
the same facts always agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

__all__ = [
    "DeploymentFact",
    "DeploymentStage",
    "DeploymentState",
    "Json",
    "Outcome",
    "Promotion",
    "PromotionKind",
    "ReleaseEnded",
    "ReleaseOpened",
    "ReleaseState",
    "StepRecorded",
    "StepState",
    "StepStatus",
    "Trial",
    "UploadFact",
    "UploadStage",
    "UploadState",
    "attempt_number",
    "champion",
    "champion_stack",
    "fold_deployments",
    "fold_release",
    "fold_uploads",
    "previous_champion",
]

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
"""Anything that JSON can say."""


class PromotionKind(StrEnum):
    """Why the champion changed."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Outcome(StrEnum):
    """How a release ended."""

    PROMOTED = "promoted"
    HELD = "held"
    INCONCLUSIVE = "inconclusive"
    REFUSED = "refused"
    FAILED = "failed"
    UNCHANGED = "unchanged"


class StepStatus(StrEnum):
    """What is known of one step of a release."""

    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"


class UploadStage(StrEnum):
    """How far one upload attempt got. ``COMMITTED`` and ``ABANDONED`` are final."""

    INTENDED = "intended"
    TOKEN = "token"  # noqa: S105  # a stage's name
    SENT = "sent"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


class DeploymentStage(StrEnum):
    """What we last did to, or saw of, a serving deployment that we created."""

    INTENDED = "intended"
    CREATED = "created"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One change of the champion.

    Attributes:
        name: The adapter's name, such as ``support``.
        target: Where it is served.
        sequence: 1, 2, 3, ... for one name on one target, without gaps.
        release_id: The release whose adapter is champion from now on; for a rollback, the one restored.
        adapter_id: What requests send, such as ``support/4``.
        adapter_source: What requests send with it, such as ``pbase``.
        digest: Of the bundle as it was asked for, before fitting.
        kind: Promotion or rollback.
        recorded_at: When, in UTC.
        evidence_digest: SHA-256 of the recorded results; empty where there are none.
        actor: Who or what did it.
    """

    name: str
    target: str
    sequence: int
    release_id: str
    adapter_id: str
    adapter_source: str
    digest: str
    kind: PromotionKind
    recorded_at: datetime
    evidence_digest: str = ""
    actor: str = ""


@dataclass(frozen=True, kw_only=True)
class ReleaseOpened:
    """A release was begun.

    Attributes:
        id: Name and running number, such as ``support-3``.
        name: The adapter's name.
        number: The running number, from 1 per name.
        target: Where it shall be served.
        digest: Of the candidate's bundle.
        suite_digest: Of the suite it is judged by.
        gate_digest: Of the gate it must pass.
        uri: Where the candidate came from.
        actor: Who or what began it.
        recorded_at: When, in UTC.
    """

    id: str
    name: str
    number: int
    target: str
    digest: str
    suite_digest: str
    gate_digest: str
    uri: str
    actor: str
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class StepRecorded:
    """A release's step started, finished or failed. ``sequence`` orders all steps of the ledger."""

    release_id: str
    sequence: int
    step: str
    status: StepStatus
    data: Mapping[str, Json] = field(default_factory=dict)
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class ReleaseEnded:
    """A release came to its end; there is one such fact per release at most."""

    release_id: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, Json] = field(default_factory=dict)
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class StepState:
    """One step, folded.

    Attributes:
        step: Its name.
        status: The last one recorded.
        attempts: How often it was started.
        data: What the last record that carried any said.
        started_at: Of the last attempt; None if only an end was recorded.
        ended_at: Of the last attempt; None while it runs.
    """

    step: str
    status: StepStatus
    attempts: int
    data: Mapping[str, Json]
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class ReleaseState:
    """A release as its facts tell it; ``steps`` in the order in which they were first seen."""

    opened: ReleaseOpened
    steps: Mapping[str, StepState]
    ended: ReleaseEnded | None

    @property
    def id(self) -> str:
        """Name and running number, such as ``support-3``."""
        return self.opened.id

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it is open."""
        return self.ended.outcome if self.ended else None

    @property
    def is_open(self) -> bool:
        """Whether a repeat of the same request continues this release."""
        return self.ended is None

    def finished(self, step: str) -> StepState | None:
        """Tell what a finished step left, or None if the step must be done (again)."""
        state = self.steps.get(step)
        return state if state is not None and state.status is StepStatus.FINISHED else None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of recorded results that a gate decided on.

    Attributes:
        evidence: Digest of what was observed, as ``results.evidence_digest`` gives it.
        spends: Whether it spent error: it could have promoted, and did not.
    """

    evidence: str
    spends: bool


@dataclass(frozen=True, kw_only=True)
class UploadFact:
    """One stage of one attempt to upload a bundle. ``sequence`` orders all upload facts of the ledger."""

    sequence: int
    target: str
    digest: str
    repository: str
    attempt_id: str
    stage: UploadStage
    upload_token: str | None = field(default=None, repr=False)
    tags_before: tuple[int, ...] | None = None
    version: str | None = None
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class UploadState:
    """One attempt, folded.

    Attributes:
        target: Where to.
        digest: Which bundle.
        repository: Adapter repository.
        attempt_id: The attempt.
        stage: The last one recorded.
        upload_token: The registry's handle for this attempt, which makes its last step repeatable.
        tags_before: Tags that the repository had before, to recognise the one we made.
        version: ``repo/tag`` once committed.
    """

    target: str
    digest: str
    repository: str
    attempt_id: str
    stage: UploadStage
    upload_token: str | None = field(default=None, repr=False)
    tags_before: tuple[int, ...] | None = None
    version: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether a repeat should continue this attempt."""
        return self.stage not in {UploadStage.COMMITTED, UploadStage.ABANDONED}


@dataclass(frozen=True, kw_only=True)
class DeploymentFact:
    """One stage of a serving deployment that we create. ``sequence`` orders all deployment facts of the ledger."""

    sequence: int
    target: str
    name: str
    release_id: str
    stage: DeploymentStage
    base_model: str
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class DeploymentState:
    """A serving deployment that we created, folded: the last fact, and when its present life began."""

    target: str
    name: str
    release_id: str
    stage: DeploymentStage
    base_model: str
    since: datetime
    recorded_at: datetime

    @property
    def is_open(self) -> bool:
        """Whether it may still exist and cost money. Only a recorded deletion says that it does not."""
        return self.stage is not DeploymentStage.DELETED


def champion(promotions: Iterable[Promotion]) -> Promotion | None:
    """Fold promotions of one name on one target, in any order, to the one that counts now."""
    return max(promotions, key=lambda promotion: promotion.sequence, default=None)


def previous_champion(promotions: Iterable[Promotion]) -> Promotion | None:
    """Tell what a rollback restores: the last different champion that was not itself rolled away from.

    Rolling back again walks further back. None when there is nothing left to restore.
    """
    stack = champion_stack(promotions)
    return stack[-2] if len(stack) > 1 else None


def champion_stack(promotions: Iterable[Promotion]) -> tuple[Promotion, ...]:
    """Fold promotions of one name on one target, in any order, to the champions to roll back to; the current one last.

    A promotion goes on top; the same digest again replaces the top, because a rollback must change what is served. A
    rollback cuts the stack down to the champion it restores. One that restores a champion no longer on the stack (asked
    for by name) puts it on top.
    """
    stack: list[Promotion] = []
    for promotion in sorted(promotions, key=lambda item: item.sequence):
        digests = [item.digest for item in stack]
        if promotion.kind is PromotionKind.ROLLBACK and promotion.digest in digests:
            depth = len(digests) - digests[::-1].index(promotion.digest)
            del stack[depth:]
        elif digests and digests[-1] == promotion.digest:
            stack[-1] = promotion
        else:
            stack.append(promotion)
    return tuple(stack)


def attempt_number(trials: Iterable[Trial], evidence: str) -> int:
    """Tell which attempt a decision on ``evidence`` is, from 1.

    Each attempt is a chance to be promoted by luck, so the gate asks more of each further one. The same evidence
    decided on again, by a repeated release or with another gate file, is no further attempt.

    Args:
        trials: Of one candidate on one suite, in the order in which they were decided on.
        evidence: Digest of what is decided on now.
    """
    spent: set[str] = set()
    for trial in trials:
        if trial.evidence == evidence:
            break
        if trial.spends:
            spent.add(trial.evidence)
    return 1 + len(spent)


def fold_release(
    opened: ReleaseOpened, steps: Iterable[StepRecorded] = (), ended: ReleaseEnded | None = None
) -> ReleaseState:
    """Fold a release's facts, in any order, to its state."""
    states: dict[str, StepState] = {}
    for event in sorted(steps, key=lambda item: item.sequence):
        states[event.step] = _after(states.get(event.step), event)
    return ReleaseState(opened=opened, steps=states, ended=ended)


def _after(before: StepState | None, event: StepRecorded) -> StepState:
    starts = event.status is StepStatus.STARTED
    return StepState(
        step=event.step,
        status=event.status,
        attempts=(before.attempts if before else 0) + starts,
        data=event.data or (before.data if before else {}),
        started_at=event.recorded_at if starts else (before.started_at if before else None),
        ended_at=None if starts else event.recorded_at,
    )


def fold_uploads(facts: Iterable[UploadFact]) -> tuple[UploadState, ...]:
    """Fold upload facts, in any order, to one state per attempt, in the order in which the attempts were begun.

    What a later stage does not repeat (token, earlier tags, version) is kept from the earlier one.
    """
    states: dict[str, UploadState] = {}
    for fact in sorted(facts, key=lambda item: item.sequence):
        before = states.get(fact.attempt_id)
        states[fact.attempt_id] = UploadState(
            target=fact.target,
            digest=fact.digest,
            repository=fact.repository,
            attempt_id=fact.attempt_id,
            stage=fact.stage,
            upload_token=fact.upload_token or (before.upload_token if before else None),
            tags_before=fact.tags_before if fact.tags_before is not None else (before.tags_before if before else None),
            version=fact.version or (before.version if before else None),
        )
    return tuple(states.values())


def fold_deployments(facts: Iterable[DeploymentFact]) -> tuple[DeploymentState, ...]:
    """Fold deployment facts, in any order, to one state per target and name: open ones first, oldest first."""
    states: dict[tuple[str, str], DeploymentState] = {}
    for fact in sorted(facts, key=lambda item: item.sequence):
        before = states.get((fact.target, fact.name))
        alive = before is not None and before.is_open
        states[fact.target, fact.name] = DeploymentState(
            target=fact.target,
            name=fact.name,
            release_id=fact.release_id,
            stage=fact.stage,
            base_model=fact.base_model or (before.base_model if before else ""),
            since=before.since if before is not None and alive else fact.recorded_at,
            recorded_at=fact.recorded_at,
        )
    return tuple(sorted(states.values(), key=lambda state: (not state.is_open, state.since, state.name)))
