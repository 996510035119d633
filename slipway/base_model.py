"""What an adapter has to fit: the facts of a base model, never its weights.

Facts come from a model's directory, from a facts file (``configs/bases/*.json``), or from the Hub: ``config.json`` and
the headers of the weights. Leaves to others: the network (``services.hub_config``, ``services.hub_headers``) and what
follows for an adapter (``profiles``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pydantic

from slipway.base_shapes import Shape, derive_modules
from slipway.errors import ConfigFileError, ConfigurationError
from slipway.tensors import Header, HeaderProblem, read_header
from slipway.yaml_files import load_model

__all__ = ["BaseModel", "read_base_directory", "read_facts", "resolve_base"]

_HUB_ID: Final = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?", re.ASCII)
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_MAX_CONFIG_BYTES: Final = 4 << 20


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model, seen from an adapter.

    Attributes:
        id: The name that serving deployments give it; empty for a directory that nobody named.
        aliases: Other names of exactly the same weights.
        model_type: Family, as in ``config.json``.
        architectures: As in ``config.json``.
        hidden_size: Width of the residual stream.
        layers: Number of transformer layers.
        vocab_size: Rows of the embedding.
        modules: Path and shape of every matrix that LoRA can change; None where they cannot be known from what was
            given.
    """

    id: str
    aliases: tuple[str, ...] = ()
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    hidden_size: int | None = None
    layers: int | None = None
    vocab_size: int | None = None
    modules: Mapping[str, Shape] | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """A name for people, also where there is no id."""
        return self.id or f"the given {self.model_type} model"

    def answers_to(self, name: str) -> bool:
        """Whether this is one of its names."""
        return bool(name) and (name == self.id or name in self.aliases)

    def to_json(self) -> str:
        """Give the text of a facts file, one module per line."""
        facts = {
            "id": self.id,
            "aliases": list(self.aliases),
            "model_type": self.model_type,
            "architectures": list(self.architectures),
            "hidden_size": self.hidden_size,
            "layers": self.layers,
            "vocab_size": self.vocab_size,
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items()]
        if self.modules is None:
            lines.append('  "modules": null')
        else:
            modules = [f"    {json.dumps(path)}: {json.dumps(list(shape))}" for path, shape in self.modules.items()]
            lines.append('  "modules": {\n' + ",\n".join(modules) + "\n  }")
        return "{\n" + ",\n".join(lines) + "\n}\n"


