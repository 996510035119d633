"""Evaluate the arms and decide."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Self
from uuid import UUID

from prefect import task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.runtime import flow_run

from slipway.adapter import Source
from slipway.gate import Decision, Verdict, decide
from slipway.gate_file import Gate
from slipway.ledger import Json, Promotion, Trial
from slipway.progress import Kind, ProgressEvent, emit
from slipway.release import Step
from slipway.results import Arm, evidence_digest
from slipway.results_io import read_results
from slipway.scoreboard import Scoreboard
from slipway.services.backends import PublishedAdapter, ServingDeployment, open_backend
from slipway.services.evaluation_run import Entrant, Precedent, Stopping, run_evaluation
from slipway.services.workspace import open_workspace
from slipway.suite import Suite
from slipway.targets import Target
from tasks.journal import journaled
from tasks.ledger import attempt_of, same_question, trials_of
from tasks.options import LOCAL, REMOTE, load_token

__all__ = ["decide_verdict", "evaluate_arms", "recorded_results"]

RESULTS_FILE = "results.jsonl"
UPDATE_SECONDS = 1.0
"""Between updates of the progress artifact: each is a request to the Prefect server."""


@task(name="evaluate", task_run_name="evaluate-{release_id}", **REMOTE)
async def evaluate_arms(
    suite: Suite,
    *,
    name: str,
    candidate: PublishedAdapter,
    champion: Promotion | None,
    deployment: ServingDeployment,
    target: Target,
    target_name: str,
    release_id: str,
    digest: str,
    gate: Gate,
    fresh: bool = False,
) -> Path:
    """Ask candidate, champion and base every case that no earlier evaluation has recorded, and record the results.

    An evaluation that an earlier run of this release finished, against the same champion and for the same gate, is
    taken as it is; one that was cut goes on where it was.

    Args:
        suite: What to ask.
        name: The adapter's name.
        candidate: The adapter where the target's servers find it.
        champion: What applications get now; None before the first.
        deployment: Where to ask.
        target: Its target.
        target_name: The target's name in the ledger.
        release_id: Whose evaluation this is.
        digest: Of the candidate, as its promotion would record it.
        gate: The evaluation ends once this gate's verdict is certain.
        fresh: Ask again what was recorded before this flow run.

    Returns:
        The recorded results, one line per case and arm.

    Raises:
        ServiceError: The deployment stopped answering.
    """
    workspace = open_workspace()
    path = workspace.release_directory(release_id) / RESULTS_FILE
    run = str(flow_run.id or "")
    basis: dict[str, Json] = {
        "candidate": candidate.adapter_id,
        "champion": champion.sequence if champion else 0,
        "suite": suite.digest,
        "server": deployment.url,
        "gate": gate.model_dump(mode="json"),
        "fresh": run if fresh else "",
    }
    done = workspace.ledger.release(release_id).finished(Step.EVALUATE)
    if done is not None and done.data.get("basis") == basis and _sha256(path) == done.data.get("results_sha256"):
        emit(ProgressEvent(step=Step.EVALUATE, kind=Kind.FINISHED, message="taken from the earlier run"))
        return path
    entrants = {Arm.CANDIDATE: Entrant(adapter_id=candidate.adapter_id, source=candidate.source, digest=digest)}
    if champion is not None:
        entrants[Arm.CHAMPION] = Entrant(
            adapter_id=champion.adapter_id,
            source=Source(champion.adapter_source),
            digest=champion.digest,
        )
    entrants[Arm.BASE] = Entrant()
    with journaled(workspace.ledger, release_id, Step.EVALUATE) as note:
        backend = open_backend(target, target_name, workspace.ledger, token=await load_token(target))
        async with backend, backend.client(deployment) as client, _Progress(name) as progress:
            evaluation = await run_evaluation(
                suite,
                entrants,
                client=client,
                deployment=deployment,
                target=target,
                target_name=target_name,
                store=workspace.answers,
                path=path,
                stopping=Stopping(
                    gate=gate,
                    has_champion=champion is not None,
                    attempt=attempt_of(release_id),
                    precedents=await asyncio.to_thread(_precedents, release_id),
                ),
                run=run,
                fresh=fresh,
                watch=progress.watch,
            )
        note.message = evaluation.scoreboard.summary()
        note.data = {
            "basis": basis,
            "results_sha256": _sha256(path),
            "asked": evaluation.scoreboard.asked,
            "reused": evaluation.scoreboard.reused,
            "server": evaluation.server,
            "notes": list(evaluation.notes),
        }
        return path


@task(name="gate", task_run_name="gate-{release_id}", **LOCAL)
async def decide_verdict(results: Path, gate: Gate, *, has_champion: bool, release_id: str) -> Verdict:
    """Apply the gate to recorded results, and record that it was: repeated attempts are decided more strictly."""
    ledger = open_workspace().ledger
    earlier = trials_of(ledger.release(release_id))
    with journaled(ledger, release_id, Step.GATE) as note:
        lines = read_results(results)
        evidence = evidence_digest(lines)
        attempt = attempt_of(release_id, evidence)
        verdict = decide(lines, gate, has_champion=has_champion, attempt=attempt)
        spends = verdict.verdict is not Decision.PROMOTE and not verdict.is_obstructed
        trials = [*earlier, Trial(evidence=evidence, spends=spends)]
        note.message = f"{verdict.verdict}: {verdict.reasons[0] if verdict.reasons else 'every rule passed'}"
        if attempt < attempt_of(release_id):
            note.message += f" (Attempt {attempt} once more: these answers were decided on before.)"
        elif attempt > 1:
            note.message += f" (Attempt {attempt}, at {100 * verdict.confidence:g} % confidence.)"
        note.data = {"verdict": verdict.verdict, "attempt": attempt, "trials": [asdict(trial) for trial in trials]}
        return verdict


def _precedents(release_id: str) -> list[Precedent]:
    """What the gate has decided on before although not all of it was asked, the last first."""
    found = []
    for release in reversed(same_question(release_id)):
        evaluated = release.finished(Step.EVALUATE)
        path = recorded_results(release.id, str(evaluated.data.get("results_sha256", ""))) if evaluated else None
        lines = read_results(path) if path else []
        evidence = evidence_digest(lines)
        was_decided_on = any(trial.evidence == evidence for trial in trials_of(release))
        if was_decided_on and any(line.not_asked for line in lines):
            found.append(Precedent(results=lines, attempt=attempt_of(release_id, evidence)))
    return found


def recorded_results(release_id: str, digest: str) -> Path | None:
    """The results that an earlier run of a release recorded; None if they are gone or are not those of ``digest``.

    Args:
        release_id: The release.
        digest: Their SHA-256.
    """
    path = open_workspace().release_directory(release_id) / RESULTS_FILE
    return path if digest and _sha256(path) == digest else None


class _Progress:
    """A Prefect progress artifact that follows the counts of an evaluation, once a second."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._scoreboard: Scoreboard | None = None
        self._updates: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        artifact = await acreate_progress_artifact(
            progress=0.0,
            key=f"evaluating-{self._name}",
            description=f"Evaluation of {self._name}: nothing answered yet",
        )
        self._updates = asyncio.create_task(self._keep_updating(artifact))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._updates is not None:
            self._updates.cancel()
            await asyncio.gather(self._updates, return_exceptions=True)

    def watch(self, scoreboard: Scoreboard) -> None:
        """Follow these counts from now on."""
        self._scoreboard = scoreboard

    async def _keep_updating(self, artifact: UUID) -> None:
        shown = -1
        try:
            while True:
                await asyncio.sleep(UPDATE_SECONDS)
                if self._scoreboard is not None and self._scoreboard.done != shown:
                    shown = self._scoreboard.done
                    await self._update(artifact)
        finally:
            await asyncio.shield(self._update(artifact))

    async def _update(self, artifact: UUID) -> None:
        board = self._scoreboard
        if board is None:
            return
        share = board.done / board.total if board.total else 1.0
        description = (
            f"Evaluation of {self._name}: {board.done} of {board.total}. Pass rates so far: {board.describe()}"
        )
        await aupdate_progress_artifact(artifact, progress=100.0 * share, description=description)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
