"""Turn what boto3 and huggingface_hub raise into our errors, each with its fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

from slipway.errors import AuthenticationError, NotFoundError, ServiceError, UnavailableError

__all__ = [
    "HubFailure",
    "S3Failure",
    "classify_hub_error",
    "classify_s3_error",
    "hub_error_types",
    "hub_errors",
    "s3_error_types",
    "s3_errors",
]


class HubFailure(Enum):
    """What the Hub's library reports, told apart."""

    BAD_NAME = auto()
    GATED = auto()
    NO_REVISION = auto()
    NOT_FOUND = auto()
    NO_ACCESS = auto()
    NO_FILE = auto()
    UNREACHABLE = auto()
    FAILED = auto()


class S3Failure(Enum):
    """What an object store's client reports, told apart."""

    NO_CREDENTIALS = auto()
    NO_PROFILE = auto()
    NO_BUCKET = auto()
    NO_OBJECT = auto()
    DENIED = auto()
    WRONG_REGION = auto()
    REPLACED = auto()
    UNREACHABLE = auto()
    FAILING = auto()
    """It says itself that this may pass."""
    FAILED = auto()


def hub_error_types() -> tuple[type[Exception], ...]:
    """What to catch around calls of huggingface_hub, whichever HTTP library it is built on.

    Its 0.x releases let out errors of requests, all of them ``OSError``; its later ones those of another library, whose
    base its ``errors`` module imports as ``HTTPError``, as 0.x does with that of requests.
    """
    from huggingface_hub import errors  # noqa: PLC0415  # slow to import; only callers that already use it come here

    return errors.HfHubHTTPError, errors.HFValidationError, getattr(errors, "HTTPError", OSError), OSError


def classify_hub_error(error: Exception) -> tuple[HubFailure, int | None]:
    """Tell what one of ``hub_error_types`` means, and the HTTP status where there was an answer."""
    from huggingface_hub import errors  # noqa: PLC0415  # as above

    status = getattr(getattr(error, "response", None), "status_code", None)
    failure = HubFailure.FAILED if status else HubFailure.UNREACHABLE
    if isinstance(error, errors.HFValidationError):
        failure = HubFailure.BAD_NAME
    elif isinstance(error, errors.GatedRepoError):  # a subclass of RepositoryNotFoundError, so it comes first
        failure = HubFailure.GATED
    elif isinstance(error, errors.RevisionNotFoundError):
        failure = HubFailure.NO_REVISION
    elif status in {401, 403}:
        failure = HubFailure.NO_ACCESS
    elif isinstance(error, errors.RepositoryNotFoundError):
        failure = HubFailure.NOT_FOUND
    elif isinstance(error, errors.EntryNotFoundError) and status:
        failure = HubFailure.NO_FILE
    return failure, status


def s3_error_types() -> tuple[type[Exception], ...]:
    """What to catch around calls of boto3."""
    from boto3.exceptions import Boto3Error  # noqa: PLC0415  # slow to import; only callers that already use boto3 come here
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    return BotoCoreError, ClientError, Boto3Error


def classify_s3_error(error: Exception) -> tuple[S3Failure, str]:
    """Tell what one of ``s3_error_types`` means, with the store's code, the right region, or the error's name."""
    from botocore import exceptions  # noqa: PLC0415  # as above

    if isinstance(error, exceptions.ClientError):
        return _classify_answer(error.response)
    detail = type(error).__name__
    if isinstance(error, exceptions.ProfileNotFound):
        return S3Failure.NO_PROFILE, detail
    if isinstance(
        error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError | exceptions.TokenRetrievalError
    ):
        return S3Failure.NO_CREDENTIALS, detail
    return S3Failure.UNREACHABLE, detail


