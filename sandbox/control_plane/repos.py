"""Adapter repositories: create, list, delete; versions: show, archive, delete, download."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from sandbox.control_plane.store import AdapterVersion, Repo, Store
from sandbox.control_plane.wire import ApiError, ArchiveRequest, CreateRepoRequest, read_body, repo_json, version_json

__all__ = ["adapter_path", "find_adapter", "repos_router", "require_repo"]

REPO_NAME = re.compile(r"[^/\x00-\x1f?#]{1,255}")
DEFAULT_LIST_LIMIT = 10
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def repos_router(store: Store) -> APIRouter:
    """Serve the repositories of a store."""
    router = APIRouter(prefix="/v2/repos", redirect_slashes=False)
    routes = _RepoRoutes(store)
    router.add_api_route("", routes.create_repo, methods=["POST"])
    router.add_api_route("", routes.list_repos, methods=["GET"])
    router.add_api_route("/{name}", routes.get_repo, methods=["GET"])
    router.add_api_route("/{name}", routes.delete_repo, methods=["DELETE"])
    router.add_api_route("/{name}/version/{tag}", routes.get_version, methods=["GET"])
    router.add_api_route("/{name}/version/{tag}", routes.archive_version, methods=["PUT"])
    router.add_api_route("/{name}/version/{tag}", routes.delete_version, methods=["DELETE"])
    router.add_api_route("/{name}/version/{tag}/download", routes.download_version, methods=["GET"])
    return router


class _RepoRoutes:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def create_repo(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, CreateRepoRequest)
        if not REPO_NAME.fullmatch(body.name) or body.name.strip(" .") == "":
            raise ApiError(
                400, f"invalid repository name {body.name!r}: use up to 255 characters without '/', '?', '#'"
            )
        repo = self._store.find_repo(body.name)
        if repo is None:
            repo = self._store.create_repo(body.name, body.description)
        elif not body.exists_ok:
            raise ApiError(409, f"repository {body.name!r} already exists")
        return repo_json(repo, self._store.list_versions(repo))

    async def list_repos(self, limit: int = DEFAULT_LIST_LIMIT) -> dict[str, Any]:
        if limit < 1:
            raise ApiError(400, "limit must be at least 1")
        repos = [repo_json(repo, self._store.list_versions(repo)) for repo in self._store.list_repos(limit)]
        return {"data": {"repos": repos}}

    async def get_repo(self, name: str) -> dict[str, Any]:
        repo = require_repo(self._store, name)
        return repo_json(repo, self._store.list_versions(repo))

    async def delete_repo(self, name: str) -> dict[str, Any]:
        self._store.delete_repo(require_repo(self._store, name))
        return {}

    async def get_version(self, name: str, tag: str) -> dict[str, Any]:
        _, version = _require_version(self._store, name, tag)
        return version_json(version, adapter_path(self._store, version))

    async def archive_version(self, name: str, tag: str, request: Request) -> dict[str, Any]:
        body = await read_body(request, ArchiveRequest)
        repo, version = _require_version(self._store, name, tag)
        self._store.set_archived(repo, version.tag, archived=body.archived)
        _, version = _require_version(self._store, name, tag)
        return version_json(version, adapter_path(self._store, version))

    async def delete_version(self, name: str, tag: str) -> dict[str, Any]:
        repo, version = _require_version(self._store, name, tag)
        self._store.delete_version(repo, version)
        return {}

    async def download_version(self, name: str, tag: str) -> FileResponse:
        _, version = _require_version(self._store, name, tag)
        archive = await asyncio.to_thread(_zip, self._store.adapters / version.directory, self._store.scratch)
        return FileResponse(
            archive,
            media_type="application/zip",
            filename=f"{version.tag}.zip",
            background=BackgroundTask(archive.unlink, missing_ok=True),
        )


def require_repo(store: Store, name: str) -> Repo:
    """Return a repository by name or uuid.

    Raises:
        ApiError: 404.
    """
    repo = store.find_repo(name)
    if repo is None:
        raise ApiError(404, f"repository {name!r} does not exist")
    return repo


def find_adapter(store: Store, adapter_id: str) -> AdapterVersion | None:
    """Return the version that a ``repo/tag`` names, or None."""
    name, _, tag = adapter_id.partition("/")
    repo = store.find_repo(name)
    return store.find_version(repo, int(tag)) if repo and _is_tag(tag) else None


def adapter_path(store: Store, version: AdapterVersion) -> str:
    """Where a serving process reads a version: an absolute directory on this machine."""
    return str((store.adapters / version.directory).resolve())


def _require_version(store: Store, name: str, tag: str) -> tuple[Repo, AdapterVersion]:
    repo = require_repo(store, name)
    if not _is_tag(tag):
        raise ApiError(404, f"{name}/{tag} does not exist: versions are named by number, there are no aliases")
    version = store.find_version(repo, int(tag))
    if version is None:
        raise ApiError(404, f"version {tag} of repository {name!r} does not exist")
    return repo, version


def _is_tag(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _zip(directory: Path, scratch: Path) -> Path:
    """Pack a version's files at the top level, stored and with a fixed time: equal bytes for equal adapters."""
    descriptor, name = tempfile.mkstemp(suffix=".zip", dir=scratch)
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(directory.iterdir()):
                member = zipfile.ZipInfo(path.name, date_time=ZIP_EPOCH)
                member.external_attr = 0o644 << 16
                member.file_size = path.stat().st_size
                with path.open("rb") as source, archive.open(member, "w") as target:
                    while chunk := source.read(1 << 20):
                        target.write(chunk)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)
