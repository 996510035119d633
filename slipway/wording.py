"""Numbers in sentences: one of a thing is told as one, and a probability too small for a float not as none."""

from __future__ import annotations

__all__ = ["all_of", "counted", "counted_are", "fixed", "p_value", "probability"]

_LEAST_PROBABILITY = 1e-300


def counted(number: int, noun: str) -> str:
    """Write ``1 case`` or ``3 cases``; ``noun`` is in the singular and takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def counted_are(number: int, noun: str) -> str:
    """Write ``1 case is`` or ``3 cases are``."""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def all_of(number: int, noun: str) -> str:
    """Write ``the only case`` or ``all 3 cases``."""
    return f"the only {noun}" if number == 1 else f"all {counted(number, noun)}"


def fixed(value: float, digits: int) -> str:
    """Write a number with so many digits after the point, and no minus before zeros."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def probability(value: float) -> str:
    """Write a probability with two significant digits: ``4.5e-12``, or ``< 1e-300`` where a float may hold no less."""
    return f"{value:.2g}" if value >= _LEAST_PROBABILITY else f"< {_LEAST_PROBABILITY:g}"


def p_value(value: float) -> str:
    """Write ``p = 0.02`` or ``p < 1e-300``."""
    shown = probability(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"
