"""`slipway release`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from slipway.cli.output import print_json, stderr, stdout
from slipway.cli.prefect_session import prefect_session
from slipway.cli.preflight import check_adapter, check_target
from slipway.cli.release_view import outcome_document, print_outcome, watching
from slipway.release import ReleaseOutcome, plan_release

__all__ = ["release"]


async def release(
    adapter: str,
    /,
    *,
    name: str,
    target: str = "sandbox",
    suite: str,
    gate: str = "default",
    yes: Annotated[bool, Parameter(negative="")] = False,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Take an adapter to production, or say why not.

    Pull, inspect, upload, attach or deploy, prove live, evaluate, gate, promote. Exits 0 when it is champion, 1 when it
    was held or refused, 2 when the request is wrong, 3 when it could not be decided. A release that was cut continues
    when the same command is given again.

    Args:
        adapter: A path, `hf://ORG/NAME@REVISION`, `s3://BUCKET/PREFIX/` or `pbase://REPO/TAG`.
        name: The adapter's name: repository, champion and artifacts go by it.
        target: Name or path of a target file.
        suite: Name or path of a suite.
        gate: Name or path of a gate file.
        yes: Promote without asking a person, also where the gate file wants one.
        fresh: Ask every case again, also what an earlier evaluation recorded.
        as_json: Print one JSON document on stdout.
    """
    plan = plan_release(adapter=adapter, name=name, target=target, suite=suite, gate=gate)
    check_adapter(adapter)
    await check_target(plan.target, plan.target_name)
    console = stderr() if as_json else stdout()
    with prefect_session(), watching(console):
        from flows.release import release as flow

        outcome: ReleaseOutcome = await flow(
            adapter=adapter, name=name, target=target, suite=suite, gate=gate, approved=yes, fresh=fresh
        )
    if as_json:
        print_json(outcome_document(outcome))
    else:
        print_outcome(console, outcome)
    return outcome.exit_code
