"""Rules about whether the adapter belongs to the base model, by name and by shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import CONFIG_NAME, AdapterConfig
from slipway.adapter_evidence import Evidence
from slipway.base_model import BaseModel
from slipway.findings import Fix, Prediction, Severity, listed
from slipway.lora import LoraPair, OtherKind, layer_of, module_type
from slipway.profiles.lorax_0_12.families import FAMILIES, WITHOUT_ADAPTERS, WITHOUT_RESERVATION
from slipway.rules import Hit, Rule, rule
from slipway.tensors import shown

__all__ = ["RULES"]

_KEY: Final = f"{CONFIG_NAME}: base_model_name_or_path"
_FROM_HIDDEN: Final = frozenset(
    {
        "q_proj",
        "k_proj",
        "v_proj",
        "qkv_proj",
        "gate_proj",
        "up_proj",
        "gate_up_proj",
        "fc1",
        "c_fc",
        "c_attn",
        "lm_head",
    }
)
"""Types whose inputs are the residual stream."""


@rule("base.family-not-served", Severity.ERROR, Prediction.REJECT, Fix.NONE, source="models/__init__.py")
def base_family_not_served(evidence: Evidence) -> Iterator[Hit]:
    """A base of a family that LoRAX does not know: the server does not start."""
    family = _family(evidence)
    if family and family not in FAMILIES and family not in WITHOUT_ADAPTERS | WITHOUT_RESERVATION:
        yield Hit(
            where=family,
            message=f"LoRAX does not know the family {shown(family)}, and a server for {_label(evidence)} does not "
            "start. Serve it with something else.",
        )


@rule("base.family-without-adapters", Severity.ERROR, Prediction.REJECT, Fix.NONE, source="models/model.py")
def base_family_without_adapters(evidence: Evidence) -> Iterator[Hit]:
    """A base of a family that LoRAX serves without adapters."""
    if (family := _family(evidence)) in WITHOUT_ADAPTERS:
        yield Hit(
            where=family,
            message=f"LoRAX takes no adapters for the family {shown(family)}: `This model does not support adapter "
            "loading.` Merge it into the base and serve that.",
        )


@rule("base.family-without-reservation", Severity.ERROR, Prediction.REJECT, Fix.NONE, source="models/model.py")
def base_family_without_reservation(evidence: Evidence) -> Iterator[Hit]:
    """A base that LoRAX runs without flash attention, where it reserves no memory for adapters."""
    if (family := _family(evidence)) in WITHOUT_RESERVATION:
        yield Hit(
            where=family,
            message=f"LoRAX reserves no memory for adapters of {shown(family)} models, and refuses each: `This model "
            "cannot load adapters dynamically.` Merge it into the base and serve that.",
        )


@rule("base.mismatch", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="utils/adapter.py: check_architectures")
def base_mismatch(evidence: Evidence) -> Iterator[Hit]:
    """Another base by name: LoRAX compares names, then only the architecture lists of the two configs."""
    base, name = evidence.base, _trained_on(evidence)
    if base is not None and base.id and name and not base.answers_to(name) and not _is_path(name):
        yield Hit(
            where=_KEY,
            message=f"The adapter was trained on {shown(name)}, not on {base.id}. LoRAX refuses it with 424 if the "
            "architectures differ, and else applies it to the wrong weights. Release it on its own base; if both names "
            f"mean the same weights, add {shown(name)} to the aliases in the base's facts.",
        )


@rule(
    "base.architecture", Severity.ERROR, Prediction.DROP, Fix.MANUAL, also=(Prediction.REJECT,),
    source="utils/adapter.py, adapters/lora.py",
)  # fmt: skip
def base_architecture(evidence: Evidence) -> Iterator[Hit]:
    """Another architecture: by the class that the config names, or because no module has a counterpart in the base."""
    base, trained = evidence.base, evidence.readable_config.auto_mapping
    if base is None:
        return
    if trained and base.architectures and trained not in base.architectures:
        yield Hit(
            prediction=Prediction.REJECT,
            where=f"{CONFIG_NAME}: auto_mapping",
            message=f"The adapter was trained on a {shown(trained)}, and {base.label} is a {base.architectures[0]}. "
            "LoRAX refuses it with 424 if it can read both configs. Release it on its own base.",
        )
    elif _shares_nothing(evidence):
        yield Hit(
            where=listed(evidence.lora.pairs),
            message=f"No module of the adapter exists in {base.label}: it belongs to another architecture. LoRAX "
            "answers 200 with the text of the base model. Release it on its own base.",
        )


@rule("base.layers", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def base_layers(evidence: Evidence) -> Iterator[Hit]:
    """Layers that the base has not: LoRAX ignores them."""
    base = evidence.base
    if base is None or not base.layers or evidence.readable_config.layer_replication:
        return
    beyond = [path for path in evidence.lora.pairs if (layer_of(path) or 0) >= base.layers]
    if beyond:
        last = max(layer_of(path) or 0 for path in beyond)
        yield Hit(
            where=listed(beyond),
            message=f"The adapter has layers up to number {last}, and {base.label} has {base.layers} layers. LoRAX "
            "ignores the others. Release it on its own base.",
        )


@rule("base.fewer-layers", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="adapters/lora.py")
def base_fewer_layers(evidence: Evidence) -> Iterator[Hit]:
    """No weights for the last layers, nothing in the config that says why, and no base named."""
    base, name = evidence.base, _trained_on(evidence)
    if base is None or not base.layers or (name and not _is_path(name)) or _names_layers(evidence.readable_config):
        return
    layers = {layer for path in evidence.lora.pairs if (layer := layer_of(path)) is not None}
    if layers and max(layers) + 1 < base.layers:
        yield Hit(
            where=f"layers {max(layers) + 1} to {base.layers - 1}",
            message=f"The adapter ends with layer {max(layers)}, {base.label} with layer {base.layers - 1}, and "
            "nothing in the config says why. LoRAX drops every type that is incomplete. Release it on its own base.",
        )


@rule("base.hidden-size", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def base_hidden_size(evidence: Evidence) -> Iterator[Hit]:
    """Made for a model of another width: LoRAX does not look, and a kernel fails or reads other memory."""
    width = _other_width(evidence)
    if width is not None and evidence.base is not None:
        yield Hit(
            message=f"The adapter was trained on a model of hidden size {width}, and {evidence.base.label} has "
            f"{evidence.base.hidden_size}. LoRAX does not look, and then fails whole batches or computes nonsense. "
            "Release it on its own base.",
        )


@rule("base.shape", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="adapters/lora.py")
def base_shape(evidence: Evidence) -> Iterator[Hit]:
    """Matrices that do not fit the base's: LoRAX does not look, and a kernel fails or reads other memory."""
    base = evidence.base
    if base is None or base.modules is None or _other_width(evidence) is not None:
        return
    misfits = [pair for pair in evidence.lora.pairs.values() if not _fits(pair, base)]
    if misfits:
        rows, columns = base.modules[misfits[0].path]
        yield Hit(
            where=listed(pair.path for pair in misfits),
            message=f"{len(misfits):,} of {len(evidence.lora.pairs):,} modules do not have the size of {base.label}: "
            f"the first is for {_described(misfits[0])}, where the base has {columns} inputs and {rows} outputs. LoRAX "
            "does not look, and then fails whole batches or computes nonsense. Release it on its own base.",
        )


