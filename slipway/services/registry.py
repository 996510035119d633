"""Take adapters from Predibase's registry.

A version is downloaded as one archive, which the registry does not hand out in parts: a download that was cut begins
again, one that was whole is only unpacked.
"""

from __future__ import annotations

import asyncio
import os
import zipfile
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from slipway.adapter import AdapterUri, Bundle
from slipway.errors import AdapterNotFoundError, AuthenticationError, NotFoundError, SourceError
from slipway.services.archives import archive_errors, find_members, open_member
from slipway.services.predibase import PredibaseClient, gateway_url
from slipway.services.predibase_models import Repo, RepoVersion
from slipway.services.stage import Stage
from slipway.services.store import BundleStore
from slipway.services.transfer import Transfer, keep_once, pull_in_thread

__all__ = ["RegistrySource"]

GATEWAY: Final = "https://api.app.predibase.com"


class RegistrySource:
    """Versions of adapter repositories; ``PREDIBASE_API_TOKEN`` and ``PREDIBASE_GATEWAY`` are read at each pull."""

    async def pull(self, uri: AdapterUri, store: BundleStore) -> Bundle:
        """Fetch a version and unpack it; see ``AdapterSource``.

        Raises:
            AdapterNotFoundError: There is no such repository or version, or nothing of an adapter in it.
            AuthenticationError: There is no token, or it may not read this.
            SourceError: The archive is damaged or hostile.
            ServiceError: The registry is not reached, or fails.
            StoreError: The store cannot be written.
        """
        return await pull_in_thread(uri, lambda transfer: _Pull(uri, transfer).run(store))


class _Pull:
    """One pull of one version."""

    def __init__(self, uri: AdapterUri, transfer: Transfer) -> None:
        self._uri = uri
        self._transfer = transfer
        self._repo, _, tag = uri.location.rpartition("/")
        self._tag = int(tag)
        self._gateway = os.environ.get("PREDIBASE_GATEWAY", "").strip() or GATEWAY
        token = os.environ.get("PREDIBASE_API_TOKEN", "").strip()
        if not token:
            raise AuthenticationError(
                f"{uri} cannot be pulled without a token.",
                service="Predibase control plane",
                fix="Set PREDIBASE_API_TOKEN.",
            )
        self._token = SecretStr(token)

    def run(self, store: BundleStore) -> Bundle:
        """See ``RegistrySource.pull``."""
        repo, version = asyncio.run(self._look_up())
        # Tags start again when a repository is deleted and made anew; its id and the version's date do not.
        key = f"pbase {gateway_url(self._gateway)} {repo.uuid} {self._tag} {version.created_at}"
        return keep_once(
            store,
            key,
            uri=self._uri,
            resolved_revision=str(self._tag),
            transfer=self._transfer,
            fill=self._fill,
        )

    async def _look_up(self) -> tuple[Repo, RepoVersion]:
        async with PredibaseClient(self._gateway, self._token) as client:
            repo = await client.get_repo(self._repo)
        if repo is None:
            raise AdapterNotFoundError(
                f"There is no adapter repository {self._repo}.", fix="Check the spelling, and whose token it is."
            )
        for version in repo.versions:
            if version.tag == self._tag:
                return repo, version
        tags = ", ".join(str(version.tag) for version in repo.versions[-10:])
        raise AdapterNotFoundError(
            f"The adapter repository {self._repo} has no version {self._tag}.",
            fix=f"It has {tags}." if tags else "It has none yet.",
        )

    def _fill(self, stage: Stage) -> None:
        path = stage.scratch / "archive.zip"
        if not path.exists():
            asyncio.run(self._download(path))
        what = f"The archive of {self._uri}"
        try:
            with archive_errors(what), zipfile.ZipFile(path) as archive:
                for name, entry in find_members(archive, what).items():
                    self._transfer.check()
                    with open_member(archive, entry, what) as member:
                        stage.add(name, member)
        except SourceError:
            path.unlink(missing_ok=True)
            raise
        path.unlink()

    async def _download(self, path: Path) -> None:
        last = 0

        def count(received: int, total: int) -> None:
            nonlocal last
            if received < last:  # the client began again
                self._transfer.count_present(-last)
                last = 0
            self._transfer.expect(total)
            self._transfer.add(received - last)
            last = received

        try:
            async with PredibaseClient(self._gateway, self._token) as client:
                await client.download_version(self._repo, self._tag, path, on_bytes=count)
        except NotFoundError as error:
            raise AdapterNotFoundError(
                f"The registry has no files of {self._uri}.", fix="It may have been deleted; choose another version."
            ) from error
