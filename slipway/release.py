"""What a release is asked to do, and how it ended. Values only: the order of work is ``flows.release``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from slipway.configs import ConfigKind, find_config
from slipway.errors import ConfigurationError
from slipway.gate_file import Gate, load_gate
from slipway.ledger import Outcome, Promotion, ReleaseState, champion
from slipway.suite import Suite, load_suite
from slipway.targets import Target, load_target

__all__ = ["ReleaseOutcome", "ReleasePlan", "Step", "deployment_users", "plan_release", "require_name"]

NAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,60}[a-z0-9])?")
"""Names become Prefect artifact keys, which allow only these characters, and Predibase repositories, whose names cannot
hold a slash."""


class Step(StrEnum):
    """The steps of a release, in order, as the ledger names them."""

    PLAN = "plan"
    PULL = "pull"
    INSPECT = "inspect"
    FIT = "fit"
    UPLOAD = "upload"
    SERVE = "serve"
    PROVE = "prove"
    EVALUATE = "evaluate"
    GATE = "gate"
    PROMOTE = "promote"


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """Everything a release was asked to use, read and checked before any of it is used.

    Attributes:
        name: The adapter's name; repository, artifact keys and champion go by it.
        adapter: Its URI, as given.
        target_name: The target's name in the ledger.
        target: As read; addresses not yet resolved.
        suite: The cases.
        gate: The rules.
        gate_digest: SHA-256 of the gate file.
        sources: The files behind target, suite and gate, for the report.
    """

    name: str
    adapter: str
    target_name: str
    target: Target
    suite: Suite
    gate: Gate
    gate_digest: str
    sources: tuple[Path, Path, Path]


@dataclass(frozen=True, kw_only=True)
class ReleaseOutcome:
    """How a release ended.

    Attributes:
        release_id: Such as ``support-3``.
        name: The adapter's name.
        target: The target's name.
        outcome: Promoted, held, inconclusive, refused or unchanged. A release that failed raises instead.
        reasons: Sentences, the weightiest first.
        digest: Of the candidate.
        adapter_id: What requests name; empty when nothing was uploaded.
        champion: The champion's adapter id after this release; empty when there is none.
        report: The report's path.
        results: Recorded results; None when nothing was evaluated.
        seconds: By step, of this run.
        run_url: The flow run in the Prefect UI; empty where there is none.
        is_rollback: The release is a former one that was to be restored; promoted then means that it was.
    """

    release_id: str
    name: str
    target: str
    outcome: Outcome
    reasons: tuple[str, ...]
    digest: str
    adapter_id: str
    champion: str
    report: Path | None
    results: Path | None
    seconds: dict[str, float]
    run_url: str = ""
    is_rollback: bool = False

    @property
    def exit_code(self) -> int:
        """0 when the candidate serves, 1 when the answer is no, 3 when it could not be decided."""
        match self.outcome:
            case Outcome.PROMOTED | Outcome.UNCHANGED:
                return 0
            case Outcome.HELD | Outcome.REFUSED:
                return 1
            case _:
                return 3


def require_name(name: str) -> str:
    """Return ``name`` when it can be an adapter's name.

    Raises:
        ConfigurationError: It cannot.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be an adapter's name.",
            fix="Use up to 62 lower-case letters, digits and dashes, such as support-bot.",
        )
    return name


def plan_release(*, adapter: str, name: str, target: str, suite: str, gate: str) -> ReleasePlan:
    """Read every file that a release will use, so that a bad one is met before work starts.

    Raises:
        ConfigurationError: A name or file is wrong.
    """
    require_name(name)
    target_file = find_config(ConfigKind.TARGET, target)
    suite_file = find_config(ConfigKind.SUITE, suite)
    gate_file = find_config(ConfigKind.GATE, gate)
    where = load_target(target_file)
    return ReleasePlan(
        name=name,
        adapter=adapter,
        target_name=target_file.stem,
        target=where,
        suite=load_suite(suite_file, judge=where.judge, mask=where.redactor),
        gate=load_gate(gate_file),
        gate_digest="sha256:" + hashlib.sha256(gate_file.read_bytes()).hexdigest(),
        sources=(target_file, suite_file, gate_file),
    )


def deployment_users(
    deployment: str, *, releases: Sequence[ReleaseState], promotions: Sequence[Promotion], besides: str
) -> list[str]:
    """The releases that rely on a serving deployment: unfinished ones that attached to it, and champions proved on it.

    A release may ask for itself: until it has promoted its adapter, it does not count; from then on it does.

    Args:
        deployment: Its name.
        releases: All of the target.
        promotions: All of the target.
        besides: The release that asks, which counts as a champion only.
    """
    champions = {
        leader.release_id
        for name in {promotion.name for promotion in promotions}
        if (leader := champion(promotion for promotion in promotions if promotion.name == name)) is not None
    }
    return [
        release.id
        for release in releases
        if (release.id in champions or (release.is_open and release.id != besides))
        and (served := release.finished(Step.SERVE)) is not None
        and served.data.get("deployment") == deployment
    ]
