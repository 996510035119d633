"""Where the judge is, and which token goes there.

A suite may name its judge, and a suite may come from anybody. So a token with an owner goes to that owner, to addresses
that the environment names for it, and to this machine; any other variable is taken to hold the judge's own token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pydantic import SecretStr

from slipway.errors import ConfigurationError
from slipway.judge_settings import JudgeSettings
from slipway.redaction import SECRET_VARIABLES
from slipway.services.http_errors import Service, bare_url
from slipway.targets import LOOPBACK_HOSTS

__all__ = ["JudgeAccess", "judge_access"]

OPENAI_URL = "https://api.openai.com/v1"
JUDGE = Service(name="Judge", address_variable="`judge: {url: ...}`")

_OWNERS = {
    "OPENAI_API_KEY": ("openai.com", ("OPENAI_BASE_URL",)),
    "ANTHROPIC_API_KEY": ("anthropic.com", ()),
    "PREDIBASE_API_TOKEN": ("predibase.com", ("PREDIBASE_SERVING", "PREDIBASE_GATEWAY")),
    "HF_TOKEN": ("huggingface.co", ("HF_ENDPOINT",)),
    "HUGGING_FACE_HUB_TOKEN": ("huggingface.co", ("HF_ENDPOINT",)),
}
"""The domain of the service that gave the token, and the variables with further addresses of it."""

_OWN_VARIABLE = (
    "Put the judge's token into a variable of its own, such as JUDGE_TOKEN, and name that as `token_variable:` under "
    "`judge:`."
)


@dataclass(frozen=True, kw_only=True)
class JudgeAccess:
    """How to reach a judge.

    Attributes:
        service: For messages; knows the token, so as to mask it.
        address: Base address, ``/v1`` included where the server has it.
        token: None where none is sent.
    """

    service: Service
    address: str
    token: SecretStr | None


def judge_access(settings: JudgeSettings, environ: Mapping[str, str]) -> JudgeAccess:
    """Find address and token of a judge.

    ``OPENAI_API_KEY`` that is not named, only the default, is held back from a server that is not OpenAI's: many take
    no token.

    Raises:
        ConfigurationError: OpenAI is asked without a token, or the token named is another service's.
    """
    variable = settings.token_variable
    secret = environ.get(variable, "").strip()
    address = (settings.url or environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip().rstrip("/")
    if not secret and address == OPENAI_URL:
        raise ConfigurationError(
            f"the judge at {OPENAI_URL} needs a token, and {variable} is not set.",
            fix=f"Export {variable}, or name another server with `judge: {{url: ...}}` or OPENAI_BASE_URL.",
        )
    may_go = _may_go(variable, address, environ)
    if secret and not may_go:
        if "token_variable" in settings.model_fields_set:
            raise ConfigurationError(
                f"{variable} is not sent to the judge at {bare_url(address)}: it is the token of another service.",
                fix=_OWN_VARIABLE,
            )
        secret = ""
    service = replace(
        JUDGE,
        token_variable=variable,
        address_variable=JUDGE.address_variable if settings.url else "OPENAI_BASE_URL",
        denied_fix="" if may_go else _OWN_VARIABLE,
        secrets=frozenset({secret} if secret else ()),
    )
    return JudgeAccess(service=service, address=address, token=SecretStr(secret) if secret else None)


def _may_go(variable: str, address: str, environ: Mapping[str, str]) -> bool:
    if variable not in _OWNERS and variable not in SECRET_VARIABLES:
        return True
    host = _host(address)
    domain, variables = _OWNERS.get(variable, ("", ()))
    named = {_host(environ.get(name, "")) for name in variables}
    return host in LOOPBACK_HOSTS | (named - {""}) or (domain != "" and f".{host}".endswith(f".{domain}"))


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # no address; whoever calls it says so
        return ""
