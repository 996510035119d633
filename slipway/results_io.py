"""Recorded results and recorded outputs as JSONL files."""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from slipway.errors import ConfigFileError, ConfigurationError, StoreError
from slipway.results import Arm, CaseResult
from slipway.validation_errors import explain
from slipway.yaml_files import read_text

__all__ = [
    "RecordedOutput",
    "as_document",
    "as_result",
    "encode_result",
    "read_outputs",
    "read_results",
    "write_results",
]

RecordT = TypeVar("RecordT")

_ENCODER = json.JSONEncoder(ensure_ascii=False)
_ARMS = {arm: arm.value for arm in Arm}


class RecordedOutput(BaseModel):
    """One line of the file that ``slipway grade`` reads. ``test`` is the 0-based index in the expanded suite."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    test: int = Field(ge=0)
    output: str
    latency_ms: float | None = Field(default=None, ge=0)
    cost_usd: float | None = Field(default=None, ge=0)
    finish_reason: str | None = None
    """As the server said it: ``stop``, ``length``, ``eos_token``, ..."""
    prompt_tokens: int | None = Field(default=None, ge=0)
    generated_tokens: int | None = Field(default=None, ge=0)
    logprobs: tuple[float, ...] | None = None
    """Natural logarithms of the generated tokens' probabilities, in order."""
    line: int = 0
    """Where it stands; filled in by ``read_outputs``."""


_RESULT = TypeAdapter(CaseResult)
_OUTPUT = TypeAdapter(RecordedOutput)


def read_results(path: Path | str) -> list[CaseResult]:
    """Read recorded results, one JSON object a line; blank lines are skipped.

    NaN and infinity, which Python writes although JSON has none, are kept: the gate must see that they were there.

    Raises:
        ConfigFileError: With file, line and key.
    """
    with _without_collector():
        return [result for _, result in _read(Path(path), _RESULT)]


def read_outputs(path: Path | str) -> list[RecordedOutput]:
    """Read recorded outputs, to be graded with ``grading.grade_outputs``.

    Raises:
        ConfigFileError: With file, line and key.
    """
    with _without_collector():
        return [output.model_copy(update={"line": line}) for line, output in _read(Path(path), _OUTPUT)]


def write_results(path: Path | str, results: Sequence[CaseResult]) -> None:
    """Write recorded results; the file appears whole or not at all.

    Raises:
        ConfigurationError: What is there is no file, such as ``/dev/null``; another would take its place.
        StoreError: The disk is full or the directory cannot be written.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is no file that results can be written to.", fix="Give the name of a file.")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.writelines(_lines(results))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise StoreError(
            f"The results cannot be written to {path}: {error.strerror}.", fix="Free space or check the permissions."
        ) from error


def encode_result(result: CaseResult) -> bytes:
    """Give a recorded result as one line of JSON, without its end.

    By orjson, as this runs once for every answer of an evaluation. What that one cannot write as it is, NaN and numbers
    beyond 64 bits, pydantic can; half of a surrogate pair in a text, neither.
    """
    if _is_finite(result):
        try:
            return orjson.dumps({**vars(result), "arm": _ARMS[result.arm]})
        except orjson.JSONEncodeError:
            pass
    try:
        return _RESULT.dump_json(result)
    except PydanticSerializationError:
        return _encoded(asdict(result))


def _is_finite(result: CaseResult) -> bool:
    scores = sum([check.score for check in result.checks]) + sum(result.metrics.values()) + (result.score or 0.0)
    return math.isfinite(scores + (result.latency_ms or 0.0) + (result.cost_usd or 0.0))


def as_document(result: CaseResult) -> dict[str, object]:
    """Give a recorded result as JSON values."""
    document: dict[str, object] = _RESULT.dump_python(result, mode="json")
    return document


def as_result(document: object) -> CaseResult:
    """Give back what ``as_document`` gave.

    Raises:
        pydantic.ValidationError: It is something else.
    """
    return _RESULT.validate_python(document)


def _lines(results: Iterable[CaseResult]) -> Iterator[bytes]:
    return (encode_result(result) + b"\n" for result in results)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the search for cycles: models that are only ever added have none, and looking takes twice the reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(path: Path, kind: TypeAdapter[RecordT]) -> Iterator[tuple[int, RecordT]]:
    # Only "\n" ends a line: the other separators that splitlines knows may stand inside a JSON string.
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            yield number, kind.validate_json(text, strict=True)  # four times as fast as what mends and explains
        except ValidationError:
            yield number, _explained(path, number, text, kind)


def _explained(path: Path, number: int, text: str, kind: TypeAdapter[RecordT]) -> RecordT:
    """Read a line that was refused: mend what can be, else say what is wrong with it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigFileError(
            "is not JSON.", file=path, line=number, fix="Write one JSON object on every line."
        ) from None
    if not isinstance(value, dict):
        raise ConfigFileError("is not a JSON object.", file=path, line=number, fix='Write {"case": ...}.')
    return _build(path, number, value, kind)


def _build(path: Path, number: int, value: dict[str, object], kind: TypeAdapter[RecordT]) -> RecordT:
    latency = value.get("latency_ms")
    if kind is _RESULT and isinstance(latency, float) and math.isnan(latency):
        value["latency_ms"] = math.inf  # the model's bound has no place for NaN, and both say that the clock is broken
    try:
        return kind.validate_json(_encoded(value), strict=True)
    except ValidationError as error:
        problem = explain(error, BaseModel, lambda _: True)[0]
        key = ".".join(map(str, problem.key))
        raise ConfigFileError(problem.message, file=path, line=number, key=key, fix=problem.fix) from None


def _encoded(value: dict[str, object]) -> bytes:
    """Half of a surrogate pair, which a model cut off inside an emoji can give, has no UTF-8 and becomes ``?``."""
    return _ENCODER.encode(value).encode("utf-8", "replace")
