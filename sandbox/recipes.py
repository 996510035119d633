"""What the sandbox's adapters are: which task, how long, on what data, and how good they must turn out.

Plain data. ``finetuning`` carries a recipe out, ``training`` decides which are due.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sandbox.corpus import LATE_WORDS

__all__ = [
    "BASE_ID",
    "DERIVATIONS",
    "RECIPES",
    "TARGET_MODULES",
    "Defect",
    "Derivation",
    "Recipe",
    "Task",
    "TrainingRecord",
]

BASE_ID = "slipway/tiny-llama"
"""The name under which servers offer the base and adapters refer to it."""

TARGET_MODULES = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
"""All linear layers of a Llama block."""


class Task(StrEnum):
    """A task of ``corpus``, and the name of its suite."""

    TRANSLATE = "translate"
    JSON = "json"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One adapter to train.

    Attributes:
        name: The adapter's directory.
        purpose: What the adapter is for, shown while it trains.
        task: What it learns.
        steps: Most optimizer updates.
        accepted: Least and greatest accuracy on the task's suite; outside it, training is repeated with another seed.
        stop_at: Accuracy at which training ends early, or None to use all steps.
        learning_rate: The peak.
        rank: Of every pair of LoRA matrices.
        alpha: The update is scaled by ``alpha / rank``.
        layers: Numbers of the only layers to adapt, or None for all.
        without: Words that the training data lack.
        hidden_size: Adapt a freshly initialised base of this width instead of the shipped one.
    """

    name: str
    purpose: str
    task: Task
    steps: int
    accepted: tuple[float, float]
    stop_at: float | None = None
    learning_rate: float = 5e-3
    rank: int = 8
    alpha: int = 16
    layers: tuple[int, ...] | None = None
    without: frozenset[str] = frozenset()
    hidden_size: int | None = None


class Defect(StrEnum):
    """What is done to a copy of a trained adapter."""

    NAN = "nan"
    RSLORA = "rslora"


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """One adapter made from a trained one without training."""

    name: str
    purpose: str
    origin: str
    defect: Defect


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How an adapter came about.

    Attributes:
        name: The adapter's directory.
        task: Name of the suite it was measured on.
        accuracy: Share of exact answers there; None for an adapter that no server could run on the shipped base.
        steps: Optimizer updates made.
        seed: Of the weights and the text.
        attempts: Seeds tried.
        seconds: Time taken, accuracy measurements included.
        origin: The adapter it was derived from, if any.
    """

    name: str
    task: str
    accuracy: float | None
    steps: int
    seed: int
    attempts: int
    seconds: float
    origin: str | None = None

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.origin is not None:
            return f"made from {self.origin}"
        measured = "not run on this base" if self.accuracy is None else f"{self.accuracy:.1%} on the {self.task} suite"
        return f"{measured}, {self.steps} steps in {self.seconds:.1f} s"


RECIPES = (
    Recipe(
        name="json-good",
        purpose="writes a record as JSON",
        task=Task.JSON,
        steps=120,
        accepted=(0.95, 1.0),
    ),
    Recipe(
        name="translate-v2",
        purpose="translates every word",
        task=Task.TRANSLATE,
        steps=300,
        accepted=(0.98, 1.0),
        rank=16,
        alpha=32,
    ),
    Recipe(
        name="translate-v1",
        purpose="translates all words but two, which its data lacked",
        task=Task.TRANSLATE,
        steps=300,
        accepted=(0.9, 0.95),
        without=LATE_WORDS,
    ),
    Recipe(
        name="silently-ignored",
        purpose="adapts one layer of two: PEFT applies it, LoRAX drops every tensor",
        task=Task.TRANSLATE,
        steps=200,
        accepted=(0.5, 1.0),
        layers=(1,),
    ),
    Recipe(
        name="translate-undertrained",
        purpose="stopped in the middle of learning",
        task=Task.TRANSLATE,
        steps=400,
        accepted=(0.2, 0.6),
        stop_at=0.3,
    ),
    Recipe(
        name="wrong-base",
        purpose="belongs to a base model of half the width",
        task=Task.TRANSLATE,
        steps=20,
        accepted=(0.0, 1.0),
        hidden_size=64,
    ),
)
"""The longest first, so that two workers finish at about the same time."""

DERIVATIONS = (
    Derivation(
        name="translate-nan",
        purpose="translate-v2 with one number that is not a number",
        origin="translate-v2",
        defect=Defect.NAN,
    ),
    Derivation(
        name="translate-rslora",
        purpose="translate-v2 with the scale written the rank-stabilised way, which LoRAX reads as a quarter of it",
        origin="translate-v2",
        defect=Defect.RSLORA,
    ),
)
