"""`slipway evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from slipway.adapter import Source
from slipway.cli.output import print_json, require_writable, stderr, stdout, write_text
from slipway.cli.release_view import watching
from slipway.cli.results_view import print_results, results_document, results_exit_code
from slipway.configs import ConfigKind, find_config
from slipway.errors import ConfigurationError
from slipway.evaluation import Contestant
from slipway.evaluation import evaluate as run_suite
from slipway.junit import junit_xml
from slipway.progress import Kind, ProgressEvent, emit
from slipway.results import Arm, CaseResult
from slipway.results_io import write_results
from slipway.services.asking import make_ask
from slipway.services.backends import open_backend
from slipway.services.lorax import LoraxClient
from slipway.services.workspace import open_workspace
from slipway.suite import load_suite
from slipway.targets import Target, TargetKind, load_target

__all__ = ["evaluate"]


async def evaluate(
    suite: str,
    /,
    *,
    target: str = "sandbox",
    adapter: str,
    against: str | None = None,
    base: str | None = None,
    out: Path | None = None,
    junit: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Run a suite on a live adapter and on its base; promotes nothing, deploys nothing.

    Exits 1 when the adapter failed a case, 3 when an answer is missing.

    Args:
        suite: Name or path of a suite.
        target: Name or path of a target file.
        adapter: The adapter's id on the target, such as support/4.
        against: Another adapter's id, taken as the champion.
        base: The base model, where the target serves several.
        out: Where to write the recorded results (JSONL).
        junit: Where to write JUnit XML.
        as_json: Print one JSON document on stdout.
    """
    cases = load_suite(find_config(ConfigKind.SUITE, suite))
    require_writable(out, junit)
    target_file = find_config(ConfigKind.TARGET, target)
    where = load_target(target_file)
    backend = open_backend(where, target_file.stem, open_workspace().ledger)
    async with backend:
        deployment = await backend.attach(_base(where, target_file.stem, base))
        async with backend.client(deployment) as client:
            contestants = {Arm.CANDIDATE: _contestant(client, where, adapter)}
            if against is not None:
                contestants[Arm.CHAMPION] = _contestant(client, where, against)
            contestants[Arm.BASE] = Contestant(adapter_id="", ask=make_ask(client, None, None, where.max_new_tokens))
            total, done = len(cases.cases) * len(contestants), 0

            def count(_: CaseResult) -> None:
                nonlocal done
                done += 1
                emit(ProgressEvent(step="evaluate", kind=Kind.ADVANCED, done=done, total=total))

            with watching(stderr()):
                results = await run_suite(cases, contestants, max_concurrency=where.max_concurrency, on_result=count)
    if out is not None:
        write_results(out, results)
    if junit is not None:
        write_text(junit, junit_xml(cases.description or suite, results))
    if as_json:
        print_json(results_document(results))
    else:
        print_results(stdout(), results)
    return results_exit_code(results)


def _contestant(client: LoraxClient, target: Target, adapter_id: str) -> Contestant:
    source = Source(target.handover.source) if target.kind is TargetKind.LORAX else Source.PBASE
    return Contestant(adapter_id=adapter_id, ask=make_ask(client, adapter_id, source, target.max_new_tokens))


def _base(target: Target, name: str, asked: str | None) -> str:
    if asked is not None:
        served = target.served_base(asked)
        if served is None:
            raise ConfigurationError(
                f"target {name} does not serve {asked}.", fix=f"It serves {', '.join(target.bases)}."
            )
        return served
    if len(target.bases) > 1:
        raise ConfigurationError(
            f"target {name} serves several base models.", fix=f"Say which with --base: {', '.join(target.bases)}."
        )
    return next(iter(target.bases))
