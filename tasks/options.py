"""How our Prefect tasks are run: what is retried, what is cached, and where their secrets come from."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from prefect.blocks.system import Secret
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from pydantic import SecretStr

from slipway.errors import ConfigurationError, TransientError
from slipway.targets import Target

__all__ = ["LOCAL", "REMOTE", "load_token"]


class TaskOptions(TypedDict, total=False):
    """Keyword arguments of ``prefect.task`` that we set."""

    retries: int
    retry_delay_seconds: list[float]
    retry_condition_fn: Any
    cache_policy: CachePolicy
    persist_result: bool


def _is_transient(_task: object, _run: TaskRun, state: State[Any]) -> bool:
    """Whether a repeat of the whole step can help. The clients have already repeated single requests."""
    return isinstance(state.data, TransientError)


# Prefect's cache forgets when its storage is pruned and cannot see remote effects; the ledger and the bundle store
# decide what was done already, so nothing is cached here.
LOCAL = TaskOptions(cache_policy=NO_CACHE, persist_result=False)
"""For steps that stay on this machine."""

REMOTE = TaskOptions(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=1,
    retry_delay_seconds=[5.0],
    retry_condition_fn=_is_transient,
)
"""For steps that call a service."""


async def load_token(target: Target) -> SecretStr | None:
    """The token of a target that names a Prefect Secret block; None leaves it to the environment.

    Raises:
        ConfigurationError: There is no such block.
    """
    if target.token_block is None:
        return None
    try:
        block = await Secret.aload(target.token_block)
    except ValueError as error:
        raise ConfigurationError(
            f"Prefect has no Secret block called {target.token_block!r}.",
            fix="Create it in the Prefect UI under Blocks, or remove token_block: and set PREDIBASE_API_TOKEN.",
        ) from error
    return SecretStr(str(cast("Secret[str]", block).get()))
