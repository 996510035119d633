"""A self-hosted LoRAX: one server, no registry, no control plane.

LoRAX never reads an adapter again once it has it, and knows it by id alone, so each digest gets an id of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from slipway.adapter import Bundle, Source
from slipway.errors import ConfigurationError, StoreError
from slipway.services.backends.exclusive import exclusively
from slipway.services.backends.interface import PUBLISH_PATIENCE_SECONDS, PublishedAdapter, ServingDeployment
from slipway.services.foreign_errors import hub_errors, s3_errors
from slipway.services.http import Timeouts
from slipway.services.ledger_store import Ledger
from slipway.services.lorax import LoraxClient
from slipway.targets import Target

__all__ = ["LoraxBackend"]

ID_DIGITS = 16
"""Hexadecimal digits of the digest in an adapter's id: 64 bits keep versions apart. LoRAX wants at least 5."""


class LoraxBackend:
    """See ``interface.Backend``."""

    def __init__(self, target: Target, name: str, ledger: Ledger, *, token: SecretStr | None) -> None:
        if target.url is None:
            raise ConfigurationError(f"target {name} has no url.", fix="Call Target.resolve first.")
        self._target = target
        self._name = name
        self._ledger = ledger
        self._token = token
        self._url = target.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def check(self, base_model: str) -> str:
        """Ask the server which base it serves; see ``Backend``."""
        async with self.client(self._deployment()) as client:
            served = (await client.info()).model_id
        if self._target.served_base(served) != base_model:
            raise ConfigurationError(
                f"the LoRAX at {self._url} serves {served}, and this release needs {base_model}.",
                fix="Point LORAX_URL at a server of that base, or list the name under bases: also_known_as:.",
            )
        return self._deployment().name

    async def publish(self, bundle: Bundle, *, repository: str, description: str) -> PublishedAdapter:
        """Hand the files over as the target says; see ``Backend``."""
        resource = f"upload:{self._name}:{bundle.digest}"
        async with exclusively(self._ledger, resource, patience_seconds=PUBLISH_PATIENCE_SECONDS):
            known = self._ledger.find_version(target=self._name, digest=bundle.digest)
            source = Source(self._target.handover.source)
            if known is not None and await self.has(known):
                return PublishedAdapter(adapter_id=known, source=source, reused=True)
            attempt = bundle.digest.removeprefix("sha256:")
            note: dict[str, Any] = {
                "target": self._name,
                "digest": bundle.digest,
                "repository": repository,
                "attempt_id": attempt,
            }
            self._ledger.record_upload(**note, stage="intended")
            short = f"{repository}-{attempt[:ID_DIGITS]}"
            match source:
                case Source.S3:
                    adapter_id = await asyncio.to_thread(self._to_s3, bundle, short)
                case Source.HUB:
                    adapter_id = await asyncio.to_thread(self._to_hub, bundle, short, description)
                case _:
                    adapter_id = await asyncio.to_thread(self._to_directory, bundle, short)
            self._ledger.record_upload(**note, stage="committed", version=adapter_id)
            return PublishedAdapter(adapter_id=adapter_id, source=source, reused=False)

    async def has(self, adapter_id: str) -> bool:
        """See ``Backend``."""
        match self._target.handover.source:
            case "local":
                return (Path(adapter_id) / "adapter_config.json").is_file()
            case "s3":
                return await asyncio.to_thread(self._is_in_s3, adapter_id)
            case "hub":
                return await asyncio.to_thread(self._is_on_hub, adapter_id)

    async def serve(self, base_model: str, *, release_id: str) -> ServingDeployment:  # noqa: ARG002  # creates nothing
        """Name the one server there is; see ``Backend``."""
        return await self.attach(base_model)

    async def attach(self, base_model: str) -> ServingDeployment:
        """See ``Backend``."""
        await self.check(base_model)
        return self._deployment()

    async def take_down(self, deployment: str, *, release_id: str) -> None:
        """Name the one server there is; see ``Backend``."""
        """Nothing to do: this backend creates no servers."""

    def client(self, deployment: ServingDeployment) -> LoraxClient:
        """See ``Backend``."""
        seconds = self._target.answer_timeout_seconds
        return LoraxClient(
            deployment.url,
            self._token,
            timeouts=Timeouts(read_seconds=seconds, whole_seconds=seconds),
            adapter_token=self._hub_token(),
            connections=self._target.max_concurrency,
            mask=self._target.redactor,
        )

    def _hub_token(self) -> SecretStr | None:
        """What the server needs to fetch a private repository of ours: it has no token of its own."""
        token = os.environ.get("HF_TOKEN") if self._target.handover.source == "hub" else None
        return SecretStr(token) if token else None

    def _deployment(self) -> ServingDeployment:
        return ServingDeployment(name=urlsplit(self._url).netloc, url=self._url, created=False)

    def _to_directory(self, bundle: Bundle, name: str) -> str:
        """Copy into the shared directory, written aside and renamed; without one the server reads the store itself."""
        if self._target.handover.location is None:
            return str(bundle.directory)
        directory = Path(self._target.handover.location).absolute()
        final = directory / name
        if final.is_dir():
            return str(final)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=directory))
            for file in bundle.files:
                shutil.copyfile(bundle.directory / file.name, aside / file.name)
            aside.chmod(0o755)
            aside.rename(final)
        except OSError as error:
            raise StoreError(
                f"the adapter cannot be copied to {directory}: {error.strerror}.",
                fix="Free space or give write access, or set handover.location: in the target file.",
            ) from error
        return str(final)

    def _to_s3(self, bundle: Bundle, name: str) -> str:
        bucket, prefix = self._bucket_and_prefix()
        client = _s3_client()
        # The trailing slash keeps LoRAX's unseparated prefix listing from taking a sibling's files.
        folder = "/".join(part for part in (prefix, name) if part) + "/"
        with s3_errors(f"s3://{bucket}/{folder}"):
            for file in bundle.files:
                client.upload_file(str(bundle.directory / file.name), bucket, folder + file.name)
        return f"s3://{bucket}/{folder}"

    def _is_in_s3(self, adapter_id: str) -> bool:
        from botocore.exceptions import ClientError  # noqa: PLC0415  # slow to import, and only this handover needs it

        bucket, _, folder = adapter_id.removeprefix("s3://").partition("/")
        with s3_errors(adapter_id):
            try:
                _s3_client().head_object(Bucket=bucket, Key=folder + "adapter_config.json")
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return False
                raise
        return True

    def _bucket_and_prefix(self) -> tuple[str, str]:
        location = (self._target.handover.location or "").removeprefix("s3://").strip("/")
        bucket, _, prefix = location.partition("/")
        if not bucket:
            raise ConfigurationError(
                f"target {self._name}: handover.location names no bucket.",
                fix="Write handover.location: s3://BUCKET/PREFIX.",
            )
        return bucket, prefix

    def _to_hub(self, bundle: Bundle, name: str, description: str) -> str:
        from huggingface_hub import HfApi  # noqa: PLC0415  # slow to import, and only this handover needs it

        repository = f"{self._target.handover.location}/{name}"
        with hub_errors(repository):
            api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
            api.create_repo(repository, private=True, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                folder_path=bundle.directory,
                allow_patterns=[file.name for file in bundle.files],
                commit_message=description,
            )
        return repository

    def _is_on_hub(self, adapter_id: str) -> bool:
        from huggingface_hub import HfApi  # noqa: PLC0415  # slow to import, and only this handover needs it

        with hub_errors(adapter_id):
            return bool(HfApi(endpoint=os.environ.get("HF_ENDPOINT")).file_exists(adapter_id, "adapter_config.json"))


def _s3_client() -> Any:  # noqa: ANN401  # boto3 builds its classes at run time
    import boto3  # noqa: PLC0415  # slow to import, and only this handover needs it

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return boto3.client("s3", endpoint_url=endpoint)
