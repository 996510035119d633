"""Read what a person writes for an adapter's address.

Purely about the text: whether something is there is for the services to find out.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from slipway.adapter import AdapterUri, Source
from slipway.errors import ConfigurationError

__all__ = ["parse_adapter_uri"]

_FORMS = "Write hf://ORG/NAME[@REVISION], s3://BUCKET/PREFIX/, pbase://REPO/TAG, file:///ABSOLUTE/PATH or a path."
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"({_NAME}/{_NAME})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")
_HUB_PAGE = re.compile(
    rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/({_NAME}/{_NAME})(?:/tree/([^?#]+?))?/?(?:[?#].*)?"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""Bucket names as https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html has them."""
_REPO_TAG = re.compile(r"([A-Za-z0-9][A-Za-z0-9 ._-]*)/([1-9][0-9]*)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def parse_adapter_uri(text: str) -> AdapterUri:
    """Take an adapter's address apart.

    A text without a scheme is a path; a relative one is relative to the current directory. An S3 prefix means a folder
    and always ends in ``/``, so that ``team/a1`` never takes ``team/a10/``.

    Raises:
        ConfigurationError: The text is none of the known forms; the error says what to write.
    """
    if not text.strip():
        raise ConfigurationError("The adapter address is empty.", fix=_FORMS)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ConfigurationError(f"The adapter address {text!r} has control characters in it.", fix=_FORMS)
    match = _SCHEME.fullmatch(text)
    if match is None:
        return AdapterUri(source=Source.LOCAL, location=str(Path(text).expanduser().absolute()))
    scheme, rest = match[1].lower(), match[2]
    match scheme:
        case "hf":
            return _parse_hub(text, rest)
        case "s3":
            return _parse_s3(text, rest)
        case "pbase":
            return _parse_pbase(text, rest)
        case "file":
            return _parse_file(text, rest)
        case _:
            raise ConfigurationError(
                f"{text!r} is not an adapter address that Slipway knows.", fix=_advice(text, scheme)
            )


def _parse_hub(text: str, rest: str) -> AdapterUri:
    match = _HUB.fullmatch(rest)
    if match is None:
        raise ConfigurationError(
            f"{text!r} does not name a repository on the Hugging Face Hub.",
            fix="Write hf://ORG/NAME, or hf://ORG/NAME@REVISION with a branch, a tag or a commit.",
        )
    return AdapterUri(source=Source.HUB, location=match[1], revision=match[2] or "")


def _parse_s3(text: str, rest: str) -> AdapterUri:
    if "?" in rest:
        raise ConfigurationError(
            f"{text!r} carries options after a question mark.",
            fix="Write s3://BUCKET/PREFIX/ and give the endpoint in AWS_ENDPOINT_URL_S3.",
        )
    bucket, _, prefix = rest.partition("/")
    segments = prefix.rstrip("/").split("/")
    if not _BUCKET.fullmatch(bucket) or any(segment in {"", ".", ".."} for segment in segments):
        raise ConfigurationError(
            f"{text!r} does not name a folder in an S3 bucket.",
            fix="Write s3://BUCKET/PREFIX/, where PREFIX is the folder that holds adapter_config.json.",
        )
    return AdapterUri(source=Source.S3, location=f"{bucket}/{'/'.join(segments)}/")


def _parse_pbase(text: str, rest: str) -> AdapterUri:
    match = _REPO_TAG.fullmatch(rest)
    if match is None:
        raise ConfigurationError(
            f"{text!r} does not name a version in a Predibase adapter repository.",
            fix="Write pbase://REPO/TAG, where TAG is the version's number, such as pbase://support/4.",
        )
    return AdapterUri(source=Source.PBASE, location=f"{match[1]}/{match[2]}")


def _parse_file(text: str, rest: str) -> AdapterUri:
    path = unquote(rest.removeprefix("localhost"))
    if not path.startswith("/") or "\0" in path:
        raise ConfigurationError(
            f"{text!r} is not an absolute path.",
            fix="Write file:///ABSOLUTE/PATH with three slashes, or the path alone.",
        )
    return AdapterUri(source=Source.LOCAL, location=str(Path(path)))


def _advice(text: str, scheme: str) -> str:
    page = _HUB_PAGE.fullmatch(text)
    if page is not None:
        return f"Write hf://{page[1]}" + (f"@{page[2]}." if page[2] else ".")
    if scheme in {"hub", "huggingface"}:
        return "Write hf://ORG/NAME[@REVISION]."
    if scheme == "predibase":
        return "Write pbase://REPO/TAG."
    return _FORMS
