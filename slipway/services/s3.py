"""Take adapters from S3 and what speaks its language.

A prefix is a folder: only objects directly below it count, so ``team/a1`` never takes ``team/a10/`` nor the checkpoints
inside ``team/a1/``. Every GET carries the ETag that the listing showed, so an object that is replaced while it is
fetched ends the pull. Large objects are fetched in ranges, several at once, and hashed in order as they arrive.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, assert_never

from slipway.adapter import AdapterFile, AdapterUri, Bundle
from slipway.errors import AdapterNotFoundError, ConfigurationError, SlipwayError, SourceError, SourceUnavailableError
from slipway.services.adapter_files import LOOKED_FOR, is_adapter_file, looks_like_whole_model
from slipway.services.foreign_errors import S3Failure, classify_s3_error, s3_error_types
from slipway.services.inflow import Inflow
from slipway.services.object_checksums import ObjectChecksum, stored_checksum
from slipway.services.ranged import RangeIgnoredError, fetch_ranges
from slipway.services.stage import Stage
from slipway.services.store import BundleStore
from slipway.services.transfer import Transfer, keep_once, pull_in_thread, take_together

__all__ = ["S3Source"]

PART_BYTES: Final = 8 << 20
"""Of one ranged GET; a smaller object is fetched in one."""

CONNECTIONS: Final = 8
_CHUNK_BYTES: Final = 1 << 20
_TIMEOUT_SECONDS: Final = 60
_NETWORK: Final = "Check the network, AWS_ENDPOINT_URL_S3 and AWS_REGION, and pull again: it goes on where it stopped."
_CREDENTIALS: Final = "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."


class S3Source:
    """Folders in buckets.

    Endpoint, region, profile and credentials come from where boto3 takes them: ``AWS_ENDPOINT_URL_S3``, ``AWS_REGION``,
    ``AWS_PROFILE`` and the rest, read at each pull. Without credentials requests go unsigned, as public buckets allow.
    """

    async def pull(self, uri: AdapterUri, store: BundleStore) -> Bundle:
        """Fetch a folder's adapter files; see ``AdapterSource``.

        Raises:
            AdapterNotFoundError: There is no such bucket or folder, or nothing of an adapter in it.
            ConfigurationError: There is no such profile.
            SourceUnavailableError: The store is not reached, or fails.
            SourceError: Access is denied, the region is wrong, an object was replaced meanwhile or arrives damaged.
            StoreError: Our own store cannot be written.
        """
        return await pull_in_thread(uri, lambda transfer: _Pull(uri, transfer).run(store))


@dataclass(frozen=True, kw_only=True)
class _Object:
    """What the listing says of an object."""

    key: str
    name: str
    size_bytes: int
    etag: str


class _Pull:
    """One pull of one folder."""

    def __init__(self, uri: AdapterUri, transfer: Transfer) -> None:
        self._uri = uri
        self._transfer = transfer
        self._bucket, _, self._prefix = uri.location.partition("/")
        self._is_signed = True

    def run(self, store: BundleStore) -> Bundle:
        """See ``S3Source.pull``."""
        with self._translated(), closing(self._connect()) as client:
            objects = self._list_objects(client)
            revision = _revision(objects)

            def fill(stage: Stage) -> None:
                self._transfer.expect(sum(item.size_bytes for item in objects))
                missing = [item for item in objects if stage.completed(item.name, item.etag) is None]
                self._transfer.count_present(sum(file.size_bytes for file in stage.files))
                take_together(lambda item: self._take(client, item, stage), missing, stage)

            key = f"s3 {client.meta.endpoint_url} {self._uri.location} {revision}"
            return keep_once(store, key, uri=self._uri, resolved_revision=revision, transfer=self._transfer, fill=fill)

    def _connect(self) -> Any:  # noqa: ANN401  # boto3 builds its classes at run time
        import boto3  # noqa: PLC0415  # a third of a second, and only this source needs it
        import botocore.session  # noqa: PLC0415
        from botocore import UNSIGNED  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        core = botocore.session.get_session()
        core.register_component("data_loader", _loader())
        session = boto3.Session(botocore_session=core)
        self._is_signed = session.get_credentials() is not None
        settings: dict[str, Any] = {} if self._is_signed else {"signature_version": UNSIGNED}
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and not core.get_scoped_config().get("s3", {}).get("addressing_style"):
            # Few stores but Amazon's have a host name for each bucket.
            settings["s3"] = {"addressing_style": "path"}
        config = Config(
            max_pool_connections=CONNECTIONS,
            connect_timeout=10,
            read_timeout=_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
            # The library cannot check a range; we check whole objects.
            response_checksum_validation="when_required",
            **settings,
        )
        return session.client("s3", endpoint_url=endpoint or None, config=config)

    def _list_objects(self, client: Any) -> Sequence[_Object]:  # noqa: ANN401  # as above
        """List the adapter files directly in the folder, the smallest first."""
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix, Delimiter="/"
        )
        listed, folders = [], []
        for page in pages:
            self._transfer.check()
            folders += [str(item["Prefix"]) for item in page.get("CommonPrefixes", ())]
            for item in page.get("Contents", ()):
                name = str(item["Key"]).removeprefix(self._prefix)
                size, etag = int(item["Size"]), str(item["ETag"]).strip('"')
                listed.append(_Object(key=str(item["Key"]), name=name, size_bytes=size, etag=etag))
        names = [item.name for item in listed]
        objects = [item for item in listed if is_adapter_file(item.name)]
        if not names and not folders:
            raise AdapterNotFoundError(
                f"The bucket {self._bucket} has nothing under {self._prefix}.", fix=self._advice_above()
            )
        if not objects or looks_like_whole_model(names):
            what = "a whole model and no adapter" if looks_like_whole_model(names) else "no adapter"
            below = f" It has folders: {', '.join(folders[:5])}; give one of them." if folders else ""
            raise AdapterNotFoundError(
                f"{self._uri} holds {what}: looked for {LOOKED_FOR} directly in that folder.",
                fix=f"Give the folder that PEFT's save_pretrained wrote.{below}",
            )
        return sorted(objects, key=lambda item: (item.size_bytes, item.name))

    def _advice_above(self) -> str:
        folder, _, last = self._prefix.rstrip("/").rpartition("/")
        if is_adapter_file(last):
            return f"Give the folder that the file is in: s3://{self._bucket}/{folder}/."
        return (
            f"Check the spelling; `aws s3 ls s3://{self._bucket}/{folder}{'/' if folder else ''}` shows what is there."
        )

    def _take(self, client: Any, item: _Object, stage: Stage) -> AdapterFile:  # noqa: ANN401  # as above
        """Fetch one object, or the rest of it, and hold it against the checksum that the store has of it."""
        for part_bytes in (PART_BYTES, max(item.size_bytes, 1)):
            checksum = self._stored_checksum(client, item)
            try:
                with stage.inflow(item.name, item.etag, [checksum] if checksum else []) as inflow:
                    self._transfer.count_present(inflow.start)
                    self._fetch(client, item, inflow, part_bytes)
                    taken = inflow.finish()
            except RangeIgnoredError:
                self._transfer.count_present(-inflow.arrived_bytes)
                stage.forget(item.name)
                continue
            if taken.size_bytes == item.size_bytes and (checksum is None or checksum.matches()):
                return taken
            stage.forget(item.name)
            raise SourceError(
                f"s3://{self._bucket}/{item.key} arrived with other bytes than the store has a checksum of.",
                fix="Pull again; if it stays, upload the object anew.",
            )
        raise SourceUnavailableError(
            f"s3://{self._bucket}/{item.key} breaks off, and the store does not send the rest alone.", fix=_NETWORK
        )

    def _stored_checksum(self, client: Any, item: _Object) -> ObjectChecksum | None:  # noqa: ANN401  # as above
        at = {"Bucket": self._bucket, "Key": item.key, "IfMatch": f'"{item.etag}"'}

        def first_part() -> tuple[int, int]:
            part = client.head_object(**at, PartNumber=1)
            return int(part["ContentLength"]), int(part.get("PartsCount", 0))

        return stored_checksum(client.head_object(**at, ChecksumMode="ENABLED"), first_part)

    def _fetch(self, client: Any, item: _Object, inflow: Inflow, part_bytes: int) -> None:  # noqa: ANN401  # as above
        @contextmanager
        def open_range(start: int, end: int | None) -> Iterator[Iterator[bytes]]:
            with self._translated():
                yield self._pieces(client, item, start, item.size_bytes if end is None else end)

        fetch_ranges(
            open_range,
            inflow,
            self._transfer,
            size_bytes=item.size_bytes,
            part_bytes=part_bytes,
            connections=CONNECTIONS,
        )

    def _pieces(self, client: Any, item: _Object, start: int, end: int) -> Iterator[bytes]:  # noqa: ANN401  # as above
        is_part = (start, end) != (0, item.size_bytes)
        span = {"Range": f"bytes={start}-{end - 1}"} if is_part else {}
        answer = client.get_object(Bucket=self._bucket, Key=item.key, IfMatch=f'"{item.etag}"', **span)
        with closing(answer["Body"]) as body:
            if str(answer.get("ETag", "")).strip('"') != item.etag:  # some stores do not know If-Match
                raise self._replaced()
            if is_part and answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
                raise RangeIgnoredError
            missing = end - start
            while missing and (piece := body.read(min(_CHUNK_BYTES, missing))):
                missing -= len(piece)
                yield piece

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Tell the store's refusals apart, and say what to do about each."""
        try:
            yield
        except s3_error_types() as error:
            raise self._translate(*classify_s3_error(error)) from error

    def _translate(self, failure: S3Failure, detail: str) -> SlipwayError:
        kind: type[SlipwayError] = SourceError
        match failure:
            case S3Failure.NO_PROFILE:
                kind, message = (
                    ConfigurationError,
                    f"AWS_PROFILE names no profile that exists: {os.environ.get('AWS_PROFILE')}.",
                )
                fix = "`aws configure list-profiles` shows them."
            case S3Failure.NO_CREDENTIALS:
                message, fix = (
                    f"The AWS credentials for {self._uri} are incomplete or have run out ({detail}).",
                    _CREDENTIALS,
                )
            case S3Failure.NO_BUCKET:
                kind, message = AdapterNotFoundError, f"There is no bucket {self._bucket}."
                fix = "Check the spelling, and AWS_ENDPOINT_URL_S3 if the store is not Amazon's."
            case S3Failure.DENIED if self._is_signed:
                message = f"These credentials may not read {self._uri} ({detail})."
                fix = f"Allow s3:ListBucket on {self._bucket} and s3:GetObject on {self._prefix}*, or set AWS_PROFILE."
            case S3Failure.DENIED:
                message, fix = f"{self._uri} is not public ({detail}), and there are no AWS credentials.", _CREDENTIALS
            case S3Failure.WRONG_REGION:
                message = f"The bucket {self._bucket} is in another region" + (f": {detail}." if detail else ".")
                fix = f"Set AWS_REGION={detail}." if detail else "Set AWS_REGION to the bucket's."
            case S3Failure.REPLACED | S3Failure.NO_OBJECT:
                return self._replaced()
            case S3Failure.UNREACHABLE:
                kind, message = (
                    SourceUnavailableError,
                    f"{self._uri} cannot be pulled: the store is not reached ({detail}).",
                )
                fix = _NETWORK
            case S3Failure.FAILED | S3Failure.FAILING:
                kind = SourceUnavailableError if failure is S3Failure.FAILING else SourceError
                message, fix = f"{self._uri} cannot be pulled: the store answers {detail}.", "Try again later."
            case _:
                assert_never(failure)
        return kind(message, fix=fix)

    def _replaced(self) -> SourceError:
        return SourceError(
            f"Objects under {self._uri} were replaced or deleted while they were fetched.",
            fix="Pull again when the upload is done.",
        )


def _revision(objects: Sequence[_Object]) -> str:
    """One name for the set of object contents that a listing shows."""
    lines = sorted(f"{item.etag} {item.size_bytes} {item.name}\n" for item in objects)
    return "etags-" + hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _loader() -> Any:  # noqa: ANN401  # as above
    """boto3's descriptions of services, parsed once: sessions would each take a sixth of a second."""
    from botocore.loaders import create_loader  # noqa: PLC0415  # as above

    return create_loader()
