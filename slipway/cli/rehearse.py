"""`slipway rehearse`."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from slipway.cli.history import history
from slipway.cli.output import stdout
from slipway.cli.prefect_session import exiting_when_told, prepare_prefect
from slipway.cli.release_view import print_outcome, watching
from slipway.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from flows.rehearsal import Act, ActResult, Stage

__all__ = ["rehearse"]


def rehearse(*, keep: Annotated[bool, Parameter(negative="")] = False) -> int:
    """The whole journey on this machine: promoted, compared, held, refused, caught, rolled back.

    Needs no account and no GPU. Exits 1 when an act did not end as it must.

    Args:
        keep: Leave everything running at the end, to look around, until Ctrl-C.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "the sandbox is not installed.",
            fix="Install it with `pip install 'slipway[sandbox]'`, or use `make setup`.",
        )
    prepare_prefect()
    # By default TERM ends Python on the spot, and the servers would be left running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    from flows.rehearsal import ACTS, open_stage, play

    console = stdout()
    began = time.monotonic()
    console.print("[bold]Slipway rehearsal[/]: real adapters, a real server, real Prefect flows, all on this machine\n")
    with open_stage(lambda line: console.print(f"[dim]{escape(line)} ...[/]")) as stage:
        for phase, seconds in stage.seconds.items():
            console.print(f"  [dim]{phase:<22} {seconds:6.1f} s[/]")
        results = asyncio.run(_play_all(console, stage, ACTS, play))
        console.print(Rule("history", style="dim"))
        history("translate")
        _print_summary(console, stage, results, time.monotonic() - began, keep=keep)
        if keep:
            _stay(console, stage)
    return 0 if all(result.is_as_expected for result in results) else 1


async def _play_all(
    console: Console, stage: Stage, acts: Sequence[Act], play: Callable[[Act, Stage], Awaitable[ActResult]]
) -> list[ActResult]:
    results = []
    for number, act in enumerate(acts, start=1):
        console.print()
        console.print(Rule(f"[bold]{number}. {escape(act.title)}[/]", align="left", style="dim"))
        with exiting_when_told(), watching(console):
            result = await play(act, stage)
        print_outcome(console, result.outcome)
        if result.is_as_expected:
            console.print(f"  [dim]{escape(act.point)} ({result.seconds:.1f} s)[/]")
        else:
            console.print(f"  [bold red]expected {act.expected}: this rehearsal has failed[/]")
        results.append(result)
    console.print()
    return results


def _print_summary(console: Console, stage: Stage, results: Sequence[ActResult], seconds: float, *, keep: bool) -> None:
    console.print(Rule("where to look", style="dim"))
    if keep:
        for number, result in enumerate(results, start=1):
            console.print(
                f"  run {number} in the Prefect UI: {escape(result.outcome.run_url or stage.ui)}", soft_wrap=True
            )
    else:
        console.print("  the runs in the Prefect UI: `slipway rehearse --keep` leaves it up")
    last = next((result.outcome.report for result in reversed(results) if result.outcome.report), None)
    console.print(f"  reports and results:        {escape(str(stage.directory / 'releases'))}", soft_wrap=True)
    if last is not None:
        console.print(f"  the last report:            {escape(str(last))}", soft_wrap=True)
    good = sum(result.is_as_expected for result in results)
    colour = "green" if good == len(results) else "red"
    console.print(f"\n[bold {colour}]{good} of {len(results)} acts ended as they must[/], {seconds:.0f} s in all")


def _stay(console: Console, stage: Stage) -> None:
    console.print(f"\nEverything is still up. The Prefect UI is at [bold]{stage.ui}[/]. In another terminal:\n")
    for name, value in stage.exports.items():
        console.print(f"export {name}={escape(value)}", soft_wrap=True)
    console.print("slipway status\n\nCtrl-C stops everything.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("stopping ...")
