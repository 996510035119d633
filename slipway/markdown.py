"""Write Markdown from values that nobody vouches for: model outputs, file names, error texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["bullets", "cell", "code", "plain", "table"]

MAX_CELL_CHARACTERS = 240

# An underscore inside a word is no emphasis, and pass_rate should be readable as source too.
_SPECIAL = re.compile(r"([\\`*\[\]<>#|~$&]|(?<!\w)_|_(?!\w))")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Escape ``text`` so that it shows as itself: no markup, no HTML, no links, no table borders, on one line."""
    visible = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    # Renderers turn bare addresses into links; an escaped colon keeps them text.
    return _SPECIAL.sub(r"\\\1", visible).replace("://", "\\://").replace("\n", " \u23ce ")


def cell(text: str) -> str:
    """Escape and cut a text for a table's cell; empty text is shown as such."""
    cut = text if len(text) <= MAX_CELL_CHARACTERS else text[:MAX_CELL_CHARACTERS] + "…"
    return plain(cut) if cut.strip() else "*(empty)*"


def code(text: str) -> str:
    """Set a short text, such as a digest or a path, as code on one line, whatever backticks it holds."""
    line = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\n", " "))
    if not line.strip():
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table; cells are Markdown already. The first column is left-aligned, numbers look after themselves."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def bullets(items: Iterable[str]) -> str:
    """List items that are Markdown already."""
    return "".join(f"- {item}\n" for item in items)
