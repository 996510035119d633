"""The live proof's judgement, just inside and just outside each limit."""

import math

import pytest

from slipway.live_proof import LEAST_DIFFERENCE, NOISE_FACTOR, REFERENCE_TOLERANCE, Observation, judge

BASE = [-1.0, -2.0, -3.0]


def observation(adapter, *, base_again=None, reference=None):
    return Observation(
        prompt="p",
        base=BASE,
        base_again=base_again if base_again is not None else BASE,
        adapter=adapter,
        reference=reference,
    )


def proof(*observations, answered="a/1"):
    return judge(observations, adapter_id="a/1", answered_adapter_id=answered, cold_ms=9.0, warm_ms=3.0)


def shifted(by):
    return [BASE[0], BASE[1] + by, BASE[2]]


def test_an_adapter_that_moves_one_logprob_is_live():
    result = proof(observation(shifted(0.5)))
    assert result.is_live
    assert result.difference == pytest.approx(0.5)
    assert (result.cold_ms, result.warm_ms) == (9.0, 3.0)


def test_an_adapter_that_changes_nothing_is_not_live():
    """This is what LoRAX does with an adapter whose tensors match nothing: 200 and the base's words."""
    result = proof(observation(BASE))
    assert not result.is_live
    assert "as for the base model" in result.reasons[0]


def test_the_least_difference_is_a_limit():
    assert not proof(observation(shifted(LEAST_DIFFERENCE * 0.99))).is_live
    assert proof(observation(shifted(LEAST_DIFFERENCE * 1.01))).is_live


def test_the_difference_must_stand_out_of_the_servers_own_noise():
    noise = 0.1
    noisy = [BASE[0] + noise, BASE[1], BASE[2]]
    assert not proof(observation(shifted(noise * NOISE_FACTOR * 0.99), base_again=noisy)).is_live
    assert proof(observation(shifted(noise * NOISE_FACTOR * 1.01), base_again=noisy)).is_live


def test_one_of_several_prompts_suffices():
    """A narrow adapter may leave a prompt of another kind alone."""
    assert proof(observation(BASE), observation(shifted(0.3))).is_live


def test_another_adapters_id_in_the_reply_is_no_proof():
    result = proof(observation(shifted(0.5)), answered="b/7")
    assert not result.is_live
    assert "b/7" in result.reasons[0]


def test_a_server_that_sends_no_id_can_still_prove():
    assert proof(observation(shifted(0.5)), answered="").is_live


def test_no_observation_proves_nothing():
    assert not proof().is_live
    assert not proof(Observation(prompt="p", base=[], base_again=[], adapter=[])).is_live


def test_nan_is_no_proof():
    result = proof(observation([math.nan, -2.0, -3.0]))
    assert not result.is_live
    assert "NaN" in result.reasons[0]


def test_lists_of_different_length_prove_nothing():
    assert not proof(observation([-1.0])).is_live


def test_served_logits_must_agree_with_the_reference():
    """A wrong scale moves every logit, so differing from the base alone would pass."""
    served = shifted(0.5)
    near = [value + REFERENCE_TOLERANCE * 0.9 for value in served]
    far = [value + REFERENCE_TOLERANCE * 1.1 for value in served]
    assert proof(observation(served, reference=near)).is_live
    result = proof(observation(served, reference=far))
    assert not result.is_live
    assert "PEFT" in result.reasons[0]
    assert result.reference_difference == pytest.approx(REFERENCE_TOLERANCE * 1.1)


def test_a_reference_that_is_no_number_is_no_proof():
    assert not proof(observation(shifted(0.5), reference=[math.nan] * 3)).is_live
