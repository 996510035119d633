"""Watching a release."""

from __future__ import annotations

import pytest

from slipway.progress import Kind, ProgressEvent, emit, listening

EVENT = ProgressEvent(step="upload", kind=Kind.FINISHED, message="support/1", seconds=0.5)


def test_nobody_has_to_watch():
    emit(EVENT)


def test_everybody_who_listens_hears_and_only_within_the_block():
    first, second = [], []
    with listening(first.append):
        with listening(second.append):
            emit(EVENT)
        emit(EVENT)
    emit(EVENT)
    assert (first, second) == ([EVENT, EVENT], [EVENT])


def test_listening_ends_with_an_error_too():
    heard = []
    with pytest.raises(KeyError), listening(heard.append):
        raise KeyError
    emit(EVENT)
    assert heard == []


def test_one_who_fails_stops_neither_the_release_nor_the_others(caplog):
    """A terminal that has gone must not cut a release in the middle."""
    heard, asked = [], []

    def gone(event):
        asked.append(event)
        raise BrokenPipeError

    with listening(gone), listening(heard.append):
        emit(EVENT)
        emit(EVENT)
    assert heard == [EVENT, EVENT]
    assert asked == [EVENT]
    assert "no longer shown" in caplog.text


def test_the_same_listener_may_listen_twice():
    heard = []
    with listening(heard.append), listening(heard.append):
        emit(EVENT)
    assert heard == [EVENT, EVENT]
    emit(EVENT)
    assert heard == [EVENT, EVENT]
