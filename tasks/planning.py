"""Say at the start of a release what its suite will be able to show. Nothing has been paid for yet."""

from __future__ import annotations

import logging

from prefect.logging import get_run_logger

from slipway.power import design_notes
from slipway.progress import Kind, ProgressEvent, emit
from slipway.release import ReleasePlan, Step
from tasks.ledger import attempt_of

__all__ = ["foresee"]


def foresee(plan: ReleasePlan, *, release_id: str, has_champion: bool) -> None:
    """Log what each rule of the gate can see with this suite, and what of the suite cannot be applied.

    Whoever watches is told of the comparisons, and of all that is blind or missing.
    """
    logger = get_run_logger()
    attempt = attempt_of(release_id)
    for note in design_notes(plan.suite.sizes, plan.gate, has_champion=has_champion, attempt=attempt):
        logger.log(logging.WARNING if note.is_blind else logging.INFO, note.sentence)
        if note.is_blind or note.is_comparison:
            _tell(note.sentence)
    if plan.suite.coverage < 1:
        places = ", ".join(f"{lacking.type} at {lacking.where}" for lacking in plan.suite.unsupported)
        sentence = f"only {plan.suite.coverage:.1%} of the suite's checks can be applied; not supported: {places}."
        logger.warning(sentence)
        _tell(sentence)


def _tell(sentence: str) -> None:
    emit(ProgressEvent(step=Step.PLAN, kind=Kind.FINISHED, message=sentence))
