"""The parts of OpenAI's replies that a judge needs; servers add keys of their own, and leave out usage.

Reference: https://platform.openai.com/docs/api-reference/chat/object and .../embeddings/object.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Choice", "Completion", "Embedding", "Embeddings", "Message", "Usage"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Usage(_Model):
    """Tokens, as the server counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Message(_Model):
    """What the model said; ``content`` is null where it refused."""

    content: str | None = None


class Choice(_Model):
    """One answer; ``finish_reason`` is ``stop`` where it is whole."""

    message: Message
    finish_reason: str | None = None


class Completion(_Model):
    """Reply of ``/chat/completions``."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None


class Embedding(_Model):
    """One vector, and which of the texts it is for."""

    index: int
    embedding: tuple[float, ...]


class Embeddings(_Model):
    """Reply of ``/embeddings``."""

    data: tuple[Embedding, ...]
    usage: Usage | None = None
