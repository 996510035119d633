"""Read ``adapter_config.json`` as PEFT reads it, whatever it says.

Defaults and meanings are those of ``peft.LoraConfig`` (https://github.com/huggingface/peft,
``src/peft/tuners/lora/config.py``). Nothing here raises about the content: a value of the wrong type is recorded and
its default taken, so that the rules can look at the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from slipway.errors import StoreError
from slipway.tensors import shown

__all__ = [
    "CONFIG_NAME",
    "MAX_CONFIG_BYTES",
    "AdapterConfig",
    "ConfigProblem",
    "parse_adapter_config",
    "read_adapter_config",
]

CONFIG_NAME: Final = "adapter_config.json"

MAX_CONFIG_BYTES: Final = 8 << 20
"""The largest real ones list every module of a mixture of experts by name, at about 2 MB."""


@dataclass(frozen=True, kw_only=True)
class ConfigProblem:
    """Something in the file that cannot be used. ``key`` is empty when it is the file itself."""

    key: str
    message: str


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The fields that change what an adapter computes, with PEFT's names and PEFT's defaults.

    Attributes:
        peft_type: Upper-case name of the method; empty when the file does not say.
        target_modules: Names or name endings, a regular expression, the word ``all-linear``, or nothing.
        init_lora_weights: ``True``, ``False`` or the name of an initialisation.
        present: Keys that the file has, known here or not.
        problems: Values that could not be used; their fields hold the default.
    """

    peft_type: str = ""
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: int = 8
    lora_alpha: float = 8
    target_modules: tuple[str, ...] | str | None = None
    exclude_modules: tuple[str, ...] | str | None = None
    modules_to_save: tuple[str, ...] | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    bias: str = "none"
    lora_bias: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    init_lora_weights: bool | str | None = True
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] | str | None = None
    layer_replication: tuple[tuple[int, int], ...] | None = None
    trainable_token_indices: bool = False
    """Whether any are named; which ones does not matter to a server that ignores them."""
    target_parameters: tuple[str, ...] | None = None
    auto_mapping: str = ""
    """Class of the model that it was trained on, where PEFT wrote it down."""
    variants: tuple[str, ...] = ()
    """Keys set in the file that make PEFT compute something else than a plain sum, DoRA aside."""
    present: frozenset[str] = frozenset()
    problems: tuple[ConfigProblem, ...] = ()


def read_adapter_config(path: Path) -> AdapterConfig | ConfigProblem:
    """Read the file.

    Returns:
        The config, or why there is none to be had from these bytes.

    Raises:
        StoreError: The file cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return ConfigProblem(key="", message="there is no such file")
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    return parse_adapter_config(text)


def parse_adapter_config(text: bytes) -> AdapterConfig | ConfigProblem:
    """Read the bytes of an ``adapter_config.json``; a key given twice counts as given last, as in PEFT."""
    members = _parse_json(text)
    if isinstance(members, ConfigProblem):
        return members
    values: dict[str, Any] = {}
    problems: list[ConfigProblem] = []
    for key, (reader, expected) in _FIELDS.items():
        if key in members:
            try:
                values[key] = reader(members[key])
            except (TypeError, ValueError, OverflowError):
                problems.append(ConfigProblem(key=key, message=f"{_excerpt(members[key])} is not {expected}"))
    variants = tuple(sorted(key for key in _VARIANTS if members.get(key)))
    return AdapterConfig(**values, variants=variants, present=frozenset(members), problems=tuple(problems))


def _parse_json(text: bytes) -> dict[str, object] | ConfigProblem:
    problem = ""
    if len(text) > MAX_CONFIG_BYTES:
        problem = f"it is larger than {MAX_CONFIG_BYTES:,} bytes"
    elif text.startswith(b"version https://git-lfs"):
        problem = "it is a Git LFS pointer: the file itself was never fetched"
    else:
        try:
            members = json.loads(text.decode("utf-8-sig"))
            if isinstance(members, dict):
                return members
            problem = "it is JSON, but not an object"
        except UnicodeDecodeError as error:
            problem = f"it is not UTF-8 at byte {error.start}"
        except RecursionError:
            problem = "it is nested too deeply"
        except json.JSONDecodeError as error:
            problem = f"it is not JSON: line {error.lineno}: {error.msg}"
        except ValueError:  # a number with thousands of digits
            problem = "it has a number that is too long"
    return ConfigProblem(key="", message=problem)


def _excerpt(value: object) -> str:
    if isinstance(value, list | dict):  # printing one could recurse too deeply
        return "a list" if isinstance(value, list) else "an object"
    return shown(value) if isinstance(value, str) else shown(json.dumps(value))[1:-1]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _upper(value: object) -> str:
    return "" if value is None else _text(value).upper()


def _flag(value: object) -> bool:
    """PEFT asks only for truth; null counts as false there."""
    if value is not None and not isinstance(value, bool):
        raise TypeError
    return bool(value)


def _rank(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    if value < 1 or not math.isfinite(value):  # or OverflowError, for one that no float can hold
        raise ValueError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not math.isfinite(value):  # or OverflowError, for a whole number that no float can hold
        raise ValueError
    return value


def _texts(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise TypeError
    return tuple(_text(item) for item in value)


def _text_or_texts(value: object) -> tuple[str, ...] | str | None:
    return value if isinstance(value, str) else _texts(value)


def _layer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _layers(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    return tuple(_layer(item) for item in value) if isinstance(value, list) else (_layer(value),)


def _pairs(value: object) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise TypeError
    return tuple((_layer(first), _layer(last)) for first, last in value)


def _pattern_of(reader: Callable[[object], Any]) -> Callable[[object], dict[str, Any]]:
    def read(value: object) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise TypeError
        return {key: reader(item) for key, item in value.items()}

    return read


def _initialisation(value: object) -> bool | str | None:
    return value if value is None or isinstance(value, bool) else _text(value)


def _any(value: object) -> bool:
    return bool(value)


def _model_class(value: object) -> str:
    found = value.get("base_model_class") if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


_FIELDS: Final[Mapping[str, tuple[Callable[[object], Any], str]]] = {
    "peft_type": (_upper, "the name of a PEFT method"),
    "task_type": (_optional_text, "a text"),
    "base_model_name_or_path": (_optional_text, "a text"),
    "revision": (_optional_text, "a text"),
    "r": (_rank, "a rank: a whole number from 1 up"),
    "lora_alpha": (_number, "a number"),
    "target_modules": (_text_or_texts, "a text or a list of texts"),
    "exclude_modules": (_text_or_texts, "a text or a list of texts"),
    "modules_to_save": (_texts, "a list of texts"),
    "rank_pattern": (_pattern_of(_rank), "an object of ranks"),
    "alpha_pattern": (_pattern_of(_number), "an object of numbers"),
    "bias": (_text, "a text"),
    "lora_bias": (_flag, "true or false"),
    "use_rslora": (_flag, "true or false"),
    "use_dora": (_flag, "true or false"),
    "fan_in_fan_out": (_flag, "true or false"),
    "init_lora_weights": (_initialisation, "true, false or a text"),
    "layers_to_transform": (_layers, "a layer number or a list of them"),
    "layers_pattern": (_text_or_texts, "a text or a list of texts"),
    "layer_replication": (_pairs, "a list of pairs of layer numbers"),
    "trainable_token_indices": (_any, ""),
    "target_parameters": (_texts, "a list of texts"),
    "auto_mapping": (_model_class, ""),
}

_VARIANTS: Final = frozenset(
    {"alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "use_bdlora", "use_qalora"}
)
"""Not ``velora_config``: it changes how gradients are computed, and nothing afterwards."""
