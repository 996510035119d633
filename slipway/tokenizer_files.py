"""What tokenizer files beside an adapter say that matters to a server which never reads them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from slipway.errors import StoreError

__all__ = ["TokenizerFacts", "read_tokenizer_files"]

_ADDED: Final = "added_tokens.json"
_CONFIG: Final = "tokenizer_config.json"
_TEMPLATES: Final = ("chat_template.jinja", "chat_template.json")
_MAX_BYTES: Final = 16 << 20


@dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """The largest id of an added token, where any is named, and the file that has a chat template, else nothing."""

    largest_added_id: int | None = None
    chat_template_file: str = ""


def read_tokenizer_files(directory: Path, names: Collection[str]) -> TokenizerFacts:
    """Read those of a directory's tokenizer files that are among ``names``; what cannot be understood says nothing.

    Raises:
        StoreError: A file cannot be read.
    """
    added = _read(directory / _ADDED) if _ADDED in names else {}
    config = _read(directory / _CONFIG) if _CONFIG in names else {}
    template = next((name for name in _TEMPLATES if name in names), _CONFIG if config.get("chat_template") else "")
    decoder = config.get("added_tokens_decoder")
    ids = [*added.values(), *(int(key) for key in (decoder if isinstance(decoder, dict) else {}) if _is_id(key))]
    numbers = [number for number in ids if isinstance(number, int) and not isinstance(number, bool)]
    return TokenizerFacts(largest_added_id=max(numbers, default=None), chat_template_file=template)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}
