"""Archives as the registry hands them out: recognised by content, whatever the folder and the packing."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from slipway.adapter import AdapterFile, bundle_digest
from slipway.services.archives import digest_of_archive

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights" * 100_000}
WANTED = bundle_digest(
    AdapterFile(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    for name, content in FILES.items()
)


@pytest.fixture
def archive(tmp_path):
    def make(files, *, compression=zipfile.ZIP_DEFLATED):
        path = tmp_path / "version.zip"
        with zipfile.ZipFile(path, "w", compression) as written:
            for name, content in files.items():
                written.writestr(name, content)
        return path

    return make


@pytest.mark.parametrize("folder", ["", "support-4/", "a/b/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_digest_is_the_bundles_whatever_the_layout(archive, folder, compression):
    files = {folder + name: content for name, content in reversed(FILES.items())}
    assert digest_of_archive(archive(files, compression=compression), names=FILES) == WANTED


def test_other_files_and_folders_do_not_count(archive):
    files = {"x/": b"", "x/README.md": b"made by the registry", ".adapter_config.json": b"no", **FILES}
    assert digest_of_archive(archive(files), names=FILES) == WANTED


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"adapter_config.json": b"{}"},
        {**FILES, "adapter_config.json": b"{ }"},
        {**FILES, "old/adapter_config.json": b"{}"},
    ],
    ids=["empty", "half of it", "one byte more", "one file twice"],
)
def test_anything_else_is_another_digest(archive, files):
    assert digest_of_archive(archive(files), names=FILES) != WANTED


def test_a_web_page_is_no_archive(tmp_path):
    path = tmp_path / "version.zip"
    path.write_text("<html>sign in</html>")
    with pytest.raises(zipfile.BadZipFile):
        digest_of_archive(path, names=FILES)


def test_a_damaged_archive_is_noticed(archive):
    path = archive(FILES, compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile):
        digest_of_archive(path, names=FILES)
