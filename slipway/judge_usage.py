"""What judging took: the half of an evaluation's price that no server of adapters knows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JudgeUsage"]


@dataclass(frozen=True, kw_only=True)
class JudgeUsage:
    """What judging took.

    Attributes:
        requests: Answered by the server.
        repeated: Answered from memory, because the same had been asked before.
        prompt_tokens: Read by the judge, as the server counts them.
        generated_tokens: Written by it.
        embedded_tokens: Read by the model of embeddings.
    """

    requests: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    embedded_tokens: int = 0

    def __str__(self) -> str:
        requests = "1 request" if self.requests == 1 else f"{self.requests:,} requests"
        return (
            f"{requests} and {self.repeated:,} answered from memory; {self.prompt_tokens:,} tokens read, "
            f"{self.generated_tokens:,} written, {self.embedded_tokens:,} embedded"
        )
