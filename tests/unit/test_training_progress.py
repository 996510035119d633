"""How training is shown."""

from io import StringIO

import pytest
from rich.console import Console

from sandbox.training_progress import Bars, Lines


@pytest.fixture
def stream() -> StringIO:
    return StringIO()


def test_a_log_gets_one_line_per_event_and_no_control_characters(stream):
    with Lines(Console(file=stream)) as display:
        display.begin("good", "learns [all] words", 400)
        display.advance("good", 10, 1.25)
        display.finish("good", "98.0% on the suite")
        display.begin("cached", "cached", 0)
    assert stream.getvalue().splitlines() == [
        "due    good: learns [all] words, at most 400 steps",
        "ready  good: 98.0% on the suite",
        "due    cached: cached",
    ]


def test_a_long_line_is_not_wrapped(stream):
    """Log readers match whole lines."""
    with Lines(Console(file=stream, width=20)) as display:
        display.begin("name", "a purpose of more than twenty characters", 1)
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_shows_every_adapter_with_its_outcome(stream):
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with Bars(console) as display:
        display.begin("good", "learns", 400)
        display.begin("copy", "made from good", 0)
        display.advance("good", 200, 0.5)
        display.finish("good", "98.0% on the suite, stopped early")
        display.finish("copy", "made")
    good, copy = [line for line in stream.getvalue().splitlines() if "━" in line][-2:]
    assert "good" in good
    assert "200/200" in good
    assert "98.0% on the suite, stopped early" in good
    assert "copy" in copy
    assert "made" in copy
