"""Types of promptfoo that are never applied here, each with the reason: known by name, so that none is a surprise."""

from __future__ import annotations

__all__ = ["reason_unsupported", "unsupported_types"]

_PROGRAM = "it runs a program in {}, and programs of a suite are not run; rewrite it as `javascript`"
_TRACE = "it looks at traces or tool steps of an agent, and an adapter gives one reply"
_SERVICE = "it asks a service of its own; put the criterion in words, as `llm-rubric`"
_SEVERAL = "it compares several outputs with each other; the gate compares the arms"

_REASONS = {
    "python": _PROGRAM.format("Python"),
    "ruby": _PROGRAM.format("Ruby"),
    "webhook": "it sends outputs to an address that the suite names; rewrite it as `javascript`",
    "human": "a person must judge it",
    "classifier": _SERVICE,
    "moderation": _SERVICE,
    "pi": _SERVICE,
    "guardrails": "it reads a verdict that only certain providers send with their replies",
    "agent-rubric": "an agent with tools must judge it; `llm-rubric` is the nearest",
    "search-rubric": "it needs a judge that searches the web; `llm-rubric` is the nearest",
    "is-valid-function-call": "it reads the native format of one provider; use is-valid-openai-tools-call",
    "is-valid-openai-function-call": "it reads a format that OpenAI retired; use is-valid-openai-tools-call",
    "select-best": _SEVERAL,
    "max-score": _SEVERAL,
    "skill-used": _TRACE,
    "trace-error-spans": _TRACE,
    "trace-span-count": _TRACE,
    "trace-span-duration": _TRACE,
    "trajectory:goal-success": _TRACE,
    "trajectory:step-count": _TRACE,
    "trajectory:tool-args-match": _TRACE,
    "trajectory:tool-sequence": _TRACE,
    "trajectory:tool-used": _TRACE,
}
_FAMILIES = {
    "promptfoo:redteam:": "it is judged by promptfoo's own red-team service",
    "redteam:": "it is judged by promptfoo's own red-team service",
    "trajectory:": _TRACE,
}


def reason_unsupported(base_type: str) -> str:
    """Say why a type, given without ``not-``, is never applied here; empty if it is not such a type of promptfoo."""
    family = next((reason for prefix, reason in _FAMILIES.items() if base_type.startswith(prefix)), "")
    return _REASONS.get(base_type, family)


def unsupported_types() -> tuple[str, ...]:
    """List the types that are never applied, without families and ``not-`` forms."""
    return tuple(_REASONS)
