"""Where adapters are served: the strict model of ``configs/targets/*.yaml``.

A target file is data and holds no secret. Tokens come from the environment, or from a Prefect Secret block that the
file names; addresses may be left out and then come from the environment variables that the tools of Predibase and LoRAX
read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from slipway.errors import ConfigurationError
from slipway.judge_settings import JudgeSettings
from slipway.redaction import Redactor
from slipway.server_facts import ServerFacts
from slipway.yaml_files import load_model

__all__ = [
    "DEFAULT_GATEWAY",
    "Deployment",
    "Handover",
    "Prices",
    "ServedBase",
    "Server",
    "Target",
    "TargetKind",
    "load_target",
]

DEFAULT_GATEWAY = "https://api.app.predibase.com"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class TargetKind(StrEnum):
    """What answers at the other end."""

    SANDBOX = "sandbox"
    """A Predibase-compatible control plane on this machine. Refuses any address that is not loopback."""
    PREDIBASE = "predibase"
    LORAX = "lorax"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ServedBase(_Strict):
    """One base model that the target may serve."""

    facts: str | None = None
    """Hub id, directory or facts file that describes it; by default the served name itself."""
    also_known_as: tuple[str, ...] = ()
    """Other names that an adapter's ``base_model_name_or_path`` may give for the same weights."""


