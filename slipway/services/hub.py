"""Take adapters from the Hugging Face Hub.

The revision is resolved to a commit first, and every file is taken at that commit. Sizes and digests come with the
commit, so each file is checked as it arrives: SHA-256 for large files, git's blob id for small ones. The bytes come
through huggingface_hub's session, with its proxies and token rules, and go straight into the store; the library's cache
is not used, since the store is one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, assert_never

from slipway.adapter import AdapterFile, AdapterUri, Bundle
from slipway.adapter_config import CONFIG_NAME
from slipway.errors import AdapterNotFoundError, SourceError, SourceUnavailableError
from slipway.services.adapter_files import LOOKED_FOR, is_adapter_file, looks_like_whole_model
from slipway.services.foreign_errors import HubFailure, classify_hub_error, hub_error_types
from slipway.services.hub_body import open_body
from slipway.services.inflow import Inflow
from slipway.services.ranged import RangeIgnoredError, fetch_ranges
from slipway.services.stage import Stage
from slipway.services.store import BundleStore
from slipway.services.transfer import PASSING_STATUSES, Transfer, keep_once, pull_in_thread, take_together

__all__ = ["HubSource"]

ATTEMPTS: Final = 3
"""Of one file, when the server does not send the rest of it alone."""

_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_NO_OBJECT: Final = "0" * 40
"""Git's way to write that there is none."""

_SPELLING: Final = "Check the spelling."
_NETWORK: Final = "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and pull again: it goes on where it stopped."


class HubSource:
    """Repositories of models. ``HF_TOKEN`` and ``HF_ENDPOINT`` are read at each pull."""

    async def pull(self, uri: AdapterUri, store: BundleStore) -> Bundle:
        """Fetch a repository's adapter files at one commit; see ``AdapterSource``.

        Raises:
            AdapterNotFoundError: There is no such repository or revision, or nothing of an adapter in it.
            SourceUnavailableError: The Hub is not reached, or fails.
            SourceError: There is no access, or what arrives is damaged.
            StoreError: The store cannot be written.
        """
        return await pull_in_thread(uri, lambda transfer: _Pull(uri, transfer).run(store))


@dataclass(frozen=True, kw_only=True)
class _RemoteFile:
    """A file at a commit. What the Hub does not say is None or empty."""

    name: str
    size_bytes: int | None
    sha256: str
    blob_id: str

    @property
    def version(self) -> str:
        return self.sha256 or self.blob_id or f"size:{self.size_bytes}"


