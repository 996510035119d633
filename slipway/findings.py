"""The words in which an adapter is judged: findings, the rules that make them, and the profiles that collect rules.

A finding is a value, never an exception: what is wrong with an adapter is an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from slipway.adapter import AdapterFile, Bundle
from slipway.adapter_config import AdapterConfig, ConfigProblem
from slipway.base_model import BaseModel
from slipway.lora import LoraTensors, sort_tensors
from slipway.scan import Scan
from slipway.tensors import Header, HeaderProblem, Tensor, shown

__all__ = [
    "Evidence",
    "Finding",
    "Fix",
    "InspectionVerdict",
    "Prediction",
    "Rule",
    "ServerProfile",
    "Severity",
    "WeightsFile",
    "judge",
    "listed",
    "predict",
]

_LISTED_NAMES = 3


class Severity(StrEnum):
    """How bad: an error keeps the adapter from being served, a warning and a note do not. Most severe first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Prediction(StrEnum):
    """What the server would do, in the order in which one hides the next.

    ``reject``: answer with an error. ``wrong``: answer, computing something else than what was trained. ``drop``:
    answer, leaving part or all of the adapter unused. ``ok``: serve it as trained.
    """

    REJECT = "reject"
    WRONG = "wrong"
    DROP = "drop"
    OK = "ok"


class Fix(StrEnum):
    """Who can mend it: ``slipway fit``, a person, or nobody (or nothing is to be mended)."""

    FIT = "fit"
    MANUAL = "manual"
    NONE = "none"


class InspectionVerdict(StrEnum):
    """Whether the adapter may be uploaded: as it is, after ``fit``, or not."""

    SERVABLE = "servable"
    FIXABLE = "fixable"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a rule has to say.

    Attributes:
        code: Stable name of the rule, such as ``rank.config``.
        severity: How bad.
        prediction: What the server would do because of this alone.
        where: File, tensor or module; texts from the adapter are quoted.
        message: What is the matter, what the server would do, and what to do about it.
        fix: Who can mend it.
    """

    code: str
    severity: Severity
    prediction: Prediction
    where: str
    message: str
    fix: Fix


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """One safetensors file of a bundle. ``scan`` is None where the header cannot be read."""

    file: AdapterFile
    header: Header | HeaderProblem
    scan: Scan | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that rules may look at: everything is read, nothing is judged.

    Attributes:
        bundle: The files.
        config: What the config says, why it cannot be read, or None where there is none.
        weights: The safetensors files, by name.
        base: The base model to be served on, where one was given.
    """

    bundle: Bundle
    config: AdapterConfig | ConfigProblem | None
    weights: tuple[WeightsFile, ...]
    base: BaseModel | None

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
    def lora(self) -> LoraTensors:
        """The tensors, sorted into pairs; empty for an adapter that says it is something else than LoRA."""
        return sort_tensors(self.tensors if self.readable_config.peft_type in {"", "LORA"} else ())


Rule = Callable[[Evidence], Iterable[Finding]]
"""One question about an adapter. Pure, and silent where another rule says why the question cannot be asked."""


@dataclass(frozen=True, kw_only=True)
class ServerProfile:
    """What one server version accepts, drops and gets wrong.

    Attributes:
        name: As people give it, such as ``lorax-0.12``.
        rules: In the order in which findings of equal severity are shown.
    """

    name: str
    rules: Sequence[Rule]


def predict(findings: Iterable[Finding]) -> Prediction:
    """Say what the server would do on account of all findings together."""
    predictions = {finding.prediction for finding in findings}
    return next((prediction for prediction in Prediction if prediction in predictions), Prediction.OK)


def judge(findings: Iterable[Finding]) -> InspectionVerdict:
    """Decide whether the adapter may be uploaded: never with an error that ``fit`` cannot mend."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return InspectionVerdict.SERVABLE
    return InspectionVerdict.FIXABLE if all(finding.fix is Fix.FIT for finding in errors) else InspectionVerdict.REFUSED


def listed(names: Iterable[str]) -> str:
    """Quote the first few of many names and count the rest."""
    names = list(names)
    rest = len(names) - _LISTED_NAMES
    return ", ".join(map(shown, names[:_LISTED_NAMES])) + (f" and {rest:,} more" if rest > 0 else "")
