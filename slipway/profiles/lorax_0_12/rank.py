"""Rules about ranks and the scale of the update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import CONFIG_NAME
from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed, plainly
from slipway.lora import module_type
from slipway.lora_scale import PatternError
from slipway.profiles.lorax_0_12.families import FAMILIES, type_of
from slipway.profiles.lorax_0_12.kernels import (
    LARGEST_GRAPH_RANK,
    LARGEST_KERNEL_RANK,
    has_rank_kernel,
    padded_rank,
)
from slipway.rules import Hit, Rule, rule

__all__ = ["RULES"]

_TOLERANCE: Final = 1e-9
"""Relative; scales are quotients of two numbers from a config."""


@rule("rank.config", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def rank_config(evidence: Evidence) -> Iterator[Hit]:
    """Tensors of another rank than the config gives them: what scale was trained is not known."""
    if evidence.config is None or isinstance(evidence.scales, PatternError):
        return
    scales = evidence.scales
    odd = [path for path, rank in evidence.ranks.items() if rank != scales[path].rank]
    if odd:
        ranks = sorted({evidence.ranks[path] for path in odd})
        yield Hit(
            where=f"{CONFIG_NAME}: r",
            message=f"The config says rank {scales[odd[0]].rank} and the tensors have rank "
            f"{plainly(ranks)} in {len(odd):,} of {len(evidence.lora.pairs):,} modules. LoRAX scales "
            "by lora_alpha over the config's rank, so that the adapter is too strong or too weak. Correct r, after "
            "finding out what was trained.",
        )


@rule("rank.patterns", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def rank_patterns(evidence: Evidence) -> Iterator[Hit]:
    """Patterns that Slipway does not evaluate, so that the trained scale is not known."""
    if isinstance(evidence.scales, PatternError) and evidence.lora.pairs:
        yield Hit(
            where=f"{CONFIG_NAME}: rank_pattern, alpha_pattern",
            message=f"{str(evidence.scales).capitalize()}. LoRAX ignores the patterns and scales everything alike. "
            "Write the modules out by name.",
        )


@rule(
    "rank.mixed-in-type", Severity.ERROR, Prediction.REJECT, Fix.FIT, source="adapters/lora.py: torch.stack",
    also=(Prediction.WRONG,),
)  # fmt: skip
def rank_mixed_in_type(evidence: Evidence) -> Iterator[Hit]:
    """Several ranks in one type (rank_pattern): LoRAX cannot stack its layers; or it can, and scales them alike."""
    parallel = evidence.server.tensor_parallel
    mixed = {kind: ranks for kind, ranks in _ranks_by_type(evidence).items() if len(ranks) > 1}
    if mixed:
        cannot = any(len({padded_rank(rank, parallel) for rank in ranks}) > 1 for ranks in mixed.values())
        yield Hit(
            prediction=Prediction.REJECT if cannot else Prediction.WRONG,
            where=plainly(mixed),
            message=f"Layers of one type have several ranks: {_listed_ranks(mixed)}. "
            + ("LoRAX cannot stack them and answers 424. " if cannot else "LoRAX scales them by one. ")
            + "`slipway fit` fills them up to one rank with zeros.",
        )


@rule("rank.mixed-across-types", Severity.ERROR, Prediction.WRONG, Fix.FIT, source="adapters/lora.py")
def rank_mixed_across_types(evidence: Evidence) -> Iterator[Hit]:
    """Types of another rank than the config's (rank_pattern): LoRAX scales all of them by the one in the config."""
    by_type, stated = _ranks_by_type(evidence), evidence.readable_config.r
    odd = {kind: ranks for kind, ranks in by_type.items() if len(ranks) == 1 and stated not in ranks}
    if evidence.readable_config.rank_pattern and odd and not isinstance(evidence.scales, PatternError):
        yield Hit(
            where=plainly(odd),
            message=f"These types have another rank than the config's {stated}: {_listed_ranks(odd)}. LoRAX scales "
            "them by lora_alpha over the config's rank. `slipway fit` brings all to one rank and "
            "one scale.",
        )