def _classify_answer(response: Mapping[str, Any]) -> tuple[S3Failure, str]:
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), metadata.get("HTTPStatusCode")
    region = error.get("Region") or metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region") or ""
    if code in {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    } or status in {301, 307}:
        return S3Failure.WRONG_REGION, str(region)
    if code == "NoSuchBucket":
        return S3Failure.NO_BUCKET, code
    if code == "PreconditionFailed" or status == 412:
        return S3Failure.REPLACED, code
    if status == 404:
        return S3Failure.NO_OBJECT, code
    if status in {401, 403}:
        return S3Failure.DENIED, code
    is_passing = status in {429, 500, 502, 503, 504}
    return (S3Failure.FAILING if is_passing else S3Failure.FAILED), code or str(status)


@contextmanager
def s3_errors(address: str) -> Iterator[None]:
    """Translate botocore's exceptions while working on ``address``.

    Raises:
        AuthenticationError: No credentials, or they do not allow this.
        NotFoundError: No such bucket.
        UnavailableError: The endpoint cannot be reached.
        ServiceError: Anything else the store answered.
    """
    # Slow to import; only callers that already use boto3 come here.
    from boto3.exceptions import Boto3Error, S3UploadFailedError  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # noqa: PLC0415

    try:
        yield
    except NoCredentialsError as error:
        raise AuthenticationError(
            f"no AWS credentials were found for {address}.", service="S3", fix="Set AWS_PROFILE or AWS_ACCESS_KEY_ID."
        ) from error
    except (ClientError, S3UploadFailedError) as error:
        # A managed upload hides the store's answer in the context of its own error.
        answer = error if isinstance(error, ClientError) else error.__context__
        response = answer.response if isinstance(answer, ClientError) else {}
        code = str(response.get("Error", {}).get("Code", ""))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in {"NoSuchBucket", "404"}:
            raise NotFoundError(
                f"there is no bucket for {address}.",
                service="S3",
                status_code=status,
                fix="Check the name, and AWS_ENDPOINT_URL_S3 if the store is not Amazon's.",
            ) from error
        if status in {401, 403}:
            raise AuthenticationError(
                f"access to {address} is denied ({code}).",
                service="S3",
                status_code=status,
                fix="Allow these credentials to list, get and put objects there.",
            ) from error
        raise ServiceError(f"the store refused {address} ({code}).", service="S3", status_code=status) from error
    except (BotoCoreError, Boto3Error) as error:
        raise UnavailableError(
            f"the store cannot be used for {address} ({type(error).__name__}).",
            service="S3",
            fix="Check the network, AWS_ENDPOINT_URL_S3 and AWS_REGION.",
        ) from error


@contextmanager
def hub_errors(repository: str) -> Iterator[None]:
    """Translate huggingface_hub's exceptions while working on ``repository``.

    ``OSError`` is caught because it is the only base that the Hub client's network errors share in its 0.x and later
    releases.

    Raises:
        AuthenticationError: The token is missing or may not do this, or the repository is gated.
        NotFoundError: No such repository or file.
        UnavailableError: The Hub cannot be reached or failed.
    """
    from huggingface_hub.errors import (  # noqa: PLC0415  # slow to import; only callers that already use it come here
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:  # a subclass of RepositoryNotFoundError, so it comes first
        raise AuthenticationError(
            f"{repository} is gated.", service="Hugging Face Hub", fix="Accept its terms with the account of HF_TOKEN."
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise NotFoundError(
            f"the Hub has no {repository}, or HF_TOKEN may not see it.",
            service="Hugging Face Hub",
            fix="Check the name; for a private repository set HF_TOKEN.",
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in {401, 403}:
            raise AuthenticationError(
                f"the Hub refused access to {repository}.",
                service="Hugging Face Hub",
                status_code=status,
                fix="Set HF_TOKEN to a token with write access.",
            ) from error
        raise UnavailableError(
            f"the Hub failed for {repository}.", service="Hugging Face Hub", status_code=status, fix="Try again later."
        ) from error
    except hub_error_types() as error:
        raise UnavailableError(
            f"the Hub cannot be reached for {repository}.",
            service="Hugging Face Hub",
            fix="Check the network and HF_ENDPOINT.",
        ) from error
