"""How a case is put to one arm of a LoRAX server: chat prompts to the OpenAI-compatible route, others to the native."""

from __future__ import annotations

from slipway.adapter import Source
from slipway.evaluation import Answer, Ask
from slipway.services.lorax import GenerationParameters, LoraxClient
from slipway.suite import Case

__all__ = ["make_ask"]


def make_ask(client: LoraxClient, adapter_id: str | None, source: Source | None, max_new_tokens: int) -> Ask:
    """Make a callable for ``evaluation.evaluate``. Generation is greedy, and so repeatable, unless the case differs.

    Args:
        client: Of the serving deployment.
        adapter_id: None for the base model.
        source: How the server reads the id.
        max_new_tokens: Limit per answer, unless the case has its own.
    """

    async def ask(case: Case) -> Answer:
        wanted = case.generation
        parameters = GenerationParameters(
            max_new_tokens=wanted.max_tokens or max_new_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            top_k=wanted.top_k,
            seed=wanted.seed,
            stop=wanted.stop,
        )
        if isinstance(case.prompt, str):
            reply = await client.generate(
                case.prompt, adapter_id=adapter_id, adapter_source=source, parameters=parameters
            )
        else:
            reply = await client.chat(case.prompt, adapter_id=adapter_id, adapter_source=source, parameters=parameters)
        return Answer(
            output=reply.text,
            latency_ms=reply.latency_ms,
            prompt_tokens=reply.prompt_tokens,
            generated_tokens=reply.generated_tokens,
        )

    return ask