@rule("scale.rslora", Severity.ERROR, Prediction.WRONG, Fix.FIT, source="adapters/lora.py, poetry.lock: peft 0.4.0")
def scale_rslora(evidence: Evidence) -> Iterator[Hit]:
    """Rank-stabilised scaling: LoRAX divides by the rank, not by its root."""
    config = evidence.readable_config
    if evidence.is_lora and config.use_rslora and config.r > 1:
        yield Hit(
            where=f"{CONFIG_NAME}: use_rslora",
            message="The adapter was trained with rsLoRA, lora_alpha over the root of the rank. LoRAX does not read "
            f"that and divides by the rank: {config.r**0.5:.3g} times too weak. `slipway fit` writes it as a "
            "plain scale.",
        )


@rule("scale.alpha-pattern", Severity.ERROR, Prediction.WRONG, Fix.FIT, source="adapters/lora.py, peft 0.4.0")
def scale_alpha_pattern(evidence: Evidence) -> Iterator[Hit]:
    """An alpha of their own for some modules: LoRAX scales all by lora_alpha."""
    config = evidence.readable_config
    if not config.alpha_pattern or isinstance(evidence.scales, PatternError):
        return
    other = [path for path, scale in evidence.scales.items() if not _is_close(scale.alpha, config.lora_alpha)]
    if other:
        yield Hit(
            where=listed(other),
            message=f"{len(other):,} of {len(evidence.scales):,} modules have an alpha of their own. LoRAX does not "
            "read alpha_pattern and scales all alike. `slipway fit` brings them to one scale.",
        )


@rule("scale.zero", Severity.ERROR, Prediction.OK, Fix.MANUAL, source="adapters/lora.py: unchecked")
def scale_zero(evidence: Evidence) -> Iterator[Hit]:
    """lora_alpha is 0: served faithfully, an adapter that changes nothing."""
    if isinstance(evidence.scales, PatternError) or not evidence.scales:
        return
    if all(not scale.factor for scale in evidence.scales.values()):
        yield Hit(
            where=f"{CONFIG_NAME}: lora_alpha",
            message="lora_alpha is 0, so that the adapter has no effect. LoRAX serves it, and its answers are the base "
            "model's. Write down what was trained.",
        )


@rule("scale.negative", Severity.WARNING, Prediction.OK, Fix.MANUAL, source="adapters/lora.py: unchecked")
def scale_negative(evidence: Evidence) -> Iterator[Hit]:
    """lora_alpha is negative: LoRAX subtracts what was learnt."""
    if evidence.lora.pairs and evidence.readable_config.lora_alpha < 0:
        yield Hit(
            where=f"{CONFIG_NAME}: lora_alpha",
            message="lora_alpha is negative, so that what was learnt is subtracted, in PEFT as in LoRAX. "
            "Make sure that this is meant.",
        )


@rule("rank.padding", Severity.ERROR, Prediction.WRONG, Fix.FIT, source="adapters/lora.py, utils/punica.py: pad_rank")
def rank_padding(evidence: Evidence) -> Iterator[Hit]:
    """A rank that LoRAX pads: it then overwrites r, and scales every type after the first by the padded one."""
    padded, types = _padded_ranks(evidence), _ranks_by_type(evidence)
    if padded and len(types) > 1:
        rank, wider = next(iter(padded.items()))
        yield Hit(
            where=plainly(padded),
            message=f"LoRAX pads rank {rank} to {wider}{_on(evidence)}, writes that into its config after the first "
            f"type, and scales the other {len(types) - 1} types by {rank}/{wider} of what was trained. `slipway fit` "
            "pads with zeros and corrects the scale.",
        )


@rule("rank.padding-reload", Severity.WARNING, Prediction.WRONG, Fix.FIT, source="adapters/lora.py, utils/adapter.py")
def rank_padding_reload(evidence: Evidence) -> Iterator[Hit]:
    """A rank that LoRAX pads, and only one type: right at first, wrong after it was evicted and loaded again."""
    padded, types = _padded_ranks(evidence), _ranks_by_type(evidence)
    if padded and len(types) == 1:
        rank, wider = next(iter(padded.items()))
        yield Hit(
            where=plainly(padded),
            message=f"LoRAX pads rank {rank} to {wider}{_on(evidence)} and keeps that in its config, so that it may "
            f"scale by {rank}/{wider} of what was trained after it has evicted the adapter and loads it again. "
            "`slipway fit` pads with zeros and corrects the scale.",
        )


