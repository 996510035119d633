"""Secrets are kept out of text and data: known values, and what only a secret looks like."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway import redaction
from slipway.redaction import SECRET_VARIABLES, Redactor, scrub, scrub_text, secrets_from_environment

SECRET = 'canary/5f+2e "quoted"'


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_each_variable_with_a_secret_is_known(name):
    assert secrets_from_environment({name: " s3cret \n"}) == {"s3cret"}


def test_passwords_in_addresses_are_known():
    environ = {
        "SLIPWAY_LEDGER_URL": "postgresql://me:hunter22@db/slipway",
        "LORAX_URL": "http://[::1",
        "OTHER": "x" * 9,
    }
    assert secrets_from_environment(environ) == {"hunter22"}


def test_values_too_short_to_be_secrets_are_left():
    assert secrets_from_environment({"HF_TOKEN": "abc"}) == frozenset()
    assert scrub_text("abc", {"abc", ""}) == "abc"


@given(st.text(min_size=4).filter(lambda text: "*" not in text), st.text(), st.text())
def test_a_known_value_never_survives(secret, before, after):
    assert secret not in scrub_text(f"{before}{secret}{after}", {secret})


def test_escaped_forms_of_a_known_value_are_found():
    for text in (SECRET, json.dumps({"a": SECRET}), "https://h/?t=canary%2F5f%2B2e%20%22quoted%22"):
        assert "5f" not in scrub_text(text, {SECRET})


def test_the_longer_of_two_secrets_goes_first():
    assert scrub_text("abcdef", {"abcd", "abcdef"}) == "***"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer pbx.abcdefgh", "Authorization: Bearer ***"),
        ("postgresql://me:hunter2@db/x", "postgresql://me:***@db/x"),
        ("https://b/k?X-Amz-Signature=ab12&x=1", "https://b/k?X-Amz-Signature=***&x=1"),
        ("https://h/?a=1&token=zzz", "https://h/?a=1&token=***"),
        ("got hf_abcdefghijklmnopqrst", "got ***"),
        ("got pb_abcdefghijklmnopqrst", "got ***"),
        ("key AKIAABCDEFGHIJKLMNOP", "key ***"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text, clean):
    assert scrub_text(text) == clean


@pytest.mark.parametrize(
    "text",
    ["file:///a/b.safetensors", "hf://org/name@abc", "http://127.0.0.1:80/x?n=1", "at 12:30 a@b", "the bearer of news"],
)
def test_what_does_not_is_left(text):
    assert scrub_text(text) == text


def test_data_is_scrubbed_through_and_through():
    value = {
        "api_token": "x",
        "hfToken": "x",
        "Authorization": "Bearer y",
        "generated_tokens": 7,
        "token": {"text": "a"},
        "list": ("keep", ["say s3cret now", 1.5, None, True]),
        "s3cret": "key",
    }
    assert scrub(value, {"s3cret"}) == {
        "api_token": "***",
        "hfToken": "***",
        "Authorization": "***",
        "generated_tokens": 7,
        "token": {"text": "a"},
        "list": ["keep", ["say *** now", 1.5, None, True]],
        "***": "key",
    }


def test_text_that_a_pattern_does_not_come_to_an_end_with_is_masked_whole(monkeypatch):
    monkeypatch.setattr(redaction, "SECONDS", 0.05)
    redact = Redactor([r"(a|aa)+$x", "secret"])
    assert redact("a secret") == "a ***"
    assert redact("a" * 60 + "b secret") == "***"


def test_private_data_is_masked_as_the_patterns_say():
    redact = Redactor([r"\b\d{3}-\d{2}-\d{4}\b", r"(?i)[a-z.]+@example\.com"])
    assert redact("SSN 123-45-6789 of Ann.Lee@Example.com, twice: 123-45-6789") == "SSN *** of ***, twice: ***"
    assert redact("123-45-678 at example.com") == "123-45-678 at example.com"


def test_without_patterns_nothing_is_masked():
    assert Redactor()("SSN 123-45-6789") == "SSN 123-45-6789"


@pytest.mark.parametrize(("pattern", "complaint"), [("(", "cannot be compiled"), ("a*", "matches the empty text")])
def test_patterns_that_cannot_be_meant_are_refused(pattern, complaint):
    with pytest.raises(ValueError, match=complaint):
        Redactor([pattern])


def test_an_address_that_is_none_hides_no_secret_of_the_others():
    for broken, sound in itertools.permutations(redaction._ADDRESS_VARIABLES, 2):
        environ = {broken: "http://[nowhere", sound: "http://user:s3cret@host"}
        assert "s3cret" in secrets_from_environment(environ)
