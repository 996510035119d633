"""Texts that nobody vouches for, made fit to be read: model outputs, prompts, file names, error messages.

Escaping is left to whoever writes the format. Here characters that deceive the eye become visible: controls, marks
that turn the direction of writing, spaces of no width, and the invisible tags in which instructions can be hidden.
"""

from __future__ import annotations

import math
import re

from slipway import wording

__all__ = ["counted", "cut", "grouped", "milliseconds", "percent", "signed", "usd", "visible"]

# Joiners are part of emoji and of several scripts, so they stay where both neighbours are such characters.
_DECEIVING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028\u2029\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f"
    + "".join(f"{chr(plane << 16 | low)}" for plane in range(1, 17) for low in (0xFFFE, 0xFFFF))  # noncharacters
    + "]"
    r"|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)


def visible(text: str) -> str:
    """Write characters that cannot be seen, or that turn the text around, as ``[U+202E]``; keep tabs and line ends."""
    if text.isascii() and text.isprintable():
        return text
    return _DECEIVING.sub(_named, text.replace("\r\n", "\n"))


def _named(match: re.Match[str]) -> str:
    return f"[U+{ord(match[0]):04X}]"


def cut(text: str, limit: int) -> str:
    """Keep the first ``limit`` characters, and say how many are left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [{grouped(len(text) - limit)} more characters]"


def grouped(number: int) -> str:
    """Group the digits of a number by thin spaces: ``12 345``."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if abs(number) >= 10_000 else str(number)


def counted(number: int, noun: str) -> str:
    """Write ``1 case`` or ``12 345 cases``; ``noun`` is in the singular and takes an s."""
    return wording.counted(number, noun).replace(str(number), grouped(number), 1)


def percent(share: float) -> str:
    """Write a share for people: ``97.5 %``; 0 and 1 without decimals."""
    digits = 0 if share in {0.0, 1.0} else 1
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def signed(difference: float) -> str:
    """Write a difference with its sign, the minus as long as the plus; what rounds to nothing has none."""
    return f"{difference:+.3f}".replace("+0.000", "0.000").replace("-0.000", "0.000").replace("-", "\N{MINUS SIGN}")


def milliseconds(value: float) -> str:
    """Write a latency in milliseconds or, from ten seconds on, in seconds; a bound that does not exist is ``?``."""
    if not math.isfinite(value):
        return "?"
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 or value == 0 else f"{value:.1f} ms"


def usd(value: float) -> str:
    """Write an amount in US dollars with three significant digits; small ones in millionths."""
    if value and abs(value) < 0.001:
        return f"{1e6 * value:.3g} µ$"
    return f"${value:.3g}" if value < 100 else f"${value:,.0f}"