@rule("base.vocabulary", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="models/flash_causal_lm.py")
def base_vocabulary(evidence: Evidence) -> Iterator[Hit]:
    """Embeddings for fewer tokens than the base has: trained on another vocabulary."""
    base = evidence.base
    small = [
        tensor
        for tensor in evidence.others.get(OtherKind.EMBEDDING, ())
        if base is not None and base.vocab_size and len(tensor.shape) == 2 and tensor.shape[0] < base.vocab_size
    ]
    if small and base is not None:
        yield Hit(
            where=listed(tensor.name for tensor in small),
            message=f"The adapter has embeddings for {small[0].shape[0]:,} tokens, and {base.label} has "
            f"{base.vocab_size:,}. LoRAX uses the base's tokenizer and embeddings. Release it on its own base.",
        )


@rule("base.path", Severity.WARNING, Prediction.OK, Fix.FIT, source="utils/adapter.py")
def base_path(evidence: Evidence) -> Iterator[Hit]:
    """A path of another machine as base: LoRAX cannot look there and takes the adapter unverified."""
    base, name = evidence.base, _trained_on(evidence)
    if base is not None and base.id and not base.answers_to(name) and _is_path(name):
        yield Hit(
            where=_KEY,
            message=f"The adapter was trained on {shown(name)}, a path on another machine. LoRAX cannot look there and "
            f"takes the adapter unverified. Write {base.id} there if that is what it was.",
        )


