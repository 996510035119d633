"""The release flow on real parts: every way it can end."""

from __future__ import annotations


async def test_first_release_is_judged_against_the_base_and_says_so(run_release, workspace, name):
    state = await run_release("translate-v1")
    outcome = await state.result()
    assert (state.type.value, state.name) == ("COMPLETED", "Promoted")
    assert outcome.outcome == "promoted"
