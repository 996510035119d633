"""`slipway evaluate`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from slipway.adapter import Source
from slipway.cli.evaluation_display import showing_evaluation
from slipway.cli.output import print_json, printable, require_writable, stderr, stdout, write_text
from slipway.cli.results_view import print_results, print_suite_notes, results_document, results_exit_code
from slipway.cli.step_summary import summarise_step
from slipway.configs import ConfigKind, find_config
from slipway.errors import ConfigurationError
from slipway.gate_file import Gate, load_gate
from slipway.judge_agreement import judge_agreement
from slipway.junit import junit_xml
from slipway.power import design_notes
from slipway.results import Arm
from slipway.scoreboard import Scoreboard
from slipway.services.backends import open_backend
from slipway.services.evaluation_run import Entrant, Evaluation, Stopping, run_evaluation
from slipway.services.workspace import Workspace, open_workspace
from slipway.suite import Suite, load_suite
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
    gate: str | None = None,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    junit: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Run a suite on a live adapter and on its base; promotes nothing, deploys nothing.

    Answers are recorded as they come, and what is recorded is not asked again: a run that was cut goes on where it was.
    Exits 1 when the adapter failed a case, 3 when an answer is missing.

    Args:
        suite: Name or path of a suite.
        target: Name or path of a target file.
        adapter: The adapter's id on the target, such as support/4.
        against: Another adapter's id, taken as the champion.
        base: The base model, where the target serves several.
        gate: Name or path of a gate file: says beforehand what the suite can show, and stops once its verdict is
            certain. `slipway gate` decides.
        fresh: Ask every case again, also what an earlier evaluation recorded.
        out: Where to write the recorded results (JSONL); it grows as they come.
        junit: Where to write JUnit XML.
        as_json: Print one JSON document on stdout.
    """
    target_file = find_config(ConfigKind.TARGET, target)
    where = load_target(target_file)
    cases = load_suite(find_config(ConfigKind.SUITE, suite), judge=where.judge, mask=where.redactor)
    rules = None if gate is None else load_gate(find_config(ConfigKind.GATE, gate))
    require_writable(out, junit)
    console = stderr()
    _print_notes(console, cases, rules, has_champion=against is not None)
    entrants = {Arm.CANDIDATE: _entrant(where, adapter)}
    if against is not None:
        entrants[Arm.CHAMPION] = _entrant(where, against)
    entrants[Arm.BASE] = Entrant()
    stopping = None if rules is None else Stopping(gate=rules, has_champion=against is not None)
    done = await _run(
        cases,
        entrants,
        where=where,
        name=target_file.stem,
        base=base,
        stopping=stopping,
        fresh=fresh,
        out=out,
        workspace=open_workspace(),
    )
    results = done.results
    if junit is not None:
        write_text(junit, junit_xml(cases.description or suite, results))
    _print_end(console, done)
    summarise_step(results, name=cases.description or suite)
    if as_json:
        print_json(results_document(results, cases.unsupported, cases.notes))
    else:
        print_results(stdout(), results, cases.unsupported)
    return results_exit_code(results)


async def _run(
    suite: Suite,
    entrants: dict[Arm, Entrant],
    *,
    where: Target,
    name: str,
    base: str | None,
    stopping: Stopping | None,
    fresh: bool,
    out: Path | None,
    workspace: Workspace,
) -> Evaluation:
    backend = open_backend(where, name, workspace.ledger)
    boards: list[Scoreboard] = []
    console = stderr()
    async with backend:
        deployment = await backend.attach(_base(where, name, base))
        try:
            async with backend.client(deployment) as client:
                with showing_evaluation(console):
                    return await run_evaluation(
                        suite,
                        entrants,
                        client=client,
                        deployment=deployment,
                        target=where,
                        target_name=name,
                        store=workspace.answers,
                        path=out,
                        stopping=stopping,
                        fresh=fresh,
                        watch=boards.append,
                    )
        except asyncio.CancelledError:
            if boards:
                _print_cut(console, boards[-1], out, fresh=fresh)
            raise


def _entrant(target: Target, adapter_id: str) -> Entrant:
    source = Source(target.handover.source) if target.kind is TargetKind.LORAX else Source.PBASE
    return Entrant(adapter_id=adapter_id, source=source)


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


def _print_notes(console: Console, suite: Suite, gate: Gate | None, *, has_champion: bool) -> None:
    """Say before a token is spent what was read differently than it may look, and what the gate will be able to see."""
    print_suite_notes(console, suite)
    if gate is None:
        return
    for planned in design_notes(suite.shape, gate, has_champion=has_champion):
        if planned.rule == "checks" and not planned.is_blind:
            continue  # the suite's notes have said how many cases check nothing
        style = "yellow" if planned.is_blind else "dim"
        console.print(f"[{style}]{escape(printable(planned.sentence))}[/]", soft_wrap=True)


def _print_end(console: Console, done: Evaluation) -> None:
    board = done.scoreboard
    for note in done.notes:
        console.print(f"[dim]note: {escape(printable(note))}[/]", soft_wrap=True)
    if board.reused:
        console.print(
            f"{board.reused} of {board.total} answers reused from earlier evaluations (--fresh asks again)",
            soft_wrap=True,
        )
    agreement = judge_agreement(done.results)
    if agreement is not None:
        console.print(escape(agreement.remark or f"{agreement}."), soft_wrap=True)
    stopped = next((result.error for result in done.results if result.not_asked), None)
    if stopped:
        console.print(escape(printable(stopped)), soft_wrap=True)


def _print_cut(console: Console, board: Scoreboard, out: Path | None, *, fresh: bool) -> None:
    place = f", in {out}" if out is not None else ""
    # What earlier evaluations recorded counts again then, which is why it is not done unasked.
    command = "without --fresh the same command" if fresh else "the same command"
    console.print(
        escape(
            f"cut: {board.done} of {board.total} results are recorded{place}; "
            f"{command} asks only for what is not on record"
        ),
        soft_wrap=True,
    )
