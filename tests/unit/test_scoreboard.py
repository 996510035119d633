"""What is said of an evaluation under way."""

from __future__ import annotations

import pytest

from slipway.results import Arm, CaseResult
from slipway.scoreboard import Scoreboard
from slipway.statistics import clopper_pearson


def result(arm, *, passed=None, error=None, not_asked=False):
    return CaseResult(case="c", arm=arm, passed=passed, error=error, not_asked=not_asked)


@pytest.fixture
def board():
    board = Scoreboard([Arm.CANDIDATE, Arm.BASE], total=12)
    for passed in (True, True, True, False):
        board.take(result(Arm.CANDIDATE, passed=passed))
    board.take(result(Arm.CANDIDATE, error="no answer"))
    board.take(result(Arm.BASE, passed=False), is_reused=True)
    board.take(result(Arm.BASE, error="not asked: certain", not_asked=True))
    return board


def test_it_counts_what_was_asked_and_what_was_not(board):
    assert (board.done, board.asked, board.reused) == (7, 4, 1)
    candidate, base = board.standings.values()
    assert (candidate.answered, candidate.passed, candidate.missing) == (4, 3, 1)
    assert (base.answered, base.missing, base.not_asked) == (1, 0, 1)


def test_a_rate_comes_with_its_exact_interval(board):
    candidate = board.standings[Arm.CANDIDATE]
    assert candidate.rate == 0.75
    assert candidate.bounds() == clopper_pearson(3, 4, confidence=0.95)
    assert board.describe() == "candidate 75 % (19 to 99), 1 missing, base 0 % (0 to 98)"
    assert board.rates() == "candidate 75%, base 0%"


def test_the_end_is_one_line(board):
    assert board.summary() == (
        "candidate 3/4 (1 missing), base 0/1; 1 answer reused; 1 not asked, as the verdict was certain"
    )


def test_without_answers_there_is_no_rate():
    board = Scoreboard([Arm.BASE], total=2)
    assert (board.describe(), board.rates(), board.standings[Arm.BASE].bounds()) == ("base no answers", "", None)
    board.take(result(Arm.BASE, error="down"))
    assert board.describe() == "base no answers, 1 missing"
