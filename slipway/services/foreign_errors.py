"""Turn what boto3 and huggingface_hub raise into our errors, each with its fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from slipway.errors import AuthenticationError, NotFoundError, ServiceError, UnavailableError

__all__ = ["hub_errors", "s3_errors"]


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
    except OSError as error:
        raise UnavailableError(
            f"the Hub cannot be reached for {repository}.",
            service="Hugging Face Hub",
            fix="Check the network and HF_ENDPOINT.",
        ) from error
