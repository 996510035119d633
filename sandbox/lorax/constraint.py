"""JSON-schema constrained decoding through llguidance."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np

__all__ = ["Constraint", "ConstraintCompiler"]

_WHITESPACE = "[ ]?"  # the default of Outlines, which LoRAX uses
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
_SCHEMA_LISTS = frozenset({"anyOf", "oneOf", "prefixItems"})
_COMBINED = frozenset({"allOf", "anyOf", "oneOf", "$ref"})  # other parts may list more properties


class Constraint:
    """The grammar state of one sequence."""

    def __init__(self, matcher: Any, *, size: int, eos_ids: frozenset[int]) -> None:  # noqa: ANN401  # llguidance is untyped here
        """``size`` is the width of the logits."""
        self._matcher = matcher
        self._size = size
        self._eos = np.zeros(size, dtype=bool)
        self._eos[[token for token in eos_ids if token < size]] = True

    def mask(self) -> np.ndarray:
        """Which tokens may come next; only the end of text once the value is complete."""
        if self._matcher.is_stopped():
            return self._eos
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._size].astype(bool)
        if allowed.size < self._size:
            allowed = np.concatenate([allowed, np.zeros(self._size - allowed.size, dtype=bool)])
        return allowed if allowed.any() else self._eos

    def accept(self, token: int) -> None:
        """Advance by the chosen token."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)


class ConstraintCompiler:
    """Compiles schemas against the base tokenizer; thread safe. The tokenizer's table is built at the first schema."""

    def __init__(self, tokenizer: Any, *, size: int, eos_ids: frozenset[int]) -> None:  # noqa: ANN401  # transformers is untyped here
        """``size`` is the width of the logits."""
        self._tokenizer = tokenizer
        self._size = size
        self._eos_ids = eos_ids
        self._lock = threading.Lock()
        self._table: Any = None

    def compile(self, schema: dict[str, Any]) -> Constraint:
        """A fresh constraint for a JSON schema. Raises ValueError for one that cannot be compiled."""
        import llguidance  # noqa: PLC0415  # only requests with a schema need it
        import llguidance.hf  # noqa: PLC0415

        if not self._eos_ids:
            raise ValueError("structured output needs a tokenizer with an end-of-sequence token")
        with self._lock:
            if self._table is None:
                self._table = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=self._size, eos_token=sorted(self._eos_ids)
                )
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(_closed(schema)), defaults={"whitespace_pattern": _WHITESPACE}
        )
        matcher = llguidance.LLMatcher(self._table, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(f"invalid schema: {matcher.get_error()}")
        return Constraint(matcher, size=self._size, eos_ids=self._eos_ids)


def _closed(schema: Any) -> Any:  # noqa: ANN401  # JSON
    """Forbid properties that an object schema does not list, unless it speaks of them: Outlines never writes others."""
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for key in _NAMED_SCHEMAS & schema.keys():
        if isinstance(schema[key], dict):
            closed[key] = {name: _closed(each) for name, each in schema[key].items()}
    for key in _SCHEMA_LISTS & schema.keys():
        if isinstance(schema[key], list):
            closed[key] = [_closed(each) for each in schema[key]]
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    if "properties" in schema and not _COMBINED & schema.keys():
        closed.setdefault("additionalProperties", False)
    return closed
