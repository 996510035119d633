"""Read JavaScript as text, before it runs: where its statements end, what it exports, which globals it names.

No parser: strings, comments, regular expressions and brackets are told apart, which is enough, since the engine refuses
what was misread.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

__all__ = ["as_common_js", "function_body", "missing_globals", "original_column"]

_TOKEN = re.compile(
    r"""
    (?P<text> '(?:\\.|[^'\\\n])*' | "(?:\\.|[^"\\\n])*" | `(?:\\.|[^`\\])*` )
    | (?P<comment> //[^\n]* | /\*.*?\*/ )
    | (?P<regex> (?: (?<=[(,=:\[!&|?{};>\n]) | \A | (?<=\breturn) ) \s*
                 /(?![*/]) (?: \\. | \[(?:\\.|[^\]\\\n])*\] | [^/\\\n\[] )+ / )
    | (?P<open> [(\[{] )
    | (?P<close> [)\]}] )
    | (?P<end> ; )
    | (?P<word> (?<![.\w$]) [A-Za-z_$][\w$]* )
    """,
    re.VERBOSE | re.DOTALL,
)
_DECLARATION = re.compile(r"(?:const|let|var)\s")
_EXPORT_DEFAULT = re.compile(r"^export\s+default\s+", re.MULTILINE)
_EXPORT_NAMED = re.compile(
    r"^export\s+(?P<what>(?:async\s+)?function\s*\*?|class|const|let|var)\s+(?P<name>[\w$]+)", re.MULTILINE
)
_EXPORT_LIST = re.compile(r"^export\s*\{(?P<names>[^}]*)\}\s*;?", re.MULTILINE)
_DECLARING = frozenset({"const", "let", "var", "function", "class"})


def function_body(source: str) -> str:
    """Make a function's body of an inline script, as promptfoo 0.121.9 does.

    Several lines are the body. One line is an expression, perhaps after declarations: ``const n = 1; output > n``.
    """
    source = source.rstrip()
    if "\n" in source:
        return source
    source = source.strip().rstrip(";").rstrip()
    if not _DECLARATION.match(source):
        return f"return {source}"
    depth, last = 0, -1
    for kind, match in _tokens(source):
        depth += (kind == "open") - (kind == "close")
        if kind == "end" and depth == 0:
            last = match.end()
    return source if last < 0 else f"{source[:last]} return {source[last:]}"


def original_column(source: str, column: int) -> int:
    """Give the column, from 1, in a script of one line for one in its function's body, which has a ``return`` more."""
    written, body = source.strip(), function_body(source)
    indent = len(source) - len(source.lstrip())
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(written, body, strict=False)))
    if column > same:
        column -= min(len(body) - len(written.rstrip(";").rstrip()), column - same - 1)
    return column + indent


def as_common_js(source: str) -> str:
    """Rewrite the exports of an ES module, which stand at the start of lines, as those of CommonJS."""
    added: list[str] = []

    def named(match: re.Match[str]) -> str:
        added.append(f"exports.{match['name']} = {match['name']};")
        return f"{match['what']} {match['name']}"

    def listed(match: re.Match[str]) -> str:
        for entry in filter(None, map(str.strip, match["names"].split(","))):
            inner, _, outer = (part.strip() for part in entry.partition(" as "))
            added.append(f"exports.{outer or inner} = {inner};")
        return "\n" * match[0].count("\n")  # what follows keeps its line

    source = _EXPORT_LIST.sub(listed, _EXPORT_NAMED.sub(named, source))
    source = _EXPORT_DEFAULT.sub("exports.default = ", source)
    return "\n".join([source, *added])


def missing_globals(source: str, names: Sequence[str]) -> str:
    """Give the first of ``names`` that the source uses and does not declare itself; empty if none.

    A name that is a property (``x.fetch``) or a key (``{fetch: 1}``) is not used.
    """
    words = [match for kind, match in _tokens(source) if kind == "word"]
    declared = {
        match.group()
        for before, match in itertools.pairwise(words)
        if before.group() in _DECLARING and before.group() != match.group()
    }
    for match in words:
        name = match.group()
        if name in names and name not in declared and not source[match.end() :].lstrip().startswith(":"):
            return name
    return ""


def _tokens(source: str) -> Iterator[tuple[str, re.Match[str]]]:
    for match in _TOKEN.finditer(source):
        yield match.lastgroup or "", match
