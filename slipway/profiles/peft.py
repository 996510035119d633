"""What PEFT itself does with an adapter: the function that was trained, and what it cannot load or computes wrongly.

Beside a server's profile this shows what is the server's doing: rsLoRA, patterns, DoRA, saved modules, layers left out
and any rank are fine here. Read from https://github.com/huggingface/peft 0.21, paths below ``src/peft``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from slipway.adapter_config import CONFIG_NAME, AdapterConfig, ConfigProblem
from slipway.adapter_evidence import Evidence
from slipway.findings import Fix, Prediction, Severity, listed
from slipway.lora import LoraPair, OtherKind
from slipway.lora_scale import PatternError
from slipway.rules import Hit, Rule, ServerProfile, rule
from slipway.tensors import Header, HeaderProblem, shown

__all__ = ["PEFT"]

_WEIGHTS_NAME: Final = "adapter_model.safetensors"
_PICKLE_NAME: Final = "adapter_model.bin"
_FLOATS: Final = frozenset({"BF16", "F16", "F32", "F64"})
_AT_LOADING: Final = ("pissa", "olora", "loftq")


@rule("config.missing", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="config.py: from_pretrained")
def config_missing(evidence: Evidence) -> Iterator[Hit]:
    """No adapter_config.json."""
    if evidence.config is None:
        yield Hit(
            where=evidence.bundle.uri, message=f"There is no {CONFIG_NAME}. PEFT raises: it finds no adapter here."
        )


@rule("config.unreadable", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="config.py: from_json_file")
def config_unreadable(evidence: Evidence) -> Iterator[Hit]:
    """A config that is no JSON object."""
    if isinstance(evidence.config, ConfigProblem):
        message = (
            f"The config cannot be read: {evidence.config.message}. PEFT raises. Save or download the adapter again."
        )
        yield Hit(where=CONFIG_NAME, message=message)


@rule("config.value", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="tuners/lora/config.py")
def config_value(evidence: Evidence) -> Iterator[Hit]:
    """A value of the wrong type: PEFT raises, or takes it for something that was not trained."""
    for problem in evidence.readable_config.problems:
        yield Hit(
            where=f"{CONFIG_NAME}: {problem.key}",
            message=f"{problem.message}. PEFT does not check it and fails on it later. Save the adapter again with "
            "PEFT.",
        )


@rule("config.peft-type-unnamed", Severity.ERROR, Prediction.REJECT, Fix.FIT, source="config.py: _get_peft_type")
def config_peft_type_unnamed(evidence: Evidence) -> Iterator[Hit]:
    """No method named."""
    config = evidence.config
    if isinstance(config, AdapterConfig) and "peft_type" not in config.present and evidence.foreign_format is None:
        yield Hit(
            where=f"{CONFIG_NAME}: peft_type",
            message="The config does not name its method, and PEFT raises. "
            'Add "peft_type": "LORA" if that is what it is.',
        )


@rule("config.peft-type", Severity.NOTE, Prediction.OK, Fix.NONE, source="mapping.py")
def config_peft_type(evidence: Evidence) -> Iterator[Hit]:
    """Another method than LoRA: PEFT loads it, and nothing is said about its tensors here."""
    if evidence.readable_config.peft_type not in {"", "LORA"}:
        yield Hit(
            where=f"{CONFIG_NAME}: peft_type",
            message=f"This is a {shown(evidence.readable_config.peft_type)} adapter. Only LoRA's tensors are judged.",
        )


@rule("format.foreign", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="utils/save_and_load.py")
def format_foreign(evidence: Evidence) -> Iterator[Hit]:
    """Weights of another library, or of a whole model."""
    if evidence.foreign_format is not None:
        yield Hit(
            where=evidence.bundle.uri,
            message=f"This is no adapter of PEFT's but something else ({evidence.foreign_format}), and PEFT cannot "
            "load it.",
        )


@rule("weights.missing", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="utils/save_and_load.py")
def weights_missing(evidence: Evidence) -> Iterator[Hit]:
    """No weights under the name that PEFT looks for."""
    names = {file.name for file in evidence.bundle.files}
    if not names & {_WEIGHTS_NAME, _PICKLE_NAME}:
        message = f"There is no {_WEIGHTS_NAME}. PEFT looks for that name only, and raises."
        yield Hit(where=evidence.bundle.uri, message=message)


@rule("weights.unreadable", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="utils/save_and_load.py")
def weights_unreadable(evidence: Evidence) -> Iterator[Hit]:
    """Weights that are not readable as safetensors."""
    for weights in evidence.weights:
        if isinstance(weights.header, HeaderProblem) and weights.file.name == _WEIGHTS_NAME:
            yield Hit(
                where=shown(weights.file.name),
                message=f"This is not a readable safetensors file: {weights.header.message}. PEFT raises. "
                "Save or download it again.",
            )


@rule("weights.several", Severity.ERROR, Prediction.DROP, Fix.FIT, source="utils/save_and_load.py")
def weights_several(evidence: Evidence) -> Iterator[Hit]:
    """Several safetensors files: PEFT reads one of them."""
    others = [weights.file.name for weights in evidence.weights if weights.file.name != _WEIGHTS_NAME]
    if others and len(evidence.weights) > 1:
        yield Hit(where=listed(others), message=f"PEFT reads {_WEIGHTS_NAME} alone. `slipway fit` joins the files.")


@rule("tensors.none", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="utils/save_and_load.py")
def tensors_none(evidence: Evidence) -> Iterator[Hit]:
    """No LoRA matrix in a readable file: PEFT warns of missing keys and computes the base model."""
    is_readable = any(isinstance(weights.header, Header) for weights in evidence.weights)
    if is_readable and evidence.is_lora and not evidence.tensors:
        yield Hit(
            where=listed(weights.file.name for weights in evidence.weights),
            message="There is nothing in the weights. PEFT warns of missing keys and computes the base model.",
        )


@rule("tensors.empty", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="utils/save_and_load.py")
def tensors_empty(evidence: Evidence) -> Iterator[Hit]:
    """Matrices without elements, as DeepSpeed ZeRO-3 leaves behind when they are not gathered before saving."""
    empty = [pair for pair in evidence.lora.pairs.values() if _is_empty(pair)]
    if empty:
        yield Hit(
            where=listed(pair.path for pair in empty),
            message=f"{len(empty):,} modules have matrices without elements, and PEFT raises for their size. Gather "
            "the weights before saving.",
        )


@rule("tensors.foreign", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="utils/save_and_load.py")
def tensors_foreign(evidence: Evidence) -> Iterator[Hit]:
    """Tensors of no known meaning: PEFT ignores keys that it does not expect."""
    if foreign := evidence.others.get(OtherKind.UNKNOWN, ()):
        yield Hit(
            where=listed(tensor.name for tensor in foreign),
            message=f"{len(foreign):,} of {len(evidence.tensors):,} tensors are named as PEFT names none. It ignores "
            "them.",
        )


@rule("tensors.renamed", Severity.ERROR, Prediction.DROP, Fix.FIT, source="utils/save_and_load.py")
def tensors_renamed(evidence: Evidence) -> Iterator[Hit]:
    """Keys with a prefix or infix that the base's modules have not."""
    if renamed := evidence.lora.renamed:
        yield Hit(
            where=listed(renamed),
            message=f"{len(renamed):,} of {len(evidence.tensors):,} tensors have another name than PEFT looks for. It "
            "warns of missing keys and leaves them out. `slipway fit` names them as the base does.",
        )


