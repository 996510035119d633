"""Rewrite an adapter so that the server computes the same function from it, and prove that it does.

Pure: matrices and configs in, matrices and configs out. Each rewrite is a function of its own; ``rewrite`` puts them in
order, ``refusals`` says what none of them can mend, ``proof`` checks the result against PEFT's semantics. Reading,
writing and pickles are for ``services.fitting``.
"""

from slipway.fit.modules import LoraModule, RawAdapter, Refused
from slipway.fit.proof import Proof, prove
from slipway.fit.ranks import is_safe_rank, safe_rank
from slipway.fit.rewrite import Change, ChangeKind, Rewritten, rewrite_adapter

__all__ = [
    "Change",
    "ChangeKind",
    "LoraModule",
    "Proof",
    "RawAdapter",
    "Refused",
    "Rewritten",
    "is_safe_rank",
    "prove",
    "rewrite_adapter",
    "safe_rank",
]
