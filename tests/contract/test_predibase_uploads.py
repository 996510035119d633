"""An upload whose lease another process has taken over makes no second version."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from slipway.errors import LeaseHeldError
from slipway.ledger import UploadStage
from slipway.services.backends.predibase_uploads import UPLOADED_FILES, Uploads
from slipway.services.ledger_schema import leases
from slipway.services.ledger_store import Ledger

DIGEST = "sha256:" + "0" * 64


class Registry:
    """Takes uploads; while it takes a file, something else may happen."""

    def __init__(self, meanwhile=lambda: None):
        self.versions = []
        self._meanwhile = meanwhile

    async def get_repo(self, name):
        return None

    async def create_repo(self, name, description):
        return None

    async def list_versions(self, name):
        return []

    async def start_upload(self, name):
        urls = dict.fromkeys(UPLOADED_FILES, "http://127.0.0.1:9/put")
        return SimpleNamespace(upload_token="token", presigned_urls=urls, required_headers={})

    async def put_file(self, url, path, headers):
        self._meanwhile()

    async def finish_upload(self, token):
        self.versions.append(token)
        return SimpleNamespace(adapter_id=f"support/{len(self.versions)}")


async def upload(ledger, registry, lease, tmp_path):
    bundle = SimpleNamespace(digest=DIGEST, directory=tmp_path)
    return await Uploads(registry, ledger, "tenant").upload(bundle, lease, repository="support", description="")


def stage(ledger):
    (state,) = ledger.uploads(target="tenant", digest=DIGEST)
    return state.stage


async def test_an_upload_under_its_lease_is_committed(tmp_path):
    with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger, ledger.lease("upload") as lease:
        assert await upload(ledger, Registry(), lease, tmp_path) == "support/1"
        assert stage(ledger) is UploadStage.COMMITTED


async def test_an_upload_whose_lease_was_taken_over_ends_before_a_version_is_made(tmp_path):
    """As after a suspended laptop wakes: the other takes this attempt for abandoned and makes the version itself."""
    with Ledger(f"sqlite:///{tmp_path}/l.db") as ledger, ledger.lease("upload", ttl_seconds=0.1) as lease:

        def taken_over():
            with ledger._engine.begin() as connection:
                connection.execute(sa.update(leases).values(nonce="another", holder="another"))
            deadline = time.monotonic() + 10
            while not lease.is_lost:
                assert time.monotonic() < deadline
                time.sleep(0.01)

        registry = Registry(taken_over)
        with pytest.raises(LeaseHeldError, match="was lost while working under it"):
            await upload(ledger, registry, lease, tmp_path)
        assert registry.versions == []
        assert stage(ledger) is UploadStage.TOKEN, "not recorded as sent, which another would send again"
