"""Request logs: one line of JSON per generation, in a file per deployment and hour, exported as a zip.

Predibase does not document what its zip holds; here it is one file, ``requests.jsonl``. Tokens are never logged.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

__all__ = ["RequestLogs"]

HOUR_FORMAT = "%Y-%m-%dT%H"


class RequestLogs:
    """The request logs below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def record(
        self,
        deployment_uuid: str,
        *,
        path: str,
        request_body: bytes,
        response_body: bytes,
        status_code: int,
        headers: dict[str, str],
        latency_ms: float,
    ) -> None:
        """Append one request.

        Args:
            deployment_uuid: Whose log.
            path: Path below the deployment's serving address.
            request_body: As received.
            response_body: As sent, or its beginning.
            status_code: HTTP status.
            headers: Of the reply; the token counts and the adapter are read from them.
            latency_ms: From the request's arrival to the last byte of the reply.
        """
        now = datetime.now(UTC)
        request = _without_tokens(_parse(request_body))
        line = {
            "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "path": path,
            "adapterId": headers.get("x-adapter-id") or _adapter_id(request),
            "status": status_code,
            "latencyMs": round(latency_ms, 1),
            "promptTokens": _count(headers.get("x-prompt-tokens")),
            "generatedTokens": _count(headers.get("x-generated-tokens")),
            "request": request,
            "response": _parse(response_body),
        }
        file = self._file(deployment_uuid, now)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            log.write(json.dumps(line, ensure_ascii=False) + "\n")

    def export(
        self, deployment_uuid: str, begin: datetime, end: datetime, adapter_id: str | None, scratch: Path
    ) -> Path:
        """Write the lines of a span of time, the end excluded, to a new zip below ``scratch``; returns its path."""
        descriptor, name = tempfile.mkstemp(suffix=".zip", dir=scratch)
        try:
            with (
                os.fdopen(descriptor, "wb") as file,
                zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
                archive.open("requests.jsonl", "w") as target,
            ):
                for log in sorted(self._directory.joinpath(deployment_uuid).glob("*.jsonl")):
                    hour = datetime.strptime(log.stem, HOUR_FORMAT).replace(tzinfo=UTC)
                    if hour + timedelta(hours=1) <= begin or hour >= end:
                        continue
                    with log.open("rb") as lines:
                        for line in lines:
                            entry = json.loads(line)
                            is_in = begin <= datetime.fromisoformat(entry["timestamp"]) < end
                            if is_in and adapter_id in (None, entry["adapterId"]):
                                target.write(line)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Path(name)

    def _file(self, deployment_uuid: str, moment: datetime) -> Path:
        return self._directory / deployment_uuid / f"{moment.strftime(HOUR_FORMAT)}.jsonl"


def _parse(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """Read a body as JSON where it is, else as text (a stream of events)."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _without_tokens(request: Any) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(request, dict):
        return request
    clean = {key: value for key, value in request.items() if key != "api_token"}
    if isinstance(parameters := clean.get("parameters"), dict):
        clean["parameters"] = {key: value for key, value in parameters.items() if key != "api_token"}
    return clean


def _adapter_id(request: Any) -> str | None:  # noqa: ANN401 - JSON
    if not isinstance(request, dict):
        return None
    parameters = request.get("parameters")
    found = parameters.get("adapter_id") if isinstance(parameters, dict) else request.get("model")
    return found if isinstance(found, str) and found else None


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
