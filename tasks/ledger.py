"""What flows read from the ledger, and how a release is opened in it.

No Prefect tasks: a local transaction is no step worth a state.
"""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from typing import Any

from slipway.adapter import Bundle, Source
from slipway.configs import ConfigKind, find_config
from slipway.errors import ConfigurationError
from slipway.ledger import (
    DeploymentState,
    Promotion,
    ReleaseState,
    StepStatus,
    Trial,
    attempt_number,
    champion,
    previous_champion,
)
from slipway.release import ReleasePlan, Step, require_name
from slipway.services.backends import PublishedAdapter
from slipway.services.workspace import open_workspace
from slipway.targets import Target, load_target

__all__ = [
    "RollbackPlan",
    "actor",
    "as_published",
    "attempt_of",
    "champion_before",
    "created_deployments",
    "current_champion",
    "open_release",
    "plan_rollback",
    "same_question",
    "trials_of",
]


@dataclass(frozen=True, kw_only=True)
class RollbackPlan:
    """Whom to restore, instead of whom, and where.

    Attributes:
        name: The adapter's name.
        target_name: The target's name in the ledger.
        target: As read.
        base_model: The base of the former champion, as deployments name it.
        current: The champion now.
        former: The promotion to restore.
        adapter: The former champion as requests name it.
    """

    name: str
    target_name: str
    target: Target
    base_model: str
    current: Promotion
    former: Promotion
    adapter: PublishedAdapter


def open_release(plan: ReleasePlan, bundle: Bundle, *, base_model: str) -> ReleaseState:
    """Record the bundle and the release; an unfinished release of the same request is continued."""
    ledger = open_workspace().ledger
    ledger.record_bundle(
        digest=bundle.digest,
        uri=bundle.uri,
        resolved_revision=bundle.resolved_revision,
        size_bytes=bundle.size_bytes,
        base_model=base_model,
    )
    release = ledger.open_release(
        name=plan.name,
        target=plan.target_name,
        digest=bundle.digest,
        suite_digest=plan.suite.digest,
        gate_digest=plan.gate_digest,
        uri=plan.adapter,
        actor=actor(),
    )
    if Step.PULL not in release.steps:
        ledger.record_step(
            release.id, Step.PULL, StepStatus.FINISHED, {"digest": bundle.digest, "size_bytes": bundle.size_bytes}
        )
    return release


def attempt_of(release_id: str, evidence: str = "") -> int:
    """Tell which attempt at promoting its candidate on its suite a release makes, from 1.

    Args:
        release_id: The release.
        evidence: Digest of what was observed; empty for what is still to be.
    """
    return attempt_number([trial for release in same_question(release_id) for trial in trials_of(release)], evidence)


def same_question(release_id: str) -> list[ReleaseState]:
    """The releases of the same bytes under the same name on the same suite and target, this one too, oldest first."""
    ledger = open_workspace().ledger
    opened = ledger.release(release_id).opened
    same = [
        release
        for release in ledger.releases(opened.name, opened.target)
        if (release.opened.digest, release.opened.suite_digest) == (opened.digest, opened.suite_digest)
    ]
    return sorted(same, key=lambda release: release.opened.number)


def trials_of(release: ReleaseState) -> list[Trial]:
    """The results that the gate has decided on in a release, in that order, as its gate step recorded them."""
    step = release.steps.get(Step.GATE)
    recorded: Any = step.data.get("trials", []) if step else []
    return [Trial(evidence=trial["evidence"], spends=trial["spends"]) for trial in recorded]


def current_champion(name: str, target: str) -> Promotion | None:
    """Who serves ``name`` on ``target`` now."""
    return champion(open_workspace().ledger.promotions(name, target))


def created_deployments(release_id: str) -> list[DeploymentState]:
    """The serving deployments that a release created and that may still be there."""
    states = open_workspace().ledger.created_deployments()
    return [state for state in states if state.is_open and state.release_id == release_id]


def champion_before(promotion: Promotion) -> Promotion | None:
    """Who was champion when ``promotion`` came; None if nobody was."""
    earlier = open_workspace().ledger.promotions(promotion.name, promotion.target)
    return champion(item for item in earlier if item.sequence < promotion.sequence)


def as_published(promotion: Promotion) -> PublishedAdapter:
    """A champion, present or former, as requests name it."""
    return PublishedAdapter(adapter_id=promotion.adapter_id, source=Source(promotion.adapter_source), reused=True)


def plan_rollback(*, name: str, target: str, to: str | None) -> RollbackPlan:
    """Find the champion to restore.

    Args:
        name: The adapter's name.
        target: Name or path of a target file.
        to: The release to go back to; None for the champion before this one.

    Raises:
        ConfigurationError: There is no champion, nothing to go back to, or ``to`` never was champion here.
    """
    target_file = find_config(ConfigKind.TARGET, target)
    ledger = open_workspace().ledger
    promotions = ledger.promotions(require_name(name), target_file.stem)
    current = champion(promotions)
    if current is None:
        raise ConfigurationError(
            f"{name} has no champion on {target_file.stem}.", fix="`slipway status` shows who is champion where."
        )
    if to is None:
        former = previous_champion(promotions)
    else:
        former = next((item for item in reversed(promotions) if item.release_id == to), None)
    if former is None or former.digest == current.digest:
        raise ConfigurationError(
            f"release {to} is no former champion of {name} on {target_file.stem} (now: {current.release_id})."
            if to
            else f"{current.adapter_id} is the only champion that {name} ever had on {target_file.stem}.",
            fix=f"`slipway history {name}` lists the releases that were champion.",
        )
    bundles = ledger.bundles(former.digest)
    return RollbackPlan(
        name=name,
        target_name=target_file.stem,
        target=load_target(target_file),
        base_model=bundles[-1].base_model,
        current=current,
        former=former,
        adapter=as_published(former),
    )


def actor() -> str:
    """Who runs this, for the record: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
