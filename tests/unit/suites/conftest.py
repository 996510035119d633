"""Writing suites and loading them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from slipway.errors import ConfigFileError
from slipway.suite import load_suite

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of the suite, indentation taken off; gives its path."""

    def write_file(text: str, name: str = "suite.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    return write_file


@pytest.fixture
def refused(write: Write) -> Callable[..., ConfigFileError]:
    """Load a suite, expecting a refusal."""

    def load(text: str, name: str = "suite.yaml") -> ConfigFileError:
        with pytest.raises(ConfigFileError) as caught:
            load_suite(write(text, name))
        return caught.value

    return load
