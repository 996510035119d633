"""What a terminal, and what a log file, shows of an evaluation under way."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from slipway.cli.evaluation_display import LINE_SECONDS, SCALE_WIDTH, _Lines, _Panel, _scale, showing_evaluation
from slipway.progress import Kind, ProgressEvent, emit
from slipway.results import Arm, CaseResult
from slipway.scoreboard import Scoreboard, Standing


@pytest.fixture
def event():
    board = Scoreboard([Arm.CANDIDATE, Arm.BASE], total=40)
    for number in range(20):
        arm = Arm.BASE if number % 2 else Arm.CANDIDATE
        result = CaseResult(case=f"c{number}", arm=arm, passed=arm is Arm.CANDIDATE)
        board.take(result, is_reused=number < 4)
    return ProgressEvent(
        step="evaluate",
        kind=Kind.ADVANCED,
        message=board.describe(),
        done=20,
        total=40,
        in_flight=7,
        per_second=31.4,
        scoreboard=board,
    )


def text_of(renderable, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_a_terminal_shows_load_speed_and_every_arm_with_its_interval(event):
    panel = _Panel()
    panel.listen(event)
    shown = text_of(panel.render(80))
    assert "20/40  7 in flight, 31/s, 4 reused" in shown
    assert "100 % (69 to 100)" in shown
    assert "0 % (0 to 31)" in shown
    assert "10/10" in shown
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines()), "it fits a small terminal"
    assert "━" * 32 in shown


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_narrow_terminal_shows_the_figures_and_as_much_of_the_lines_as_fits(event, width):
    event.scoreboard.take(CaseResult(case="lost", arm=Arm.BASE, error="no answer in time."))
    panel = _Panel()
    panel.listen(replace(event, done=1234, total=4000))
    shown = text_of(panel.render(width), width)
    assert "…" not in shown
    for figure in ("1234/4000", "31/s", "candidate", "100 % (69 to 100)", "base", "10/10"):
        assert figure in shown, figure
    assert ("●" in shown) is (width >= 60)
    assert width < 60 or len(shown.splitlines()) == 3


def test_before_the_first_answer_it_waits(event):
    assert "..." in text_of(_Panel().render(80))


def test_other_steps_are_not_its_business(event):
    panel = _Panel()
    panel.listen(ProgressEvent(step="upload", kind=Kind.ADVANCED, done=1, total=2))
    assert "..." in text_of(panel.render(80))


@pytest.mark.parametrize(("passed", "place"), [(0, 0), (5, SCALE_WIDTH // 2), (10, SCALE_WIDTH - 1)])
def test_the_rate_is_marked_within_its_interval(passed, place):
    scale = _scale(Standing(answered=10, passed=passed), SCALE_WIDTH).plain
    assert len(scale) == SCALE_WIDTH
    assert scale.index("●") == place
    assert scale.count("●") == 1
    assert "─" in scale


def test_without_answers_there_is_no_mark():
    assert _scale(Standing(), SCALE_WIDTH).plain == "·" * SCALE_WIDTH


def test_piped_it_prints_a_line_every_ten_seconds(event):
    times = iter([0.0, 1.0, LINE_SECONDS, LINE_SECONDS, LINE_SECONDS + 1, 2 * LINE_SECONDS, 2 * LINE_SECONDS])
    console = Console(file=io.StringIO(), width=160)
    lines = _Lines(console, lambda: next(times))
    for _ in range(4):
        lines(event)
    printed = console.file.getvalue().splitlines()
    assert len(printed) == 2
    assert printed[0] == ("evaluate  20/40, 31/s: candidate 100 % (69 to 100), base 0 % (0 to 31)")


def test_a_piped_evaluation_of_a_moment_says_nothing(event):
    console = Console(file=io.StringIO(), width=160)
    with showing_evaluation(console):
        emit(event)
    assert console.file.getvalue() == ""


def test_a_terminal_is_left_as_it_was(event):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with showing_evaluation(console):
        emit(event)
    assert "in flight" in console.file.getvalue()
