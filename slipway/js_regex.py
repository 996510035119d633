r"""Compile JavaScript regular expressions (no flags, as ``RegExp.test`` in promptfoo) with Python's ``re``.

What both share is passed on, what differs is translated (``$``, ``.``, ``\s``, ``(?<name>...)``, lone braces, empty
classes, escapes without meaning), and what only one of them knows is refused. Source: ECMA-262, section 22.2 and annex
B.1.2 for the escapes and braces that are literal without the ``u`` flag.

Limits: text is matched by code point, not by UTF-16 unit, and a reference to a group that took no part fails.
"""

from __future__ import annotations

import re
import warnings

__all__ = ["compile_javascript"]

_LINE_ENDS = r"\n\r\u2028\u2029"
_SPACES = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_QUANTIFIER = re.compile(r"\{[0-9]+(,[0-9]*)?\}")
_GROUP_NAME = re.compile(r"\(\?<([A-Za-z_$][A-Za-z0-9_$]*)>")
_NAMED_REFERENCE = re.compile(r"\\k<([A-Za-z_$][A-Za-z0-9_$]*)>")
_HEXADECIMAL = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
_SHARED_ESCAPES = frozenset("dDwWbBfnrtv0123456789")
_ALLOWED_GROUPS = ("(?:", "(?=", "(?!", "(?<=", "(?<!")


def compile_javascript(pattern: str) -> re.Pattern[str]:
    """Compile ``pattern`` to be used with ``search``.

    Raises:
        ValueError: JavaScript refuses the pattern, or Python cannot match it; the message says which part.
    """
    translated = _Translator(pattern).run()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(translated, re.ASCII)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise ValueError(f"the pattern {pattern!r} cannot be compiled: {error}") from None


class _Translator:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._out: list[str] = []
        self._has_names = bool(_GROUP_NAME.search(pattern))

    def run(self) -> str:
        while self._at < len(self._pattern):
            self._step()
        return "".join(self._out)

    def _step(self) -> None:
        rest = self._pattern[self._at :]
        character = rest[0]
        if character == "\\":
            self._escape(rest, in_class=False)
        elif character == "[":
            self._class()
        elif character == "(":
            self._group(rest)
        elif character == ".":
            self._emit(f"[^{_LINE_ENDS}]", 1)
        elif character == "$":
            self._emit(r"\Z", 1)
        elif character in "*+?{":
            self._quantifier(rest)
        else:
            self._emit(r"\}" if character == "}" else character, 1)

    def _emit(self, text: str, length: int) -> None:
        self._out.append(text)
        self._at += length

    def _escape(self, rest: str, *, in_class: bool) -> None:
        if len(rest) == 1:
            raise ValueError(f"the pattern {self._pattern!r} ends in a backslash")
        character = rest[1]
        if (match := _HEXADECIMAL.match(rest)) is not None:
            self._emit(match.group(), match.end())
        elif character == "k" and self._has_names:
            reference = _NAMED_REFERENCE.match(rest)
            if reference is None:
                raise ValueError(rf"\k names no group in the pattern {self._pattern!r}")
            self._emit(f"(?P={_python_name(reference.group(1))})", reference.end())
        elif character == "s":
            self._emit(_SPACES if in_class else f"[{_SPACES}]", 2)
        elif character == "S":
            if in_class:
                raise ValueError(rf"\S inside brackets cannot be translated in the pattern {self._pattern!r}")
            self._emit(f"[^{_SPACES}]", 2)
        elif character in "cpP" or rest.startswith("\\u{"):
            raise ValueError(f"the escape {rest[:2]!r} is not supported in the pattern {self._pattern!r}")
        elif character in _SHARED_ESCAPES and not (in_class and character in "B123456789"):
            self._emit(rest[:2], 2)
        else:
            self._emit(re.escape(character), 2)  # without the u flag any other escape means the character itself

    def _class(self) -> None:
        self._at += 1
        is_negated = self._pattern.startswith("^", self._at)
        self._at += is_negated
        start = len(self._out)
        self._out.append("[^" if is_negated else "[")
        while self._at < len(self._pattern):
            rest = self._pattern[self._at :]
            if rest[0] == "]":
                self._emit("]", 1)
                if self._out[start + 1 :] == ["]"]:  # [] matches nothing and [^] everything
                    self._out[start:] = [r"[\s\S]" if is_negated else "(?!)"]
                return
            if rest[0] == "\\":
                self._escape(rest, in_class=True)
            else:
                # Python reserves doubled signs in classes for set operations to come.
                self._emit("\\" + rest[0] if rest[0] in "[&|~^" else rest[0], 1)
        raise ValueError(f"a '[' is never closed in the pattern {self._pattern!r}")

    def _group(self, rest: str) -> None:
        if (name := _GROUP_NAME.match(rest)) is not None:
            self._emit(f"(?P<{_python_name(name.group(1))}>", name.end())
        elif rest.startswith("(?") and not rest.startswith(_ALLOWED_GROUPS):
            raise ValueError(
                f"{rest[:4]!r} in the pattern {self._pattern!r} is not JavaScript; flags cannot be set in a pattern: "
                "write [Yy]es, or use icontains"
            )
        else:
            allowed = next((prefix for prefix in _ALLOWED_GROUPS if rest.startswith(prefix)), "(")
            self._emit(allowed, len(allowed))

    def _quantifier(self, rest: str) -> None:
        match = _QUANTIFIER.match(rest)
        if rest[0] == "{" and match is None:
            self._emit(r"\{", 1)
            return
        text = match.group() if match else rest[0]
        lazy = "?" if rest[len(text) : len(text) + 1] == "?" else ""
        following = rest[len(text) + len(lazy) :]
        if following[:1] in {"*", "+", "?"} or _QUANTIFIER.match(following):
            raise ValueError(f"nothing to repeat before {following[:1]!r} in the pattern {self._pattern!r}")
        self._emit(text + lazy, len(text) + len(lazy))


def _python_name(name: str) -> str:
    return name.replace("$", "_dollar_")
