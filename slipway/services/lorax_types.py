"""The types of the official LoRAX client, loaded when first used: they bring aiohttp and requests with them."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

from pydantic import BaseModel, ValidationError, create_model
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

__all__ = ["brief_response", "first_error", "lorax_modules"]


@lru_cache(maxsize=1)
def lorax_modules() -> tuple[ModuleType, ModuleType]:
    """Give ``lorax.errors`` and ``lorax.types``; cheaper than an import statement on each of thousands of requests."""
    from lorax import errors, types  # noqa: PLC0415  # only callers should pay

    return errors, types


@lru_cache(maxsize=1)
def brief_response() -> type[BaseModel]:
    """Give ``lorax.types.Response`` with nothing of a generated token but its log probability.

    To make an object of each token takes half of the time in which a reply is read, and nobody looks at them.
    """
    _, types = lorax_modules()
    details: type[BaseModel] = create_model("BriefDetails", __base__=types.Details, tokens=(list[_Logprob], ...))
    return create_model("BriefResponse", __base__=types.Response, details=(details, ...))


class _Logprob(TypedDict):
    logprob: float


def first_error(error: ValidationError) -> str:
    """Name the first thing that pydantic found, without its value: that may be a token."""
    found = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in found['loc']) or 'the whole'}: {found['msg']}"