class _Facts(pydantic.BaseModel):
    """A facts file."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    id: str = pydantic.Field(min_length=1)
    aliases: tuple[str, ...] = ()
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    hidden_size: int | None = pydantic.Field(default=None, gt=0)
    layers: int | None = pydantic.Field(default=None, ge=0)
    vocab_size: int | None = pydantic.Field(default=None, gt=0)
    modules: dict[str, tuple[pydantic.PositiveInt, pydantic.PositiveInt]] | None = None


def resolve_base(text: str, *, bases_directory: Path) -> BaseModel:
    """Find a base model's facts.

    Args:
        text: A model's directory, a facts file, an id or alias from ``bases_directory``, or a Hub id with an optional
            ``@REVISION``.
        bases_directory: Facts files, ``*.json``. It may be absent.

    Raises:
        ConfigurationError: The text is none of these, or the file or directory cannot be used.
        SourceError: The Hub does not give the model's ``config.json`` or the headers of its weights.
    """
    path = Path(text).expanduser()
    if text and path.is_dir():
        return read_base_directory(path)
    if path.is_file():
        return read_facts(path)
    known = list(_read_all(bases_directory))
    for base in known:
        if base.answers_to(text):
            return base
    match = _HUB_ID.fullmatch(text)
    if match is None or text.endswith(".json"):
        raise ConfigurationError(
            f"There is no base model {text!r}.",
            fix="Give a Hub id (ORG/NAME), a model's directory, a file of base facts, or one of: "
            + (", ".join(sorted(base.id for base in known)) or f"none yet in {bases_directory}")
            + ".",
        )
    return _read_hub_model(match[1], match[2] or None)


def read_facts(path: Path) -> BaseModel:
    """Read a facts file.

    Raises:
        ConfigFileError: It does not say what a facts file says.
    """
    return BaseModel(**dict(load_model(path, _Facts)))


def read_base_directory(directory: Path, *, model_id: str = "") -> BaseModel:
    """Read a model's ``config.json``, and the shapes in the headers of its safetensors where there are any.

    Args:
        directory: As ``save_pretrained`` writes it.
        model_id: The name that serving deployments give the model.

    Raises:
        ConfigurationError: It is not a model's directory, or a weights file is damaged.
    """
    config_path = directory / "config.json"
    if not config_path.is_file():
        raise ConfigurationError(
            f"{directory} is not a base model: it has no config.json.", fix="Give the directory that has it."
        )
    return _from_config(_read_config(config_path), model_id=model_id, headers=tuple(_read_headers(directory)))


def _read_hub_model(model_id: str, revision: str | None) -> BaseModel:
    """Read ``config.json`` and the headers of the weights, all at the commit that the former was found at."""
    from slipway.services.hub_config import fetch_base_config  # noqa: PLC0415  # most calls never need the Hub
    from slipway.services.hub_headers import fetch_base_headers  # noqa: PLC0415

    path = fetch_base_config(model_id, revision)
    commit = path.parent.name  # the Hub's cache keeps files in snapshots/COMMIT
    return _from_config(_read_config(path), model_id=model_id, headers=fetch_base_headers(model_id, commit))


def _read_all(directory: Path) -> Iterator[BaseModel]:
    for path in sorted(directory.glob("*.json")):
        yield read_facts(path)


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except OSError as error:
        raise ConfigFileError(f"it cannot be read: {error.strerror}.", file=path) from error
    except (ValueError, RecursionError) as error:
        raise ConfigFileError("it is not JSON.", file=path, fix="Download the model again.") from error
    if not isinstance(config, dict):
        raise ConfigFileError("it is not a JSON object.", file=path, fix="Download the model again.")
    return config


def _from_config(config: Mapping[str, Any], *, model_id: str, headers: tuple[Header, ...] = ()) -> BaseModel:
    nested = config.get("text_config")
    text: Mapping[str, Any] = {**config, **nested} if isinstance(nested, dict) else config
    named = config.get("_name_or_path")
    architectures = config.get("architectures")
    return BaseModel(
        id=model_id,
        aliases=(named,) if isinstance(named, str) and named not in {"", model_id} else (),
        model_type=str(config.get("model_type", "")),
        architectures=tuple(map(str, architectures)) if isinstance(architectures, list) else (),
        hidden_size=_first_size(text, "hidden_size", "n_embd", "d_model"),
        layers=_first_size(text, "num_hidden_layers", "n_layer", "n_layers"),
        vocab_size=_first_size(text, "vocab_size"),
        modules=_modules(config, headers),
    )


def _first_size(config: Mapping[str, Any], *keys: str) -> int | None:
    sizes = (config.get(key) for key in keys)
    return next((size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0), None)


def _modules(config: Mapping[str, Any], headers: tuple[Header, ...]) -> Mapping[str, Shape] | None:
    """Join what the config implies with what the headers show; the headers are right where they differ.

    Quantised weights are packed, so that their shapes say nothing: only floats are taken.
    """
    derived = derive_modules(config)
    transposed = config.get("model_type") == "gpt2"  # its Conv1D keeps weights as [in, out]
    found: dict[str, Shape] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name.endswith(".weight") and len(tensor.shape) == 2 and tensor.dtype in _FLOATS:
                rows, columns = tensor.shape
                is_transposed = transposed and ".h." in f".{tensor.name}"
                found[tensor.name.removesuffix(".weight")] = (columns, rows) if is_transposed else (rows, columns)
    if derived is None and not found:
        return None
    return {**(derived or {}), **found}


def _read_headers(directory: Path) -> Iterator[Header]:
    """Give no headers at all when a shard is missing: half the modules would look like all of them."""
    names = {path.name for path in directory.glob("*.safetensors")}
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = _read_config(index).get("weight_map")
        wanted = set(map(str, shards.values())) if isinstance(shards, dict) else set()
        if not wanted <= names:
            return
        names = wanted
    for name in sorted(names):
        header = read_header(directory / name)
        if isinstance(header, HeaderProblem):
            raise ConfigurationError(
                f"{directory / name} is not a readable safetensors file: {header.message}.",
                fix="Download the base model again.",
            )
        yield header