class _Pull:
    """One pull of one repository."""

    def __init__(self, uri: AdapterUri, transfer: Transfer) -> None:
        self._uri = uri
        self._transfer = transfer
        self._endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or None

    def run(self, store: BundleStore) -> Bundle:
        """See ``HubSource.pull``."""
        asked = self._uri.revision
        if _SHA1.fullmatch(asked):
            bundle = store.recall(self._key(asked), uri=str(self._uri), resolved_revision=asked)
            if bundle is not None:
                return bundle
        commit, files = self._list_files()

        def fill(stage: Stage) -> None:
            self._transfer.expect(sum(file.size_bytes or 0 for file in files))
            missing = [file for file in files if stage.completed(file.name, file.version) is None]
            self._transfer.count_present(sum(file.size_bytes for file in stage.files))
            take_together(lambda file: self._take(commit, file, stage), missing, stage)

        return keep_once(
            store, self._key(commit), uri=self._uri, resolved_revision=commit, transfer=self._transfer, fill=fill
        )

    def _key(self, commit: str) -> str:
        return f"hub {self._endpoint or ''} {self._uri.location} {commit}"

    def _list_files(self) -> tuple[str, Sequence[_RemoteFile]]:
        """Resolve the revision, and list the adapter files of that commit, the smallest first."""
        from huggingface_hub import HfApi  # noqa: PLC0415  # a third of a second, and only this source needs it

        api = HfApi(endpoint=self._endpoint)
        with self._translated():
            info = api.model_info(self._uri.location, revision=self._uri.revision or None, files_metadata=True)
            commit = str(info.sha or "")
            if not _SHA1.fullmatch(commit):
                raise SourceError(f"The Hub does not say which commit {self._uri} is.", fix="Check HF_ENDPOINT.")
            if info.siblings is not None:
                listed = [_remote_file(item.rfilename, item) for item in info.siblings]
            else:
                tree = api.list_repo_tree(self._uri.location, revision=commit)
                listed = [_remote_file(item.path, item) for item in tree if hasattr(item, "size")]
        names = [file.name for file in listed]
        files = [file for file in listed if is_adapter_file(file.name)]
        if not files or looks_like_whole_model(names):
            what = "a whole model and no adapter" if looks_like_whole_model(names) else "no adapter"
            raise AdapterNotFoundError(
                f"{self._uri} holds {what}: looked for {LOOKED_FOR} at its top.", fix=self._advice_below(names)
            )
        return commit, sorted(files, key=lambda file: (file.size_bytes or 0, file.name))

    def _advice_below(self, names: Sequence[str]) -> str:
        folders = sorted({name.rsplit("/", 1)[0] for name in names if name.endswith(f"/{CONFIG_NAME}")})
        if not folders:
            return "Give the repository that PEFT's save_pretrained or push_to_hub wrote."
        return (
            f"There is one in its folder {folders[-1]}: download that with `hf download {self._uri.location} "
            f"--include '{folders[-1]}/*' --local-dir DIR` and give DIR/{folders[-1]}."
        )

    def _take(self, commit: str, file: _RemoteFile, stage: Stage) -> AdapterFile:
        """Fetch one file, or the rest of it, and hold it against what the Hub says of it."""
        for _ in range(ATTEMPTS):
            blob = _GitBlob(file.size_bytes or 0) if file.blob_id else None
            try:
                with stage.inflow(file.name, file.version, [blob] if blob else []) as inflow:
                    self._transfer.count_present(inflow.start)
                    self._fetch(commit, file, inflow)
                    taken = inflow.finish()
            except RangeIgnoredError:
                self._transfer.count_present(-inflow.arrived_bytes)
                stage.forget(file.name)
                continue
            is_whole = file.size_bytes in {None, taken.size_bytes}
            if is_whole and file.sha256 in {"", taken.sha256} and (blob is None or blob.hexdigest() == file.blob_id):
                return taken
            stage.forget(file.name)
            raise SourceError(
                f"{file.name} of {self._uri} arrived with other bytes than the Hub names for commit {commit[:12]}.",
                fix="Pull again; if it stays, a proxy or mirror between here and the Hub changes files.",
            )
        raise SourceUnavailableError(
            f"{file.name} of {self._uri} breaks off, and the Hub does not send the rest alone.", fix=_NETWORK
        )

    def _fetch(self, commit: str, file: _RemoteFile, inflow: Inflow) -> None:
        from huggingface_hub import hf_hub_url  # noqa: PLC0415  # as above

        url = hf_hub_url(self._uri.location, file.name, revision=commit, endpoint=self._endpoint)

        @contextmanager
        def open_range(start: int, end: int | None) -> Iterator[Iterator[bytes]]:
            with self._translated(), open_body(url, start, None if end == file.size_bytes else end) as pieces:
                yield pieces

        # In one piece: the Hub counts requests, and in order the hash keeps up.
        fetch_ranges(open_range, inflow, self._transfer, size_bytes=file.size_bytes)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Tell the Hub's refusals apart, and say what to do about each."""
        try:
            yield
        except hub_error_types() as error:
            raise self._translate(*classify_hub_error(error)) from error

    def _translate(self, failure: HubFailure, status: int | None) -> SourceError:
        from huggingface_hub import get_token  # noqa: PLC0415  # as above

        name, page = self._uri.location, f"https://huggingface.co/{self._uri.location}"
        has_token = get_token() is not None
        kind: type[SourceError] = AdapterNotFoundError
        match failure:
            case HubFailure.BAD_NAME:
                message, fix = f"{name} is not named as the Hub names repositories.", _SPELLING
            case HubFailure.NO_REVISION:
                message = f"{name} has no revision {self._uri.revision or '(default)'}."
                fix = f"Give a branch, a tag or a full commit from {page}/commits/main, or leave the revision out."
            case HubFailure.NOT_FOUND:
                message = f"There is no repository {name} on the Hub" + (
                    " that HF_TOKEN may see." if has_token else "."
                )
                fix = f"{_SPELLING} If it is private, set HF_TOKEN to a token of an account that may read it."
            case HubFailure.NO_FILE:
                message, fix = (
                    f"A file of {name} is listed, but the Hub does not have it.",
                    "Tell the repository's owner.",
                )
            case HubFailure.GATED:
                kind, message = SourceError, f"{name} is gated, and this account has not been let in."
                fix = f"Accept its terms at {page}, and set HF_TOKEN to a token of the account that did."
            case HubFailure.NO_ACCESS if has_token:
                kind, message = SourceError, f"The Hub does not let HF_TOKEN read {name}."
                fix = "Check at https://huggingface.co/settings/tokens that it is valid and may read this repository."
            case HubFailure.NO_ACCESS:
                kind = SourceError
                message = f"{name} is private or does not exist: the Hub tells which only to those who may read it."
                fix = f"{_SPELLING} If it is private, set HF_TOKEN to a token that may read it."
            case HubFailure.UNREACHABLE:
                kind, fix = SourceUnavailableError, _NETWORK
                message = f"{self._uri} cannot be pulled: the Hub is not reached."
            case HubFailure.FAILED:
                kind, fix = SourceUnavailableError if status in PASSING_STATUSES else SourceError, "Try again later."
                message = f"{self._uri} cannot be pulled: the Hub answers with status {status}."
            case _:
                assert_never(failure)
        return kind(message, fix=fix)


def _remote_file(name: str, item: Any) -> _RemoteFile:  # noqa: ANN401  # RepoSibling or RepoFile, of a library without types
    lfs = getattr(item, "lfs", None)
    sha256 = (lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)) or ""
    # A large file's blob id is that of its pointer, and says nothing about its bytes.
    blob_id = "" if lfs else str(getattr(item, "blob_id", None) or "")
    blob_id = blob_id if _SHA1.fullmatch(blob_id) and blob_id != _NO_OBJECT else ""
    return _RemoteFile(name=name, size_bytes=getattr(item, "size", None), sha256=str(sha256), blob_id=blob_id)


class _GitBlob:
    """Git's id of a file: SHA-1 over its size and its bytes."""

    def __init__(self, size_bytes: int) -> None:
        self._sha1 = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
        self.update = self._sha1.update
        self.hexdigest = self._sha1.hexdigest
