"""The three-step upload: presigned addresses, the files, the version.

As with a presigned address of S3, whoever holds one may put that one file until it expires, without a token, and must
send the headers that were signed with it. A file arrives in a part file and is renamed when complete, so an interrupted
PUT leaves nothing. The third step is idempotent per upload token.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import json
import time
import uuid
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from sandbox.control_plane.repos import adapter_path, require_repo
from sandbox.control_plane.settings import ControlPlaneSettings
from sandbox.control_plane.store import Store, Upload
from sandbox.control_plane.wire import ApiError, FinishUploadRequest, StartUploadRequest, read_body, version_json

__all__ = ["PRESIGNED_PREFIX", "uploads_router"]

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.bin", "adapter_model.safetensors")
PRESIGNED_PREFIX = "/sandbox/uploads/"
REQUIRED_HEADERS = {"x-amz-server-side-encryption": "AES256"}
WRITE_BYTES = 1 << 20


def uploads_router(store: Store, settings: ControlPlaneSettings) -> APIRouter:
    """Serve uploads into a store."""
    router = APIRouter(redirect_slashes=False)
    routes = _UploadRoutes(store, settings)
    # The SDK spells this route with and without a slash at the end, and a redirect would lose the body.
    router.add_api_route("/v2/adapters/upload", routes.start_upload, methods=["POST"])
    router.add_api_route("/v2/adapters/upload/", routes.start_upload, methods=["POST"])
    router.add_api_route(PRESIGNED_PREFIX + "{directory}/{filename}", routes.put_file, methods=["PUT"])
    router.add_api_route("/v2/adapters/upload", routes.finish_upload, methods=["PUT"])
    router.add_api_route("/v2/adapters/upload/", routes.finish_upload, methods=["PUT"])
    return router


class _UploadRoutes:
    def __init__(self, store: Store, settings: ControlPlaneSettings) -> None:
        self._store = store
        self._settings = settings

    async def start_upload(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, StartUploadRequest)
        repo = require_repo(self._store, body.repo)
        expires = int(time.time() + self._settings.upload_expiry_seconds)
        upload = self._store.create_upload(repo, expires)
        base = str(request.base_url).rstrip("/")
        return {
            "presignedUrls": {
                name: f"{base}{PRESIGNED_PREFIX}{upload.directory}/{name}"
                f"?expires={expires}&signature={self._sign(upload.directory, name, str(expires))}"
                for name in (CONFIG_FILE, *WEIGHT_FILES)
            },
            "uploadToken": upload.token,
            "requiredHeaders": REQUIRED_HEADERS,
        }

    async def put_file(self, directory: str, filename: str, request: Request) -> Response:
        expires = request.query_params.get("expires", "")
        signature = request.query_params.get("signature", "")
        expected = self._sign(directory, filename, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise ApiError(403, "the signature of this upload address is wrong")
        if int(expires) < time.time():
            raise ApiError(403, "this upload address has expired; start the upload again")
        for name, value in REQUIRED_HEADERS.items():
            if request.headers.get(name) != value:
                raise ApiError(403, f"this upload address was signed with the header {name}: {value}; send it")
        _require_open(self._store.find_upload_by_directory(directory))
        part = self._store.scratch / f"{uuid.uuid4().hex}.part"
        try:
            digest = await _receive(request, part)
            # Checked again: the upload may have been finalised while the file came.
            _require_open(self._store.find_upload_by_directory(directory))
            part.replace(self._store.adapters / directory / filename)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ApiError(507, "the sandbox has no disk space left for this file") from error
            raise
        finally:
            part.unlink(missing_ok=True)
        return Response(headers={"ETag": f'"{digest}"'})

    async def finish_upload(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, FinishUploadRequest)
        upload = self._store.find_upload(body.upload_token)
        if upload is None:
            raise ApiError(404, "unknown upload token; start the upload again")
        repo = require_repo(self._store, upload.repo_uuid)
        if upload.tag is None:
            version = self._store.finalise_upload(
                upload, repo, _base_model(self._store.adapters / upload.directory, self._settings)
            )
        elif (found := self._store.find_version(repo, upload.tag)) is not None:
            version = found
        else:
            raise ApiError(410, f"{repo.name}/{upload.tag}, which this upload made, has been deleted")
        return version_json(version, adapter_path(self._store, version))

    def _sign(self, directory: str, filename: str, expires: str) -> str:
        text = f"{directory}/{filename}?{expires}"
        return hmac.new(self._settings.token.encode(), text.encode(), hashlib.sha256).hexdigest()


def _require_open(upload: Upload | None) -> None:
    if upload is None:
        raise ApiError(404, "this upload no longer exists; start it again")
    if upload.tag is not None:
        raise ApiError(409, "this upload is finished; a version never changes, start a new upload")


async def _receive(request: Request, part: Path) -> str:
    """Write a request body to a file as it arrives; returns its MD5, which S3 gives as ETag."""
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("wb") as file:
        buffer = bytearray()

        def flush() -> None:
            digest.update(buffer)
            file.write(buffer)
            buffer.clear()

        with contextlib.suppress(ClientDisconnect):
            async for chunk in request.stream():
                buffer += chunk
                if len(buffer) >= WRITE_BYTES:
                    # In a thread: a slow disk must not stop the requests of others.
                    await asyncio.to_thread(flush)
            await asyncio.to_thread(flush)
            return digest.hexdigest()
    raise ApiError(400, "the connection closed before the whole file had arrived")


def _base_model(directory: Path, settings: ControlPlaneSettings) -> str:
    """Read which base model an uploaded adapter is for; a known one is given its full id.

    Raises:
        ApiError: 400: the upload is not an adapter.
    """
    config_file = directory / CONFIG_FILE
    if not config_file.is_file():
        raise ApiError(400, f"{CONFIG_FILE} has not been uploaded")
    if not any((directory / name).is_file() and (directory / name).stat().st_size for name in WEIGHT_FILES):
        raise ApiError(400, f"no weights have been uploaded: one of {', '.join(WEIGHT_FILES)} is needed, not empty")
    try:
        config = json.loads(config_file.read_bytes())
    except ValueError as error:
        raise ApiError(400, f"{CONFIG_FILE} is not JSON: {error}") from error
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise ApiError(400, f"{CONFIG_FILE} does not say base_model_name_or_path")
    known = settings.base_models.find(name)
    return known.id if known else name