@rule(
    "rank.no-kernel", Severity.ERROR, Prediction.REJECT, Fix.FIT,
    source="punica_kernels/bgmv/bgmv_config.h, punica_kernels/sgmv_flashinfer/sgmv_config.h",
)  # fmt: skip
def rank_no_kernel(evidence: Evidence) -> Iterator[Hit]:
    """A rank per GPU without a kernel: it loads, and then every batch that it is in fails."""
    parallel = evidence.server.tensor_parallel
    ranks = sorted(rank for rank in set(evidence.ranks.values()) if not has_rank_kernel(rank, parallel))
    if ranks:
        shown_ranks = plainly(ranks)
        yield Hit(
            where=shown_ranks,
            message=f"LoRAX has no kernel for rank {shown_ranks}{_on(evidence)}. The adapter loads, and then every "
            "batch that it is in fails with `No suitable kernel`, other people's requests too. `slipway fit` pads to "
            "the next rank that has one.",
        )


@rule("rank.slow", Severity.WARNING, Prediction.OK, Fix.NONE, source="adapters/lora.py")
def rank_slow(evidence: Evidence) -> Iterator[Hit]:
    """A rank above all kernels: served by a loop in PyTorch."""
    limit = LARGEST_KERNEL_RANK * evidence.server.tensor_parallel
    largest = max(evidence.ranks.values(), default=0)
    if padded_rank(largest, evidence.server.tensor_parallel) > limit:
        yield Hit(
            where=str(largest),
            message=f"Rank {largest} is above {limit}, the largest with a kernel{_on(evidence)}. LoRAX computes it in "
            "a loop over adapters, which is slow.",
        )


@rule("rank.no-graph", Severity.NOTE, Prediction.OK, Fix.NONE, source="launcher: compile_max_rank")
def rank_no_graph(evidence: Evidence) -> Iterator[Hit]:
    """A rank above those that CUDA graphs are used for."""
    largest = max(evidence.ranks.values(), default=0)
    limit = LARGEST_KERNEL_RANK * evidence.server.tensor_parallel
    if LARGEST_GRAPH_RANK < largest <= limit:
        yield Hit(
            where=str(largest),
            message=f"LoRAX uses CUDA graphs up to rank {LARGEST_GRAPH_RANK}; with rank {largest} it decodes without "
            "them.",
        )


def _ranks_by_type(evidence: Evidence) -> dict[str, set[int]]:
    """Ranks of what LoRAX would load, by type in its order; by the path's last part where the family is not known."""
    family = evidence.base.model_type if evidence.base is not None else ""
    ranks: dict[str, set[int]] = {}
    for path, rank in evidence.ranks.items():
        kind = type_of(path, family) if family in FAMILIES else module_type(path)
        if kind is not None:
            ranks.setdefault(kind, set()).add(rank)
    order = FAMILIES.get(family, ())
    return dict(
        sorted(ranks.items(), key=lambda item: (order.index(item[0]) if item[0] in order else len(order), item[0]))
    )


def _padded_ranks(evidence: Evidence) -> dict[int, int]:
    parallel = evidence.server.tensor_parallel
    ranks = sorted({rank for ranks in _ranks_by_type(evidence).values() for rank in ranks})
    return {rank: padded for rank in ranks if (padded := padded_rank(rank, parallel)) != rank}


def _listed_ranks(ranks: dict[str, set[int]]) -> str:
    return plainly(
        f"{kind} {min(found)}" + (f" to {max(found)}" if len(found) > 1 else "") for kind, found in ranks.items()
    )


def _on(evidence: Evidence) -> str:
    parallel = evidence.server.tensor_parallel
    return f" on {parallel} GPUs" if parallel > 1 else ""


def _is_close(first: float, second: float) -> bool:
    return abs(first - second) <= _TOLERANCE * max(abs(first), abs(second))


RULES: Final[tuple[Rule, ...]] = (
    rank_config,
    rank_patterns,
    rank_mixed_in_type,
    rank_mixed_across_types,
    scale_rslora,
    scale_alpha_pattern,
    scale_zero,
    rank_padding,
    rank_no_kernel,
    scale_negative,
    rank_padding_reload,
    rank_slow,
    rank_no_graph,
)
