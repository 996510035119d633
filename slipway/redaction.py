"""Keep secrets and private data out of what we write down: ledger, logs, artifacts, reports, error messages.

Secrets have two nets, because neither is enough alone: the values that we know (from the environment, from a token in
hand), and shapes that only secrets have (a bearer header, a signed query, a password in an address). What is private
in prompts and outputs only their owner knows: a target names patterns, and a ``Redactor`` masks what they match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, overload
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import regex

    from slipway.ledger import Json

__all__ = ["MASK", "SECRET_VARIABLES", "Redactor", "scrub", "scrub_text", "secrets_from_environment"]

MASK = "***"
SECONDS = 1.0
"""For one pattern in one text: some patterns take longer than anybody lives, as ``(a+)+b`` does on fifty a's."""

SECRET_VARIABLES = (
    "PREDIBASE_API_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
)
"""Environment variables whose whole value is a secret."""

_ADDRESS_VARIABLES = ("SLIPWAY_LEDGER_URL", "PREFECT_API_URL", "PREDIBASE_GATEWAY", "PREDIBASE_SERVING", "LORAX_URL")
"""Environment variables with an address that may carry a password."""

_SHORTEST_SECRET = 4
"""Characters. Masking every occurrence of a shorter value would make text unreadable and protects nothing."""

_SECRET_KEYS = frozenset(
    {
        "accesstoken",
        "apikey",
        "apitoken",
        "authorization",
        "awssecretaccesskey",
        "awssessiontoken",
        "hftoken",
        "password",
        "secret",
        "secretaccesskey",
        "uploadtoken",
    }
)
"""Keys, lower case and without ``-`` and ``_``, whose text value is masked whatever it is."""

_SHAPES = (
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1\2{MASK}"),
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@"), rf"\1:{MASK}@"),
    (
        re.compile(
            r"(?i)([?&](?:x-amz-(?:signature|credential|security-token)|signature|sig|api_?token|token)=)[^&\s\"']+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), MASK),
    (re.compile(r"\bpb_[A-Za-z0-9_-]{16,}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
)


class Redactor:
    """Masks private data in texts, as the target's ``redact`` patterns say.

    A text in which a pattern cannot be looked for within ``SECONDS`` is masked whole: nobody knows what is in it.

    Args:
        patterns: In Python's syntax; each match becomes ``***``. None leave every text as it is.

    Raises:
        ValueError: A pattern is not one, or matches the empty text and would put a mask between all characters.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = tuple(map(_private_pattern, patterns))

    def __call__(self, text: str) -> str:
        """Give the text with every match masked; the same text where there is none."""
        for pattern in self._patterns:
            try:
                text = pattern.sub(MASK, text, timeout=SECONDS)
            except TimeoutError:
                return MASK
        return text


def _private_pattern(pattern: str) -> regex.Pattern[str]:
    import regex  # noqa: PLC0415  # only targets that mask something should pay

    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"the pattern {pattern!r} cannot be compiled: {error}") from None
    if compiled.search("") is not None:
        raise ValueError(f"the pattern {pattern!r} matches the empty text: it would mask between all characters")
    return compiled


def secrets_from_environment(environ: Mapping[str, str]) -> frozenset[str]:
    """Collect the secret values of an environment: whole variables, and passwords inside addresses."""
    found = {environ.get(name, "").strip() for name in SECRET_VARIABLES}
    for name in _ADDRESS_VARIABLES:
        try:
            found.add(urlsplit(environ.get(name, "")).password or "")
        except ValueError:  # not an address; whoever uses it will say so
            continue
    return frozenset(value for value in found if len(value) >= _SHORTEST_SECRET)


def scrub_text(text: str, secrets: Collection[str] = ()) -> str:
    """Replace known secret values, also URL- or JSON-escaped, and everything shaped like a secret by ``***``."""
    forms = {
        form
        for secret in secrets
        if len(secret) >= _SHORTEST_SECRET
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
    }
    for form in sorted(forms, key=len, reverse=True):  # a secret may contain another
        text = text.replace(form, MASK)
    for shape, replacement in _SHAPES:
        text = shape.sub(replacement, text)
    return text


@overload
def scrub(value: str, secrets: Collection[str] = ()) -> str: ...
@overload
def scrub(value: Mapping[str, Json], secrets: Collection[str] = ()) -> dict[str, Json]: ...
@overload
def scrub(value: Json, secrets: Collection[str] = ()) -> Json: ...
def scrub(value: Json, secrets: Collection[str] = ()) -> Json:
    """Scrub every text inside a JSON-like value; keys too. Mappings become dicts and sequences lists.

    Args:
        value: Text, numbers, mappings and sequences of them.
        secrets: Known secret values; ones under 4 characters are ignored.
    """
    if isinstance(value, str):
        return scrub_text(value, secrets)
    if isinstance(value, Mapping):
        return {
            scrub_text(str(key), secrets): MASK if _is_secret(key, item) else scrub(item, secrets)
            for key, item in value.items()
        }
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return [scrub(item, secrets) for item in value]


def _is_secret(key: object, value: object) -> bool:
    return isinstance(value, str) and str(key).lower().replace("-", "").replace("_", "") in _SECRET_KEYS
