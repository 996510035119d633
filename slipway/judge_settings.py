"""Which model judges answers, and how it is reached: a part of target files and of suites."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["JudgeSettings"]


class JudgeSettings(BaseModel):
    """Any server that speaks OpenAI's chat completions, and embeddings where ``similar`` is used."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str | None = None
    """Base address, ``/v1`` included. Default: ``OPENAI_BASE_URL``, then OpenAI's own."""
    model: str | None = None
    """Of the chat completions that judge; without it judged checks are unsupported, and ``similar`` may still work."""
    embeddings_model: str | None = None
    """Of the embeddings that ``similar`` compares; without it ``similar`` is unsupported."""
    token_variable: str = "OPENAI_API_KEY"  # noqa: S105  # the variable's name
    """Environment variable that holds the judge's token; unset means that none is sent. A token of OpenAI, Predibase,
    Hugging Face, AWS or Prefect goes only to its owner's addresses and to this machine."""
    max_concurrency: int = Field(default=8, ge=1, le=256)
    timeout_seconds: float = Field(default=120.0, gt=0)
    """For one answer of the judge."""
