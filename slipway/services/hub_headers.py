"""Read the headers of a base model's weights on the Hub: some kilobytes of each file, never the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from slipway.errors import SourceError
from slipway.services.foreign_errors import HubFailure, classify_hub_error, hub_error_types
from slipway.tensors import START_BYTES, Header, HeaderProblem, measure_header, parse_header

if TYPE_CHECKING:
    import httpx

__all__ = ["fetch_base_headers"]

_INDEX: Final = "model.safetensors.index.json"
_SINGLE: Final = "model.safetensors"
_FIRST_BYTES: Final = 8 << 10
"""Holds the header of some forty tensors, as a shard of thirty has; a larger one costs a second read."""

_LENGTH_BYTES: Final = 8
_CONNECTIONS: Final = 8
_TIMEOUT_SECONDS: Final = 30.0
_MAX_SHARDS: Final = 2000
_ANEW: Final = "Try again later, or give --base a model's directory or a file of base facts."


def fetch_base_headers(model_id: str, commit: str) -> tuple[Header, ...]:
    """Read the header of every safetensors file that a model is made of.

    Args:
        model_id: ``ORG/NAME``.
        commit: Where to take all of them.

    Returns:
        Nothing for a model that has no safetensors, and where ``HF_HUB_OFFLINE`` forbids to ask.

    Raises:
        SourceError: A file that is there cannot be read.
    """
    from huggingface_hub import constants  # noqa: PLC0415  # slow to import, for one kind of base

    if constants.HF_HUB_OFFLINE:
        return ()
    names = _shards(model_id, commit)
    if not names:
        return ()
    import httpx  # noqa: PLC0415  # as above
    from huggingface_hub import hf_hub_url  # noqa: PLC0415
    from huggingface_hub.utils import build_hf_headers  # noqa: PLC0415

    urls = [hf_hub_url(model_id, name, revision=commit) for name in names]
    with (
        httpx.Client(headers=build_hf_headers(), follow_redirects=True, timeout=_TIMEOUT_SECONDS) as client,
        ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="slipway-header") as pool,
    ):
        try:
            return tuple(pool.map(lambda url: _read_header(client, url), urls))
        except httpx.HTTPError as error:
            raise SourceError(
                f"The headers of {model_id}'s weights cannot be read: the Hub is not reached.", fix=_ANEW
            ) from error


def _shards(model_id: str, commit: str) -> Sequence[str]:
    """Name a model's files: those of its index, else the one."""
    index = _fetch_json(model_id, _INDEX, commit)
    if index is None:
        return (_SINGLE,) if _exists(model_id, _SINGLE, commit) else ()
    shards = index.get("weight_map")
    names = sorted({name for name in shards.values() if isinstance(name, str)}) if isinstance(shards, dict) else []
    if len(names) > _MAX_SHARDS or not all(name.endswith(".safetensors") for name in names):
        raise SourceError(f"{_INDEX} of {model_id} is not an index of safetensors.", fix=_ANEW)
    return names


def _fetch_json(model_id: str, name: str, commit: str) -> Mapping[str, object] | None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  # as above

    try:
        members = json.loads(Path(hf_hub_download(model_id, name, revision=commit)).read_bytes())
    except hub_error_types() as error:
        _raise_unless_missing(error, model_id, name)
        return None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} of {model_id} is not JSON.", fix=_ANEW) from error
    return members if isinstance(members, dict) else {}


def _exists(model_id: str, name: str, commit: str) -> bool:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415  # as above

    try:
        get_hf_file_metadata(hf_hub_url(model_id, name, revision=commit))
    except hub_error_types() as error:
        _raise_unless_missing(error, model_id, name)
        return False
    return True


def _raise_unless_missing(error: Exception, model_id: str, name: str) -> None:
    if classify_hub_error(error)[0] is not HubFailure.NO_FILE:
        raise SourceError(f"{name} of {model_id} cannot be fetched from the Hub.", fix=_ANEW) from error


def _read_header(client: httpx.Client, url: str) -> Header:
    start, size = _read_range(client, url, 0, _FIRST_BYTES)
    length = measure_header(start[:START_BYTES], file_size_bytes=size)
    if isinstance(length, int):
        end = _LENGTH_BYTES + length
        text = start[_LENGTH_BYTES:end]
        if end > len(start):
            text += _read_range(client, url, len(start), end - len(start))[0]
        header = parse_header(text, file_size_bytes=size)
    else:
        header = length
    if isinstance(header, HeaderProblem):
        raise SourceError(f"{_named(url)} is not a readable safetensors file: {header.message}.", fix=_ANEW)
    return header


def _read_range(client: httpx.Client, url: str, start: int, count: int) -> tuple[bytes, int]:
    """Read some bytes and the size of the whole file; hang up on a server that would send all of it."""
    with client.stream("GET", url, headers={"Range": f"bytes={start}-{start + count - 1}"}) as response:
        if response.status_code not in {200, 206} or (response.status_code == 200 and start):
            raise SourceError(f"{_named(url)} cannot be read: status {response.status_code}.", fix=_ANEW)
        total = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get(
            "Content-Length", ""
        )
        if not total.isdecimal():
            raise SourceError(f"{_named(url)} cannot be read: the Hub does not say its size.", fix=_ANEW)
        data = bytearray()
        for chunk in response.iter_raw(_FIRST_BYTES):
            data += chunk
            if len(data) >= count:
                break
    return bytes(data[:count]), int(total)


def _named(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]
