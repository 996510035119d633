"""How alike two embeddings are. Plain numbers in, one number out."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

__all__ = ["cosine", "dot", "euclidean"]

Vector = Sequence[float]


def cosine(left: Vector, right: Vector) -> float:
    """Give the cosine of the angle between two vectors, in [-1, 1].

    Raises:
        ValueError: Different lengths, or a vector of zeros, which has no direction.
    """
    lengths = math.sqrt(dot(left, left)) * math.sqrt(dot(right, right))
    if not lengths or not math.isfinite(lengths):
        raise ValueError("an embedding of zeros, or not of finite numbers, has no direction")
    return max(-1.0, min(1.0, dot(left, right) / lengths))


def dot(left: Vector, right: Vector) -> float:
    """Give the inner product of two vectors.

    Raises:
        ValueError: Different lengths.
    """
    return math.fsum(map(operator.mul, *_paired(left, right)))


def euclidean(left: Vector, right: Vector) -> float:
    """Give the distance of two vectors, 0 or more.

    Raises:
        ValueError: Different lengths.
    """
    return math.dist(*_paired(left, right))


def _paired(left: Vector, right: Vector) -> tuple[Vector, Vector]:
    if len(left) != len(right) or not left:
        raise ValueError(f"embeddings of {len(left)} and {len(right)} numbers cannot be compared")
    return left, right
