"""Rules about the deployment: its memory, its settings, and where it fetches adapters from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter import Source
from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity
from slipway.rules import Hit, Rule, rule

__all__ = ["RULES"]

_SHORTEST_ID: Final = 5
_SCHEMES: Final = {Source.S3: "s3://", Source.LOCAL: "file://"}


@rule(
    "memory.reservation",
    Severity.ERROR,
    Prediction.REJECT,
    Fix.MANUAL,
    source="utils/adapter.py, utils/sources/source.py",
)
def memory_reservation(evidence: Evidence) -> Iterator[Hit]:
    """More bytes than the server reserves for adapters; float32 counts double."""
    server, size = evidence.server, _tensor_bytes(evidence)
    if server.gpu_memory_bytes is None:
        return
    reserved = server.gpu_memory_bytes * server.adapter_memory_fraction
    if size > reserved:
        yield Hit(
            where=f"{size:,} bytes",
            message=f"The tensors have {size:,} bytes, and the server reserves {reserved:,.0f} for adapters "
            f"({server.adapter_memory_fraction:.0%} of a GPU). LoRAX refuses the adapter. "
            + (
                "Save it as bfloat16, which halves it, or raise --adapter-memory-fraction."
                if any(tensor.dtype in {"F32", "F64"} for tensor in evidence.tensors)
                else "Raise --adapter-memory-fraction, or train with a lower rank."
            ),
        )


@rule("server.preloading", Severity.ERROR, Prediction.REJECT, Fix.NONE, source="models/model.py")
def server_preloading(evidence: Evidence) -> Iterator[Hit]:
    """A server with preloaded adapters, which takes no others."""
    if evidence.server.preloads_adapters:
        yield Hit(
            message="The server was started with --preloaded-adapter-ids, which reserves no memory for any other "
            "adapter: it refuses this one. Serve it elsewhere; or preload it too, if all preloaded adapters change the "
            "same modules, since they read each other's rows otherwise.",
        )


@rule("source.short-id", Severity.WARNING, Prediction.REJECT, Fix.MANUAL, source="utils/sources/local.py, s3.py")
def source_short_id(evidence: Evidence) -> Iterator[Hit]:
    """A path or prefix of fewer than 5 characters, which LoRAX refuses to look for by prefix."""
    uri = evidence.bundle.uri
    for source, scheme in _SCHEMES.items():
        adapter_id = uri.removeprefix(scheme)
        if uri.startswith(scheme) and len(adapter_id) < _SHORTEST_ID:
            yield Hit(
                where=uri,
                message=f"As an id of the source {source}, {adapter_id!r} is too short: LoRAX answers 424, `too short "
                "for prefix filtering`. Give it a longer name if it is to be served from there.",
            )


def _tensor_bytes(evidence: Evidence) -> int:
    return sum(tensor.end - tensor.start for tensor in evidence.tensors)


RULES: Final[tuple[Rule, ...]] = (memory_reservation, server_preloading, source_short_id)
