"""Where the evidence came from, in words: the server, how answers were generated, what was drawn at random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from slipway.bootstrap import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED
from slipway.ledger import Json
from slipway.report.texts import grouped
from slipway.suite import Suite
from slipway.targets import Target

__all__ = ["generation_facts", "server_facts"]

SHOWN_VALUES = 4


def server_facts(target: Target, *, address: str = "", told: Mapping[str, Json] | None = None) -> Mapping[str, str]:
    """What the target's file says of its server, prices and judge, and what the server told of itself.

    Args:
        target: As read.
        address: Where the answers came from; empty where none were asked for.
        told: By ``/info`` of LoRAX, when they were.
    """
    told = told or {}
    server, prices = target.server, target.prices
    judge = target.judge
    return {
        "kind": str(target.kind),
        "address": address,
        "version": str(told.get("version") or ""),
        "model": str(told.get("model_id") or ""),
        "precision": str(told.get("model_dtype") or ""),
        "tokens of prompt and answer, at most": str(told.get("max_total_tokens") or ""),
        "profile": server.profile,
        "GPUs that share the model": str(server.tensor_parallel),
        "memory of a GPU": f"{server.gpu_memory_gb:g} GB" if server.gpu_memory_gb is not None else "",
        "accelerator": target.deployment.accelerator or target.deployment.compute_sku or "",
        "requests in flight, at most": str(target.max_concurrency),
        "price of a GPU hour": f"${prices.gpu_hour_usd:g}" if prices.gpu_hour_usd is not None else "",
        "price of a million tokens": f"${prices.million_tokens_usd:g}" if prices.million_tokens_usd is not None else "",
        "judge": (judge.model or "") if judge else "",
        "embeddings": (judge.embeddings_model or "") if judge else "",
    }


def generation_facts(suite: Suite, target: Target) -> Mapping[str, str]:
    """How answers were generated, and what the intervals drew at random."""
    settings = [case.generation for case in suite.cases]
    return {
        "max_new_tokens": _values((one.max_tokens for one in settings), default=target.max_new_tokens),
        "temperature": _values((one.temperature for one in settings), default="0 (greedy)"),
        "top_p": _values((one.top_p for one in settings), default=""),
        "top_k": _values((one.top_k for one in settings), default=""),
        "seed": _values((one.seed for one in settings), default=""),
        "bootstrap": f"{grouped(BOOTSTRAP_DRAWS)} draws, seed {BOOTSTRAP_SEED}",
    }


def _values(values: Iterable[object], *, default: object) -> str:
    """List the different values of all cases; what a case leaves out is the default."""
    distinct = dict.fromkeys(str(default if value is None else value) for value in values)
    shown = [value for value in distinct if value][:SHOWN_VALUES]
    return ", ".join(shown) + (", …" if len(distinct) > SHOWN_VALUES else "")