@rule("tensors.unmatched", Severity.ERROR, Prediction.DROP, Fix.MANUAL, source="utils/save_and_load.py")
def tensors_unmatched(evidence: Evidence) -> Iterator[Hit]:
    """Modules that the base has not."""
    base = evidence.base
    if base is None or base.modules is None or evidence.readable_config.layer_replication:
        return
    unmatched = [path for path in evidence.lora.pairs if path not in base.modules and not _is_parameter(evidence, path)]
    if unmatched:
        yield Hit(
            where=listed(unmatched),
            message=f"{len(unmatched):,} of {len(evidence.lora.pairs):,} modules do not exist in {base.label}. PEFT "
            "leaves them out. Load it on its own base.",
        )


@rule("tensors.unpaired", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="utils/save_and_load.py")
def tensors_unpaired(evidence: Evidence) -> Iterator[Hit]:
    """A matrix without its partner, which PEFT then leaves as it was initialised."""
    unpaired = [pair for pair in evidence.lora.pairs.values() if pair.a is None or pair.b is None]
    if unpaired:
        yield Hit(
            where=listed(pair.path for pair in unpaired),
            message=f"{len(unpaired):,} modules have only one of lora_A and lora_B. PEFT warns, and computes with a "
            "random or zero matrix in the other's place. Save the adapter again.",
        )


@rule("tensors.dtype", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="utils/save_and_load.py")
def tensors_dtype(evidence: Evidence) -> Iterator[Hit]:
    """Numbers that are no plain floats: PEFT copies them into floats as if they were."""
    sides = [side for pair in evidence.lora.pairs.values() for side in (pair.a, pair.b) if side is not None]
    packed = [side for side in sides if side.dtype not in _FLOATS]
    if packed:
        yield Hit(
            where=listed(tensor.name for tensor in packed),
            message=f"{len(packed):,} matrices are no floats of 16 bits or more. PEFT copies them as if they were.",
        )


