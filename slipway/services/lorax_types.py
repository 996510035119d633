"""The types of the official LoRAX client, loaded when first used: they bring aiohttp and requests with them."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

from pydantic import ValidationError

__all__ = ["first_error", "lorax_modules"]


@lru_cache(maxsize=1)
def lorax_modules() -> tuple[ModuleType, ModuleType]:
    """Give ``lorax.errors`` and ``lorax.types``; cheaper than an import statement on each of thousands of requests."""
    from lorax import errors, types  # noqa: PLC0415  # only callers should pay

    return errors, types


def first_error(error: ValidationError) -> str:
    """Name the first thing that pydantic found, without its value: that may be a token."""
    found = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in found['loc']) or 'the whole'}: {found['msg']}"
