"""Everything that rules may look at: read from a bundle once, judged nowhere here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from slipway.adapter import AdapterFile, Bundle
from slipway.adapter_config import CONFIG_NAME, AdapterConfig, ConfigProblem, read_adapter_config
from slipway.adapter_formats import ForeignFormat, recognise_format
from slipway.base_model import BaseModel
from slipway.errors import StoreError
from slipway.lora import LoraTensors, OtherKind, kind_of, sort_tensors
from slipway.lora_scale import ModuleScale, PatternError, module_scales
from slipway.medusa import MEDUSA_CONFIG_NAME, MedusaConfig, read_medusa_config
from slipway.scan import Scan, scan_file
from slipway.server_facts import ServerFacts
from slipway.tensors import Header, HeaderProblem, Tensor, read_header
from slipway.tokenizer_files import TokenizerFacts, read_tokenizer_files

__all__ = ["Evidence", "WeightsFile", "read_evidence"]


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """One safetensors file of a bundle. ``scan`` is None where the header cannot be read."""

    file: AdapterFile
    header: Header | HeaderProblem
    scan: Scan | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about one adapter, its base and its server.

    Attributes:
        bundle: The files.
        config: What the config says, why it cannot be read, or None where there is none.
        weights: The safetensors files, by name.
        base: The base model to be served on, where one was given.
        server: The deployment that it is to be served by.
        medusa: The config of its Medusa heads, where it has one.
        tokenizer: What tokenizer files beside the adapter say.
    """

    bundle: Bundle
    config: AdapterConfig | ConfigProblem | None
    weights: tuple[WeightsFile, ...]
    base: BaseModel | None
    server: ServerFacts = field(default_factory=ServerFacts)
    medusa: MedusaConfig | ConfigProblem | None = None
    tokenizer: TokenizerFacts = field(default_factory=TokenizerFacts)

    @property
    def readable_config(self) -> AdapterConfig:
        """The config, or one of nothing but defaults: rules about a missing config speak for themselves."""
        return self.config if isinstance(self.config, AdapterConfig) else AdapterConfig()

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of all readable files."""
        headers = [weights.header for weights in self.weights]
        return tuple(tensor for header in headers if isinstance(header, Header) for tensor in header.tensors)

    @cached_property
    def foreign_format(self) -> ForeignFormat | None:
        """What the files are if no adapter of PEFT's."""
        names = [tensor.name for tensor in self.tensors]
        return recognise_format(self.readable_config, names) if self.medusa is None else None

    @property
    def is_lora(self) -> bool:
        """Whether the files claim to be LoRA, or nothing else."""
        return self.readable_config.peft_type in {"", "LORA"} and self.foreign_format is None

    @cached_property
    def lora(self) -> LoraTensors:
        """The tensors, sorted into pairs under their right names; empty for an adapter that is something else."""
        modules = self.base.modules if self.base is not None else None
        return sort_tensors(self.tensors if self.is_lora else (), modules)

    @cached_property
    def others(self) -> Mapping[OtherKind, tuple[Tensor, ...]]:
        """The tensors that are no LoRA matrices, by kind."""
        kinds: dict[OtherKind, list[Tensor]] = {}
        for tensor in self.lora.others:
            kinds.setdefault(kind_of(tensor.name), []).append(tensor)
        return {kind: tuple(tensors) for kind, tensors in kinds.items()}

    @cached_property
    def scales(self) -> Mapping[str, ModuleScale] | PatternError:
        """Rank and scale that the config gives each pair in PEFT, or why that cannot be said."""
        try:
            return module_scales(self.readable_config, self.lora.pairs)
        except PatternError as error:
            return error

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """Ranks of the tensors by module; without modules whose tensors have none."""
        return {path: pair.rank for path, pair in self.lora.pairs.items() if pair.rank}

    @cached_property
    def zero(self) -> frozenset[str]:
        """Names of tensors that are zero throughout."""
        return frozenset(name for weights in self.weights if weights.scan for name in weights.scan.zero)

    @cached_property
    def norms(self) -> Mapping[str, float]:
        """Frobenius norms by tensor name."""
        return {name: norm for weights in self.weights if weights.scan for name, norm in weights.scan.norms.items()}


def read_evidence(bundle: Bundle, base: BaseModel | None = None, server: ServerFacts | None = None) -> Evidence:
    """Read everything that rules ask about: headers, small files, and every byte of the weights once.

    Raises:
        StoreError: The bundle's files cannot be read, or are no longer what was pulled.
    """
    names = {file.name for file in bundle.files}
    return Evidence(
        bundle=bundle,
        config=read_adapter_config(bundle.directory / CONFIG_NAME) if CONFIG_NAME in names else None,
        weights=tuple(_read_weights(bundle)),
        base=base,
        server=server or ServerFacts(),
        medusa=read_medusa_config(bundle.directory / MEDUSA_CONFIG_NAME) if MEDUSA_CONFIG_NAME in names else None,
        tokenizer=read_tokenizer_files(bundle.directory, names),
    )


def _read_weights(bundle: Bundle) -> list[WeightsFile]:
    weights: list[WeightsFile] = []
    for file in bundle.files:
        if file.name.endswith(".safetensors"):
            path = bundle.directory / file.name
            header = read_header(path)
            scan = scan_file(path, header) if isinstance(header, Header) else None
            if scan is not None and scan.sha256 != file.sha256:
                raise StoreError(
                    f"{path} has changed since it was pulled.",
                    fix=f"Delete {bundle.directory} and pull the adapter again.",
                )
            weights.append(WeightsFile(file=file, header=header, scan=scan))
    return weights
