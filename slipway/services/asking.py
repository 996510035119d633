"""How a case is put to one arm of a LoRAX server: chat prompts to the OpenAI-compatible route, others to the native."""

from __future__ import annotations

from functools import lru_cache

from slipway.adapter import Source
from slipway.evaluation import Answer, Ask
from slipway.results import Timing
from slipway.services.http import NO_RETRY
from slipway.services.lorax import FinishReason, GenerationParameters, LoraxClient
from slipway.suite import Case, GenerationSettings

__all__ = ["make_ask"]

_WORDS = {reason: reason.value for reason in FinishReason}
"""``value`` is computed each time, and slowly."""


def make_ask(client: LoraxClient, adapter_id: str | None, source: Source | None, max_new_tokens: int) -> Ask:
    """Make a callable for ``evaluation.evaluate``. Generation is greedy, and so repeatable, unless the case differs.

    A request is sent once: who evaluates has all requests in view, and repeats them, more slowly, when the server is
    full.

    Args:
        client: Of the serving deployment.
        adapter_id: None for the base model.
        source: How the server reads the id.
        max_new_tokens: Limit per answer, unless the case has its own.
    """

    @lru_cache(maxsize=64)
    def parameters_of(wanted: GenerationSettings) -> GenerationParameters:
        return GenerationParameters(
            max_new_tokens=wanted.max_tokens or max_new_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            top_k=wanted.top_k,
            seed=wanted.seed,
            stop=wanted.stop,
        )

    async def ask(case: Case) -> Answer:
        parameters = parameters_of(case.generation)
        if isinstance(case.prompt, str):
            reply = await client.generate(
                case.prompt, adapter_id=adapter_id, adapter_source=source, parameters=parameters, retry=NO_RETRY
            )
        else:
            reply = await client.chat(
                case.prompt, adapter_id=adapter_id, adapter_source=source, parameters=parameters, retry=NO_RETRY
            )
        client.check_adapter(reply, adapter_id)
        told = reply.headers
        return Answer(
            output=reply.text,
            latency_ms=reply.latency_ms,
            prompt_tokens=reply.prompt_tokens,
            generated_tokens=reply.generated_tokens,
            finish_reason=_WORDS[reply.finish_reason],
            timing=Timing(
                queue_ms=told.queue_ms,
                inference_ms=told.inference_ms,
                time_per_token_ms=told.time_per_token_ms,
                total_ms=told.total_ms,
            ),
            logprobs=reply.logprobs or None,
        )

    return ask
