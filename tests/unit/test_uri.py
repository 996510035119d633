"""Addresses of adapters as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.adapter import AdapterUri, Source
from slipway.errors import ConfigurationError
from slipway.home import resolve_home
from slipway.uri import parse_adapter_uri


@pytest.mark.parametrize(
    ("text", "source", "location", "revision"),
    [
        ("hf://org/name", Source.HUB, "org/name", ""),
        ("hf://org/name@main", Source.HUB, "org/name", "main"),
        ("hf://org/na.me_1-2@refs/pr/3", Source.HUB, "org/na.me_1-2", "refs/pr/3"),
        ("HF://org/name", Source.HUB, "org/name", ""),
        ("s3://bucket/team/a1", Source.S3, "bucket/team/a1/", ""),
        ("s3://bucket/team/a1/", Source.S3, "bucket/team/a1/", ""),
        ("s3://bucket/team/a b", Source.S3, "bucket/team/a b/", ""),
        ("pbase://support/4", Source.PBASE, "support/4", ""),
        ("pbase://my repo/12", Source.PBASE, "my repo/12", ""),
        ("file:///data/a", Source.LOCAL, "/data/a", ""),
        ("file://localhost/data/a%20b/", Source.LOCAL, "/data/a b", ""),
        ("/data/a", Source.LOCAL, "/data/a", ""),
        ("/data/a@b?c#d", Source.LOCAL, "/data/a@b?c#d", ""),
    ],
)
def test_known_forms(text, source, location, revision):
    assert parse_adapter_uri(text) == AdapterUri(source=source, location=location, revision=revision)


def test_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_adapter_uri("org/name").location == str(tmp_path / "org" / "name")


def test_tilde_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_adapter_uri("~/a").location == "/home/someone/a"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("", "hf://ORG/NAME"),
        ("  ", "hf://ORG/NAME"),
        ("a\nb", "hf://ORG/NAME"),
        ("a\0b", "hf://ORG/NAME"),
        ("hf://name", "hf://ORG/NAME"),
        ("hf://org/name/more", "hf://ORG/NAME"),
        ("hf://org/name@", "@REVISION"),
        ("hf://../name", "hf://ORG/NAME"),
        ("s3://bucket", "s3://BUCKET/PREFIX/"),
        ("s3://bucket/", "s3://BUCKET/PREFIX/"),
        ("s3:///prefix", "s3://BUCKET/PREFIX/"),
        ("s3://bucket/a//b", "s3://BUCKET/PREFIX/"),
        ("s3://bucket/../b", "s3://BUCKET/PREFIX/"),
        ("s3://UPPER/b", "s3://BUCKET/PREFIX/"),
        ("s3://bucket/a?endpoint=http://x", "AWS_ENDPOINT_URL_S3"),
        ("pbase://repo", "pbase://REPO/TAG"),
        ("pbase://repo/latest", "pbase://support/4"),
        ("pbase://repo/0", "pbase://REPO/TAG"),
        ("pbase://org/repo/3", "pbase://REPO/TAG"),
        ("file://data/a", "file:///ABSOLUTE/PATH"),
        ("file:///a%00b", "file:///ABSOLUTE/PATH"),
        ("hub://org/name", "Write hf://ORG/NAME"),
        ("predibase://repo/1", "Write pbase://REPO/TAG"),
        ("https://huggingface.co/org/name", "Write hf://org/name."),
        ("https://huggingface.co/org/name/tree/v1", "Write hf://org/name@v1."),
        ("https://example.com/a", "Write hf://ORG/NAME"),
    ],
)
def test_anything_else_says_what_to_write(text, fix):
    with pytest.raises(ConfigurationError) as caught:
        parse_adapter_uri(text)
    assert fix in caught.value.fix


@given(st.text())
def test_no_text_makes_it_fail_otherwise(text):
    try:
        uri = parse_adapter_uri(text)
    except ConfigurationError:
        return
    assert uri.source is not Source.LOCAL or Path(uri.location).is_absolute()


@given(
    st.from_regex(
        r"(hf://[a-z]+/[a-z0-9]+(@[a-z0-9]+)?|s3://[a-z]{3}/[a-z/]{1,9}|pbase://[a-z]+/[1-9]|/[a-z/]*)", fullmatch=True
    )
)
def test_what_is_printed_can_be_read_again(text):
    try:
        uri = parse_adapter_uri(text)
    except ConfigurationError:
        return
    assert parse_adapter_uri(str(uri)) == uri


def test_home_is_per_person_unless_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_home({}).root == Path("/home/someone/.slipway")
    assert resolve_home({"SLIPWAY_HOME": " "}).root == Path("/home/someone/.slipway")
    home = resolve_home({"SLIPWAY_HOME": "~/else"})
    assert (home.bundles, home.releases, home.ledger) == tuple(
        Path("/home/someone/else") / name for name in ("bundles", "releases", "ledger.db")
    )


def test_relative_home_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_home({"SLIPWAY_HOME": "here"}).root == tmp_path / "here"
