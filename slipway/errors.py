"""Every exception Slipway raises.

An exception means that we could not know or could not do. What is wrong with an adapter is a finding or a verdict with
reasons and is returned, never raised.

    SlipwayError
    ├── ConfigurationError            the request is wrong: usage, a missing name, a bad file
    │   └── ConfigFileError           ... with file, line and key
    ├── SourceError                   the adapter cannot be fetched
    │   ├── AdapterNotFoundError      ... because there is none at that address
    │   └── SourceUnavailableError    ... because the source is not reached or fails (transient)
    ├── StoreError                    the local store cannot be read or written (disk full, read-only)
    ├── ServiceError                  a remote service did not do what was asked
    │   ├── AuthenticationError       401, 403
    │   ├── NotFoundError             404
    │   ├── ConflictError             409
    │   ├── InvalidRequestError       400, 413, 422
    │   ├── ProtocolError             a reply that the documented API does not allow
    │   ├── GenerationError           424 from LoRAX: download, load or generation failed
    │   ├── RateLimitedError          429 (transient)
    │   ├── UnavailableError          refused, reset, 5xx (transient)
    │   └── ServiceTimeoutError       no answer in time (transient)
    ├── DeploymentError               a serving deployment ended errored, vanished or never got ready
    └── LedgerError                   the ledger cannot be read or written
        ├── ChampionMovedError        somebody else promoted first
        └── LeaseHeldError            another live process is doing this very work

``TransientError`` is the second base of those that a repeat can help; retry rules ask only for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

__all__ = [
    "AdapterNotFoundError",
    "AuthenticationError",
    "ChampionMovedError",
    "ConfigFileError",
    "ConfigurationError",
    "ConflictError",
    "DeploymentError",
    "GenerationError",
    "InvalidRequestError",
    "LeaseHeldError",
    "LedgerError",
    "NotFoundError",
    "ProtocolError",
    "RateLimitedError",
    "ServiceError",
    "ServiceTimeoutError",
    "SlipwayError",
    "SourceError",
    "SourceUnavailableError",
    "StoreError",
    "TransientError",
    "UnavailableError",
]


class SlipwayError(Exception):
    """What happened, to what, and what to do about it.

    Args:
        message: What happened, and to what.
        fix: What the person should do; printed on a line of its own.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by attributes: Prefect sends exceptions between processes, and the classes' arguments differ."""
        return _restore, (type(self), self.args, self.__dict__)


class TransientError(Exception):
    """Marks an error that a later repeat of the same call may not meet."""


class ConfigurationError(SlipwayError):
    """The request is wrong: usage, an unknown name, a bad file."""

    exit_code = 2


class ConfigFileError(ConfigurationError):
    """A file that we were given to read says something we cannot use.

    Args:
        message: What is wrong.
        file: The file.
        line: 1-based line, where known.
        key: Dotted path of the key, where known.
        fix: What to write instead.
    """

    def __init__(
        self, message: str, *, file: Path | str, line: int | None = None, key: str = "", fix: str = ""
    ) -> None:
        where = f"{file}:{line}" if line else f"{file}"
        super().__init__(f"{where}: {key}: {message}" if key else f"{where}: {message}", fix=fix)
        self.file = Path(file)
        self.line = line
        self.key = key


class SourceError(SlipwayError):
    """The adapter cannot be fetched from its source."""


class AdapterNotFoundError(SourceError):
    """There is no adapter at that address."""

    exit_code = 2


class SourceUnavailableError(SourceError, TransientError):
    """The source is not reached, or fails in a way that may pass."""


class StoreError(SlipwayError):
    """The local store cannot be read or written."""


class ServiceError(SlipwayError):
    """A remote service did not do what was asked.

    Args:
        message: What happened, and to what.
        service: Name for people, such as ``"Predibase control plane"``.
        url: The address called, without query or credentials.
        status_code: HTTP status, where there was an answer.
        error_type: ``error_type`` of a LoRAX error body.
        fix: What to do.
    """

    def __init__(
        self,
        message: str,
        *,
        service: str = "",
        url: str = "",
        status_code: int | None = None,
        error_type: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(message, fix=fix)
        self.service = service
        self.url = url
        self.status_code = status_code
        self.error_type = error_type


class AuthenticationError(ServiceError):
    """401 or 403: the token is missing, wrong, or not allowed to do this."""


class NotFoundError(ServiceError):
    """404."""


class ConflictError(ServiceError):
    """409."""


class InvalidRequestError(ServiceError):
    """400, 413 or 422: the service will never accept this request."""


class ProtocolError(ServiceError):
    """A reply that the documented API does not allow: not JSON, a missing field, a null logprob."""


class GenerationError(ServiceError):
    """424 from LoRAX. One status for every failure of download, load and generation; the text tells them apart."""


class RateLimitedError(ServiceError, TransientError):
    """429.

    Args:
        retry_after_seconds: What the service asked for, if it did.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **context: object) -> None:
        super().__init__(message, **context)  # type: ignore[arg-type]  # the keyword names are ServiceError's
        self.retry_after_seconds = retry_after_seconds


class UnavailableError(ServiceError, TransientError):
    """Connection refused or reset, or a 5xx.

    Args:
        retry_after_seconds: What the service asked for, if it did; 503 may (RFC 9110, section 15.6.4).
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **context: object) -> None:
        super().__init__(message, **context)  # type: ignore[arg-type]  # the keyword names are ServiceError's
        self.retry_after_seconds = retry_after_seconds


class ServiceTimeoutError(ServiceError, TransientError):
    """No answer within the time allowed."""


class DeploymentError(SlipwayError):
    """A serving deployment ended errored, vanished or never got ready.

    Args:
        deployment: Its name.
        status: The last status seen.
    """

    def __init__(self, message: str, *, deployment: str, status: str, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.deployment = deployment
        self.status = status


class LedgerError(SlipwayError):
    """The ledger cannot be read or written."""


class ChampionMovedError(LedgerError):
    """The champion changed between evaluation and promotion: the evidence is about a comparison that is no more."""


class LeaseHeldError(LedgerError):
    """Another live process holds the lease on this piece of work."""


def _restore(kind: type[SlipwayError], arguments: tuple[object, ...], attributes: dict[str, object]) -> SlipwayError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error
