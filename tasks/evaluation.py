"""Evaluate the arms and decide."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from uuid import UUID

from prefect import task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from slipway.adapter import Source
from slipway.evaluation import Contestant, evaluate
from slipway.gate import Verdict, decide
from slipway.gate_file import Gate
from slipway.ledger import Json, Promotion
from slipway.progress import Kind, ProgressEvent, emit
from slipway.release import Step
from slipway.results import Arm, CaseResult
from slipway.results_io import read_results, write_results
from slipway.services.asking import make_ask
from slipway.services.backends import PublishedAdapter, ServingDeployment, open_backend
from slipway.services.workspace import open_workspace
from slipway.suite import Suite
from slipway.targets import Target
from tasks.journal import journaled
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
) -> Path:
    """Ask candidate, champion and base every case, and record the results.

    An evaluation that an earlier run of this release finished, against the same champion, is taken as it is.

    Returns:
        The recorded results, one line per case and arm.

    Raises:
        ServiceError: The deployment stopped answering.
    """
    workspace = open_workspace()
    path = workspace.release_directory(release_id) / RESULTS_FILE
    basis: dict[str, Json] = {
        "candidate": candidate.adapter_id,
        "champion": champion.sequence if champion else 0,
        "suite": suite.digest,
        "server": deployment.url,
    }
    done = workspace.ledger.release(release_id).finished(Step.EVALUATE)
    if done is not None and done.data.get("basis") == basis and _sha256(path) == done.data.get("results_sha256"):
        emit(ProgressEvent(step=Step.EVALUATE, kind=Kind.FINISHED, message="taken from the earlier run"))
        return path
    with journaled(workspace.ledger, release_id, Step.EVALUATE) as note:
        backend = open_backend(target, target_name, workspace.ledger, token=await load_token(target))
        async with backend, backend.client(deployment) as client:
            contestants = {
                Arm.CANDIDATE: Contestant(
                    adapter_id=candidate.adapter_id,
                    ask=make_ask(client, candidate.adapter_id, candidate.source, target.max_new_tokens),
                )
            }
            if champion is not None:
                contestants[Arm.CHAMPION] = Contestant(
                    adapter_id=champion.adapter_id,
                    ask=make_ask(client, champion.adapter_id, Source(champion.adapter_source), target.max_new_tokens),
                )
            contestants[Arm.BASE] = Contestant(adapter_id="", ask=make_ask(client, None, None, target.max_new_tokens))
            async with _Progress(name, total=len(suite.cases) * len(contestants)) as progress:
                results = await evaluate(
                    suite, contestants, max_concurrency=target.max_concurrency, on_result=progress.count
                )
        write_results(path, results)
        note.message = _summary(results, contestants)
        note.data = {"basis": basis, "results_sha256": _sha256(path)}
        return path


@task(name="gate", task_run_name="gate-{release_id}", **LOCAL)
async def decide_verdict(results: Path, gate: Gate, *, has_champion: bool, release_id: str) -> Verdict:
    """Apply the gate to recorded results."""
    with journaled(open_workspace().ledger, release_id, Step.GATE) as note:
        verdict = decide(read_results(results), gate, has_champion=has_champion)
        note.message = f"{verdict.verdict}: {verdict.reasons[0] if verdict.reasons else 'every rule passed'}"
        note.data = {"verdict": verdict.verdict}
        return verdict


def recorded_results(release_id: str, digest: str) -> Path | None:
    """The results that an earlier run of a release recorded; None if they are gone or are not those of ``digest``.

    Args:
        release_id: The release.
        digest: Their SHA-256.
    """
    path = open_workspace().release_directory(release_id) / RESULTS_FILE
    return path if digest and _sha256(path) == digest else None


class _Progress:
    """Count results, for whoever watches this process and, once a second, into a Prefect progress artifact."""

    def __init__(self, name: str, *, total: int) -> None:
        self._name = name
        self._total = total
        self._done = 0
        self._answered: Counter[Arm] = Counter()
        self._passed: Counter[Arm] = Counter()
        self._updates: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        artifact = await acreate_progress_artifact(
            progress=0.0, key=f"evaluating-{self._name}", description=f"Evaluation of {self._name}: cases answered"
        )
        self._updates = asyncio.create_task(self._update(artifact))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._updates is not None:
            self._updates.cancel()
            await asyncio.gather(self._updates, return_exceptions=True)

    def count(self, result: CaseResult) -> None:
        """Take one result into account."""
        self._done += 1
        if result.error is None:
            self._answered[result.arm] += 1
            self._passed[result.arm] += bool(result.passed)
        emit(
            ProgressEvent(
                step=Step.EVALUATE, kind=Kind.ADVANCED, message=self._rates(), done=self._done, total=self._total
            )
        )

    def _rates(self) -> str:
        return ", ".join(f"{arm} {self._passed[arm] / count:.0%}" for arm, count in sorted(self._answered.items()))

    async def _update(self, artifact: UUID) -> None:
        shown = -1
        try:
            while True:
                await asyncio.sleep(UPDATE_SECONDS)
                if self._done != shown:
                    shown = self._done
                    await aupdate_progress_artifact(artifact, 100.0 * shown / self._total)
        finally:
            await asyncio.shield(aupdate_progress_artifact(artifact, 100.0 * self._done / self._total))


def _summary(results: list[CaseResult], contestants: Mapping[Arm, Contestant]) -> str:
    parts = []
    for arm in contestants:
        answered = [result for result in results if result.arm is arm and result.error is None]
        passed = sum(bool(result.passed) for result in answered)
        missing = sum(result.arm is arm for result in results) - len(answered)
        parts.append(f"{arm} {passed}/{len(answered)}" + (f" ({missing} missing)" if missing else ""))
    return ", ".join(parts)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
