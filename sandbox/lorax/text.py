"""Token ids to text: incremental, as a stream needs it, and whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["StopStrings", "TextStream", "Vocabulary"]

_CONTEXT_TOKENS = 5
_INCOMPLETE = "\ufffd"


class Vocabulary:
    """The base model's tokenizer, used through its Rust part where it has one: quicker, and without shared state."""

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401  # transformers is untyped here
        """Copy the fast tokenizer without its truncation and padding."""
        self._slow = tokenizer
        self._fast: Any = None
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            self._fast = type(backend).from_str(backend.to_str())
            self._fast.no_truncation()
            self._fast.no_padding()
        self.special_ids = frozenset(int(token) for token in tokenizer.all_special_ids)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        if self._fast is None:
            return list(self._slow.encode(text, add_special_tokens=add_special_tokens))
        return list(self._fast.encode(text, add_special_tokens=add_special_tokens).ids)

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool) -> list[tuple[int, str, int, int]]:
        """(id, vocabulary piece, start, stop) per token. Raises ValueError without a fast tokenizer."""
        if self._fast is None:
            raise ValueError("no fast tokenizer")
        encoding = self._fast.encode(text, add_special_tokens=add_special_tokens)
        return [
            (token, piece, start, stop)
            for token, piece, (start, stop) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        ]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of token ids."""
        if self._fast is None:
            return str(self._slow.decode(list(ids), skip_special_tokens=skip_special_tokens))
        return str(self._fast.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def continuation(self, context: Sequence[int], ids: Sequence[int]) -> str:
        """Text that ``ids`` add after ``context``, without special tokens.

        Decoded together, since many tokenizers drop the first word's leading space when it stands alone.
        """
        before = [token for token in context[-_CONTEXT_TOKENS:] if token not in self.special_ids]
        prefix = self.decode(before, skip_special_tokens=True)
        return self.decode([*before, *ids], skip_special_tokens=True)[len(prefix) :]


class TextStream:
    """The text each new token adds. A token that ends inside a UTF-8 character adds "", the next one adds both."""

    def __init__(self, decode: Callable[[Sequence[int]], str], context: Sequence[int]) -> None:
        """``context`` is the prompt."""
        self._decode = decode
        self._pending = list(context[-_CONTEXT_TOKENS:])
        self._shown = decode(self._pending)
        self._read = len(self._pending)

    def add(self, token: int) -> str:
        """Feed one token."""
        self._pending.append(token)
        text = self._decode(self._pending)
        if len(text) <= len(self._shown) or text.endswith(_INCOMPLETE):
            return ""
        added = text[len(self._shown) :]
        del self._pending[: self._read]
        self._read = len(self._pending)
        self._shown = self._decode(self._pending)
        return added


class StopStrings:
    """Whether the text so far ends with a stop string (or with one and a line break: LoRAX matches ``stop$``)."""

    def __init__(self, stops: Sequence[str]) -> None:
        """No stop strings never match."""
        self._pattern = re.compile(f"(?:{'|'.join(map(re.escape, stops))})$") if stops else None
        self._keep = max(map(len, stops), default=0) + 1
        self._tail = ""

    def add(self, text: str) -> bool:
        """Feed the text of one token."""
        if self._pattern is None:
            return False
        self._tail += text
        found = self._pattern.search(self._tail) is not None
        self._tail = self._tail[-self._keep :]
        return found
