"""`slipway rollback`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from slipway.cli.output import print_json, stderr, stdout
from slipway.cli.prefect_session import prefect_session, prepare_prefect
from slipway.cli.preflight import check_target
from slipway.cli.release_view import outcome_document, print_outcome, watching
from slipway.release import ReleaseOutcome

__all__ = ["rollback"]


async def rollback(
    name: str,
    /,
    *,
    target: str = "sandbox",
    to: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Give the previous champion its place back, after proving it live.

    Args:
        name: The adapter's name.
        target: Name or path of a target file.
        to: A release id to go back to, such as support-3.
        as_json: Print one JSON document on stdout.
    """
    prepare_prefect()
    from tasks.ledger import plan_rollback

    plan = plan_rollback(name=name, target=target, to=to)
    await check_target(plan.target, plan.target_name)
    console = stderr() if as_json else stdout()
    with prefect_session(), watching(console):
        from flows.rollback import rollback as flow

        outcome: ReleaseOutcome = await flow(name=name, target=target, to=to)
    if as_json:
        print_json(outcome_document(outcome))
    else:
        print_outcome(console, outcome)
    return outcome.exit_code
