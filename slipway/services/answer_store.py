"""The answers that were paid for, on this machine: one append-only file for each adapter on each server.

Lines are self-contained and a bad one is skipped, so that no kill and no second process can spoil a file. What a line
stands for is ``slipway.answers``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from slipway.answers import CaseKey, StoredAnswer
from slipway.errors import StoreError
from slipway.results_io import as_result
from slipway.services.line_writer import LineWriter

__all__ = ["AnswerStore", "Answerer"]

logger = logging.getLogger(__name__)

_KEY = b'{"request":"'
_KEY_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Who answered: an adapter's bytes, or the base model, on one server.

    Attributes:
        adapter: Digest of the adapter, or another text that stands for its bytes alone; empty for the base model.
        target: The target's name.
        url: Address of the serving deployment.
        server: What the server told of itself: model, type of its numbers, limits, version.
    """

    adapter: str
    target: str
    url: str
    server: Mapping[str, object]

    def describe(self) -> bytes:
        """Give the one line of JSON that says all of it, the same each time."""
        return json.dumps(
            {"adapter": self.adapter, "target": self.target, "url": self.url, "server": dict(self.server)},
            sort_keys=True,
        ).encode()


class AnswerStore:
    """See the module.

    Args:
        root: Directory of the files; made with the first answer.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, answerer: Answerer, requests: Collection[str], *, run: str = "") -> Iterator[StoredAnswer]:
        """Give the recorded answers to these requests, oldest first.

        Args:
            answerer: Whose.
            requests: As ``CaseKey.request`` has them.
            run: Only those of sessions whose name begins so.

        Raises:
            StoreError: The file is there and cannot be read.
        """
        wanted = {request.encode() for request in requests}
        session = run.encode()
        path = self._path(answerer)
        try:
            with path.open("rb") as file:
                for line in file:
                    # Most lines are of other suites, or of other runs: they are not worth parsing.
                    if line[len(_KEY) : len(_KEY) + _KEY_LENGTH] not in wanted or session not in line:
                        continue
                    answer = _parse(line)
                    if answer is not None and answer.result.session.startswith(run):
                        yield answer
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"recorded answers cannot be read from {path}: {error.strerror}.",
                fix="Check the permissions, or delete the file: its answers are then asked for again.",
            ) from error

    def writer(self, answerer: Answerer) -> LineWriter:
        """Open the file for further answers, which ``encode`` makes lines of."""
        return LineWriter(self._path(answerer), header=answerer.describe())

    @staticmethod
    def encode(key: CaseKey, *, is_graded: bool, result: bytes) -> bytes:
        """Make a line of an answer.

        Args:
            key: Of its case.
            is_graded: False where the grade is missing, as after a failure of the judge.
            result: As ``results_io.encode_result`` gives it.
        """
        grading = key.grading if is_graded else ""
        return b'%s%s","ordinal":%d,"grading":"%s","result":%s}' % (
            _KEY,
            key.request.encode(),
            key.ordinal,
            grading.encode(),
            result,
        )

    def _path(self, answerer: Answerer) -> Path:
        return self._root / f"{hashlib.sha256(answerer.describe()).hexdigest()[:32]}.jsonl"


def _parse(line: bytes) -> StoredAnswer | None:
    try:
        value = json.loads(line)
        return StoredAnswer(
            request=value["request"],
            ordinal=value["ordinal"],
            grading=value["grading"],
            result=as_result(value["result"]),
        )
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        logger.warning("a recorded answer cannot be read, and is asked for again")
        return None
