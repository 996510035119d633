"""Keep secrets and private data out of a report: every text of its data is masked before any of it is rendered.

Not the rendered page: a mask that ends inside an escape would break the JSON that the page carries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar

from slipway.report.data import ReportData
from slipway.results import CaseResult, CheckResult

__all__ = ["masked"]

ValueT = TypeVar("ValueT")
Mask = Callable[[str], str]

REPEATS = 100_000
"""Texts remembered: reasons, errors and system prompts recur in thousands of cases."""


def masked(data: ReportData, *, secrets: Mask, private: Mask) -> ReportData:
    """Give the same data with its texts masked.

    Args:
        data: What the report would show.
        secrets: Applied to every text, digests and addresses included.
        private: Applied to what people and models wrote: prompts, outputs and what is said about them.
    """

    @lru_cache(maxsize=REPEATS)
    def both(text: str) -> str:
        return secrets(private(text))

    secret = lru_cache(maxsize=REPEATS)(secrets)
    plain = dataclasses.replace(data, results=(), prompts={}, reasons=(), verdict=None)
    return dataclasses.replace(
        _mapped(plain, secret),
        results=[_result(line, both) for line in data.results],
        prompts=_mapped(dict(data.prompts), both),
        reasons=_mapped(data.reasons, both),
        verdict=_mapped(data.verdict, both),
    )


def _result(line: CaseResult, mask: Mask) -> CaseResult:
    """Mask a result; one in which nothing is masked, as most, is not copied."""
    texts = {
        "case": mask(line.case),
        "output": mask(line.output),
        "error": None if line.error is None else mask(line.error),
        "tags": tuple(map(mask, line.tags)),
        "checks": tuple(_check(check, mask) for check in line.checks),
    }
    changed = {name: value for name, value in texts.items() if value != getattr(line, name)}
    return line.but(**changed) if changed else line


def _check(check: CheckResult, mask: Mask) -> CheckResult:
    reason = mask(check.reason)
    return check if reason == check.reason else check.but(reason=reason)


def _mapped(value: ValueT, mask: Mask) -> ValueT:
    """Rebuild dataclasses, mappings and tuples around masked texts; anything else is as it was."""
    return _any(value, mask)  # type: ignore[no-any-return]  # the same shape


def _any(value: Any, mask: Mask) -> Any:  # noqa: ANN401  # whatever a report's data is made of
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return mask(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: _any(getattr(value, field.name), mask) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    if isinstance(value, Mapping):
        return {_any(key, mask): _any(item, mask) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_any(item, mask) for item in value)
    return value
