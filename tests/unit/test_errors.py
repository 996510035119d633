"""Exceptions cross process borders whole, and say what to do."""

import pickle

import pytest

from slipway import errors


def every_class():
    found = {errors.SlipwayError}
    while True:
        more = {child for kind in found for child in kind.__subclasses__()} - found
        if not more:
            return sorted(found, key=lambda kind: kind.__name__)
        found |= more


SPECIAL = {
    errors.ConfigFileError: {"file": "a.yaml", "line": 3, "key": "k"},
    errors.DeploymentError: {"deployment": "d", "status": "errored"},
    errors.RateLimitedError: {"retry_after_seconds": 2.0, "status_code": 429},
}


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind):
    """Prefect hands exceptions from one process to another."""
    error = kind("what happened.", fix="what to do.", **SPECIAL.get(kind, {}))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_every_class_is_in_the_tree_and_exported(kind):
    assert kind.__name__ in errors.__all__
    assert kind.__name__ in (errors.__doc__ or "")


def test_transient_errors_are_marked():
    """Retry rules ask only for this base."""
    marked = {kind.__name__ for kind in every_class() if issubclass(kind, errors.TransientError)}
    assert marked == {"RateLimitedError", "SourceUnavailableError", "UnavailableError", "ServiceTimeoutError"}


def test_a_config_error_names_file_line_and_key():
    error = errors.ConfigFileError("is unknown.", file="gate.yaml", line=7, key="require.0.metrc", fix="Write metric.")
    assert str(error) == "gate.yaml:7: require.0.metrc: is unknown. Write metric."