@rule("base.unnamed", Severity.WARNING, Prediction.OK, Fix.FIT, source="utils/adapter.py, issues 315 and 430")
def base_unnamed(evidence: Evidence) -> Iterator[Hit]:
    """No base in the config: LoRAX skips its check."""
    config = evidence.readable_config
    if evidence.config is not None and not config.base_model_name_or_path and not config.problems:
        yield Hit(
            where=_KEY,
            message="The config names no base model. LoRAX checks nothing then, and may wait ten seconds for a model "
            "without a name. Fill in the name that the deployment serves.",
        )


@rule("base.alias", Severity.NOTE, Prediction.OK, Fix.FIT, source="utils/adapter.py, issue 311")
def base_alias(evidence: Evidence) -> Iterator[Hit]:
    """The base under another of its names: LoRAX compares texts, and asks the Hub for a config before it accepts."""
    base, name = evidence.base, _trained_on(evidence)
    if base is not None and base.id and name != base.id and base.answers_to(name):
        yield Hit(
            where=_KEY,
            message=f"The base is named {shown(name)}, and served as {base.id}. LoRAX sees two names, asks the Hub for "
            "the other's config, and accepts the adapter after that.",
        )


@rule("base.unverified", Severity.NOTE, Prediction.OK, Fix.NONE, source="adapters/lora.py")
def base_unverified(evidence: Evidence) -> Iterator[Hit]:
    """Nothing to compare shapes and module names with; LoRAX does not compare them either."""
    base = evidence.base
    if base is not None and base.modules is not None:
        return
    missing = "No base model was given" if base is None else f"The layers of {base.label} are not known"
    yield Hit(
        message=f"{missing}, so that shapes and module names were not compared with it. "
        "Give --base a Hub id, a model's directory or a file of base facts.",
    )


def _names_layers(config: AdapterConfig) -> bool:
    """Whether the config may leave layers out on purpose."""
    named = config.target_modules
    return bool(
        config.layers_to_transform
        or config.exclude_modules
        or (isinstance(named, str) and named != "all-linear")
        or any(layer_of(name) is not None for name in (named or ()))
    )


def _trained_on(evidence: Evidence) -> str:
    return evidence.readable_config.base_model_name_or_path or ""


def _family(evidence: Evidence) -> str:
    return evidence.base.model_type if evidence.base is not None else ""


def _label(evidence: Evidence) -> str:
    return evidence.base.label if evidence.base is not None else "it"


def _is_path(name: str) -> bool:
    """Whether this is no Hub id: those have at most one slash, and not in front."""
    return name.startswith(("/", "./", "../", "~")) or "\\" in name or name.count("/") > 1


def _shares_nothing(evidence: Evidence) -> bool:
    """Whether no pair's kind of module, its layer's number aside, is in the base."""
    base = evidence.base
    if base is None or base.modules is None or not evidence.lora.pairs:
        return False
    known = {_without_number(path) for path in base.modules}
    return all(_without_number(path) not in known for path in evidence.lora.pairs)


def _without_number(path: str) -> str:
    return ".".join(part for part in path.split(".") if not part.isdecimal())


def _other_width(evidence: Evidence) -> int | None:
    """Give the width of the model that all modules on the residual stream were made for, if it is not the base's."""
    base = evidence.base
    if base is None or base.hidden_size is None:
        return None
    pairs = evidence.lora.pairs.values()
    widths = {pair.inputs for pair in pairs if module_type(pair.path) in _FROM_HIDDEN and pair.inputs is not None}
    return widths.pop() if len(widths) == 1 and base.hidden_size not in widths else None


def _fits(pair: LoraPair, base: BaseModel) -> bool:
    if base.modules is None or pair.path not in base.modules:
        return True
    rows, columns = base.modules[pair.path]
    return pair.inputs in {None, columns} and pair.outputs in {None, rows}


def _described(pair: LoraPair) -> str:
    inputs = "unknown" if pair.inputs is None else pair.inputs
    outputs = "unknown" if pair.outputs is None else pair.outputs
    return f"{inputs} inputs and {outputs} outputs"


RULES: Final[tuple[Rule, ...]] = (
    base_family_not_served,
    base_family_without_adapters,
    base_family_without_reservation,
    base_mismatch,
    base_architecture,
    base_layers,
    base_fewer_layers,
    base_hidden_size,
    base_shape,
    base_vocabulary,
    base_path,
    base_unnamed,
    base_alias,
    base_unverified,
)
