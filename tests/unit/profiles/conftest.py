"""Factories of the profile tests: evidence from files, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.adapter import AdapterFile, Bundle, bundle_digest
from slipway.hashing import hash_file
from slipway.inspection import inspect_bundle
from slipway.profiles import find_profile


def bundle_of(directory: Path, uri: str = "hf://org/adapter") -> Bundle:
    """Take a directory as a bundle: pulling would leave out files that some sources bring."""
    files = []
    for path in sorted(directory.iterdir()):
        digest, size = hash_file(path)
        files.append(AdapterFile(name=path.name, size_bytes=size, sha256=digest))
    digest = bundle_digest(files)
    return Bundle(digest=digest, directory=directory, files=tuple(files), uri=uri, resolved_revision=digest)


@pytest.fixture
def findings_of(make_adapter, base):
    """Inspect an adapter that is sound but for the changes; give its findings by code."""

    def run(*, on=base, server=None, uri="hf://org/adapter", profile="lorax-0.12", **changes):
        inspection = inspect_bundle(bundle_of(make_adapter(**changes), uri), on, find_profile(profile), server)
        return {finding.code: finding for finding in inspection.findings}

    return run
