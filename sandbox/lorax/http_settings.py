"""The router's own limits, as LoRAX's launcher names them; memory, slots and lengths belong to the engine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ADAPTER_SOURCES", "BASE_MODEL_ADAPTER_ID", "ServerSettings"]

ADAPTER_SOURCES = ("hub", "local", "s3", "pbase")
"""Where adapters come from, as LoRAX spells it."""

BASE_MODEL_ADAPTER_ID = "__base_model__"
"""The id that means "no adapter" (LoRAX, router/src/adapter.rs)."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and defaults of one server. The numbers are the LoRAX launcher's defaults.

    Attributes:
        default_adapter_source: Source of a request that names none; one of ``ADAPTER_SOURCES``.
        max_concurrent_requests: Sequences accepted at once; one more is answered with status 429.
        max_best_of: Upper limit of ``best_of``.
        max_stop_sequences: Upper limit of the number of stop strings.
        keep_alive_seconds: Silence in a stream after which a comment line is sent.
        preloaded_adapter_ids: Loaded at the start from the default source; any other adapter is then refused.
        max_body_bytes: A larger request body is answered with status 413; axum's default.
        return_full_text: Default of the parameter of that name.
    """

    default_adapter_source: str = "hub"
    max_concurrent_requests: int = 1024
    max_best_of: int = 2
    max_stop_sequences: int = 4
    preloaded_adapter_ids: tuple[str, ...] = ()
    keep_alive_seconds: float = 15.0
    max_body_bytes: int = 2 * 1024 * 1024
    return_full_text: bool = False
