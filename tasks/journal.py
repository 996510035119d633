"""Write each step of a release down: in the ledger before and after, in the log, and to whoever watches."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prefect.logging import get_run_logger

from slipway.ledger import Json, StepStatus
from slipway.progress import Kind, ProgressEvent, emit
from slipway.redaction import scrub, secrets_from_environment
from slipway.release import Step
from slipway.services.ledger_store import Ledger

__all__ = ["StepNote", "journaled"]


@dataclass(kw_only=True)
class StepNote:
    """What a step wants remembered. ``message`` is for people, ``data`` for the ledger."""

    message: str = ""
    data: dict[str, Json] = field(default_factory=dict)


@contextmanager
def journaled(ledger: Ledger, release_id: str, step: Step) -> Iterator[StepNote]:
    """Record a step as started, then as finished with its note, or as failed with its error.

    A step that a kill cut is left as started, which is how the next run knows.
    """
    logger = get_run_logger()
    note = StepNote()
    started = time.monotonic()
    emit(ProgressEvent(step=step, kind=Kind.STARTED))
    ledger.record_step(release_id, step, StepStatus.STARTED)
    try:
        yield note
    except Exception as error:
        text = str(scrub(str(error), secrets_from_environment(os.environ)))
        ledger.record_step(release_id, step, StepStatus.FAILED, {"error": text})
        raise
    seconds = round(time.monotonic() - started, 3)
    ledger.record_step(
        release_id, step, StepStatus.FINISHED, {**note.data, "message": note.message, "seconds": seconds}
    )
    emit(ProgressEvent(step=step, kind=Kind.FINISHED, message=note.message, seconds=seconds))
    logger.info("%s: %s", step, note.message)
