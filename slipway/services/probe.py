"""Make the requests of the live proof; ``live_proof`` judges what they show."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from slipway.errors import GenerationError, InvalidRequestError, ProtocolError
from slipway.live_proof import FIXED_PROMPT, LiveProof, Observation, judge
from slipway.services.backends.interface import PublishedAdapter
from slipway.services.lorax import Generation, GenerationParameters, LoraxClient

__all__ = ["prove_live"]

PROMPTS_OF_SUITE = 3
"""A narrow adapter may hardly move a prompt of another kind, so some of the suite's own are asked as well."""

ADAPTERS_FAULT = (
    "not compatible with model",
    "larger than adapter memory reservation",
    "No valid adapter config file",
    "No local weights found",
    "does not support",
    "size mismatch",
    "stack expects each tensor",
    "is not a finite number",
)
"""What speaks of the adapter and not of the service: texts behind LoRAX's one status 424 (``server/lorax_server``), and
our client's word for a log probability that is NaN."""


async def prove_live(
    client: LoraxClient,
    adapter: PublishedAdapter,
    *,
    prompts: Sequence[str],
    reference_route: str | None,
) -> LiveProof:
    """Ask base, adapter and base again for the same prompts, and compare.

    The first request to the adapter waits for its download and load (cold); the next does not (warm). Nothing else of
    ours is in flight during these two; the suite's prompts are then asked together.

    Args:
        client: Of the deployment that is to serve the adapter.
        adapter: What to prove.
        prompts: Prompts of the suite; the first few are used.
        reference_route: See ``Target.reference_route``.

    Raises:
        ServiceError: The server cannot be asked. A refusal that is the adapter's own fault is not raised: the proof
            says so.
    """
    cold_ms = warm_ms = math.nan
    answered = ""
    try:
        first, cold = await _observe(client, FIXED_PROMPT, adapter, reference_route=reference_route)
        cold_ms, answered = cold.latency_ms, cold.headers.adapter_id or ""
        warm_ms = (await _ask(client, FIXED_PROMPT, adapter)).latency_ms
        others = await _observe_together(client, prompts[:PROMPTS_OF_SUITE], adapter, reference_route=reference_route)
    except (GenerationError, InvalidRequestError, ProtocolError) as error:
        if not any(text in error.message for text in ADAPTERS_FAULT):
            raise
        return LiveProof(
            is_live=False,
            reasons=(f"the server refuses {adapter.adapter_id}: {error.message}",),
            difference=math.nan,
            noise=math.nan,
            reference_difference=None,
            answered_adapter_id=answered,
            cold_ms=cold_ms,
            warm_ms=warm_ms,
        )
    return judge(
        [first, *others],
        adapter_id=adapter.adapter_id,
        answered_adapter_id=answered,
        cold_ms=cold_ms,
        warm_ms=warm_ms,
    )


async def _ask(client: LoraxClient, prompt: str, adapter: PublishedAdapter | None) -> Generation:
    return await client.generate(
        prompt,
        adapter_id=adapter.adapter_id if adapter else None,
        adapter_source=adapter.source if adapter else None,
        parameters=GenerationParameters(max_new_tokens=1, prefill_logprobs=True),
    )


async def _observe(
    client: LoraxClient, prompt: str, adapter: PublishedAdapter, *, reference_route: str | None
) -> tuple[Observation, Generation]:
    """Take the prompt's log probabilities: only there is every arm conditioned on the same tokens.

    Returns:
        What was seen, and the adapter's answer.
    """
    base = await _ask(client, prompt, None)
    under_adapter = await _ask(client, prompt, adapter)
    again = await _ask(client, prompt, None)
    reference = None
    if reference_route is not None:
        reference = await client.reference_logprobs(
            reference_route,
            adapter_id=adapter.adapter_id,
            adapter_source=adapter.source,
            input_ids=[token_id for token_id, _, _ in under_adapter.prefill],
        )
    observation = Observation(
        prompt=prompt,
        base=_logprobs(base),
        base_again=_logprobs(again),
        adapter=_logprobs(under_adapter),
        reference=reference,
    )
    return observation, under_adapter


async def _observe_together(
    client: LoraxClient, prompts: Sequence[str], adapter: PublishedAdapter, *, reference_route: str | None
) -> list[Observation]:
    """Observe several prompts at once; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_observe(client, prompt, adapter, reference_route=reference_route))
                for prompt in prompts
            ]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result()[0] for task in tasks]


def _logprobs(answer: Generation) -> list[float]:
    """Of each prompt token after the first, which is conditioned on nothing."""
    return [math.nan if logprob is None else logprob for _, _, logprob in answer.prefill[1:]]
