"""One assertion of each type that is right, to show where one is refused."""

from __future__ import annotations

__all__ = ["example"]

_EXAMPLES = {
    "answer-relevance": "threshold: 0.8",
    "assert-set": "assert: [{type: contains, value: Paris}]",
    "bleu": "value: the expected text",
    "contains": "value: Paris",
    "contains-all": "value: [Paris, France]",
    "contains-any": "value: [Paris, Lyon]",
    "contains-html": "",
    "contains-json": "value: {type: object, required: [name]}",
    "contains-sql": "value: {databaseType: MySQL}",
    "contains-xml": "value: {requiredElements: [root.child]}",
    "context-faithfulness": "threshold: 0.8",
    "context-recall": "value: what the context must hold, threshold: 0.8",
    "context-relevance": "threshold: 0.8",
    "cost": "threshold: 0.002",
    "equals": "value: Paris",
    "factuality": "value: Paris is the capital of France",
    "finish-reason": "value: stop",
    "g-eval": "value: The answer is polite",
    "gleu": "value: the expected text",
    "icontains": "value: paris",
    "icontains-all": "value: [paris, france]",
    "icontains-any": "value: [paris, lyon]",
    "is-html": "",
    "is-json": "value: {type: object, required: [name]}",
    "is-refusal": "",
    "is-sql": "value: {databaseType: MySQL}",
    "is-valid-openai-tools-call": "config: {tools: [{type: function, function: {name: search}}]}",
    "is-xml": "value: {requiredElements: [root.child]}",
    "javascript": "value: output.length < 80",
    "latency": "threshold: 800",
    "levenshtein": "value: Paris, threshold: 2",
    "llm-rubric": "value: Is polite and names a city",
    "meteor": "value: the expected text",
    "model-graded-closedqa": "value: Names the capital of France",
    "model-graded-factuality": "value: Paris is the capital of France",
    "perplexity": "threshold: 5",
    "perplexity-score": "threshold: 0.2",
    "regex": "value: '[Pp]aris'",
    "rouge-n": "value: the expected text, threshold: 0.75",
    "similar": "value: the expected meaning, threshold: 0.8",
    "starts-with": "value: Paris",
    "tool-call-f1": "value: [search, book]",
    "word-count": "value: {min: 5, max: 20}",
}


def example(kind: str) -> str:
    """Write an assertion of the type, on one line of YAML; empty where there is none.

    Args:
        kind: As written, with or without ``not-``.
    """
    base = kind.removeprefix("not-")
    written = _EXAMPLES.get(base, _EXAMPLES.get(base.split(":")[0]))
    if written is None:
        return ""
    return f"{{type: {kind}, {written}}}" if written else f"{{type: {kind}}}"
