"""Tell the scripts that can leave nothing behind, by their text and before they run.

An inert script reads its arguments, computes with variables of its own and calls well-known functions. It can reach no
object that another script could see, so inert scripts may share a context. Everything that is not plainly inert is
taken for not: text that may be read in two ways, names of the language outside ``INERT_NAMES``, computed names,
assignments to anything but own variables. ``slipway.javascript`` runs what passes among frozen objects all the same.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["INERT_NAMES", "is_inert", "refused_words"]

MAX_CHARACTERS = 20_000
"""Of a script that is looked at; longer ones take longer to run than what sharing saves."""
_INERT = """
Array BigInt Boolean Error Infinity JSON Map Math NaN Number Object RegExp Set String TypeError console
decodeURIComponent encodeURIComponent isFinite isNaN parseFloat parseInt undefined E EPSILON LN10 LN2 LOG10E LOG2E
MAX_SAFE_INTEGER MAX_VALUE MIN_SAFE_INTEGER MIN_VALUE PI SQRT1_2 SQRT2 abs acos add asin at atan atan2 cbrt ceil
charAt charCodeAt codePointAt concat cos description difference endsWith entries every exec exp filter find
findIndex findLast findLastIndex flags flat flatMap floor forEach from fromCharCode fromCodePoint fromEntries get
global groupBy has hasOwn hasOwnProperty hypot ignoreCase includes indexOf intersection is isArray isFinite
isInteger isNaN isSafeInteger isSubsetOf isSupersetOf isWellFormed join keys lastIndexOf length localeCompare log
log10 log2 map match matchAll max message min multiline name normalize of padEnd padStart parse parseFloat parseInt
pop pow push reduce reduceRight repeat replace replaceAll reverse round search set shift sign sin size slice some
sort source split sqrt startsWith sticky stringify substr substring tan test toFixed toLocaleLowerCase
toLocaleString toLocaleUpperCase toLowerCase toPrecision toReversed toSorted toString toUpperCase trim trimEnd
trimStart trunc union unshift value values
"""
_PLAIN = """
break case catch const continue default do else false finally for function if in instanceof let new null return
switch throw true try typeof var void while
"""
_OTHER = """
accessor arguments async await class debugger delete enum eval export extends implements import interface package
private protected public static super this using with yield
"""
INERT_NAMES = frozenset(_INERT.split())
"""Of the names that the language has: those whose use changes nothing but what belongs to the script."""
_KEYWORDS = frozenset(_PLAIN.split())
_OTHER_KEYWORDS = frozenset(_OTHER.split())
_VALUE_KEYWORDS = frozenset({"false", "null", "true"})
_DECLARING = frozenset({"const", "let", "var"})
_BEFORE_ARRAY = _DECLARING | {"case", "in", "return", "typeof"}
_ASSIGNING = re.compile(r"(?:\*\*|&&|\|\||\?\?|<<|>>>?|[-+*/%&|^])?=")
_TOKEN = re.compile(
    r"""
    (?P<space> [ \t\n]+ | //[^\n]* | /\*(?:[^*]|\*(?!/))*\*/ )
    | (?P<number> (?:0|[1-9]\d*) (?:\.\d+)? (?:e[-+]?\d+)? (?![\w$.]) )
    | (?P<text> '(?:[^'\\\n]|\\[^\n])*' | "(?:[^"\\\n]|\\[^\n])*" )
    | (?P<word> [A-Za-z_$][\w$]* )
    | (?P<mark> => | \.\.\. | \?\.(?!\d) | \+\+ | -- | >>>=? | (?:\*\*|&&|\|\||\?\?|<<|>>)=? | [=!]==? | [-+*/%&|^<>]=?
        | [~?:;,.()\[\]{}!=`] )
    """,
    re.VERBOSE | re.ASCII,
)
_REGEX = re.compile(r"/(?![*/])(?:[^/\\\[\n]|\\[^\n]|\[(?:[^\]\\\n]|\\[^\n])*\])+/[a-z]*")
_TEMPLATE = re.compile(r"(?:[^`\\$]|\\[^\n]|\$(?!\{))*(?P<end>`|\$\{)")
_PAIRS = {")": "(", "]": "[", "}": "{"}
_AMBIGUOUS = ("<!--", "-->", "\r", "\u2028", "\u2029")
"""Comments of old and ends of lines that are easily read otherwise than the engine does."""


@dataclass(frozen=True, slots=True)
class _Token:
    """``opener`` is the index of the bracket that a closing one belongs to; ``depth`` counts the brackets around."""

    kind: str
    text: str
    depth: int
    opener: int = -1


class _NotPlainError(Exception):
    """The text can be read in more than one way, or is no JavaScript."""


def refused_words(names: Collection[str]) -> frozenset[str]:
    """Give the words that make a script not inert, of an engine whose globals and properties have these names.

    All names that the engine has are asked for, so that none of them, a new one neither, is taken for a key of data.
    """
    return (frozenset(names) | _OTHER_KEYWORDS) - INERT_NAMES - _KEYWORDS


def is_inert(body: str, refused: Collection[str]) -> bool:
    """Whether a function of this body can only change what it made itself.

    Args:
        body: Of the function, as it is compiled.
        refused: As ``refused_words`` gives them.
    """
    if len(body) > MAX_CHARACTERS or any(mark in body for mark in _AMBIGUOUS):
        return False
    try:
        tokens = _tokens(body)
    except _NotPlainError:
        return False
    # Guards, so that the two that follow a token can be asked for; the one before the first is the last of them.
    tokens += [_Token("end", "", 0)] * 3
    own = {
        token.text
        for before, token in itertools.pairwise(tokens)
        if before.text in _DECLARING and token.kind == "word" and token.depth == 0
    }
    return all(_is_inert_at(tokens, index, own, refused) for index in range(len(tokens) - 3))


def _is_inert_at(tokens: list[_Token], index: int, own: Collection[str], refused: Collection[str]) -> bool:
    match tokens[index].kind:
        case "word":
            return _is_inert_word(tokens, index, refused)
        case "text":
            return _is_inert_text(tokens, index, refused)
        case "mark":
            return _is_inert_mark(tokens, index, own)
    return True


def _is_inert_text(tokens: list[_Token], index: int, refused: Collection[str]) -> bool:
    if tokens[index + 1].text != ":" and tokens[index - 1].text != "[":
        return True
    name = tokens[index].text[1:-1]  # of a property, perhaps
    return "\\" not in name and name not in refused and name not in _KEYWORDS


def _is_inert_mark(tokens: list[_Token], index: int, own: Collection[str]) -> bool:
    token, before, after = tokens[index], tokens[index - 1], tokens[index + 1]
    if token.text in {"++", "--"}:
        return _is_own(tokens, index - 1, own) and (after.kind == "end" or after.text in {")", ";", "}"})
    if _ASSIGNING.fullmatch(token.text):
        if before.text in {"}", "]"}:  # of a pattern, which must declare what it names
            return tokens[before.opener - 1].text in _DECLARING
        return _is_own(tokens, index - 1, own) or (before.kind == "word" and tokens[index - 2].text in _DECLARING)
    if token.text == "[" and _is_member(before):
        return after.kind in {"number", "text"} and tokens[index + 2].text == "]"
    if token.text == "]":  # before these it ends a computed key, also of a method
        return _is_member(tokens[token.opener - 1]) or after.text not in {":", "("}
    return True


def _is_inert_word(tokens: list[_Token], index: int, refused: Collection[str]) -> bool:
    word, before, after = tokens[index].text, tokens[index - 1].text, tokens[index + 1].text
    if word in refused or (word in _KEYWORDS and before in {".", "?."}):
        return False
    if word == "function":
        return after == "("
    if word == "for":  # its variable might be a property of something
        return after == "(" and tokens[index + 2].text in _DECLARING
    return True


def _is_own(tokens: list[_Token], index: int, own: Collection[str]) -> bool:
    return tokens[index].kind == "word" and tokens[index].text in own and tokens[index - 1].text not in {".", "?."}


def _is_member(before: _Token) -> bool:
    """Whether a square bracket after this token looks into a value; if not, it makes an array or takes one apart."""
    match before.kind:
        case "word":
            return before.text not in _BEFORE_ARRAY
        case "mark":
            return before.text in {")", "]", "}", "?."}
    return before.kind != "end"


def _tokens(body: str) -> list[_Token]:
    tokens: list[_Token] = []
    brackets: list[int] = []  # indices of the open ones; a template's ${ among them
    place = 0
    while place < len(body):
        match = (_REGEX if body[place] == "/" and _may_be_regex(tokens, body, place) else _TOKEN).match(body, place)
        if match is None:
            raise _NotPlainError
        kind, text, place = match.lastgroup or "regex", match.group(), match.end()
        if kind == "space":
            continue
        opener = -1
        if text in _PAIRS and kind == "mark":
            opener = brackets.pop() if brackets else -1
            if opener < 0 or tokens[opener].text not in {_PAIRS[text], "${"}:
                raise _NotPlainError
        if text == "`" or (opener >= 0 and tokens[opener].text == "${"):
            if text not in {"`", "}"} or (part := _TEMPLATE.match(body, place)) is None:
                raise _NotPlainError
            kind, text, place = ("template", "", part.end()) if part["end"] == "`" else ("mark", "${", part.end())
            opener = -1
        tokens.append(_Token(kind, text, len(brackets), opener))
        if kind == "mark" and text in {"(", "[", "{", "${"}:
            brackets.append(len(tokens) - 1)
    if brackets:
        raise _NotPlainError
    return tokens


def _may_be_regex(tokens: list[_Token], body: str, place: int) -> bool:
    """Whether a slash begins a regular expression, no comment and no division.

    Raises:
        _NotPlainError: It takes a parser to tell.
    """
    if body.startswith(("//", "/*"), place):
        return False
    if not tokens:
        return True
    before = tokens[-1]
    if before.kind == "word":
        is_unclear = before.text in (_KEYWORDS | {"of"}) - _VALUE_KEYWORDS - {"return"}
        is_regex = before.text == "return"
    elif before.text == ")" and before.kind == "mark":
        is_unclear, is_regex = tokens[before.opener - 1].text in {"if", "while", "for"}, False
    else:
        is_unclear = before.kind == "mark" and before.text in {"}", "++", "--"}
        is_regex = before.kind == "mark" and before.text not in {"]", ".", "?."}
    if is_unclear:
        raise _NotPlainError
    return is_regex
