"""Where adapter files come from: ``local``, ``s3``, ``hub``, ``pbase``, each with LoRAX's rules for ids.

Read from predibase/lorax, server/lorax_server/utils/sources/*.py. Ids resolve to a local directory; nothing here looks
inside the files.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from sandbox.lorax.contract import AdapterError

__all__ = ["AdapterSources"]

logger = logging.getLogger(__name__)

_SHORTEST_ID = 5
_GATEWAY = "https://api.app.predibase.com"
_TIMEOUT_SECONDS = 30.0
_WANTED_SUFFIXES = (".safetensors", ".bin", "adapter_config.json", "config.json")
_NOT_WEIGHTS = ("arguments", "args", "training")


class AdapterSources:
    """Fetches adapters into ``cache_dir``; a directory fetched once is not fetched again, as in LoRAX."""

    def __init__(self, cache_dir: Path) -> None:
        """``cache_dir`` belongs to one engine."""
        self._cache_dir = cache_dir

    def fetch(self, adapter_id: str, source: str, api_token: str | None) -> Path:
        """The directory with the adapter's files. Raises AdapterError with the reason."""
        match source.lower():
            case "local":
                return _local(adapter_id)
            case "s3":
                return self._s3(adapter_id)
            case "hub":
                return self._hub(adapter_id, api_token)
            case "pbase":
                return self._pbase(adapter_id, api_token)
            case _:
                raise AdapterError(f"Invalid source '{source}' when downloading adapter '{adapter_id}'")

    def _target(self, *identity: str) -> Path:
        digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:24]
        return self._cache_dir / digest

    def _s3(self, adapter_id: str) -> Path:
        bucket, prefix = _bucket_and_prefix(adapter_id)
        target = self._target("s3", bucket, prefix)
        if target.is_dir():
            return target
        import boto3  # noqa: PLC0415  # half a second, and only this source needs it
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        endpoint = os.environ.get("S3_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3")
        if account := os.environ.get("R2_ACCOUNT_ID"):
            endpoint = f"https://{account}.r2.cloudflarestorage.com"
        config = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60)
        partial = target.with_suffix(".partial")
        try:
            client = boto3.client("s3", endpoint_url=endpoint, config=config)
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
            names = _names_below(adapter_id, prefix, keys)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for key, name in names.items():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, key, str(path))
        except (BotoCoreError, ClientError) as error:
            raise AdapterError(f"cannot download adapter {adapter_id} from s3: {error}") from error
        partial.rename(target)
        return target

    def _hub(self, adapter_id: str, api_token: str | None) -> Path:
        import huggingface_hub  # noqa: PLC0415  # slow to import, and only this source needs it
        from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

        if not api_token and os.environ.get("LORAX_USE_GLOBAL_HF_TOKEN") == "1":
            api_token = os.environ.get("HUGGING_FACE_HUB_TOKEN")
        token: str | bool = api_token or False
        endpoint = os.environ.get("HF_ENDPOINT")
        try:
            found = huggingface_hub.HfApi(endpoint=endpoint).model_info(adapter_id, token=token)
            names = [
                item.rfilename
                for item in found.siblings or ()
                if "/" not in item.rfilename
                and item.rfilename.endswith(_WANTED_SUFFIXES)
                and not any(part in item.rfilename for part in _NOT_WEIGHTS)
            ]
            if any(name.endswith(".safetensors") for name in names):
                names = [name for name in names if not name.endswith(".bin")]
            paths = [
                huggingface_hub.hf_hub_download(adapter_id, name, revision=found.sha, token=token, endpoint=endpoint)
                for name in names
            ]
        except (OSError, HFValidationError) as error:
            # huggingface_hub's HTTP errors are OSErrors whatever HTTP library it uses.
            raise AdapterError(f"cannot download adapter {adapter_id} from the Hub: {error}") from error
        if not paths:
            raise AdapterError("No valid adapter config file found: tried None and None")
        return Path(paths[0]).parent

    def _pbase(self, adapter_id: str, api_token: str | None) -> Path:
        token = api_token or os.environ.get("PREDIBASE_API_TOKEN")
        if not token:
            raise AdapterError("api_token must be provided for an adapter of source pbase")
        path = _adapter_path(adapter_id, token)
        if path.startswith("file://"):
            return Path(unquote(urlsplit(path).path))
        if path.startswith("/"):
            return Path(path)
        return self._s3(path)


