"""Prove that a fitted adapter computes the function of the original.

For random vectors x, ``scale * B @ A @ x`` is computed in double precision for every module of both (Freivalds,
Probabilistic machines can use less running time, 1977): for different products to agree on several x is next to
impossible. The original side has the semantics of PEFT and never sees a rewrite; the fitted side is read back from
the bytes that were written, with the scale ``lora_alpha / r`` that LoRAX and PEFT both compute from the written config.

The bound, for each output i, comes from the formats alone:

    |fitted - original|_i <= e * (|s| |B| |A| |x|)_i + d

where e is the unit roundoff of every rounding that was allowed (none, unless a scale that is no power of two was folded
in or another number format was asked for) plus the rounding of the double-precision sums themselves, and d is what
half the smallest steps of the rounded formats amount to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from slipway.fit.matrices import Matrix, smallest_step, unit_roundoff
from slipway.fit.modules import LoraModule, Modules
from slipway.fit.scaling import is_power_of_two

__all__ = ["Proof", "prove"]

VECTORS: Final = 4
_DOUBLE: Final = 2.0**-53

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was compared, and how it came out.

    Attributes:
        modules: Modules of the original.
        zero_modules: Modules that only the fitted adapter has, and whose product is exactly zero.
        vectors: Random vectors per module.
        seed: Of the vectors.
        exact_modules: Modules whose numbers were never rounded, where only the sums' own rounding is allowed for.
        largest_error: The largest difference over all outputs, relative to the largest output of its module.
        largest_share: The largest difference as a share of its bound; not above 1 when proven.
        failures: Sentences; empty when proven.
    """

    modules: int
    zero_modules: int
    vectors: int
    seed: int
    exact_modules: int
    largest_error: float
    largest_share: float
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every module computes what it did."""
        return not self.failures and self.modules > 0

    def __str__(self) -> str:
        difference = "there is no difference at all"
        if self.largest_error:
            share = f"{self.largest_share:.0%} of what rounding may cause"
            difference = f"the largest difference is {self.largest_error:.2g} of the output, {share}"
        return (
            f"{self.modules} modules ({self.exact_modules} of them never rounded) compute what they did for "
            f"{self.vectors} random vectors each, seed {self.seed}: {difference}"
            + (f"; {self.zero_modules} added modules are exactly zero" if self.zero_modules else "")
        )


def prove(original: Modules, fitted: Modules, *, seed: int) -> Proof:
    """Compare two adapters module by module.

    Args:
        original: As PEFT reads the original.
        fitted: As read back.
        seed: Makes the proof repeatable.
    """
    failures = [f"{path} is missing" for path in original if path not in fitted]
    added = {path: module for path, module in fitted.items() if path not in original}
    failures += [
        f"{path} was added and is not zero"
        for path, module in added.items()
        if not (module.a.is_zero and module.b.is_zero)
    ]
    generator = np.random.default_rng(seed)
    largest_error = largest_share = 0.0
    exact = 0
    for path, before in original.items():
        if (after := fitted.get(path)) is None:
            continue
        if before.a.shape[1] != after.a.shape[1] or before.b.shape[0] != after.b.shape[0]:
            failures.append(f"{path} changed its size")
            continue
        inputs = generator.standard_normal((before.a.shape[1], VECTORS))
        error, share = _compare(before, after, inputs)
        exact += not _rounding(before, after).any_rounding
        largest_error, largest_share = max(largest_error, error), max(largest_share, share)
        if not share <= 1.0:
            failures.append(f"{path} computes something else: {share:.3g} times what rounding may cause")
    return Proof(
        modules=len(original),
        zero_modules=len(added),
        vectors=VECTORS,
        seed=seed,
        exact_modules=exact,
        largest_error=largest_error,
        largest_share=largest_share,
        failures=tuple(failures),
    )


@dataclass(frozen=True, kw_only=True)
class _Rounding:
    """What rewriting was allowed to round: relative errors of A and B, and absolute ones of their smallest numbers."""

    a: float = 0.0
    b: float = 0.0
    a_step: float = 0.0
    b_step: float = 0.0

    @property
    def any_rounding(self) -> bool:
        return bool(self.a or self.b)


def _rounding(before: LoraModule, after: LoraModule) -> _Rounding:
    """Derive it from formats and scales alone, not from what the rewrites say of themselves."""
    rounds_a, rounds_b = _loses(before.a, after.a), _loses(before.b, after.b)
    if before.scale and before.scale != after.scale and not is_power_of_two(before.scale / (after.scale or 1.0)):
        rounds_b = True
    return _Rounding(
        a=unit_roundoff(after.a.dtype) if rounds_a else 0.0,
        b=unit_roundoff(after.b.dtype) if rounds_b else 0.0,
        a_step=smallest_step(after.a.dtype) / 2 if rounds_a else 0.0,
        b_step=smallest_step(after.b.dtype) / 2 if rounds_b else 0.0,
    )


def _loses(before: Matrix, after: Matrix) -> bool:
    """Whether the new format cannot hold every number of the old one."""
    return unit_roundoff(after.dtype) > unit_roundoff(before.dtype) or smallest_step(after.dtype) > smallest_step(
        before.dtype
    )


def _compare(before: LoraModule, after: LoraModule, inputs: Values) -> tuple[float, float]:
    """Give the largest difference, relative to the largest output and as a share of its bound; NaN fails."""
    with np.errstate(all="ignore"):  # infinities and NaN in hostile weights come out as a failed comparison
        a, b = before.a.values(), before.b.values()
        expected = before.scale * (b @ (a @ inputs))
        found = after.scale * (after.b.values() @ (after.a.values() @ inputs))
        bound = _bound(before, after, np.abs(a), np.abs(b), np.abs(inputs))
        difference = np.abs(found - expected)
        largest = float(np.abs(expected).max(initial=0.0))
        error = float(difference.max(initial=0.0))
        if not np.isfinite([largest, error]).all() or not np.isfinite(bound).all():
            return float("inf"), float("inf")
        share = np.divide(difference, bound, out=np.where(difference > 0, np.inf, 0.0), where=bound > 0)
    return (error / largest if largest else error), float(share.max(initial=0.0))


def _bound(before: LoraModule, after: LoraModule, a: Values, b: Values, inputs: Values) -> Values:
    rounding = _rounding(before, after)
    operations = a.shape[1] + max(before.rank, after.rank) + 8  # of both sums and of the scales, on both sides
    relative = (1 + rounding.a) * (1 + rounding.b) - 1 + 2 * operations * _DOUBLE
    inner = a @ inputs
    lost_in_b = (
        rounding.b_step * abs(after.scale) * (inner.sum(axis=0) + a.shape[0] * inputs.sum(axis=0) * rounding.a_step)
    )
    lost_in_a = rounding.a_step * abs(before.scale) * b.sum(axis=1)[:, None] * inputs.sum(axis=0)
    bound: Values = (
        relative * abs(before.scale) * (b @ inner) + (1 + rounding.b) * lost_in_a + (1 + rounding.a) * lost_in_b
    )
    return bound
