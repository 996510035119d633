"""Let a flow stop when its process is told to, after its own clean-up, and end the run in the state that fits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.states import Cancelled

from slipway.services.stopping import stoppable

__all__ = ["stops_when_told"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def stops_when_told(body: Callable[_Parameters, Awaitable[_Result]]) -> Callable[_Parameters, Awaitable[_Result]]:
    """Cancel a flow's body on SIGTERM and SIGINT, in place of Prefect's handler, whose exception can get lost.

    A run that a person cancels gets its signal from the worker and ends as cancelled; any other that is told to stop
    ends as crashed, as the cancellation goes on to Prefect.
    """

    @wraps(body)
    async def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            with stoppable():
                return await body(*args, **kwargs)
        except asyncio.CancelledError:
            if not await _is_cancelled_by_a_person():
                raise
            return cast("_Result", Cancelled(message="Cancelled; what this run had started is down."))

    return run


async def _is_cancelled_by_a_person() -> bool:
    """Ask Prefect's server. Its worker hears of a cancellation through Prefect's own handler only, so not from us."""
    run_id = flow_run.id
    if run_id is None:
        return False
    try:
        async with get_client() as client:
            state = (await client.read_flow_run(run_id)).state
    except (httpx.HTTPError, PrefectException, RuntimeError):  # the server is not there, and the run is to end anyway
        return False
    return state is not None and state.is_cancelling()
