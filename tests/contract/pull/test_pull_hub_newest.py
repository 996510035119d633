"""The tests of pulls from the Hub again, with the newest huggingface-hub, which is built on another HTTP library.

Run with ``pytest -m sdk``. The library goes into a directory of its own, which shadows the installed one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NEWEST = "huggingface-hub==2.4.0"
ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(600)]


def test_pulls_behave_alike_with_the_newest_library(tmp_path):
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", site, NEWEST], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    version = "import huggingface_hub, httpx2; print(huggingface_hub.__version__)"
    told = subprocess.run(
        [sys.executable, "-c", version], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == NEWEST.partition("==")[2]
    tests = Path(__file__).with_name("test_pull_hub.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
