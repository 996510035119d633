"""Uploads to the Predibase registry, at most one version per digest.

The wire has no idempotency: uploading twice makes two versions. So each stage of an upload is in the ledger before the
next begins, and an upload that a crash cut is settled before another is made.
"""

from __future__ import annotations

import tempfile
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slipway.adapter import Bundle, bundle_digest
from slipway.errors import ConflictError, InvalidRequestError, NotFoundError, ProtocolError
from slipway.ledger import UploadStage, UploadState
from slipway.services.archives import digest_of_archive
from slipway.services.leases import Lease
from slipway.services.ledger_store import Ledger
from slipway.services.predibase import PredibaseClient

__all__ = ["Uploads"]

UPLOADED_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What the registry takes of a bundle; it has no slot for anything else, and we never send a pickle."""


class Uploads:
    """The registry of one tenant.

    Args:
        client: Of its control plane.
        ledger: Where each stage is written down first.
        registry: The tenant's name in the ledger.
    """

    def __init__(self, client: PredibaseClient, ledger: Ledger, registry: str) -> None:
        self._client = client
        self._ledger = ledger
        self._registry = registry

    async def version_of(self, bundle: Bundle) -> str | None:
        """The version that holds these bytes, be it one that a cut upload turns out to have made; None for none."""
        known = self._ledger.find_version(target=self._registry, digest=bundle.digest)
        if known is not None and await self.has(known):
            return known
        interrupted = self._ledger.open_upload(target=self._registry, digest=bundle.digest)
        return await self._settle(bundle, interrupted) if interrupted is not None else None

    async def has(self, adapter_id: str) -> bool:
        """Whether the version is there and usable; an archived one still serves."""
        repository, _, tag = adapter_id.partition("/")
        version = await self._client.get_version(repository, int(tag))
        return version is not None and version.is_usable

    async def upload(self, bundle: Bundle, lease: Lease, *, repository: str, description: str) -> str:
        """Make a new version, and the repository if need be; returns ``repo/tag``.

        Raises:
            LeaseHeldError: The lease ran out on the way: another process may be making the version.
        """
        attempt = uuid.uuid4().hex
        note: dict[str, Any] = {
            "target": self._registry,
            "digest": bundle.digest,
            "repository": repository,
            "attempt_id": attempt,
        }
        self._ledger.record_upload(**note, stage=UploadStage.INTENDED)
        if await self._client.get_repo(repository) is None:
            await self._client.create_repo(repository, description)
        tags = [version.tag for version in await self._client.list_versions(repository)]
        slot = await self._client.start_upload(repository)
        self._ledger.record_upload(**note, stage=UploadStage.TOKEN, upload_token=slot.upload_token, tags_before=tags)
        for file in UPLOADED_FILES:
            url = slot.presigned_urls.get(file)
            if url is None:
                raise ProtocolError(
                    f"the registry gave no upload address for {file}.", service="Predibase", fix="Check its version."
                )
            await self._client.put_file(url, bundle.directory / file, slot.required_headers)
        lease.confirm()  # whoever has it now takes this attempt for abandoned, and makes the version
        self._ledger.record_upload(**note, stage=UploadStage.SENT, upload_token=slot.upload_token, tags_before=tags)
        version = await self._client.finish_upload(slot.upload_token)
        self._ledger.record_upload(**note, stage=UploadStage.COMMITTED, version=version.adapter_id)
        return version.adapter_id

    async def _settle(self, bundle: Bundle, upload: UploadState) -> str | None:
        """End an upload that a crash cut: the version it made, or None when it can be shown to have made none.

        Before the files were complete nothing asked for a version, so there is none. After that the same token is sent
        again, which the registry answers with the same version; where it no longer knows the token, the versions made
        since are downloaded and compared by content.
        """
        note: dict[str, Any] = {
            "target": self._registry,
            "digest": bundle.digest,
            "repository": upload.repository,
            "attempt_id": upload.attempt_id,
        }
        if upload.stage is UploadStage.SENT and upload.upload_token is not None:
            try:
                adapter_id: str | None = (await self._client.finish_upload(upload.upload_token)).adapter_id
            except (NotFoundError, InvalidRequestError, ConflictError):
                adapter_id = await self._find_by_content(upload.repository, bundle, upload.tags_before or ())
            if adapter_id is not None:
                self._ledger.record_upload(**note, stage=UploadStage.COMMITTED, version=adapter_id)
                return adapter_id
        self._ledger.record_upload(**note, stage=UploadStage.ABANDONED)
        return None

    async def _find_by_content(self, repository: str, bundle: Bundle, tags_before: Sequence[int]) -> str | None:
        wanted = bundle_digest(file for file in bundle.files if file.name in UPLOADED_FILES)
        for version in await self._client.list_versions(repository):
            if version.tag in tags_before:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                archive = Path(scratch) / "version.zip"
                await self._client.download_version(repository, version.tag, archive)
                try:
                    found = digest_of_archive(archive, names=UPLOADED_FILES)
                except zipfile.BadZipFile as error:
                    raise ProtocolError(
                        f"the archive of {repository}/{version.tag} is no zip file.",
                        service="Predibase",
                        fix="Download it by hand and compare; then repeat the release.",
                    ) from error
            if found == wanted:
                return f"{repository}/{version.tag}"
        return None
