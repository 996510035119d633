"""Finding configuration files by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.configs import ConfigKind, config_directory, find_config
from slipway.errors import ConfigurationError


@pytest.fixture
def directory(tmp_path):
    for name in ("suites/support.yaml", "suites/zebra.yaml", "gates/strict.yaml", "suites/notes.txt"):
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "configs"


def test_a_name_is_a_file_of_its_kind(directory):
    assert find_config(ConfigKind.SUITE, "support", directory=directory) == directory / "suites" / "support.yaml"
    assert find_config(ConfigKind.GATE, "strict", directory=directory) == directory / "gates" / "strict.yaml"


@pytest.mark.parametrize("path", ["configs/suites/support.yaml", "./configs/gates/strict.yaml", "mine.yml", "rows.csv"])
def test_a_path_is_taken_as_it_is_and_made_absolute(directory, monkeypatch, path):
    monkeypatch.chdir(directory.parent)
    Path(path).touch()
    found = find_config(ConfigKind.SUITE, path)
    assert found.is_absolute()
    assert found.samefile(path)


def test_an_unknown_name_lists_the_known_ones(directory):
    with pytest.raises(ConfigurationError) as caught:
        find_config(ConfigKind.SUITE, "suport", directory=directory)
    assert caught.value.message == f"there is no suite called 'suport' in {directory / 'suites'}."
    assert caught.value.fix.startswith("Known: support, zebra.")


def test_a_name_of_another_kind_is_unknown(directory):
    with pytest.raises(ConfigurationError):
        find_config(ConfigKind.TARGET, "strict", directory=directory)


@pytest.mark.parametrize("path", ["gone.yaml", "configs/suites", "../support"])
def test_a_path_that_is_no_file_is_refused(directory, monkeypatch, path):
    monkeypatch.chdir(directory.parent)
    with pytest.raises(ConfigurationError, match="there is no file"):
        find_config(ConfigKind.SUITE, path, directory=directory)


def test_without_any_configs_the_place_looked_at_is_named(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        find_config(ConfigKind.GATE, "strict", directory=tmp_path)
    assert str(tmp_path / "gates") in caught.value.fix


def test_directory_is_the_environments_or_the_current_ones(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert config_directory({}) == tmp_path / "configs"
    assert config_directory({"SLIPWAY_CONFIGS": ""}) == tmp_path / "configs"
    assert config_directory({"SLIPWAY_CONFIGS": "/etc/slipway"}) == Path("/etc/slipway")
    assert config_directory({"SLIPWAY_CONFIGS": "here"}) == tmp_path / "here"