@rule("base.mismatch", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="peft_model.py: compares nothing")
def base_mismatch(evidence: Evidence) -> Iterator[Hit]:
    """Another base by name, which PEFT does not compare."""
    base, name = evidence.base, evidence.readable_config.base_model_name_or_path
    is_hub_id = bool(name) and name is not None and name.count("/") == 1 and not name.startswith(("/", ".", "~"))
    if base is not None and base.id and name and is_hub_id and not base.answers_to(name):
        yield Hit(
            where=f"{CONFIG_NAME}: base_model_name_or_path",
            message=f"The adapter was trained on {shown(name)}, not on {base.id}. PEFT does not compare names and "
            "applies it to any model of the same shapes.",
        )


@rule("base.shape", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="utils/save_and_load.py")
def base_shape(evidence: Evidence) -> Iterator[Hit]:
    """Matrices that do not fit the base's, or each other: loading them raises."""
    base = evidence.base
    modules = (base.modules if base is not None else None) or {}
    misfits = [
        pair.path
        for pair in evidence.lora.pairs.values()
        if not _is_empty(pair) and (not pair.multiplies or not _fits(pair, modules.get(pair.path)))
    ]
    if misfits:
        yield Hit(
            where=listed(misfits),
            message=f"{len(misfits):,} of {len(evidence.lora.pairs):,} modules have matrices of another size than "
            "their layer. PEFT raises: `size mismatch`.",
        )


@rule("rank.config", Severity.ERROR, Prediction.REJECT, Fix.MANUAL, source="tuners/lora/model.py")
def rank_config(evidence: Evidence) -> Iterator[Hit]:
    """Tensors of another rank than r and rank_pattern give them: loading them raises."""
    scales = evidence.scales
    if isinstance(scales, PatternError) or evidence.config is None:
        return
    odd = [path for path, pair in evidence.lora.pairs.items() if pair.rank and pair.rank != scales[path].rank]
    if odd:
        yield Hit(
            where=listed(odd),
            message=f"{len(odd):,} modules have another rank than the config gives them. PEFT raises: `size mismatch`. "
            "Correct r, after finding out what was trained.",
        )


@rule("init.residual", Severity.WARNING, Prediction.OK, Fix.MANUAL, source="tuners/lora/layer.py: update_layer")
def init_residual(evidence: Evidence) -> Iterator[Hit]:
    """PiSSA, OLoRA or LoftQ, not converted: PEFT takes the base's weights apart again whenever it loads the adapter."""
    name = evidence.readable_config.init_lora_weights
    if evidence.is_lora and isinstance(name, str) and name.lower().startswith(_AT_LOADING):
        yield Hit(
            where=f"{CONFIG_NAME}: init_lora_weights",
            message=f"With {shown(name)} PEFT changes the base's weights while it loads the adapter: right on the base "
            "that it was trained on and with no other adapter beside it. Save it converted.",
        )


@rule("weights.nonfinite", Severity.ERROR, Prediction.WRONG, Fix.MANUAL, source="unchecked")
def weights_nonfinite(evidence: Evidence) -> Iterator[Hit]:
    """NaN or infinity."""
    names = [name for weights in evidence.weights if weights.scan for name in weights.scan.nonfinite]
    if names:
        yield Hit(
            where=listed(names),
            message=f"{len(names):,} of {len(evidence.tensors):,} tensors have NaN or infinity in them, and so do the "
            "results.",
        )


@rule("weights.no-effect", Severity.ERROR, Prediction.OK, Fix.MANUAL, source="unchecked")
def weights_no_effect(evidence: Evidence) -> Iterator[Hit]:
    """One matrix of every pair zero, as before the first step."""
    pairs = evidence.lora.pairs.values()
    if pairs and all(
        any(side is not None and side.name in evidence.zero for side in (pair.a, pair.b)) for pair in pairs
    ):
        message = "In every pair one of the matrices is zero throughout: the base model is what is computed."
        yield Hit(where=listed(evidence.lora.pairs), message=message)


def _is_empty(pair: LoraPair) -> bool:
    return any(side is not None and not side.elements for side in (pair.a, pair.b))


def _is_parameter(evidence: Evidence, path: str) -> bool:
    """Whether this may be one of ``target_parameters``, whose LoRA is kept at the module around the parameter."""
    return bool(evidence.readable_config.target_parameters) and ".experts" in path


def _fits(pair: LoraPair, shape: tuple[int, int] | None) -> bool:
    return shape is None or (pair.outputs in {None, shape[0]} and pair.inputs in {None, shape[1]})


_RULES: Final[tuple[Rule, ...]] = (
    config_missing,
    config_unreadable,
    config_value,
    config_peft_type_unnamed,
    format_foreign,
    weights_missing,
    weights_unreadable,
    weights_several,
    tensors_none,
    tensors_empty,
    tensors_foreign,
    tensors_renamed,
    tensors_unmatched,
    tensors_unpaired,
    tensors_dtype,
    base_mismatch,
    base_shape,
    rank_config,
    init_residual,
    weights_nonfinite,
    weights_no_effect,
    config_peft_type,
)

PEFT: Final = ServerProfile(
    name="peft", server="PEFT", reference="https://github.com/huggingface/peft 0.21, below src/peft", rules=_RULES
)
