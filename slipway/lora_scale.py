"""The scale that PEFT gives each module's update: the meaning of ``r``, ``lora_alpha``, their patterns and rsLoRA.

As in ``src/peft/tuners/lora/model.py`` (``_create_and_replace``) and ``layer.py`` (``update_layer``) of
https://github.com/huggingface/peft. Rank-stabilised scaling is arXiv 2312.03732.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from slipway.adapter_config import AdapterConfig

__all__ = ["ModuleScale", "PatternError", "module_scales"]

_PLAIN: Final = re.compile(r"\^?(?:[\w.-]|\\[.dw-])+\$?", re.ASCII)
_MODERATE: Final = re.compile(r"\^?(?:(?:[\w.-]|\\[.dw-]|\[[\w-]{1,32}\])[*+]?){1,256}\$?", re.ASCII)
_MAX_KEY_CHARACTERS: Final = 256
_MAX_SEARCHES: Final = 20_000
"""Of keys that repeat something: each may take time quadratic in the length of a path."""


class PatternError(ValueError):
    """A key of a pattern is a regular expression that cannot be evaluated safely."""


@dataclass(frozen=True, kw_only=True)
class ModuleScale:
    """What the config says about one module: its update is ``alpha / rank`` times BA, or over the root for rsLoRA."""

    rank: int
    alpha: float
    factor: float


def module_scales(config: AdapterConfig, paths: Iterable[str]) -> Mapping[str, ModuleScale]:
    """Say rank, alpha and factor of every module, by its path in the base.

    Raises:
        PatternError: A key of ``rank_pattern`` or ``alpha_pattern`` is a regular expression of a kind that could take
            for ever, or no regular expression at all.
    """
    paths = list(paths)
    ranks, alphas = list(config.rank_pattern), list(config.alpha_pattern)
    repeating = sum(_repeats(key) for key in (*ranks, *alphas))
    if repeating * len(paths) > _MAX_SEARCHES:
        raise PatternError(f"{repeating:,} regular expressions for {len(paths):,} modules are too many to evaluate")
    scales: dict[str, ModuleScale] = {}
    for path in paths:
        rank = config.rank_pattern.get(_matching(ranks, path), config.r)
        alpha = config.alpha_pattern.get(_matching(alphas, path), config.lora_alpha)
        factor = alpha / (math.sqrt(rank) if config.use_rslora else rank)
        scales[path] = ModuleScale(rank=rank, alpha=alpha, factor=factor)
    return scales


def _repeats(key: str) -> bool:
    """Whether a key repeats something, or raise for one that is no literal text and repeats too much to be safe."""
    if _PLAIN.fullmatch(key):
        return False
    if len(key) > _MAX_KEY_CHARACTERS or not _MODERATE.fullmatch(key) or key.count("*") + key.count("+") > 1:
        raise PatternError(f"the pattern key {key[:60]!r} is a regular expression that is not evaluated")
    return True


def _matching(keys: list[str], path: str) -> str:
    """Find the first key that names this module, as PEFT's ``get_pattern_key`` does; else the path itself."""
    return next((key for key in keys if _compiled(key).match(path)), path)


@lru_cache(maxsize=4096)
def _compiled(key: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"(.*\.)?({key})$")
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"the pattern key {key[:60]!r} is not a regular expression") from error
