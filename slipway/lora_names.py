"""Recognise LoRA matrices whose keys were renamed on the way, by wrappers or by another version of the model's class.

What PEFT writes is ``base_model.model.PATH.lora_A.weight`` with PATH as the base has it. Known departures:

- an adapter's name left in, ``lora_A.default.weight`` (a state dict saved without PEFT's ``save_pretrained``);
- parts of wrappers, ``_orig_mod`` (torch.compile), ``module`` (DistributedDataParallel), ``_fsdp_wrapped_module``,
  ``_checkpoint_wrapped_module``;
- ``base_model.model`` left out or there twice;
- ``language_model`` and ``model`` left out, put in or swapped, as classes of transformers for text and for images did
  between versions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["find_renamings"]

_MATRIX: Final = re.compile(r"(?P<path>[^\x00]+)\.lora_(?P<side>[AB])(?:\.(?!weight$|bias$)[\w-]+)?(?:\.weight)?")
_PREFIX: Final = "base_model.model."
_SUFFIXES: Final = (".lora_A.weight", ".lora_B.weight")
_WRAPPERS: Final = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_LEADING: Final = frozenset({"base_model", "model", "module", "language_model", "text_model", "transformer"})


def find_renamings(names: Iterable[str], modules: Iterable[str] | None) -> Mapping[str, str]:
    """Find tensors that are LoRA matrices under another name than PEFT gives them.

    Args:
        names: Of all tensors.
        modules: Paths of the base's linear layers. Without them only infixes and wrappers can be told from paths.

    Returns:
        The name that PEFT would have given, by the name found. Names that are right, that mean no module of the base,
        that could mean several, or whose right name is there already, are left out.
    """
    names = list(names)
    known = None if modules is None else frozenset(modules)
    matches = {name: match for name in names if (match := _MATRIX.fullmatch(name)) is not None}
    if known is not None:
        matches = {name: match for name, match in matches.items() if not _is_right(name, match["path"], known)}
    by_core = _by_core(known or ()) if matches else {}
    renamed: dict[str, str] = {}
    for name, match in matches.items():
        path = _resolve(match["path"], known, by_core)
        right = f"{_PREFIX}{path}.lora_{match['side']}.weight"
        if path is not None and right != name:
            renamed[name] = right
    present, wanted = frozenset(names), Counter(renamed.values())
    return {name: right for name, right in renamed.items() if right not in present and wanted[right] == 1}


def _is_right(name: str, path: str, known: frozenset[str]) -> bool:
    return path.removeprefix(_PREFIX) in known and name.startswith(_PREFIX) and name.endswith(_SUFFIXES)


def _resolve(path: str, known: frozenset[str] | None, by_core: Mapping[str, str | None]) -> str | None:
    parts = [part for part in path.split(".") if part not in _WRAPPERS]
    if parts[:1] == ["module"]:
        parts = parts[1:]
    while parts[:2] == ["base_model", "model"]:
        parts = parts[2:]
    path = ".".join(parts)
    if known is None:
        return path or None
    return path if path in known else by_core.get(_core(path))


def _by_core(paths: Iterable[str]) -> dict[str, str | None]:
    """Index paths by what remains without their leading parts; None where that is not enough to tell two apart."""
    found: dict[str, str | None] = {}
    for path in paths:
        core = _core(path)
        found[core] = None if core in found else path
    return found


def _core(path: str) -> str:
    parts = path.split(".")
    start = next((index for index, part in enumerate(parts) if part not in _LEADING), len(parts))
    return ".".join(parts[start:])