class Deployment(_Strict):
    """How to create a serving deployment when none of the same base is running. Wire names are Predibase's."""

    name: str | None = None
    """By default ``slipway-`` and the base model's name."""
    accelerator: str | None = None
    compute_sku: str | None = None
    """Sent as ``computeSpec.requests.inference.sku``, which newer accounts want instead of ``accelerator``."""
    region: str | None = None
    quantization: str | None = None
    min_replicas: int = Field(default=0, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    cooldown_seconds: int = Field(default=3600, ge=1)
    preloaded_adapters: tuple[str, ...] = ()
    custom_args: tuple[str, ...] = ()
    request_logging: bool = False
    ready_timeout_seconds: float = Field(default=1800.0, gt=0)
    poll_seconds: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _replicas_are_ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self

    def wire_config(self, base_model: str) -> dict[str, object]:
        """The ``config`` object of ``POST /v2/deployments``; unset keys are left out."""
        compute = None
        if self.compute_sku is not None:
            compute = {"requests": {"inference": {"sku": self.compute_sku}}}
            if self.region is not None:
                compute["region"] = self.region  # type: ignore[assignment]  # one string beside one object
        values: dict[str, object | None] = {
            "baseModel": base_model,
            "accelerator": self.accelerator,
            "computeSpec": compute,
            "quantization": self.quantization,
            "minReplicas": self.min_replicas,
            "maxReplicas": self.max_replicas,
            "cooldownTime": self.cooldown_seconds,
            "preloadedAdapters": list(self.preloaded_adapters) or None,
            "customArgs": list(self.custom_args) or None,
            "requestLoggingEnabled": self.request_logging or None,
        }
        return {key: value for key, value in values.items() if value is not None}


class Server(_Strict):
    """What serves the adapters, for the rules that predict what it does with one."""

    profile: str = "lorax-0.12"
    """The server version, as ``slipway inspect --profile`` takes it."""
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    """GPUs that share the model (``--num-shard``)."""
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of one GPU in 10^9 bytes; without it nothing is said about memory."""
    adapter_memory_fraction: float = Field(default=0.1, gt=0, le=1)
    """Share of it that is reserved for adapters (``--adapter-memory-fraction``)."""


class Handover(_Strict):
    """How a self-hosted LoRAX gets an adapter: it has no registry of its own."""

    source: Literal["local", "s3", "hub"] = "local"
    location: str | None = None
    """``local``: a directory that the server sees under the same path (default: our store); ``s3``: ``s3://BUCKET/PREFIX``;
    ``hub``: the organisation that gets one repository per adapter version."""


class Prices(_Strict):
    """What the target costs. No service has a price endpoint, so prices are configuration."""

    gpu_hour_usd: float | None = Field(default=None, ge=0)
    """For each replica's GPU hour; an answer costs its share of the server's time."""
    million_tokens_usd: float | None = Field(default=None, ge=0)
    """For a million tokens, in and out alike, where tokens are billed."""


class Target(_Strict):
    """A Predibase tenant, a self-hosted LoRAX, or the sandbox."""

    kind: TargetKind
    description: str = ""
    gateway: str | None = None
    """Control plane. Default: ``PREDIBASE_GATEWAY``, then Predibase's own (for kind ``predibase``)."""
    serving: str | None = None
    """Serving base URL. Default: ``PREDIBASE_SERVING``, then derived from the gateway as Predibase's SDK does."""
    url: str | None = None
    """A self-hosted LoRAX. Default: ``LORAX_URL``."""
    token_block: str | None = None
    """Name of a Prefect Secret block with the token; by default the token is ``PREDIBASE_API_TOKEN``."""
    bases: dict[str, ServedBase] = Field(min_length=1)
    """Base models by the id that deployments use for them."""
    server: Server = Server()
    deployment: Deployment = Deployment()
    handover: Handover = Handover()
    prices: Prices = Prices()
    max_concurrency: int = Field(default=16, ge=1, le=1024)
    """Requests in flight during an evaluation."""
    max_new_tokens: int = Field(default=128, ge=1)
    answer_timeout_seconds: float = Field(default=300.0, gt=0)
    """For one answer. The first one to an adapter waits for its download and load, and giving up early can abort a
    LoRAX router, so this is no place to be impatient."""
    judge: JudgeSettings | None = None
    """The model that grades what no rule can: any OpenAI-compatible server. A suite may bring its own."""
    redact: tuple[str, ...] = ()
    """Patterns in Python's syntax, masked in outputs, prompts, reasons and what cases are called, before anything is
    written. Names of tags, groups and metrics stay: gate files refer to them."""
    reference_route: str | None = None
    """A route of the server that computes the same logits with PEFT alone; the sandbox has one."""

    @field_validator("redact")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        Redactor(patterns)
        return patterns

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        if self.kind is TargetKind.LORAX:
            if self.gateway or self.serving:
                raise ValueError("gateway and serving are for kind predibase; a self-hosted LoRAX has url")
            if self.handover.source != "local" and not self.handover.location:
                raise ValueError(f"handover.location is needed for handover.source {self.handover.source}")
        elif self.url:
            raise ValueError("url is for kind lorax; Predibase has gateway and serving")
        return self

    @property
    def redactor(self) -> Redactor | None:
        """What masks private data; None where nothing is named."""
        return Redactor(self.redact) if self.redact else None

    def resolve(self, environment: Mapping[str, str]) -> Target:
        """Fill addresses that the file leaves out from ``environment``.

        Raises:
            ConfigurationError: An address is missing, is no http(s) URL, or leaves this machine although the target is
                the sandbox.
        """
        if self.kind is TargetKind.LORAX:
            return self.model_copy(update={"url": self._address("url", "LORAX_URL", environment)})
        if self.kind is TargetKind.SANDBOX:
            gateway = self._address("gateway", "PREDIBASE_GATEWAY", environment)
            serving = self._address("serving", "PREDIBASE_SERVING", environment)
            for address in (gateway, serving):
                if urlsplit(address).hostname not in LOOPBACK_HOSTS:
                    raise ConfigurationError(
                        f"the target is the sandbox, but {address} is not on this machine.",
                        fix="Use --target predibase for a real tenant, or export what `slipway sandbox` prints.",
                    )
            return self.model_copy(update={"gateway": gateway, "serving": serving})
        gateway = self._address("gateway", "PREDIBASE_GATEWAY", environment, default=DEFAULT_GATEWAY)
        return self.model_copy(
            update={"gateway": gateway, "serving": self.serving or environment.get("PREDIBASE_SERVING")}
        )

    def _address(
        self,
        key: Literal["gateway", "serving", "url"],
        variable: str,
        environment: Mapping[str, str],
        default: str = "",
    ) -> str:
        value = str(getattr(self, key) or environment.get(variable) or default).strip().rstrip("/")
        value = re.sub(r"/v[12]$", "", value)
        if not value:
            hint = "Start `slipway sandbox` and export what it prints." if self.kind is TargetKind.SANDBOX else ""
            raise ConfigurationError(
                f"the target has no {key}, and {variable} is not set.",
                fix=hint or f"Write {key}: into the target file, or set {variable}.",
            )
        parts = urlsplit(value if "://" in value else f"https://{value}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                f"{key} is {value!r}, which is no http(s) address.", fix=f"Set {key} or {variable}."
            )
        return value if "://" in value else f"https://{value}"

    def server_facts(self) -> ServerFacts:
        """What the rules of inspection need to know about a serving deployment."""
        memory = self.server.gpu_memory_gb
        return ServerFacts(
            tensor_parallel=self.server.tensor_parallel,
            gpu_memory_bytes=None if memory is None else round(memory * 10**9),
            adapter_memory_fraction=self.server.adapter_memory_fraction,
            preloads_adapters=bool(self.deployment.preloaded_adapters),
        )

    def served_base(self, name: str) -> str | None:
        """The id by which deployments name the base that an adapter calls ``name``; None when it is not served here."""
        for served, base in self.bases.items():
            if name in (served, base.facts, *base.also_known_as):
                return served
        return None

    def deployment_name(self, base_model: str) -> str:
        """The one name under which Slipway creates a deployment of this base: the same each time, so never two."""
        if self.deployment.name:
            return self.deployment.name
        return "slipway-" + re.sub(r"[^a-z0-9]+", "-", base_model.lower()).strip("-")


def load_target(path: Path) -> Target:
    """Read a target file.

    Raises:
        ConfigFileError: The file says something unusable.
    """
    return load_model(path, Target)
