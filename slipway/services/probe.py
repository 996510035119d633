"""Make the requests of the live proof; ``live_proof`` judges what they show."""

from __future__ import annotations

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

    The first request to the adapter waits for its download and load (cold); the next does not (warm).

    Args:
        client: Of the deployment that is to serve the adapter.
        adapter: What to prove.
        prompts: Prompts of the suite; the first few are used.
        reference_route: See ``Target.reference_route``.

    Raises:
        ServiceError: The server cannot be asked. A refusal that is the adapter's own fault is not raised: the proof
            says so.
    """
    observations: list[Observation] = []
    cold_ms = warm_ms = math.nan
    answered = ""
    try:
        for index, prompt in enumerate([FIXED_PROMPT, *prompts[:PROMPTS_OF_SUITE]]):
            base = await _ask(client, prompt, None)
            under_adapter = await _ask(client, prompt, adapter)
            again = await _ask(client, prompt, None)
            if index == 0:
                cold_ms = under_adapter.latency_ms
                answered = under_adapter.headers.adapter_id or ""
            elif index == 1:
                warm_ms = under_adapter.latency_ms
            observations.append(
                await _observe(client, prompt, adapter, (base, under_adapter, again), reference_route=reference_route)
            )
        if math.isnan(warm_ms):
            warm_ms = (await _ask(client, FIXED_PROMPT, adapter)).latency_ms
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
        observations,
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
    client: LoraxClient,
    prompt: str,
    adapter: PublishedAdapter,
    answers: tuple[Generation, Generation, Generation],
    *,
    reference_route: str | None,
) -> Observation:
    """Take the prompt's log probabilities: only there is every arm conditioned on the same tokens."""
    base, under_adapter, again = answers
    reference = None
    if reference_route is not None:
        reference = await client.reference_logprobs(
            reference_route,
            adapter_id=adapter.adapter_id,
            adapter_source=adapter.source,
            input_ids=[token_id for token_id, _, _ in under_adapter.prefill],
        )
    return Observation(
        prompt=prompt,
        base=_logprobs(base),
        base_again=_logprobs(again),
        adapter=_logprobs(under_adapter),
        reference=reference,
    )


def _logprobs(answer: Generation) -> list[float]:
    """Of each prompt token after the first, which is conditioned on nothing."""
    return [math.nan if logprob is None else logprob for _, _, logprob in answer.prefill[1:]]
