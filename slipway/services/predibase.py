"""The Predibase control plane: adapter repositories and versions, uploads, serving deployments.

Routes and shapes are those of the official SDK ``predibase`` 2025.10.3, whose requests were recorded; replies are
read tolerantly, since the service documents none. Waiting for a deployment, and what to do when one fails, is left to
others.

What makes repeats safe: reads are free; a repository is made with ``existsOk``; the bytes of a presigned PUT are the
same each time; the last step of an upload names its token and is idempotent per token; a creation is repeated only
after looking whether the first one went through.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from slipway.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    ProtocolError,
    ServiceTimeoutError,
    StoreError,
    UnavailableError,
)
from slipway.services.http import (
    RetryPolicy,
    Service,
    Timeouts,
    call,
    download,
    file_chunks,
    json_body,
    make_client,
)
from slipway.services.predibase_models import (
    AdapterVersion,
    CreatedDeployment,
    Deployment,
    DeploymentStatus,
    Repo,
    RepoVersion,
    UploadSlot,
    User,
)

__all__ = [
    "AdapterVersion",
    "CreatedDeployment",
    "Deployment",
    "DeploymentStatus",
    "PredibaseClient",
    "Repo",
    "RepoVersion",
    "UploadSlot",
    "gateway_url",
    "serving_url",
]

PREDIBASE = Service(
    name="Predibase control plane",
    token_variable="PREDIBASE_API_TOKEN",  # noqa: S106  # the variable's name
    address_variable="PREDIBASE_GATEWAY",
)

UPLOAD_STORAGE = Service(
    name="Adapter upload storage",
    denied_fix="The presigned address was refused, most likely because it ran out: run this again to get a new one.",
)

UPLOAD_STATUSES = frozenset({429, 500, 502, 503, 504})
"""Object stores answer 500 for their own passing trouble, and the same bytes may always be put again."""


def gateway_url(gateway: str) -> str:
    """Bring a gateway into one form, as the SDK does: with a scheme, without ``/v1``, ``/v2`` or a slash at the end."""
    text = gateway.strip().rstrip("/")
    if text and "://" not in text:
        text = f"https://{text}"
    return text.removesuffix("/v1").removesuffix("/v2").rstrip("/")


def serving_url(gateway: str, tenant: str, deployment: str, *, serving: str = "") -> str:
    """Tell the address under which a deployment answers.

    Args:
        gateway: Of the control plane.
        tenant: Short code, from ``current_user``.
        deployment: Its name.
        serving: Base address of the serving plane, if it is not the gateway's with ``serving`` as first label.

    Raises:
        ConfigurationError: The gateway is an IP address or a bare name, from which nothing can be derived.
    """
    if serving:
        base = serving.strip().rstrip("/")
        base = base if "://" in base else f"https://{base}"
    else:
        parts = urlsplit(gateway_url(gateway))
        host = parts.hostname or ""
        if "." not in host or _is_ip(host):
            raise ConfigurationError(
                f"The serving address cannot be derived from the gateway {host or gateway!r}.",
                fix="Set PREDIBASE_SERVING to the base address of the serving plane, such as http://127.0.0.1:8931.",
            )
        port = f":{parts.port}" if parts.port else ""
        base = f"https://serving.{host.partition('.')[2]}{port}"
    return f"{base}/{quote(tenant, safe='')}/deployments/v2/llms/{quote(deployment, safe='')}"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_Model = TypeVar("_Model", bound=BaseModel)


class PredibaseClient:
    """A connection to the control plane; use it as an async context manager.

    Every method raises ``ServiceError`` or one of its classes.

    Args:
        gateway: Such as ``https://api.app.predibase.com``.
        token: ``PREDIBASE_API_TOKEN``.
        timeouts: The four waits of one request.
        retry: Budget for repeats of one request.
        serving: Base address of the serving plane, where it cannot be derived from the gateway.
        transport: In place of the network, for tests.
    """

    def __init__(
        self,
        gateway: str,
        token: SecretStr,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        serving: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._gateway = gateway_url(gateway)
        self._serving = serving
        self._service = replace(PREDIBASE, secrets=frozenset({token.get_secret_value()}))
        self._retry = retry or RetryPolicy()
        self._client = make_client(
            self._gateway, token=token, service=self._service, timeouts=timeouts, transport=transport
        )
        # Presigned addresses carry their own signature; our token is nobody's business there.
        self._storage = make_client("", token=None, service=UPLOAD_STORAGE, timeouts=timeouts, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._storage.aclose()

    # Account

    async def current_user(self) -> str:
        """Tell the short code of the token's tenant, which is part of every serving address."""
        return (await self._read(User, "GET", "/users/current")).tenant.short_code

    def serving_url(self, tenant: str, deployment: str) -> str:
        """Tell the address under which a deployment answers; see the function of this name."""
        return serving_url(self._gateway, tenant, deployment, serving=self._serving)

    # Repositories and versions

    async def get_repo(self, name: str) -> Repo | None:
        """Look a repository up; None if there is none."""
        return await self._find(Repo, f"/v2/repos/{_segment(name)}")

    async def create_repo(self, name: str, description: str = "") -> Repo:
        """Make a repository, or return the one of this name."""
        body = {"name": name, "description": description or None, "existsOk": True}
        return await self._read(Repo, "POST", "/v2/repos", json=body)

    async def list_versions(self, repo: str) -> tuple[RepoVersion, ...]:
        """List a repository's versions by rising tag, archived ones too; empty if there is no such repository."""
        found = await self.get_repo(repo)
        return tuple(sorted(found.versions, key=lambda version: version.tag)) if found else ()

    async def get_version(self, repo: str, tag: int) -> AdapterVersion | None:
        """Look a version up; None if there is none."""
        return await self._find(AdapterVersion, f"/v2/repos/{_segment(repo)}/version/{tag}")

    async def download_version(
        self, repo: str, tag: int, destination: Path, *, on_bytes: Callable[[int, int], object] | None = None
    ) -> int:
        """Fetch a version's archive (zip) into a file, streamed; returns its size in bytes.

        Args:
            repo: The repository.
            tag: The version.
            destination: The file.
            on_bytes: Told bytes received and expected (0 if unknown) as they come; may raise to stop.
        """
        url = f"/v2/repos/{_segment(repo)}/version/{tag}/download"
        return await download(
            self._client, url, destination, service=self._service, retry=self._retry, on_bytes=on_bytes
        )

    # Upload, in three steps

    async def start_upload(self, repo: str) -> UploadSlot:
        """Step 1: ask where to put the files. Asking twice only leaves an unused token behind."""
        return await self._read(UploadSlot, "POST", "/v2/adapters/upload", json={"repo": repo})

    async def put_file(self, url: str, path: Path, headers: Mapping[str, str] | None = None) -> None:
        """Step 2, for each file: put its bytes under its presigned address, streamed from disk.

        Args:
            url: From ``UploadSlot.presigned_urls``.
            path: The file.
            headers: ``UploadSlot.required_headers``.

        Raises:
            StoreError: The file cannot be read.
        """
        try:
            size = (await asyncio.to_thread(path.stat)).st_size
            await call(
                self._storage,
                "PUT",
                url,
                service=UPLOAD_STORAGE,
                idempotent=True,
                retry=replace(self._retry, statuses=UPLOAD_STATUSES),
                headers={"Content-Type": "application/octet-stream", **(headers or {}), "Content-Length": str(size)},
                content=lambda: file_chunks(path),
            )
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read: {error.strerror or error}.", fix="Check the file and run this again."
            ) from error

    async def finish_upload(self, token: str) -> AdapterVersion:
        """Step 3: turn what was put into a version. Repeating it with the same token gives the same version."""
        return await self._read(AdapterVersion, "PUT", "/v2/adapters/upload/", json={"uploadToken": token})

    # Serving deployments

    async def list_deployments(self) -> tuple[Deployment, ...]:
        """List all serving deployments that the token may see."""
        body = await self._json("GET", "/v2/deployments")
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise self._unexpected("GET", "/v2/deployments", "no list under 'data'")
        return tuple(self._parse(Deployment, item, "GET", "/v2/deployments") for item in data)

    async def get_deployment(self, name: str) -> Deployment | None:
        """Look a serving deployment up; None if there is none."""
        return await self._find(Deployment, f"/v2/deployments/{_segment(name)}", enveloped=True)

    async def create_deployment(
        self, name: str, config: Mapping[str, object], description: str = ""
    ) -> CreatedDeployment:
        """Create a serving deployment, or adopt the one of this name and base; returns without waiting for a replica.

        When it is unclear whether a request went through (5xx, reset, timeout), the deployment is looked up before the
        request is repeated, so that there is never a second one.

        Args:
            name: Unique in the tenant.
            config: As the service spells it (camelCase), with ``baseModel``.
            description: For people.

        Raises:
            ConflictError: One of this name serves another base model.
        """
        if await self.get_deployment(name) is not None:
            return await self._created(name, config, was_there=True)
        body = {"name": name, "config": dict(config), "description": description or None}
        for attempt in range(1, self._retry.attempts + 1):
            try:
                await self._json("POST", "/v2/deployments", json=body, idempotent=False)
            except ConflictError:
                # After an unclear first attempt it is most likely that attempt's; else somebody was quicker.
                return await self._created(name, config, was_there=attempt == 1)
            except (UnavailableError, ServiceTimeoutError):
                if await self.get_deployment(name) is not None:
                    return await self._created(name, config, was_there=False)
                if attempt == self._retry.attempts:
                    raise
                await self._retry.sleep(self._retry.wait_seconds(attempt))
            else:
                break
        return await self._created(name, config, was_there=False)

    async def _created(self, name: str, config: Mapping[str, object], *, was_there: bool) -> CreatedDeployment:
        found = await self.get_deployment(name)
        if found is None:
            raise self._unexpected("POST", "/v2/deployments", f"success, but there is no deployment {name} afterwards")
        wanted = config.get("baseModel")
        if was_there and wanted not in {found.base_model, found.config.get("baseModel")}:
            raise ConflictError(
                f"{self._service.name}: the deployment {name} exists and serves {found.base_model}, not {wanted}.",
                service=self._service.name,
                url=f"{self._gateway}/v2/deployments",
                status_code=409,
                fix="Choose another deployment name in the target file, or delete that deployment.",
            )
        return CreatedDeployment(deployment=found, was_there=was_there)

    async def update_deployment(
        self, name: str, *, config: Mapping[str, object] | None = None, description: str | None = None
    ) -> Deployment:
        """Change a serving deployment; what is not given stays. Returns it as it is then, without waiting."""
        body: dict[str, object] = {}
        if config is not None:
            body["config"] = dict(config)
        if description is not None:
            body["description"] = description
        url = f"/v2/deployments/{_segment(name)}"
        await self._json("PUT", url, json=body)
        found = await self.get_deployment(name)
        if found is None:
            raise self._unexpected("PUT", url, "success, but it is not there afterwards")
        return found

    async def delete_deployment(self, name: str) -> None:
        """Delete a serving deployment; one that is not there is deleted already."""
        try:
            await self._json("DELETE", f"/v2/deployments/{_segment(name)}")
        except NotFoundError:
            return

    # Requests

    async def _find(self, model: type[_Model], url: str, *, enveloped: bool = False) -> _Model | None:
        try:
            body = await self._json("GET", url)
        except NotFoundError:
            return None
        if enveloped:
            body = body.get("data") if isinstance(body, dict) else None
        return self._parse(model, body, "GET", url)

    async def _read(self, model: type[_Model], method: str, url: str, *, json: object = None) -> _Model:
        return self._parse(model, await self._json(method, url, json=json), method, url)

    async def _json(self, method: str, url: str, *, json: object = None, idempotent: bool = True) -> object:
        response = await call(
            self._client,
            method,
            url,
            service=self._service,
            idempotent=idempotent,
            retry=self._retry,
            json=json,
        )
        return json_body(response, self._service)

    def _parse(self, model: type[_Model], body: object, method: str, url: str) -> _Model:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            # The values stay out: a reply may hold a token.
            first = error.errors(include_input=False, include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise self._unexpected(method, url, f"{key}: {first['msg']}") from None

    def _unexpected(self, method: str, url: str, what: str) -> ProtocolError:
        return ProtocolError(
            f"{self._service.name}: {method} {self._gateway}{url} was answered in a way we do not know: {what}.",
            service=self._service.name,
            url=f"{self._gateway}{url}",
            fix="Check that PREDIBASE_GATEWAY is a Predibase control plane; if it is, its API has changed: report it.",
        )


def _segment(name: str) -> str:
    """Escape a name for use in a path; one with a slash would name something else."""
    return quote(name, safe="")
