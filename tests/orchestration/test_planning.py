"""What a release tells before anything is paid for."""

from __future__ import annotations

import logging

import pytest

from slipway.progress import listening
from slipway.release import plan_release
from tasks import planning


@pytest.fixture
def plan(tmp_path):
    suite = tmp_path / "suite.yaml"
    tests = "".join(f"  - {{vars: {{q: {n}}}, assert: [{{type: contains, value: a}}]}}\n" for n in range(60))
    suite.write_text(f'prompts: ["{{{{q}}}}"]\ntests:\n{tests}', encoding="utf-8")
    gate = tmp_path / "gate.yaml"
    gate.write_text(
        "require: [{metric: pass_rate, at_least: 0.8}, {metric: pass_rate, tag: safety, at_least: 1.0}]\n"
        "against: {base: {metric: score, better_by: 0.0}, champion: {metric: score, margin: 0.05}}\n",
        encoding="utf-8",
    )
    return plan_release(adapter="./a", name="a", target="sandbox", suite=str(suite), gate=str(gate))


@pytest.fixture
def told(monkeypatch, plan):
    """What is told of the plan, as attempt 1 or a later one."""
    monkeypatch.setattr(planning, "get_run_logger", lambda: logging.getLogger("test"))

    def tell(attempt, *, has_champion):
        monkeypatch.setattr(planning, "attempt_of", lambda _: attempt)
        events = []
        with listening(events.append):
            planning.foresee(plan, release_id="a-1", has_champion=has_champion)
        return [event.message for event in events]

    return tell


def test_a_first_release_is_told_what_every_rule_can_show(told):
    floor, safety, base = told(1, has_champion=False)
    assert floor.startswith("pass_rate at_least 0.8: with 60 cases it passes in four runs of five")
    assert "no case carries the tag 'safety'" in safety
    assert "where the candidate is better by 0." in base


def test_a_later_attempt_is_told_with_its_confidence(told):
    first, *rest = told(2, has_champion=True)
    assert "attempt 2" in first
    assert "97.5 % confidence and not 95 %" in first
    assert len(rest) == 4
    assert rest != told(1, has_champion=True)
