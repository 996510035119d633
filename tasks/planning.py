"""Say at the start of a release what its suite will be able to show. Nothing has been paid for yet."""

from __future__ import annotations

import logging

from prefect.logging import get_run_logger

from slipway.gate_rules import confidence_of
from slipway.power import design_notes
from slipway.progress import Kind, ProgressEvent, emit
from slipway.release import ReleasePlan, Step
from tasks.ledger import attempt_of

__all__ = ["foresee"]


def foresee(plan: ReleasePlan, *, release_id: str, has_champion: bool) -> None:
    """Log, and tell whoever watches, what each rule of the gate can see with this suite, and what cannot be applied.

    That is of answers asked for anew; the attempt that they make is counted as the gate counts it.
    """
    attempt = attempt_of(release_id)
    if attempt > 1:
        usual, now = (100 * confidence_of(plan.gate, number) for number in (1, attempt))
        _tell(
            f"answers asked for anew are attempt {attempt} of this candidate on this suite: decided at {now:g} % "
            f"confidence and not {usual:g} %, as what follows. Answers that are all on record are decided on as before."
        )
    for note in design_notes(plan.suite.shape, plan.gate, has_champion=has_champion, attempt=attempt):
        _tell(note.sentence, is_warning=note.is_blind)
    if plan.suite.coverage < 1:
        places = ", ".join(f"{lacking.type} at {lacking.where}" for lacking in plan.suite.unsupported)
        _tell(
            f"only {plan.suite.coverage:.1%} of the suite's checks can be applied; not supported: {places}.",
            is_warning=True,
        )


def _tell(sentence: str, *, is_warning: bool = False) -> None:
    get_run_logger().log(logging.WARNING if is_warning else logging.INFO, sentence)
    emit(ProgressEvent(step=Step.PLAN, kind=Kind.FINISHED, message=sentence))