def _local(adapter_id: str) -> Path:
    if len(adapter_id) < _SHORTEST_ID:
        raise AdapterError(f"model_id '{adapter_id}' is too short for prefix filtering")
    path = Path(adapter_id)
    if path.is_absolute():
        return path
    from huggingface_hub.constants import HUGGINGFACE_HUB_CACHE  # noqa: PLC0415  # slow to import

    return Path(HUGGINGFACE_HUB_CACHE) / adapter_id


def _bucket_and_prefix(adapter_id: str) -> tuple[str, str]:
    if len(adapter_id) < _SHORTEST_ID:
        raise AdapterError(f"model_id '{adapter_id}' is too short for prefix filtering")
    plain = adapter_id.removeprefix("s3://")
    if plain == adapter_id and (bucket := os.environ.get("PREDIBASE_MODEL_BUCKET")):
        folder = os.environ.get("PREDIBASE_MODEL_FOLDER")
        return bucket, f"{folder.rstrip('/')}/{adapter_id}" if folder else adapter_id
    bucket, slash, prefix = plain.partition("/")
    if not slash or not bucket:
        raise AdapterError(f"Invalid model_id {adapter_id}. model_id should be of the form `bucket_name/model_id`")
    return bucket, prefix


def _names_below(adapter_id: str, prefix: str, keys: list[str]) -> dict[str, str]:
    """File names by key. The prefix has no separator of its own, so ``a1`` lists a sibling ``a10`` too."""
    if len({key.split("/")[0] for key in keys}) > 1:
        raise AdapterError(f"Multiple models found for model_id {adapter_id}")
    names: dict[str, str] = {}
    folder = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    for key in keys:
        if not key.startswith(folder):
            raise AdapterError(
                "An error occurred (404) when calling the HeadObject operation: Not Found "
                f"(the prefix {prefix} also lists {key}; end the id with a slash)"
            )
        name = key.removeprefix(folder)
        if not name or name.endswith("/"):
            continue
        if name.startswith("/") or ".." in name.split("/"):
            raise AdapterError(f"adapter {adapter_id} has an object whose name leaves its directory")
        names[key] = name
    if not names:
        raise AdapterError(f"No .safetensors weights found for model {prefix}")
    return names


def _adapter_path(adapter_id: str, token: str) -> str:
    """Ask the control plane where a version's files are."""
    import httpx  # noqa: PLC0415  # only this source needs it

    gateway = os.environ.get("PREDIBASE_GATEWAY_ENDPOINT", _GATEWAY).rstrip("/")
    repository, slash, version = adapter_id.partition("/")
    if "/" in version or not repository:
        raise AdapterError(f"Invalid model id {adapter_id}")
    headers = {"Authorization": f"Bearer {token}"}
    legacy = f"{gateway}/v1/models/version/name/{quote(repository)}" + (f"?version={quote(version)}" if slash else "")
    try:
        with httpx.Client(headers=headers, timeout=_TIMEOUT_SECONDS) as client:
            if slash:
                reply = client.get(f"{gateway}/v2/repos/{quote(repository)}/version/{quote(version)}")
                if reply.is_success:
                    return _path_of_version(adapter_id, reply.json())
            reply = client.get(legacy)
            reply.raise_for_status()
            body = reply.json()
            return f"{body['uuid']}/{body['bestRunID']}/artifacts/model/model_weights/"
    except httpx.HTTPStatusError as error:
        raise AdapterError(f"adapter {adapter_id}: the control plane answered {error.response.status_code}") from error
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"adapter {adapter_id}: the control plane gave no path ({type(error).__name__})") from error


def _path_of_version(adapter_id: str, body: dict[str, Any]) -> str:
    status = str(body.get("status", "")).lower()
    path = body.get("adapterPath")
    if status in {"pending", "queued", "stopping"} or not isinstance(path, str) or not path:
        raise AdapterError(f"Adapter {adapter_id} is not yet available")
    return path
