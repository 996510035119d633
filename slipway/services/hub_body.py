"""Read a file's bytes through huggingface_hub's HTTP session, whichever HTTP library that is built on.

The library's own download keeps its partial files to itself and hands bytes on in pieces of 10 MiB, which is what a cut
would cost each time; so only its session, its headers and its reading of refusals are used here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from slipway.services.ranged import RangeIgnoredError

__all__ = ["open_body"]

CHUNK_BYTES: Final = 1 << 20
TIMEOUT_SECONDS: Final = 30.0
"""To connect, and between two pieces."""


@contextmanager
def open_body(url: str, start: int, end: int | None) -> Iterator[Iterator[bytes]]:
    """Ask for a file from the byte ``start`` up to ``end``, or to its end.

    Redirects are followed, without our token when they leave the host.

    Yields:
        Pieces of at most ``CHUNK_BYTES``.

    Raises:
        RangeIgnoredError: The answer is not the part that was asked for.
        Exception: One of ``foreign_errors.hub_error_types``, also while reading.
    """
    from huggingface_hub.utils import (  # noqa: PLC0415  # a third of a second, and only this source needs it
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    # Not to be compressed on the way: offsets are those of the file.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    is_part = start > 0 or end is not None
    if is_part:
        headers["Range"] = f"bytes={start}-" + ("" if end is None else str(end - 1))
    session = get_session()
    if callable(session.stream):  # httpx and its kind, from huggingface_hub 1.0 on; a setting in requests
        opened = session.stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS)
        read = _pieces_of_httpx
    else:
        opened = session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
        read = _pieces_of_requests
    with opened as response:
        hf_raise_for_status(response)
        if is_part and response.status_code != 206:
            raise RangeIgnoredError
        yield read(response)


def _pieces_of_httpx(response: Any) -> Iterator[bytes]:  # noqa: ANN401  # of a library that may not be there
    pieces: Iterator[bytes] = response.iter_raw(CHUNK_BYTES)
    return pieces


def _pieces_of_requests(response: Any) -> Iterator[bytes]:  # noqa: ANN401  # as above
    from urllib3.exceptions import HTTPError  # noqa: PLC0415  # requests is built on it and lets its errors out here

    try:
        while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
            yield chunk
    except HTTPError as error:
        raise OSError(str(error)) from error
